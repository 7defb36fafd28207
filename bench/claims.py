"""How fast are due jobs claimed? Run: python -m bench.claims [ROWS] [SECONDS].

pgbench runs the very statement of `claims.claim_finished`, prepared, by eight clients on ROWS due jobs (400,000
unless told): one job at a time, then fifty; beside it, as a measure of the machine, an update of one row by its key.
"""

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from seedancee2.local import postgres, state, throwaway

CLIENTS = 8
BATCH = 50

_JOBS = """
    INSERT INTO providers_upstreamjob (owner, reference, number, model, traffic, request, status, upstream_model,
                                       upstream_id, upstream_urls, hinted_id, is_final, error_class, error_reason,
                                       error_detail, created_at, finished_at, deadline_at, due_at, claim_count,
                                       poll_count, odd_count)
    SELECT '1', 'vid_' || lpad(n::text, 26, '0'), 1, 'mini', 'live', '{{"prompt": "waves"}}', 'failed', '',
           '', '{{}}', '', false, '', '',
           '', now(), now(), now() + interval '1 hour', now() - interval '1 hour' + n * interval '1 millisecond', 0,
           0, 0
      FROM generate_series(1, {rows}) n
"""


def main() -> None:
    """Measure and print one table."""
    rows = int(sys.argv[1]) if len(sys.argv) > 1 else 400_000
    seconds = int(sys.argv[2]) if len(sys.argv) > 2 else 8
    folder = state.ensure_folder(state.ensure_var() / f"bench-{os.getpid()}")
    server = postgres.prepare(folder / "postgres", is_durable=True, say=lambda _: None)
    try:
        with throwaway._running(server) as database, throwaway.servers() as addresses:
            os.environ.update(addresses | {"DATABASE_URL": database}, LOCAL_MODE="true", SECRET_KEY="bench" * 10)
            os.environ.update(LOG_LEVEL="CRITICAL", DJANGO_SETTINGS_MODULE="seedancee2.settings")
            _measure(Path(folder), rows, seconds)
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _measure(folder: Path, rows: int, seconds: int) -> None:
    import django
    from django.core.management import call_command

    django.setup()
    call_command("migrate", verbosity=0)
    claim = _claim()
    print(
        f"load {os.getloadavg()[0]:.1f} on {os.cpu_count()} cores; durable commits;"
        f" {rows:,} due jobs, {CLIENTS} clients"
    )
    by_key = (
        f"\\set id random(1, {rows})\nUPDATE providers_upstreamjob SET claim_count = claim_count + 1 WHERE id = :id;\n"
    )
    for name, script, size, bar in (
        ("an update of one row by its key", by_key, 1, ""),
        ("claims of one job", claim.replace("LIMIT 123457", "LIMIT 1"), 1, "5,000/s (J9)"),
        (f"claims of {BATCH} jobs", claim.replace("LIMIT 123457", f"LIMIT {BATCH}"), BATCH, "50,000 rows/s (J9)"),
    ):
        _fill(rows)
        rate = _pgbench(folder, script, seconds)
        print(f"{name:<34}{rate:>10,.0f}/s{rate * size:>12,.0f} rows/s   {bar}")


def _fill(rows: int) -> None:
    from django.db import connection

    with connection.cursor() as cursor:
        cursor.execute("SET statement_timeout = 0")
        cursor.execute("TRUNCATE providers_upstreamjob RESTART IDENTITY CASCADE")
        cursor.execute(_JOBS.format(rows=rows).replace("%", "%%"))
        cursor.execute("VACUUM ANALYZE providers_upstreamjob")
        cursor.execute("CHECKPOINT")


def _claim() -> str:
    """Return the statement of a claim, with its values written into it."""
    from django.db import connection
    from django.db.backends.postgresql.psycopg_any import mogrify

    from providers import claims

    found: list[str] = []

    def note(execute: Any, sql: str, params: Any, many: bool, context: Any) -> Any:
        result = execute(sql, params, many, context)
        found.append(mogrify(sql, params, connection))
        return result

    with connection.execute_wrapper(note):
        claims.claim_finished(123_457)
    text = " ".join(found[0].split())
    assert "LIMIT 123457" in text, text
    # The two moments of the call, so that they move with the clock: the lease's end, and now.
    text, count = re.subn(r"due_at = '[^']+'(::\w+)?", "due_at = now() + interval '20 seconds'", text)
    assert count == 1, text
    text, count = re.subn(r"due_at <= '[^']+'(::\w+)?", "due_at <= now()", text)
    assert count == 1, text
    return text + ";\n"


def _pgbench(folder: Path, script: str, seconds: int) -> float:
    path = folder / "script.sql"
    path.write_text(script)
    url = urlsplit(os.environ["DATABASE_URL"])
    command = [str(postgres._binaries() / "pgbench"), "-n", "-M", "prepared", "-c", str(CLIENTS), "-j", "2"]
    command += ["-T", str(seconds), "-f", str(path), "-h", "127.0.0.1", "-p", str(url.port)]
    command += ["-U", str(url.username), url.path[1:]]
    done = subprocess.run(command, env={"PGPASSWORD": str(url.password)}, capture_output=True, text=True, check=False)
    found = re.search(r"tps = ([\d.]+)", done.stdout)
    assert found, done.stderr
    return float(found[1])


if __name__ == "__main__":
    main()
