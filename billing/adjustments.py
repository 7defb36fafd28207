"""Adjustments: corrections by hand, which above a limit need a second person before anything moves."""

import datetime as dt

from django.conf import settings
from django.db import connection, transaction
from django.db.models import Sum
from django.db.models.functions import Abs, Coalesce

from accounts import audit
from accounts.models import Membership, User
from billing import ledger
from billing.models import Adjustment, LedgerEntry, TopUpRequest
from seedancee2.lib import clock, ids, wakeups

CLI = "system:cli"  # whoever has a shell on the server; every use stands in the ledger under this name
MAX_AMOUNT = 10**12
MAX_REASON_LENGTH = 500
_UNLIMITED = 2**62


class NotAllowed(Exception):
    """This person may not move these credits; the message says why."""


class AboveLimit(NotAllowed):
    """Alone this person may move no more credits of this kind today."""


def request(
    *, organization_id: int, amount: int, reason: str, requested_by: str, adjustment_id: str | None = None
) -> Adjustment:
    """Ask for a correction; within the limit of a day it moves at once, above it waits for another person's approval.

    `adjustment_id` makes a repeat harmless: the first request is returned as it is.

    Raises:
        NotAllowed: who asks is a member of the organization.
        ValueError: the amount is zero or too large, the reason is empty or too long, or the id was used otherwise.
        InsufficientCredits: a correction down exceeds the available credits; nothing is kept of the request.
    """
    if not 0 < abs(amount) <= MAX_AMOUNT:
        raise ValueError(f"The amount of an adjustment must be 1 to {MAX_AMOUNT:,} credits, up or down.")
    if not 0 < len(reason.strip()) <= MAX_REASON_LENGTH:
        raise ValueError(f"An adjustment needs a reason of at most {MAX_REASON_LENGTH} characters.")
    _refuse_members(organization_id, requested_by)
    with transaction.atomic():
        _wait_for_turn(requested_by)
        ledger.open_account(organization_id=organization_id)
        adjustment, is_new = Adjustment.objects.get_or_create(
            adjustment_id=adjustment_id or ids.new("adj"),
            defaults={
                "account_id": organization_id,
                "amount": amount,
                "limit": _UNLIMITED if requested_by == CLI else settings.ADJUSTMENT_LIMIT,
                "reason": reason.strip(),
                "requested_by": requested_by,
            },
        )
        if (adjustment.account_id, adjustment.amount) != (organization_id, amount):
            raise ValueError(f"{adjustment.adjustment_id} was used for another adjustment; ask anew.")
        if is_new:
            _note("credits.adjustment_requested", adjustment, requested_by)
        if is_new and abs(amount) + _moved_alone_today(requested_by) <= adjustment.limit:
            _move(adjustment)
    return adjustment


def needs_second_person(*, amount: int, requested_by: str) -> bool:
    """Tell whether an adjustment would wait if it were asked for now."""
    return abs(amount) + _moved_alone_today(requested_by) > int(settings.ADJUSTMENT_LIMIT)


def demand_refund(*, organization_id: int, amount: int, refunded_by: str) -> None:
    """Let a person give credits back in the caller's transaction, as far as their limit of the day reaches (ADR 0010).

    Call it before any row is locked: who refunds or adjusts elsewhere meanwhile is waited for.

    Raises:
        AboveLimit: it would be more than one person may move within a day.
        NotAllowed: they are a member of the organization.
    """
    _refuse_members(organization_id, refunded_by)
    _wait_for_turn(refunded_by)
    left = int(settings.ADJUSTMENT_LIMIT) - _moved_alone_today(refunded_by)
    if amount > left:
        raise AboveLimit(
            f"This would be more than the {settings.ADJUSTMENT_LIMIT:,} credits that one person may move within a day: "
            f"{max(0, left):,} are left to you. Let somebody else of finance refund it, or adjust the credits of the "
            "organization, which waits for a second person."
        )


def approve(*, adjustment_id: str, approved_by: str) -> Adjustment:
    """Approve a waiting adjustment and move the credits; one that was moved is returned as it is.

    Raises:
        NotAllowed: the same person asked for it, or it was declined, or who approves is a member of the organization.
        InsufficientCredits: a correction down exceeds the available credits; it stays waiting.
    """
    with transaction.atomic():
        adjustment = _lock(adjustment_id)
        if adjustment.moved_at:
            return adjustment
        if adjustment.declined_at:
            raise NotAllowed("This adjustment was declined; ask for it anew.")
        if approved_by == adjustment.requested_by:
            raise NotAllowed("Somebody else than who asked for it must approve an adjustment.")
        _refuse_members(adjustment.account_id, approved_by)
        asked = TopUpRequest.objects.filter(adjustment=adjustment).values_list("requested_by_id", flat=True)
        if approved_by in {f"user:{person}" for person in asked}:
            raise NotAllowed("Somebody else than the customer who asked for the credits must approve them.")
        adjustment.approved_by = approved_by
        adjustment.save(update_fields=["approved_by"])
        _note("credits.adjustment_approved", adjustment, approved_by)
        _move(adjustment)
    return adjustment


def decline(*, adjustment_id: str, declined_by: str) -> Adjustment:
    """Decline a waiting adjustment; one that was declined is returned as it is.

    Raises:
        NotAllowed: it was moved already.
    """
    with transaction.atomic():
        adjustment = _lock(adjustment_id)
        if adjustment.moved_at:
            raise NotAllowed("This adjustment was moved already; correct it with another one.")
        if not adjustment.declined_at:
            adjustment.declined_at = clock.now()
            adjustment.approved_by = declined_by
            adjustment.save(update_fields=["declined_at", "approved_by"])
            _note("credits.adjustment_declined", adjustment, declined_by)
            if _close_top_up(adjustment, TopUpRequest.State.DECLINED):
                # The customer's own entry, without the reason, which was meant for an approval.
                asked = TopUpRequest.objects.get(adjustment=adjustment)
                audit.note(
                    organization_id=asked.account_id,
                    actor=_person(declined_by),
                    action="credits.request_declined",
                    target=asked.request_id,
                    before={"asked": asked.amount},
                )
    return adjustment


def _lock(adjustment_id: str) -> Adjustment:
    return Adjustment.objects.select_for_update().get(pk=adjustment_id)


def _refuse_members(organization_id: int, actor: str) -> None:
    number = actor.removeprefix("user:")
    if number.isdecimal() and Membership.objects.filter(organization=organization_id, user=int(number)).exists():
        raise NotAllowed("You are a member of this organization: somebody else has to move its credits.")


def _wait_for_turn(requested_by: str) -> None:
    # Requests of one person follow each other, or several at once would each see the day's limit untouched.
    with connection.cursor() as cursor:
        cursor.execute("SELECT pg_advisory_xact_lock(hashtextextended(%s, 0))", [f"adjustments of {requested_by}"])


def _moved_alone_today(requested_by: str) -> int:
    """Sum what the same person moved without a second one within a day, so that slices do not get round the limit."""
    if requested_by == CLI:
        return 0
    since = clock.now() - dt.timedelta(days=1)
    adjusted = Adjustment.objects.filter(requested_by=requested_by, approved_by="", moved_at__gt=since)
    refunded = LedgerEntry.objects.filter(kind=LedgerEntry.Kind.REFUND, actor=requested_by, created_at__gt=since)
    total: int = adjusted.aggregate(total=Coalesce(Sum(Abs("amount")), 0))["total"]
    total += refunded.aggregate(total=Coalesce(Sum("available_change"), 0))["total"]
    return total


def _move(adjustment: Adjustment) -> None:
    adjustment.moved_at = clock.now()
    adjustment.save(update_fields=["moved_at"])
    _close_top_up(adjustment, TopUpRequest.State.GRANTED)
    actor = adjustment.requested_by
    if adjustment.approved_by:
        actor = f"{actor}, approved by {adjustment.approved_by}"
    _note("credits.adjusted", adjustment, adjustment.approved_by or adjustment.requested_by)
    ledger.adjust(
        organization_id=adjustment.account_id,
        amount=adjustment.amount,
        reference=adjustment.adjustment_id,
        actor=actor,
        reason=adjustment.reason,
    )


def _close_top_up(adjustment: Adjustment, state: TopUpRequest.State) -> bool:
    """End the open request that the adjustment answers; tell if there was one. The account is locked after it."""
    requests = TopUpRequest.objects.filter(adjustment=adjustment, state=TopUpRequest.State.OPEN)
    # What was meant for the customer on approval does not fit a refusal.
    values = {"reply": ""} if state == TopUpRequest.State.DECLINED else {}
    is_closed = bool(requests.update(state=state, decided_at=clock.now(), **values))
    if is_closed:
        wakeups.on_commit("billing.tell")
    return is_closed


def _note(action: str, adjustment: Adjustment, actor: str) -> None:
    audit.note(
        organization_id=adjustment.account_id,
        actor=_person(actor),
        action=action,
        target=adjustment.adjustment_id,
        after={"amount": adjustment.amount},
        reason=adjustment.reason,
    )


def _person(actor: str) -> User | None:
    kind, _, number = actor.partition(":")
    return User.objects.filter(pk=number).first() if kind == "user" and number.isdecimal() else None
