"""Endpoints: how each destination of an organization does, and the circuit breaker that spares the failing ones.

Failures in a row pause an endpoint: nothing is sent there, then one delivery as a probe, and a failed probe doubles the
pause. A pause is no attempt: it takes nothing from a delivery's schedule, and it holds none for longer than the longest
pause, after which the delivery is tried whatever the breaker says.
"""

import datetime as dt
from typing import Final

import structlog

from seedancee2.lib import clock
from webhooks.models import Endpoint

log = structlog.get_logger(__name__)

TRIPPING_FAILURES: Final = 5  # in a row
SHORTEST_PAUSE: Final = dt.timedelta(seconds=60)
LONGEST_PAUSE: Final = dt.timedelta(minutes=30)
QUICK_MS: Final = 1_000

Standing = Endpoint.Standing


def note_success(endpoint: Endpoint, *, duration_ms: int) -> None:
    """Note that an endpoint took an event; the first one ends a pause."""
    standing = Standing.GOOD if duration_ms <= QUICK_MS else Standing.UNSURE
    # Healthy rows, which is nearly all of them always, are not written to.
    others = Endpoint.objects.filter(pk=endpoint.pk).exclude(standing=standing, failure_count=0)
    is_changed = others.update(
        standing=standing, failure_count=0, failing_since=None, last_error="", trip_count=0, paused_until=None
    )
    if is_changed and endpoint.paused_until:
        log.info("endpoint_resumed", organization=endpoint.organization_id, origin=endpoint.origin)


def note_failure(endpoint: Endpoint, *, error: str) -> None:
    """Note that an attempt failed; where too many did in a row, pause the endpoint. Part of a transaction."""
    now = clock.now()
    row = Endpoint.objects.select_for_update(no_key=True).get(pk=endpoint.pk)
    row.failure_count += 1
    # One failure does not put an endpoint among those that hang for ever and have their share of the threads only.
    row.standing = Standing.FAILING if row.failure_count >= TRIPPING_FAILURES else Standing.UNSURE
    row.failing_since = row.failing_since or now
    row.last_error = error
    # What was under way when the breaker opened says nothing new.
    is_open = row.paused_until is not None and row.paused_until > now
    if row.failure_count >= TRIPPING_FAILURES and not is_open:
        length = min(LONGEST_PAUSE, SHORTEST_PAUSE * 2 ** min(row.trip_count, 10))
        row.trip_count += 1
        row.paused_until = now + length
        log.warning(
            "endpoint_paused",
            organization=row.organization_id,
            origin=row.origin,
            failure_count=row.failure_count,
            seconds=length.total_seconds(),
            error=error,
        )
    row.save(update_fields=["standing", "failure_count", "failing_since", "last_error", "trip_count", "paused_until"])


def probe_soon(endpoint: Endpoint) -> None:
    """Let the next delivery through a pause, since somebody asked for it; its failure pauses the endpoint again."""
    now = clock.now()
    Endpoint.objects.filter(pk=endpoint.pk, paused_until__gt=now).update(paused_until=now, due_at=now)
