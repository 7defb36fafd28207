"""What a long history costs: time to look at all of it, time to look back, and bytes."""

import datetime as dt
import functools
import random
import re
import statistics
import time
from collections.abc import Callable
from typing import Any

ACCOUNTS = 10_000
FUNDS = 10**12
START = dt.datetime(2026, 1, 1, tzinfo=dt.UTC)
ROUNDS = 3

# Every account has a grant, then holds of 5 credits, each charged a minute later; in each minute the accounts come in
# another order, and references are in the order of time, as ours are.
_WRITE = """
    INSERT INTO billing_creditaccount (organization_id, available, reserved, sequence, moved_at)
    SELECT n, {funds} - 5 * (({each} - 1) / 2), 0, {each}, '{start}'::timestamptz + {each} * interval '1 minute'
      FROM generate_series(1, {accounts}) n;
    INSERT INTO billing_reservation (reference, account_id, amount, refunded, state, created_at, closed_at)
    SELECT 'vid_' || lpad(s::text, 10, '0') || lpad(n::text, 16, '0'), n, 5, 0, 'captured',
           '{start}'::timestamptz + s * interval '1 minute', '{start}'::timestamptz + (s + 1) * interval '1 minute'
      FROM generate_series(2, {each} - 1, 2) s, generate_series(1, {accounts}) n;
    INSERT INTO billing_ledgerentry (account_id, sequence, kind, available_change, reserved_change, available_after,
                                     reserved_after, reference, actor, reason, created_at)
    SELECT n, s, CASE WHEN s = 1 THEN 'grant' WHEN s % 2 = 0 THEN 'reserve' ELSE 'capture' END,
           CASE WHEN s = 1 THEN {funds} WHEN s % 2 = 0 THEN -5 ELSE 0 END,
           CASE WHEN s = 1 THEN 0 WHEN s % 2 = 0 THEN 5 ELSE -5 END,
           {funds} - 5 * (s / 2), CASE WHEN s % 2 = 0 THEN 5 ELSE 0 END,
           CASE WHEN s = 1 THEN 'grt_' ELSE 'vid_' END || lpad((s / 2 * 2)::text, 10, '0') || lpad(n::text, 16, '0'),
           CASE WHEN s % 2 = 1 THEN 'system:lifecycle' ELSE 'api_key:' || n END, '',
           '{start}'::timestamptz + s * interval '1 minute'
      FROM generate_series(1, {each}) s, generate_series(1, {accounts}) i,
           LATERAL (SELECT i * (10 * (s * 37 % 997) + 7) % {accounts} + 1) shuffled (n);
"""


def write(movements: int) -> None:
    """Make accounts with a past of so many movements, all told."""
    from accounts.models import Organization
    from seedancee2.lib.database import patience

    Organization.objects.bulk_create(Organization(pk=n, name=f"bench {n}") for n in range(1, ACCOUNTS + 1))
    each = max(3, movements // ACCOUNTS) | 1
    with patience(seconds=3600):
        _read(_WRITE.format(accounts=ACCOUNTS, each=each, funds=FUNDS, start=START.isoformat()))
        _read("VACUUM ANALYZE")


def measure() -> None:
    """Print one table."""
    from billing import ledger, reconciliation
    from seedancee2.lib.database import patience

    ((count, size, last),) = _read(
        "SELECT count(*), pg_total_relation_size('billing_ledgerentry'), max(created_at) FROM billing_ledgerentry"
    )
    sums = "SELECT sum(available_change) FROM billing_ledgerentry"
    scan, whole, rest = [], [], []
    with patience(seconds=3600):
        for _ in range(ROUNDS):
            scan.append(_seconds(lambda: _read(sums)))
            whole.append(_seconds(reconciliation.discrepancies))
            rest.append(_seconds(lambda: reconciliation.discrepancies(since=last + dt.timedelta(seconds=1))))
    assert reconciliation.discrepancies() == []
    print(f"\n{count:,} movements on {ACCOUNTS:,} accounts; the median of {ROUNDS}")
    took, plain = statistics.median(whole), statistics.median(scan)
    print(f"{'a plain sum over them':<34}{plain:>10.2f} s")
    print(f"{'a look at everything':<34}{took:>10.2f} s      {took / plain:.1f} of that sum, {_for_5_m(took, count)}")
    print(f"{'a look while nothing moves':<34}{statistics.median(rest):>10.2f} s")

    times = []
    for _ in range(500):
        moment, account = START + random.random() * (last - START), random.randint(1, ACCOUNTS)
        look = functools.partial(ledger.balance_at, organization_id=account, moment=moment)
        times.append(1000 * _seconds(look))
    plan = _plan(lambda: ledger.balance_at(organization_id=7, moment=START + (last - START) / 2))
    node = re.search(r"Index[\w ]*Scan[\w ]*using \w+", plan)
    reads = re.search(r"Buffers: shared ([\w= ]+)", plan)
    p99 = statistics.quantiles(times, n=100)[98]
    print(f"{'a balance of the past':<34}{statistics.median(times):>10.2f} ms     p99 {p99:.2f} ms   (L8: 5 ms)")
    print(f"{'':<34}{node[0] if node else plan}, pages: {reads[1] if reads else '?'}")
    print(f"{'bytes for a movement':<34}{size / count:>10.0f} B      with its indexes   (L9: 300 B)")


def _for_5_m(seconds: float, count: int) -> str:
    return "(L7: 5 s for 5 M)" if count > 4_900_000 else f"{seconds / count * 5e6:.2f} s for 5 M   (L7: 5 s)"


def _plan(call: Callable[[], object]) -> str:
    from bench.ledger.speed import statements

    (sql,) = statements(call)
    return " ".join(line for (line,) in _read("EXPLAIN (ANALYZE, BUFFERS) " + sql))


def _read(sql: str) -> list[tuple[Any, ...]]:
    from django.db import connection

    with connection.cursor() as cursor:
        cursor.execute(sql)
        return list(cursor.fetchall()) if cursor.description else []


def _seconds(call: Callable[[], object]) -> float:
    started = time.perf_counter()
    call()
    return time.perf_counter() - started
