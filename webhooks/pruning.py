"""Pruning: bodies, attempts, callbacks and calls are kept for 30 days; of a delivery its facts stay for ever.

Retired secrets go after a day. Small transactions, so that nobody waits for one; what one run does not reach is left to
the next.
"""

import datetime as dt
import time
from typing import Final

from django.db import transaction

from providers.models import UpstreamCall, UpstreamJob
from seedancee2.lib import clock
from webhooks.models import Callback, Delivery, DeliveryAttempt, SigningSecret

KEPT_FOR: Final = dt.timedelta(days=30)
SECRETS_KEPT_FOR: Final = dt.timedelta(days=1)  # after they retired, when nothing is signed by them any more
BATCH: Final = 500  # rows in a transaction, at most
_DELIVERIES: Final = 100  # of them, the others being their attempts


def prune(*, seconds: float = 60.0) -> int:
    """Empty old ended deliveries, delete old callbacks, calls of ended jobs and retired secrets; return how many rows.

    Takes no longer than `seconds`, or one batch more.
    """
    before, end = clock.now() - KEPT_FOR, time.monotonic() + seconds
    count = 0
    for state in (Delivery.State.DELIVERED, Delivery.State.ABANDONED):
        while time.monotonic() < end and (pruned := _prune_deliveries(state, before)):
            count += pruned
    while time.monotonic() < end and (pruned := _prune_callbacks(before)):
        count += pruned
    count += SigningSecret.objects.filter(retires_at__lt=clock.now() - SECRETS_KEPT_FOR).delete()[0]
    last = 0
    while time.monotonic() < end:
        looked, pruned = _prune_calls(before, after=last)
        count += pruned
        if not looked:
            break
        last = looked[-1]
    return count


def _prune_deliveries(state: Delivery.State, before: dt.datetime) -> int:
    old = Delivery.objects.filter(state=state, finished_at__lt=before, pruned_at=None)
    with transaction.atomic():
        # Locked: one that is sent again in this moment is either kept whole or refused.
        locked = old.select_for_update(skip_locked=True).order_by("finished_at")
        ids = list(locked.values_list("pk", flat=True)[:_DELIVERIES])
        attempts = DeliveryAttempt.objects.filter(delivery__in=ids).values_list("pk", flat=True)[: BATCH - len(ids)]
        count, _ = DeliveryAttempt.objects.filter(pk__in=list(attempts)).delete()
        if count < BATCH - len(ids):
            count += Delivery.objects.filter(pk__in=ids).update(body=b"", pruned_at=clock.now())
    return count


def _prune_callbacks(before: dt.datetime) -> int:
    old = Callback.objects.filter(received_at__lt=before, job__status__in=UpstreamJob.TERMINAL)
    ids = list(old.order_by("received_at").values_list("pk", flat=True)[:BATCH])
    return Callback.objects.filter(pk__in=ids).delete()[0]


def _prune_calls(before: dt.datetime, *, after: int) -> tuple[list[int], int]:
    # In the order in which they were written, which needs no index on their time; the first young one ends it.
    rows = UpstreamCall.objects.filter(pk__gt=after).order_by("pk")
    found = list(rows.values_list("pk", "started_at", "job__status")[:BATCH])
    old = [(pk, status) for pk, started_at, status in found if started_at < before]
    ended = [pk for pk, status in old if status in UpstreamJob.TERMINAL]
    count, _ = UpstreamCall.objects.filter(pk__in=ended).delete()
    return [pk for pk, _ in old] if len(old) == BATCH else [], count
