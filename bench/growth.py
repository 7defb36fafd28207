"""What grows with history? Run: python -m bench.growth [TASKS].

On a history of TASKS tasks (20,000 unless told): how long the statements of the hot paths take, how many bytes a task
keeps in each table, and how long the looks of reconciliation take.
"""

import datetime as dt
import functools
import statistics
import sys
import time
from collections.abc import Callable

from bench import history, load, system

_SIZES = """
    SELECT relname, pg_table_size(oid), pg_indexes_size(oid) FROM pg_class
     WHERE relkind = 'r' AND pg_total_relation_size(oid) > 1000000 AND relnamespace = 'public'::regnamespace
     ORDER BY pg_total_relation_size(oid) DESC
"""


def main() -> None:
    """Measure and print the tables."""
    tasks = int(sys.argv[1]) if len(sys.argv) > 1 else 20_000
    with system.system(LOG_LEVEL="CRITICAL"):
        history.write(tasks)
        measure()


def measure() -> None:
    """Measure on the history that is there."""
    from accounts.clients import Client
    from generations import queries, reconciliation, runner
    from generations.models import Generation
    from providers import claims, late
    from seedancee2.api import cursors
    from seedancee2.lib import clock
    from seedancee2.lib.database import patience
    from webhooks import delivery

    client = Client(
        organization_id=history.LARGE, api_key_id=0, is_test=False, create_rate_limit=None, request_rate_limit=None
    )
    ours = queries.for_client(client).order_by("-created_at", "-public_id")
    count = ours.count()
    with patience(seconds=600):
        last = ours[count - 200]
    far = cursors.encode(last.created_at, last.public_id)

    def page(**wanted: object) -> Callable[[], object]:
        return lambda: queries.page(client=client, wanted=queries.Page(**wanted))  # type: ignore[arg-type] # by name

    calls: dict[str, Callable[[], object]] = {
        "one task": functools.partial(queries.get, client=client, public_id=ours[count // 3].pk),
        "the first page": page(),
        f"the page after {count - 200:,} tasks": page(cursor=far),
        "the first page of a status": page(status="failed"),
        "the first page of a model": page(model="pro"),
        "the first page of a model without tasks": page(model="none"),
        "claim to submit": functools.partial(claims.claim_queued, 16),
        "claim to poll": functools.partial(claims.claim_polls, 16),
        "claim to settle": functools.partial(claims.claim_finished, 16),
        "claim to look late": functools.partial(late.claim_due, 16),
        "claim to deliver": functools.partial(delivery.claim_due, 16),
        "tasks past their deadline": functools.partial(runner.overdue, 100),
    }
    print(f"\nstatements on {Generation.objects.count():,} tasks, {count:,} of one organization{system.loaded()}")
    print(f"{'':<44}{'p50 ms':>9}{'p99 ms':>9}")
    with patience(seconds=600):
        for name, call in calls.items():
            times = [1000 * _seconds(call) for _ in range(100)]
            print(f"{name:<44}{statistics.median(times):>9.2f}{load.percentile(times, 99):>9.2f}")
        day = clock.now() - dt.timedelta(days=1)
        look = functools.partial(reconciliation.discrepancies, since=day)
        print(f"{'reconciliation, a day, every five minutes':<44}{1000 * _seconds(look):>9.0f}")
        look = functools.partial(reconciliation.discrepancies)
        print(f"{'reconciliation, everything, once a night':<44}{1000 * _seconds(look):>9.0f}")
    _print_sizes(Generation.objects.count())


def _print_sizes(tasks: int) -> None:
    from django.db import connection

    with connection.cursor() as cursor:
        cursor.execute(_SIZES)
        rows = cursor.fetchall()
    print(f"\n{'bytes for a task':<44}{'rows':>9}{'indexes':>9}")
    for name, table, indexes in rows:
        print(f"{name:<44}{table / tasks:>9.0f}{indexes / tasks:>9.0f}")
    print(f"{'together':<44}{sum(row[1] for row in rows) / tasks:>9.0f}{sum(row[2] for row in rows) / tasks:>9.0f}")


def _seconds(call: Callable[[], object]) -> float:
    began = time.perf_counter()
    call()
    return time.perf_counter() - began


if __name__ == "__main__":
    main()
