"""Can we come back from a backup? Run: python -m bench.restore [TASKS], 100,000 unless told.

Two tasks go the whole way through the product, one completed and one failed; copies of their rows make the others, with
holds, entries, jobs, calls, webhooks and files. Then the steps of docs/runbook.md: dump, copy the files, restore both
into a new server, look at everything. Last, restores that are damaged: each must be noticed.
"""

import contextlib
import json
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from urllib.parse import urlsplit

import psycopg

from seedancee2.local import postgres, state, throwaway

ACCOUNTS = 100
FUNDS = 10**9
BAR_SECONDS = 600  # for the restore and the look together
CONTENT = b"a file of the output in the drill"

_MADE = """
    CREATE TEMP TABLE made AS
    SELECT n, 'vid_' || lpad(n::text, 26, '0') AS ref, %(first)s + n %% %(accounts)s AS account,
           date_trunc('second', now()) - (%(tasks)s - n + 3600) * interval '1 s' AS at,
           j.reference AS template, j.id AS template_job, j.upstream_id AS template_run,
           d.delivery_id AS template_delivery
      FROM generate_series(1, %(tasks)s) n
      JOIN providers_upstreamjob j ON j.reference = CASE WHEN n %% 10 = 0 THEN %(failed)s ELSE %(completed)s END
      JOIN webhooks_delivery d ON d.reference = j.reference
"""
# Each row is the template's, whatever columns it has by now; only what must differ is written over.
_COPY = """
    INSERT INTO {table}
    SELECT r.* FROM {source} CROSS JOIN LATERAL (SELECT {columns}) c
     CROSS JOIN LATERAL jsonb_populate_record(t, to_jsonb(c) {id}) r ORDER BY m.n
"""
_NEW_ID = "|| jsonb_build_object('id', nextval(pg_get_serial_sequence('{table}', 'id')))"
_NUMBERED = {
    "generations_outputasset",
    "providers_upstreamjob",
    "providers_upstreamcall",
    "webhooks_deliveryattempt",
    "billing_ledgerentry",
}
_DIGEST = "sha256(m.ref::bytea) AS callback_token_digest"
_COPIES = [
    (
        "generations_generation",
        "made m JOIN generations_generation t ON t.public_id = m.template",
        "m.ref AS public_id, m.account AS organization_id, m.at AS created_at, m.at + interval '1 s' AS started_at,"
        " m.at + interval '3 s' AS finished_at, m.at + interval '1 h' AS deadline_at",
    ),
    (
        "generations_outputasset",
        "made m JOIN generations_outputasset t ON t.generation_id = m.template",
        "m.ref AS generation_id, replace(t.path, m.template, m.ref) AS path, m.at + interval '3 s' AS stored_at,"
        " %(size)s AS size_bytes",
    ),
    (
        "providers_upstreamjob",
        "made m JOIN providers_upstreamjob t ON t.reference = m.template",
        f"m.ref AS reference, 'sbx_' || m.ref AS upstream_id, m.at AS created_at, {_DIGEST}",
    ),
    (
        "providers_sandboxrun",
        "made m JOIN providers_sandboxrun t ON t.run_id = m.template_run",
        f"'sbx_' || m.ref AS run_id, m.at AS created_at, {_DIGEST}",
    ),
    (
        "providers_upstreamcall",
        "made m JOIN providers_upstreamjob j ON j.reference = m.ref"
        " JOIN providers_upstreamcall t ON t.job_id = m.template_job",
        "j.id AS job_id, m.at AS started_at",
    ),
    (
        "webhooks_delivery",
        "made m JOIN webhooks_delivery t ON t.reference = m.template",
        "'dlv_' || m.ref AS delivery_id, m.account AS organization_id, m.ref AS reference, m.at AS created_at",
    ),
    (
        "webhooks_deliveryattempt",
        "made m JOIN webhooks_deliveryattempt t ON t.delivery_id = m.template_delivery",
        "'dlv_' || m.ref AS delivery_id, m.at AS started_at",
    ),
    (
        "billing_creditaccount",
        "(SELECT account AS n, account FROM made GROUP BY 1) m"
        " JOIN billing_creditaccount t ON t.organization_id = %(template)s",
        "m.account AS organization_id",
    ),
    (
        "billing_reservation",
        "made m JOIN billing_reservation t ON t.reference = m.template",
        "m.ref AS reference, m.account AS account_id, m.at AS created_at, m.at + interval '3 s' AS closed_at",
    ),
    # Every account: its grant, then the hold and the end of each task in turn.
    (
        "billing_ledgerentry",
        """(
            WITH held AS (
                SELECT *, row_number() OVER turn AS k, sum(amount * (state = 'captured')::int) OVER turn AS charged
                  FROM billing_reservation WHERE account_id >= %(first)s
                WINDOW turn AS (PARTITION BY account_id ORDER BY reference)
            )
            SELECT 0 AS n, account AS account_id, 1 AS sequence, 'grant' AS kind, %(funds)s AS available_change,
                   0 AS reserved_change, %(funds)s AS available_after, 0 AS reserved_after,
                   'grt_' || account AS reference, min(at) - interval '1 h' AS created_at FROM made GROUP BY account
             UNION ALL
            SELECT 1, account_id, 2 * k, 'reserve', -amount, amount,
                   %(funds)s - charged - amount * (state = 'released')::int, amount, reference, created_at FROM held
             UNION ALL
            SELECT 2, account_id, 2 * k + 1, CASE state WHEN 'captured' THEN 'capture' ELSE 'release' END,
                   amount * (state = 'released')::int, -amount, %(funds)s - charged, 0, reference, closed_at FROM held
        ) m JOIN billing_ledgerentry t ON t.account_id = %(template)s AND t.kind = m.kind
            AND t.id = (SELECT min(id) FROM billing_ledgerentry WHERE account_id = %(template)s AND kind = m.kind)""",
        "m.*",
    ),
]
_BALANCES = """
    UPDATE billing_creditaccount a
       SET available = e.available, reserved = e.reserved, sequence = e.top, moved_at = e.last
      FROM (SELECT account_id, sum(available_change) AS available, sum(reserved_change) AS reserved,
                   max(sequence) AS top, max(created_at) AS last FROM billing_ledgerentry GROUP BY 1) e
     WHERE e.account_id = a.organization_id
"""
_DAMAGES = {
    "one entry is missing": "DELETE FROM billing_ledgerentry WHERE id = (SELECT max(id) / 2 FROM billing_ledgerentry)",
    "the last entry of an account is missing": "DELETE FROM billing_ledgerentry"
    " WHERE id = (SELECT id FROM billing_ledgerentry ORDER BY account_id DESC, sequence DESC LIMIT 1)",
    "one webhook is missing": "DELETE FROM webhooks_delivery WHERE reference = 'vid_' || lpad('7', 26, '0')",
    "one job is missing": "DELETE FROM providers_upstreamjob WHERE reference = 'vid_' || lpad('7', 26, '0')",
}


def main() -> None:
    """Build, save, restore, look, damage; exit with 1 where the bar is missed or a damage goes unseen."""
    tasks = int(sys.argv[1]) if len(sys.argv) > 1 else 100_000
    folder = state.ensure_folder(state.ensure_var() / f"bench-restore-{os.getpid()}")
    try:
        with _server(folder / "first") as database:
            os.environ["DATABASE_URL"] = database
            with throwaway.servers() as addresses:
                os.environ.update(addresses, LOCAL_MODE="true", SECRET_KEY="restore" * 8, LOG_LEVEL="CRITICAL")
                os.environ.update(
                    DJANGO_SETTINGS_MODULE="seedancee2.settings",
                    MEDIA_STORAGE_URL=f"file://{folder / 'media'}",
                    OUTBOUND_ALLOWED_HOSTS="127.0.0.1",
                )
                _build(tasks)
                sys.exit(0 if _drill(folder, database) else 1)
    finally:
        shutil.rmtree(folder, ignore_errors=True)


@contextlib.contextmanager
def _server(folder: Path) -> Iterator[str]:
    with throwaway._running(postgres.prepare(folder, is_durable=True, say=lambda _: None)) as url:
        yield url


def _build(tasks: int) -> None:
    import django
    from django.core.files.storage import default_storage
    from django.core.management import call_command

    django.setup()
    call_command("migrate", verbosity=0)
    from accounts.models import Organization

    values = _templates() | {"tasks": tasks, "accounts": ACCOUNTS, "funds": FUNDS, "size": len(CONTENT)}
    first = int(values["first"])
    Organization.objects.bulk_create(Organization(pk=first + n, name=f"restore {n}") for n in range(ACCOUNTS))
    with psycopg.connect(os.environ["DATABASE_URL"], autocommit=True) as one:
        started = time.perf_counter()
        one.execute(_MADE, values)
        counts = {}
        for table, source, columns in _COPIES:
            one.execute("ANALYZE")
            new_id = _NEW_ID.format(table=table) if table in _NUMBERED else ""
            sql = _COPY.format(table=table, source=source, columns=columns, id=new_id)
            counts[table] = one.execute(sql, values).rowcount
        one.execute(_BALANCES)
        for (path,) in one.execute("SELECT path FROM generations_outputasset WHERE size_bytes = %s", [len(CONTENT)]):
            file = Path(default_storage.path(path))
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_bytes(CONTENT)
    print(f"{tasks:,} tasks made in {time.perf_counter() - started:.0f} s:")
    print("  " + ", ".join(f"{count:,} {table}" for table, count in counts.items()))


def _templates() -> dict[str, int | str]:
    """Let one task be completed and one fail, each told to a receiver; return what their copies need."""
    from django.db import transaction

    from accounts.models import Organization
    from generations import lifecycle
    from generations.specs import JobSpec
    from generations.tests.factories import funded_organization
    from generations.tests.pipeline import LANES, route_live_traffic_to_sandbox, run
    from tests.receivers import Receiver
    from webhooks import delivery

    route_live_traffic_to_sandbox()
    with transaction.atomic():
        template = funded_organization(1_000)
    ids = {}
    with Receiver() as receiver:
        for name, prompt in (("completed", "waves"), ("failed", "waves [sandbox:fail]")):
            spec = JobSpec(
                model="mini", prompt=prompt, duration=4, resolution="480p", callback_url=receiver.url(f"/{name}")
            )
            task = lifecycle.create(organization_id=template.pk, api_key_id=None, is_test=False, spec=spec)
            while task.is_open:
                for lane in LANES:
                    run(lane)
                time.sleep(0.2)
                task.refresh_from_db()
            assert task.status == name
            ids[name] = task.public_id
        for row in delivery.claim_due(10):
            delivery.attempt(row)
        assert len(receiver.requests) == 2
    first = max(Organization.objects.values_list("pk", flat=True)) + 1
    return {"template": template.pk, "first": first, **ids}


def _drill(folder: Path, database: str) -> bool:
    """Follow the runbook; tell whether all went well."""
    dump, media = folder / "seedancee2.dump", folder / "media"
    _timed("dump", lambda: _run("pg_dump", database, "--format=custom", f"--file={dump}", database.rpartition("/")[2]))
    _timed("copy of the files", lambda: shutil.copytree(media, folder / "copy"))
    print(f"  {'dump':<42}{dump.stat().st_size / 1e6:>8.0f} MB")
    with _server(folder / "second") as restored:
        name = restored.rpartition("/")[2]
        words = ("--exit-on-error", "--jobs=2", f"--dbname={name}", str(dump))
        seconds = _timed("restore", lambda: _run("pg_restore", restored, *words))
        seconds += _timed("ANALYZE", lambda: _execute(restored, "ANALYZE"))
        found: list[dict[str, str]] = []
        seconds += _timed("a look at everything", lambda: found.extend(_look(restored, folder / "copy")))
        print(f"  {'restore and look':<42}{seconds:>8.1f} s    (bar: {BAR_SECONDS} s)")
        print(f"  {'discrepancies':<42}{len(found):>8}")
        is_guarded = _is_append_only(restored)
        print(f"  {'entries still refuse to be changed':<42}{'yes' if is_guarded else 'NO':>8}")
        is_well = not found and seconds <= BAR_SECONDS and is_guarded
        for what, sql in _DAMAGES.items():
            is_well &= _is_noticed(restored, folder / "copy", what, sql)
        next((folder / "copy").rglob(f"*{8:026d}.mp4")).unlink()
        return is_well & _is_noticed(restored, folder / "copy", "one file is missing", "SELECT 1")


def _is_noticed(restored: str, media: Path, what: str, sql: str) -> bool:
    damaged = restored.rpartition("/")[0] + "/damaged"
    _execute(restored, "DROP DATABASE IF EXISTS damaged", database="postgres")
    _execute(restored, f"CREATE DATABASE damaged TEMPLATE {restored.rpartition('/')[2]}", database="postgres")
    _execute(damaged, f"SET session_replication_role = replica; {sql}")
    rules = sorted({one["rule"] for one in _look(damaged, media)})
    print(f"  damage: {what:<42}{', '.join(rules) or 'NOT NOTICED'}")
    return bool(rules)


def _look(url: str, media: Path) -> list[dict[str, str]]:
    environment = os.environ | {"DATABASE_URL": url, "MEDIA_STORAGE_URL": f"file://{media}"}
    command = [sys.executable, "manage.py", "reconcile_ledger", "--json", "--all-files"]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False, cwd=state.ROOT)
    assert done.returncode in (0, 1), done.stderr
    found: list[dict[str, str]] = json.loads(done.stdout.splitlines()[-1])["discrepancies"]
    return found


def _is_append_only(url: str) -> bool:
    try:
        _execute(
            url,
            "UPDATE billing_ledgerentry SET reason = 'changed' WHERE id = (SELECT max(id) FROM billing_ledgerentry)",
        )
    except psycopg.Error:
        return True
    return False


def _run(program: str, url: str, *words: str) -> None:
    parts = urlsplit(url)
    environment = {
        "PGHOST": "127.0.0.1",
        "PGPORT": str(parts.port),
        "PGUSER": str(parts.username),
        "PGPASSWORD": str(parts.password),
        "LC_ALL": "C",
    }
    done = subprocess.run(
        [str(postgres._binaries() / program), *words], env=environment, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr


def _execute(url: str, sql: str, *, database: str = "") -> None:
    if database:
        url = f"{url.rpartition('/')[0]}/{database}"
    with psycopg.connect(url, autocommit=True) as one:
        one.execute(sql)


def _timed(what: str, work: Callable[[], object]) -> float:
    started = time.perf_counter()
    work()
    seconds = time.perf_counter() - started
    print(f"  {what:<42}{seconds:>8.1f} s")
    return seconds


if __name__ == "__main__":
    main()
