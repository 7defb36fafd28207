"""How fast credits move: in PostgreSQL at best, by pgbench with our own statements, and from Python."""

import concurrent.futures
import contextlib
import multiprocessing
import os
import random
import re
import statistics
import subprocess
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from bench.ledger.history import ACCOUNTS, FUNDS
from seedancee2.local import postgres

CLIENTS = 8
RECORDED = 987_654_321  # the organization whose statements become a script

# As long as one of ours, and later than all of them.
_REFERENCE = "('vid_' || lpad((:run)::text, 10, '0') || lpad((:n)::text, 10, '0') || lpad((:client_id)::text, 6, '0'))"
_YARDSTICK = "UPDATE bench_yardstick SET n = n + 1 WHERE id = :account"

Bars = dict[str, tuple[str, str]]
BARS: Bars = {
    "reserve": ("L2: 2,500/s, p99 5 ms", "L2: 6,000/s, p99 5 ms"),
    "create": ("L3: 2,000/s", "L3: 5,000/s"),
}


def prepare() -> None:
    """Make the organization to record with, and the rows of the yardstick."""
    from django.db import connection, transaction

    from accounts.models import Organization
    from billing import ledger

    Organization.objects.create(pk=RECORDED, name="bench")
    with transaction.atomic():
        ledger.grant(organization_id=RECORDED, amount=FUNDS, reference="grt_r", actor="system:cli", reason="bench")
    with connection.cursor() as cursor:
        cursor.execute(
            "CREATE TABLE bench_yardstick AS SELECT organization_id AS id, 0 AS n FROM billing_creditaccount;"
            "ALTER TABLE bench_yardstick ADD PRIMARY KEY (id)"
        )


def measure(folder: Path, seconds: int) -> None:
    """Print one table."""
    scripts = {"reserve": _recorded(_reserve), "create": _recorded(_create)}
    print(
        f"\n{f'{CLIENTS} clients, {seconds} s each':<44}{'per second':>11}{'p50 ms':>9}{'p99 ms':>9}{'ratio':>8}   bar"
    )
    context = multiprocessing.get_context("spawn")
    with concurrent.futures.ProcessPoolExecutor(CLIENTS, mp_context=context) as pool:
        for place, (accounts, where) in enumerate(((1, "one account"), (ACCOUNTS, f"{ACCOUNTS:,} accounts"))):
            yardstick, times = _pgbench(folder, [_YARDSTICK], accounts, seconds)
            _print(f"an UPDATE by key, {where}", yardstick, times, "")
            for kind, script in scripts.items():
                rate, times = _pgbench(folder, script, accounts, seconds)
                _print(f"{kind} in pgbench, {where}", rate, times, f"{rate / yardstick:8.2f}   {BARS[kind][place]}")
                times = _python(pool, kind, accounts, seconds)
                ours = len(times) / seconds
                _print(f"{kind} from Python, {where}", ours, times, f"{ours / rate:8.2f}   of pgbench")


def statements(call: Callable[[], object]) -> list[str]:
    """Return the statements of a call, with their values written into them."""
    from django.db import connection
    from django.db.backends.postgresql.psycopg_any import mogrify

    found: list[str] = []

    def note(execute: Any, sql: str, params: Any, many: bool, context: Any) -> Any:
        result = execute(sql, params, many, context)
        found.append(mogrify(sql, params, connection))
        return result

    with connection.execute_wrapper(note):
        call()
    return found


def _recorded(call: Callable[[int], str]) -> list[str]:
    """Return the statements of a call's transaction as pgbench understands them, each account and reference anew."""
    from django.db import transaction

    class Undone(Exception):
        pass

    reference = ""

    def run() -> None:
        nonlocal reference
        with contextlib.suppress(Undone), transaction.atomic():
            reference = call(RECORDED)
            raise Undone

    # Look-ups before the transaction are not of it, and savepoints are of this recording only.
    sqls = [sql for sql in statements(run) if sql.startswith(("INSERT", "UPDATE", "SELECT id FROM billing_"))]
    # A word after a single colon, as in 'system:lifecycle', would be a variable of pgbench.
    sqls = [re.sub(r"(?<!:):(?=[a-z])", "' || chr(58) || '", " ".join(sql.split())) for sql in sqls]
    script = [sql.replace(f"'{reference}'", _REFERENCE) for sql in sqls]
    assert all(_REFERENCE in sql for sql in script), script
    assert any(str(RECORDED) in sql for sql in script), script
    # The job's owner is the account's number as text.
    script = [sql.replace(f"'{RECORDED}'", "(:account)::bigint::text") for sql in script]
    return ["BEGIN", *(sql.replace(str(RECORDED), ":account") for sql in script), "COMMIT"]


def _pgbench(folder: Path, script: list[str], accounts: int, seconds: int) -> tuple[float, list[float]]:
    """Run statements in pgbench, prepared: what the database can do at best; return the rate and the times."""
    path, log = folder / "script.sql", folder / "log"
    path.write_text(f"\\set account random(1, {accounts})\n\\set n :n + 1\n" + "".join(f"{sql};\n" for sql in script))
    url = urlsplit(os.environ["DATABASE_URL"])
    command = [str(postgres._binaries() / "pgbench"), "-n", "-M", "prepared", "-c", str(CLIENTS), "-j", "2"]
    command += ["-T", str(seconds), "-f", str(path), "-l", f"--log-prefix={log}"]
    command += ["-D", "n=0", "-D", f"run={time.time_ns() // 10**9}"]
    command += ["-h", "127.0.0.1", "-p", str(url.port), "-U", str(url.username), url.path[1:]]
    done = subprocess.run(
        command, env={"PGPASSWORD": str(url.password)}, capture_output=True, text=True, check=False, cwd=folder
    )
    found = re.search(r"tps = ([\d.]+)", done.stdout)
    assert found, done.stderr
    assert "failed transactions: 0 " in done.stdout, done.stdout
    times = [int(line.split()[2]) / 1000 for path in folder.glob("log.*") for line in path.read_text().splitlines()]
    for path in folder.glob("log.*"):
        path.unlink()
    return float(found[1]), times


def _python(pool: concurrent.futures.ProcessPoolExecutor, kind: str, accounts: int, seconds: int) -> list[float]:
    list(pool.map(_work, [kind] * CLIENTS, [accounts] * CLIENTS, [0.5] * CLIENTS))  # to warm up
    results = pool.map(_work, [kind] * CLIENTS, [accounts] * CLIENTS, [seconds] * CLIENTS)
    return [ms for result in results for ms in result]


def _work(kind: str, accounts: int, seconds: float) -> list[float]:
    """Do one thing again and again in a process of its own; return how many milliseconds each took."""
    import django

    django.setup()
    from django.db import transaction

    call = transaction.atomic(_reserve) if kind == "reserve" else _create
    times = []
    end = time.perf_counter() + seconds
    while (started := time.perf_counter()) < end:
        call(random.randint(1, accounts))
        times.append((time.perf_counter() - started) * 1000)
    return times


def _reserve(account: int) -> str:
    from billing import ledger
    from seedancee2.lib import ids

    reference = ids.new("vid")
    ledger.reserve(organization_id=account, amount=5, reference=reference, actor="api_key:1")
    return reference


def _create(account: int) -> str:
    from generations import lifecycle
    from generations.specs import JobSpec

    spec = JobSpec(model="mini", prompt="waves", duration=4, resolution="480p")
    return lifecycle.create(organization_id=account, api_key_id=None, is_test=False, spec=spec).public_id


def _print(name: str, rate: float, times: list[float], rest: str) -> None:
    p99 = statistics.quantiles(times, n=100)[98]
    print(f"{name:<44}{rate:>11,.0f}{statistics.median(times):>9.2f}{p99:>9.2f}{rest}")
