"""How fast is the ledger beside what PostgreSQL itself can do? Run: python -m bench.ledger [MOVEMENTS] [SECONDS].

First MOVEMENTS movements (200,000 unless told; 5,000,000 for the bars) are written as they would be after a long life:
how long does a look at all of them take, how long a balance of the past, how many bytes does each need? Then, on top of
them and in turn, SECONDS each: pgbench with our own statements, the ledger, and whole creations, by eight clients.
"""

import concurrent.futures
import contextlib
import datetime as dt
import multiprocessing
import os
import random
import re
import shutil
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from seedancee2.local import postgres, state, throwaway

CLIENTS = 8
ACCOUNTS = 10_000
FUNDS = 10**12
START = dt.datetime(2026, 1, 1, tzinfo=dt.UTC)

# Every account has a grant, then holds of 5 credits, each charged before the next.
HISTORY = """
    INSERT INTO billing_creditaccount (organization_id, available, reserved, sequence)
    SELECT n, {funds} - 5 * (({each} - 1) / 2), 0, {each} FROM generate_series(1, {accounts}) n;
    INSERT INTO billing_reservation (reference, account_id, amount, refunded, state, created_at, closed_at)
    SELECT 'vid_' || lpad(n || '_' || s, 26, '0'), n, 5, 0, 'captured',
           '{start}'::timestamptz + s * interval '1 minute', '{start}'::timestamptz + (s + 1) * interval '1 minute'
      FROM generate_series(2, {each} - 1, 2) s, generate_series(1, {accounts}) n;
    INSERT INTO billing_ledgerentry (account_id, sequence, kind, available_change, reserved_change, available_after,
                                     reserved_after, reference, actor, reason, created_at)
    SELECT n, s, CASE WHEN s = 1 THEN 'grant' WHEN s % 2 = 0 THEN 'reserve' ELSE 'capture' END,
           CASE WHEN s = 1 THEN {funds} WHEN s % 2 = 0 THEN -5 ELSE 0 END,
           CASE WHEN s = 1 THEN 0 WHEN s % 2 = 0 THEN 5 ELSE -5 END,
           {funds} - 5 * (s / 2), CASE WHEN s % 2 = 0 THEN 5 ELSE 0 END,
           CASE WHEN s = 1 THEN 'grt_' || n ELSE 'vid_' || lpad(n || '_' || s / 2 * 2, 26, '0') END,
           'api_key:1', '', '{start}'::timestamptz + s * interval '1 minute'
      FROM generate_series(1, {each}) s, generate_series(1, {accounts}) n;
"""


def main() -> None:
    """Measure and print one table."""
    movements = int(sys.argv[1]) if len(sys.argv) > 1 else 200_000
    seconds = float(sys.argv[2]) if len(sys.argv) > 2 else 8.0
    with _servers():
        _prepare(movements)
        print(f"load of the machine before: {os.getloadavg()[0]:.1f} on {os.cpu_count()} cores; durable commits")
        _measure_history()
        _measure_speed(seconds)


@contextlib.contextmanager
def _servers() -> Iterator[None]:
    folder = state.ensure_folder(state.ensure_var() / f"bench-{os.getpid()}")
    try:
        with throwaway._running(postgres.prepare(folder / "postgres", is_durable=True, say=lambda _: None)) as database:
            os.environ["DATABASE_URL"] = database
            with throwaway.servers() as addresses:
                os.environ.update(addresses, LOCAL_MODE="true", SECRET_KEY="bench" * 10, LOG_LEVEL="CRITICAL")
                os.environ.update(DJANGO_SETTINGS_MODULE="seedancee2.settings", DATABASE_PATIENCE_SECONDS="3600")
                yield
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _execute(sql: str) -> None:
    from django.db import connection

    with connection.cursor() as cursor:
        cursor.execute("SET statement_timeout = 0")
        cursor.execute(sql)


def _prepare(movements: int) -> None:
    import django
    from django.core.management import call_command

    django.setup()
    call_command("migrate", verbosity=0)
    from accounts.models import Organization

    Organization.objects.bulk_create(Organization(pk=n, name=f"bench {n}") for n in range(1, ACCOUNTS + 1))
    each = max(3, movements // ACCOUNTS) | 1
    _execute(HISTORY.format(accounts=ACCOUNTS, each=each, funds=FUNDS, start=START.isoformat()))
    _execute("VACUUM ANALYZE")


def _connection() -> Any:
    from django.db import connection

    return connection


# --- What a long history costs. ---


def _measure_history() -> None:
    from billing import ledger, reconciliation

    with _connection().cursor() as cursor:
        cursor.execute("SELECT count(*), pg_total_relation_size('billing_ledgerentry') FROM billing_ledgerentry")
        count, size = cursor.fetchone()
    started = time.perf_counter()
    assert reconciliation.discrepancies() == []
    took = time.perf_counter() - started
    print(f"\n{count:,} movements on {ACCOUNTS:,} accounts")
    print(f"{'a look at everything':<34}{took:>10.2f} s      {took / count * 5e6:.2f} s for 5 M   (L7: 5 s)")

    last = START + dt.timedelta(minutes=count / ACCOUNTS)
    times = []
    for _ in range(500):
        moment, account = START + random.random() * (last - START), random.randint(1, ACCOUNTS)
        started = time.perf_counter()
        ledger.balance_at(organization_id=account, moment=moment)
        times.append((time.perf_counter() - started) * 1000)
    sql = _statements(lambda: ledger.balance_at(organization_id=7, moment=START + (last - START) / 2))[0]
    plan = " ".join(_explain(sql))
    node = re.search(r"-> +(\w[\w ]*Scan[\w ]*) using (\w+)", plan)
    reads = re.search(r"Buffers: shared ([\w= ]+)", plan)
    print(
        f"{'a balance of the past':<34}{statistics.median(times):>10.2f} ms     p99 {_p99(times):.2f} ms   (L8: 5 ms)"
    )
    print(f"{'':<34}{node[1] + ' on ' + node[2] if node else plan}, pages: {reads[1] if reads else '?'}")
    print(f"{'bytes for a movement':<34}{size / count:>10.0f} B      with its indexes   (L9: 300 B)")


def _explain(sql: str) -> list[str]:
    with _connection().cursor() as cursor:
        cursor.execute("EXPLAIN (ANALYZE, BUFFERS) " + sql)
        return [row[0] for row in cursor.fetchall()]


def _statements(call: Callable[[], object]) -> list[str]:
    """Return the statements of a call, with their values written into them."""
    found: list[str] = []

    def note(execute: Any, sql: str, params: Any, many: bool, context: Any) -> Any:
        result = execute(sql, params, many, context)
        found.append(context["cursor"].cursor._query.query.decode())
        return result

    with _connection().execute_wrapper(note):
        call()
    return found


# --- How fast. ---


def _measure_speed(seconds: float) -> None:
    head = f"{CLIENTS} clients, {seconds:.0f} s each"
    print(f"\n{head:<34}{'per second':>12}{'p50 ms':>9}{'p99 ms':>9}{'ratio':>8}   bar")
    context = multiprocessing.get_context("spawn")
    with concurrent.futures.ProcessPoolExecutor(CLIENTS, mp_context=context) as pool:
        for accounts, where in ((1, "one account"), (ACCOUNTS, f"{ACCOUNTS:,} accounts")):
            physical, latencies = _pgbench(accounts, seconds)
            bars = ("2,500/s, p99 5 ms (L2)", "2,000/s (L3)") if accounts == 1 else ("6,000/s (L2)", "5,000/s (L3)")
            _print(f"pgbench, our statements, {where}", physical, latencies, 1.0, bars[0])
            for kind, bar in (("reserve", bars[0]), ("create", bars[1])):
                list(pool.map(_work, [kind] * CLIENTS, [accounts] * CLIENTS, [0.5] * CLIENTS))  # to warm up
                results = list(pool.map(_work, [kind] * CLIENTS, [accounts] * CLIENTS, [seconds] * CLIENTS))
                times = [ms for result in results for ms in result]
                rate = len(times) / seconds
                name = "ledger.reserve" if kind == "reserve" else "lifecycle.create"
                _print(f"{name}, {where}", rate, times, rate / physical, bar)


def _print(name: str, rate: float, times: list[float], ratio: float, bar: str) -> None:
    median = statistics.median(times)
    print(f"{name:<46}{rate:>8,.0f}{median:>9.2f}{_p99(times):>9.2f}{ratio:>8.2f}   {bar}")


def _p99(times: list[float]) -> float:
    return statistics.quantiles(times, n=100)[98]


def _pgbench(accounts: int, seconds: float) -> tuple[float, list[float]]:
    """Run our own statements of a reserve in pgbench, prepared: what the database can do at best."""
    from django.db import transaction

    from billing import ledger

    class Undone(Exception):
        pass

    def reserve() -> None:
        with contextlib.suppress(Undone), transaction.atomic():
            ledger.reserve(organization_id=7, amount=123_457, reference="REFERENCE", actor="api_key:1")
            raise Undone

    statements = [sql for sql in _statements(reserve) if not sql.startswith(("SAVEPOINT", "BEGIN"))]
    text = ";\n".join(" ".join(sql.split()) for sql in statements)
    text = text.replace("'REFERENCE'", "('b' || (:number)::bigint)").replace("123457", "5")
    text, count = re.subn(r"(organization_id = )7\b", r"\g<1>:account", text)
    assert count == 2, text
    folder = state.ensure_folder(state.ensure_var() / f"bench-{os.getpid()}")
    script = Path(folder) / "reserve.sql"
    script.write_text(
        f"\\set account random(1, {accounts})\n\\set number random(1, 9000000000000000000)\nBEGIN;\n{text};\nCOMMIT;\n"
    )
    url = urlsplit(os.environ["DATABASE_URL"])
    log = Path(folder) / "log"
    command = [str(postgres._binaries() / "pgbench"), "-n", "-M", "prepared", "-c", str(CLIENTS), "-j", "2"]
    command += ["-T", str(round(seconds)), "-f", str(script), "-l", f"--log-prefix={log}"]
    command += ["-h", "127.0.0.1", "-p", str(url.port), "-U", str(url.username), url.path[1:]]
    done = subprocess.run(
        command, env={"PGPASSWORD": str(url.password)}, capture_output=True, text=True, check=False, cwd=folder
    )
    found = re.search(r"tps = ([\d.]+)", done.stdout)
    assert found, done.stderr
    times = [int(line.split()[2]) / 1000 for path in folder.glob("log.*") for line in path.read_text().splitlines()]
    for path in folder.glob("log.*"):
        path.unlink()
    return float(found[1]), times


def _work(kind: str, accounts: int, seconds: float) -> list[float]:
    """Do one thing again and again in a process of its own; return how many milliseconds each took."""
    import django

    django.setup()
    from django.db import transaction

    from billing import ledger
    from generations import lifecycle
    from generations.specs import JobSpec
    from seedancee2.lib import ids

    spec = JobSpec(model="mini", prompt="waves", duration=4, resolution="480p")

    def reserve(account: int) -> None:
        with transaction.atomic():
            ledger.reserve(organization_id=account, amount=5, reference=ids.new("vid"), actor="api_key:1")

    def create(account: int) -> None:
        lifecycle.create(organization_id=account, api_key_id=None, is_test=False, spec=spec)

    call = {"reserve": reserve, "create": create}[kind]
    times = []
    end = time.perf_counter() + seconds
    while (started := time.perf_counter()) < end:
        call(random.randint(1, accounts))
        times.append((time.perf_counter() - started) * 1000)
    return times


if __name__ == "__main__":
    main()
