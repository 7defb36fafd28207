"""What does a month's usage cost a customer with a long history? Run: python -m bench.usage [TASKS].

Over HTTP, one request at a time, for the organization with 10,000 tasks and for the one with the most, on a history of
TASKS tasks (20,000 unless told), whose hours are counted first as `count_usage` does. Each sum is compared with the
plain sum over the tasks.
"""

import asyncio
import datetime as dt
import functools
import json
import statistics
import sys
import time
from typing import Any

from bench import history, load, system
from bench.history import LARGE, SMALL
from bench.system import System

_PLAIN = """
    SELECT count(*), count(*) FILTER (WHERE status = 'completed'), count(*) FILTER (WHERE status = 'failed'),
           coalesce(sum(credits) FILTER (WHERE status IN ('completed', 'failed')), 0)::bigint,
           coalesce(sum(credits_refunded) FILTER (WHERE status IN ('completed', 'failed')), 0)::bigint
      FROM generations_generation
     WHERE organization_id = %s AND NOT is_test AND created_at >= %s AND created_at <= %s
"""
_NAMES = ("total_jobs", "completed_jobs", "failed_jobs", "credits_charged", "credits_refunded")


def main() -> None:
    """Measure and print one table."""
    tasks = int(sys.argv[1]) if len(sys.argv) > 1 else 20_000
    with system.system(LOG_LEVEL="WARNING", RATE_LIMIT_REQUESTS="100000000") as made:
        history.write(tasks)
        measure(made)


def measure(made: System) -> None:
    """Measure on the history that is there."""
    counted = _count_hours()
    made.start("web")
    port = int(made.values["PORT"])
    load.await_health(port)
    until = dt.datetime.now(dt.UTC)
    # Both ends within an hour: what is not counted there is summed from the tasks.
    since = until - dt.timedelta(days=30, minutes=17)
    path = f"/v1/usage?start={since:%Y-%m-%dT%H:%M:%S.000Z}&end={until:%Y-%m-%dT%H:%M:%S.000Z}&limit=31"
    range_ = (since.replace(microsecond=0), until.replace(microsecond=0))
    requests = {one: load.request("GET", path, _key(one)) for one in (SMALL, LARGE)}
    loads = [
        functools.partial(load.offer, port, functools.partial(bytes, sent), connections=1, seconds=2)
        for sent in requests.values()
    ]
    for one in loads:
        one()
    times = dict(zip(requests, load.in_turn(loads), strict=True))
    print(f"\na month's usage, one request at a time; {counted}{system.loaded()}")
    print(f"{'':<34}{'p50 ms':>9}{'p99 ms':>9}{'plain sum, ms':>15}")
    for organization, sent in requests.items():
        plain, took = _plain_sum(organization, range_)
        _, _, body = asyncio.run(load.exchange(port, sent))
        summary = json.loads(body)["data"]["summary"]
        assert {name: summary[name] for name in _NAMES} == plain, (summary, plain)
        name = f"an organization with {plain['total_jobs']:,}"
        found = times[organization]
        bar = f"   {_ratio(times):.2f} of the other (bars: 50 ms, 2)" if organization == LARGE else ""
        print(f"{name:<34}{statistics.median(found):>9.1f}{load.percentile(found, 99):>9.1f}{took:>15.0f}{bar}")
    print("both sums are exact to the last credit")
    made.stop()


def _ratio(times: dict[int, list[float]]) -> float:
    return statistics.median(times[LARGE]) / statistics.median(times[SMALL])


def _count_hours() -> str:
    from django.db import connection

    from generations import usage_hours

    began, longest, count = time.monotonic(), 0.0, 0
    while True:
        began_one = time.monotonic()
        if not usage_hours.count_next():
            break
        count += 1
        longest = max(longest, time.monotonic() - began_one)
    with connection.cursor() as cursor:
        cursor.execute("VACUUM ANALYZE generations_usagehour")
    return f"{count} hours counted in {time.monotonic() - began:.1f} s, the longest {1000 * longest:.0f} ms"


def _plain_sum(organization: int, range_: tuple[dt.datetime, dt.datetime]) -> tuple[dict[str, Any], float]:
    from django.db import connection

    from seedancee2.lib.database import patience

    began = time.monotonic()
    with patience(seconds=600), connection.cursor() as cursor:
        cursor.execute(_PLAIN, [organization, *range_])
        row = cursor.fetchone()
    return dict(zip(_NAMES, row, strict=True)), 1000 * (time.monotonic() - began)


def _key(organization: int) -> str:
    from accounts import keys
    from accounts.models import Organization

    return keys.issue(organization=Organization.objects.get(pk=organization), name="bench usage", mode="live").secret


if __name__ == "__main__":
    main()
