"""Endpoints: how each destination of an organization does, and the circuit breaker that spares the failing ones.

Failures in a row pause an endpoint: nothing is sent there, then one delivery as a probe, and a failed probe doubles the
pause. A pause is no attempt: it takes nothing from a delivery's schedule. After the longest pause a delivery's turn has
come whatever the breaker says; how long it waits then depends on how many stand before it, since one at a time is sent.
What has been due for a day there is given up, as after a last attempt.
"""

import datetime as dt
from typing import Final

import structlog
from django.db import transaction

from seedancee2.lib import clock
from webhooks.models import LONGEST_PAUSE, Delivery, Endpoint

log = structlog.get_logger(__name__)

TRIPPING_FAILURES: Final = 5  # in a row
SHORTEST_PAUSE: Final = dt.timedelta(seconds=60)
QUICK_MS: Final = 1_000
LONGEST_WAIT: Final = dt.timedelta(hours=24)  # of a due delivery, at an endpoint that has failed all the while
_GIVEN_UP_AT_ONCE: Final = 500

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


def give_up(endpoint: Endpoint) -> int:
    """Give up what has been due for longer than LONGEST_WAIT while an endpoint failed; return how many deliveries.

    They can be sent again like all that failed.
    """
    before = clock.now() - LONGEST_WAIT
    if endpoint.failing_since is None or endpoint.failing_since >= before:
        return 0
    waiting = Delivery.objects.filter(endpoint=endpoint, due_at__lt=before, leased_until=None)
    count = 0
    # Batches of their own transactions: nobody who delivers waits long for their locks.
    while True:
        with transaction.atomic():
            locked = waiting.order_by("due_at").select_for_update(skip_locked=True, no_key=True)
            ids = list(locked.values_list("pk", flat=True)[:_GIVEN_UP_AT_ONCE])
            rows = Delivery.objects.filter(pk__in=ids)
            count += rows.update(state=Delivery.State.ABANDONED, due_at=None, finished_at=clock.now())
        if not ids:
            break
    if count:
        log.warning("endpoint_given_up", organization=endpoint.organization_id, origin=endpoint.origin, count=count)
    return count


def give_up_everywhere() -> int:
    """Give up what waits in vain at every endpoint that has failed for so long; return how many deliveries."""
    failing = Endpoint.objects.filter(failing_since__lt=clock.now() - LONGEST_WAIT)
    return sum(give_up(endpoint) for endpoint in failing.order_by("pk").iterator())
