"""Top-ups: a customer asks for credits, the staff grant or decline, and both are told by mail (`billing.notices`)."""

from django.db import IntegrityError, transaction

from accounts import audit
from accounts.models import User
from billing import adjustments, ledger
from billing.models import Adjustment, TopUpRequest
from seedancee2.lib import clock, ids, wakeups

MAX_AMOUNT = adjustments.MAX_AMOUNT
MAX_TEXT_LENGTH = 500

State = TopUpRequest.State


class AlreadyOpen(Exception):
    """The organization has an open request; it is decided or withdrawn before another one is made."""


class NotOpen(Exception):
    """The request was decided or withdrawn before, or is being granted; the message says which."""


def ask(*, organization_id: int, amount: int, note: str, asked_by: User) -> TopUpRequest:
    """Ask the staff for credits.

    Raises:
        ValueError: the amount is not 1 to MAX_AMOUNT, or the note is too long.
        AlreadyOpen: the organization has asked already.
    """
    if not 0 < amount <= MAX_AMOUNT:
        raise ValueError(f"Ask for 1 to {MAX_AMOUNT:,} credits.")
    if len(note) > MAX_TEXT_LENGTH:
        raise ValueError(f"The note may have at most {MAX_TEXT_LENGTH} characters.")
    with transaction.atomic():
        ledger.open_account(organization_id=organization_id)
        try:
            with transaction.atomic():
                request = TopUpRequest.objects.create(
                    request_id=ids.new("top"),
                    account_id=organization_id,
                    amount=amount,
                    note=note.strip(),
                    requested_by=asked_by,
                )
        except IntegrityError as error:
            if "billing_topup_one_open" in str(error):
                raise AlreadyOpen("You have asked already; the Seedancee2 team will answer that first.") from error
            raise
        _note("credits.requested", request, asked_by, after={"amount": amount}, reason=request.note)
        wakeups.on_commit("billing.tell")
    return request


def withdraw(*, organization_id: int, request_id: str, withdrawn_by: User) -> TopUpRequest:
    """Take a request back; one that was withdrawn is returned as it is.

    Raises:
        TopUpRequest.DoesNotExist: this organization has no such request.
        NotOpen: it was decided already, or the staff are granting it.
    """
    with transaction.atomic():
        request = TopUpRequest.objects.select_for_update().get(pk=request_id, account_id=organization_id)
        if request.state == State.WITHDRAWN:
            return request
        if request.state != State.OPEN or request.adjustment_id:
            raise NotOpen("The Seedancee2 team has dealt with this request already, so it cannot be withdrawn.")
        _end(request, State.WITHDRAWN)
        _note("credits.request_withdrawn", request, withdrawn_by, before={"state": "open"})
    return request


def grant(*, request_id: str, amount: int, reason: str, granted_by: User) -> TopUpRequest:
    """Grant credits, as many as were asked for or not; above the limit of a day they wait for a second person.

    The reason stands in the ledger and in the mail to the customer. A repeat returns the request as it is.

    Raises:
        NotOpen: it was declined or withdrawn.
        NotAllowed: the person asked for these credits themselves, or is a member of the organization.
        ValueError: the amount is not 1 to MAX_AMOUNT, or the reason is empty or too long.
    """
    if amount <= 0:
        raise ValueError("Grant at least 1 credit.")
    with transaction.atomic():
        request = _lock(request_id)
        if request.state == State.GRANTED or (request.state == State.OPEN and request.adjustment_id):
            return request
        if request.state != State.OPEN:
            raise NotOpen(f"This request was {request.state} before.")
        if request.requested_by_id == granted_by.pk:
            raise adjustments.NotAllowed("Somebody else than who asked for the credits must grant them.")
        request.adjustment = adjustments.request(
            organization_id=request.account_id,
            amount=amount,
            reason=reason,
            requested_by=f"user:{granted_by.pk}",
            adjustment_id=request.request_id,
        )
        request.reply = reason.strip()
        request.save(update_fields=["adjustment", "reply"])
        if request.adjustment.moved_at:
            _end(request, State.GRANTED)
        _note(
            "credits.request_granted" if request.adjustment.moved_at else "credits.request_awaits_approval",
            request,
            granted_by,
            before={"asked": request.amount},
            after={"granted": amount},
            reason=request.reply,
        )
    return request


def decline(*, request_id: str, reason: str, declined_by: User) -> TopUpRequest:
    """Decline a request, and the adjustment that would grant it; the reason is what the customer reads.

    Raises:
        NotOpen: it was granted or withdrawn.
        ValueError: the reason is empty or too long.
    """
    if not 0 < len(reason.strip()) <= MAX_TEXT_LENGTH:
        raise ValueError(f"Give the customer a reason of at most {MAX_TEXT_LENGTH} characters.")
    with transaction.atomic():
        # The adjustment first, as whoever approves it does; it has the request's id.
        Adjustment.objects.select_for_update().filter(pk=request_id).first()
        request = _lock(request_id)
        if request.state == State.DECLINED:
            return request
        if request.state != State.OPEN:
            raise NotOpen(f"This request was {request.state} before.")
        request.reply = reason.strip()
        request.save(update_fields=["reply"])
        # Ended before its adjustment, which would end it without this reason.
        _end(request, State.DECLINED)
        if request.adjustment_id:
            adjustments.decline(adjustment_id=request.adjustment_id, declined_by=f"user:{declined_by.pk}")
        _note("credits.request_declined", request, declined_by, before={"asked": request.amount}, reason=request.reply)
    return request


def latest(*, organization_id: int) -> TopUpRequest | None:
    """Return the newest request of an organization."""
    rows = TopUpRequest.objects.filter(account_id=organization_id).select_related("requested_by", "adjustment")
    return rows.order_by("-request_id").first()


def _lock(request_id: str) -> TopUpRequest:
    # Of the joined rows only the request is locked: the account comes last, by the ledger.
    return TopUpRequest.objects.select_for_update(of=("self",)).get(pk=request_id)


def _end(request: TopUpRequest, state: TopUpRequest.State) -> None:
    request.state = state
    request.decided_at = clock.now()
    request.save(update_fields=["state", "decided_at"])
    wakeups.on_commit("billing.tell")


def _note(
    action: str,
    request: TopUpRequest,
    actor: User,
    *,
    before: dict[str, object] | None = None,
    after: dict[str, object] | None = None,
    reason: str = "",
) -> None:
    audit.note(
        organization_id=request.account_id,
        actor=actor,
        action=action,
        target=request.request_id,
        before=before,
        after=after,
        reason=reason,
    )
