"""What became of one task: its steps with the time that each took, its movements of credits, and its webhooks."""

import datetime as dt
from collections.abc import Sequence
from typing import Final, NamedTuple

from django.db.models import Prefetch

from billing.models import LedgerEntry
from generations.models import Generation
from webhooks.models import Delivery, DeliveryAttempt

Kind = LedgerEntry.Kind

# A hold is written in the transaction that makes the task, by the same clock or one that is a little ahead.
_HOLD_WITHIN: Final = dt.timedelta(minutes=2)


class Step(NamedTuple):
    """Something that happened to a task, or is still to come; `took` counts from the step before."""

    title: str
    at: dt.datetime | None
    took: dt.timedelta | None


def timeline(generation: Generation, deliveries: Sequence[Delivery]) -> list[Step]:
    """List the steps of a task in their order; the one that it waits for has no time."""
    ended = "Failed" if generation.status == Generation.Status.FAILED else "Finished"
    moments: list[tuple[str, dt.datetime | None]] = [("Accepted", generation.created_at)]
    if generation.started_at or generation.is_open:
        moments.append(("Started", generation.started_at))
    moments.append((ended, generation.finished_at))
    for delivery in deliveries:
        is_delivered = delivery.state != Delivery.State.ABANDONED
        moments.append(("Webhook delivered" if is_delivered else "Webhook given up", delivery.finished_at))
    if generation.is_open and generation.callback_url:
        moments.append(("Webhook delivered", None))
    steps: list[Step] = []
    before: dt.datetime | None = None
    for title, at in moments:
        steps.append(Step(title, at, at - before if at and before else None))
        before = at
    return steps


def movements(generation: Generation) -> list[LedgerEntry]:
    """List the movements of credits for a task, oldest first; a test task has none."""
    if generation.is_test:
        return []
    own = LedgerEntry.objects.filter(account=generation.organization_id, reference=generation.public_id)
    # Each by an index of the ledger: holds have none by reference, for every creation would pay for it.
    held = own.filter(
        kind=Kind.RESERVE,
        created_at__gte=generation.created_at,
        created_at__lt=generation.created_at + _HOLD_WITHIN,
    )
    closed = own.filter(kind__in=[Kind.CAPTURE, Kind.RELEASE])
    # Refunds may be several, so that each has a reference of its own; those of all tasks are few.
    refunded = LedgerEntry.objects.filter(
        account=generation.organization_id, kind=Kind.REFUND, reference__startswith=f"{generation.public_id}/"
    )
    return list(held.union(closed, refunded, all=True).order_by("sequence"))


def deliveries(generation: Generation) -> list[Delivery]:
    """List the webhooks of a task with their attempts, oldest first."""
    attempts = Prefetch("attempts", DeliveryAttempt.objects.order_by("number"))
    own = Delivery.objects.filter(reference=generation.public_id, organization=generation.organization_id)
    return list(own.defer("body").order_by("delivery_id").prefetch_related(attempts))
