"""How fast are deliveries listed and shown? Run: python -m bench.deliveries [ROWS].

One organization has ROWS deliveries (1,000,000 unless told) with an attempt each, nearly all delivered. Each page is
asked for with each filter, from the newest on and from far back. The bar of W11, 100 ms, is held against the median of
20; the slowest beside it tells what else the machine does.
"""

import datetime as dt
import os
import shutil
import statistics
import sys
import time
from collections.abc import Callable
from typing import Any

from seedancee2.local import postgres, state, throwaway

BAR_MS = 100
REPEATS = 20

_DELIVERIES = """
    INSERT INTO webhooks_delivery (delivery_id, organization_id, is_test, reference, event, url, host, body, state,
                                   attempt_count, schedule_base, created_at, finished_at, due_at)
    SELECT 'dlv_' || lpad(n::text, 26, '0'), %(organization)s, false, 'vid_' || lpad(n::text, 26, '0'),
           CASE WHEN n %% 50 = 0 THEN 'video.generation.failed' ELSE 'video.generation.completed' END,
           'https://customer.example/hook', 'https://customer.example:443', convert_to(repeat('x', 800), 'UTF8'),
           CASE WHEN n %% 100000 = 0 THEN 'abandoned' ELSE 'delivered' END,
           1, 0, now() - n * interval '2 seconds', now() - n * interval '2 seconds', NULL
      FROM generate_series(1, %(rows)s) n
"""
_ATTEMPTS = """
    INSERT INTO webhooks_deliveryattempt (delivery_id, number, started_at, duration_ms, status_code, error,
                                          response_excerpt)
    SELECT delivery_id, 1, created_at, 80, 200, '', 'ok' FROM webhooks_delivery
"""


def main() -> None:
    """Measure and print one table."""
    rows = int(sys.argv[1]) if len(sys.argv) > 1 else 1_000_000
    folder = state.ensure_folder(state.ensure_var() / f"bench-{os.getpid()}")
    server = postgres.prepare(folder / "postgres", is_durable=True, say=lambda _: None)
    try:
        with throwaway._running(server) as database, throwaway.servers() as addresses:
            os.environ.update(addresses | {"DATABASE_URL": database}, LOCAL_MODE="true", SECRET_KEY="bench" * 10)
            os.environ.update(LOG_LEVEL="CRITICAL", DJANGO_SETTINGS_MODULE="seedancee2.settings")
            _measure(rows)
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _measure(rows: int) -> None:
    import django
    from django.core.management import call_command

    django.setup()
    call_command("migrate", verbosity=0)
    from accounts.models import Organization
    from seedancee2.lib import clock
    from webhooks import deliveries
    from webhooks.models import Delivery

    organization = Organization.objects.create(name="Large")
    _fill(organization.pk, rows)
    scope: dict[str, Any] = {"organization_id": organization.pk, "is_test": False}
    far_back = clock.now() - dt.timedelta(seconds=rows * 1.8)
    middle, cursor = deliveries.page(**scope, wanted=deliveries.Page(created_before=far_back))
    pages: dict[str, dict[str, Any]] = {
        "the newest": {},
        "failed": {"state": Delivery.State.ABANDONED},
        "pending (none)": {"state": Delivery.State.PENDING},
        "delivered": {"state": Delivery.State.DELIVERED},
        "the event failed": {"event": Delivery.Event.FAILED},
        "failed, of the event failed": {"state": Delivery.State.ABANDONED, "event": Delivery.Event.FAILED},
        "of one task": {"task_id": middle[0].reference},
        "far back": {"created_before": far_back},
        "failed, far back": {"created_before": far_back, "state": Delivery.State.ABANDONED},
        "the page after one far back": {"cursor": cursor},
    }
    print(f"load {os.getloadavg()[0]:.1f} on {os.cpu_count()} cores; {rows:,} deliveries, {rows:,} attempts")
    for name, wanted in pages.items():
        for limit in (20, 100):
            page = deliveries.Page(limit=limit, **wanted)
            _print(f"{name}, {limit}", lambda page=page: deliveries.page(**scope, wanted=page))  # type: ignore[misc]
    one = middle[0].pk
    _print("one with its attempts", lambda: deliveries.attempts(deliveries.get(**scope, delivery_id=one)))
    _recover(rows, scope)


def _print(name: str, ask: Callable[[], Any]) -> None:
    times = []
    for _ in range(REPEATS):
        began = time.perf_counter()
        ask()
        times.append((time.perf_counter() - began) * 1000)
    verdict = "" if statistics.median(times) <= BAR_MS else f"   above {BAR_MS} ms (W11)"
    print(f"{name:<40}{statistics.median(times):>9.1f} ms{max(times):>9.1f} ms at most{verdict}")


def _recover(rows: int, scope: dict[str, Any]) -> None:
    from seedancee2.lib import clock
    from webhooks import deliveries
    from webhooks.models import Delivery

    failed = [f"dlv_{number:026}" for number in range(1, min(rows, deliveries.MAX_RECOVERED) + 1)]
    Delivery.objects.filter(pk__in=failed).update(state=Delivery.State.ABANDONED)
    began = time.perf_counter()
    recovery = deliveries.recover(**scope, since=clock.now() - dt.timedelta(days=2), actor="bench")
    print(f"{'recovery of ' + format(recovery.count, ','):<40}{(time.perf_counter() - began) * 1000:>9.0f} ms")


def _fill(organization_id: int, rows: int) -> None:
    from django.db import connection

    from seedancee2.lib import database

    with database.patience(seconds=3600), connection.cursor() as cursor:
        cursor.execute(_DELIVERIES, {"organization": organization_id, "rows": rows})
        cursor.execute(_ATTEMPTS)
        cursor.execute("VACUUM ANALYZE webhooks_delivery")
        cursor.execute("VACUUM ANALYZE webhooks_deliveryattempt")


if __name__ == "__main__":
    main()
