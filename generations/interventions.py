"""What staff do to a task by hand, each with a reason: the change and its audit entry are one transaction.

Entries without an organization are the staff's alone: what they tell of (providers, polls) is no customer's business.
"""

from django.db import transaction

from accounts import audit
from accounts.models import User
from billing import adjustments
from generations import deletion, lifecycle
from generations.models import Generation
from providers import interventions
from providers.models import Channel, UpstreamJob
from seedancee2.api.errors import PublicError
from seedancee2.lib import clock
from webhooks import deliveries
from webhooks.models import Delivery

MAX_REASON_LENGTH = 500


class NotPossible(Exception):
    """The task is not in a state for this; the message says why, and nothing was changed."""


class AboveLimit(NotPossible):
    """This person may give no more back today."""


def poll_now(*, public_id: str, actor: User, reason: str) -> int:
    """Ask the provider about a task at once; return how many of its jobs were waiting.

    Raises:
        NotPossible: nothing of it waits.
    """
    _demand(reason)
    with transaction.atomic():
        count = interventions.hurry(reference=public_id)
        if not count:
            raise NotPossible("Nothing of this task is waiting: a worker has it in hand, or it has ended.")
        audit.note(organization_id=None, actor=actor, action="task.polled", target=public_id, reason=reason.strip())
    return count


def fail(*, public_id: str, actor: User, reason: str) -> Generation:
    """End an open task as canceled and give its hold back.

    Raises:
        NotPossible: it has ended already.
    """
    _demand(reason)
    with transaction.atomic():
        before = _locked(public_id)
        if not before.is_open:
            raise NotPossible(f"This task is {before.status} already.")
        after = lifecycle.fail(public_id=public_id, code=Generation.ErrorCode.CANCELED, actor=_name(actor))
        audit.note(
            organization_id=after.organization_id,
            actor=actor,
            action="task.failed",
            target=public_id,
            before={"status": before.status},
            after={"status": after.status, "credits_refunded": after.credits_refunded},
            reason=reason.strip(),
        )
    return after


def refund(*, public_id: str, amount: int, refunded_before: int, actor: User, reason: str) -> Generation:
    """Give credits of a completed task back, in part or in whole.

    `refunded_before` is what the person saw as given back: of two clicks on one page the second finds it changed.

    Raises:
        AboveLimit: it would be more than one person may move within a day.
        NotPossible: it was not charged, less than `amount` is left of the charge, it was refunded meanwhile, or the
            actor is a member of its organization.
    """
    _demand(reason)
    organization_id = Generation.objects.values_list("organization_id", flat=True).get(pk=public_id)
    with transaction.atomic():
        try:
            adjustments.demand_refund(organization_id=organization_id, amount=amount, refunded_by=_name(actor))
        except adjustments.AboveLimit as error:
            raise AboveLimit(str(error)) from error
        except adjustments.NotAllowed as error:
            raise NotPossible(str(error)) from error
        before = _locked(public_id)
        if before.credits_refunded != refunded_before:
            raise NotPossible(
                f"This task was refunded meanwhile: {before.credits_refunded} credits in all. Look at it again."
            )
        try:
            after = lifecycle.refund(public_id=public_id, amount=amount, actor=_name(actor), reason=reason.strip())
        except ValueError as error:
            raise NotPossible(str(error)) from error
        audit.note(
            organization_id=after.organization_id,
            actor=actor,
            action="task.refunded",
            target=public_id,
            before={"credits_refunded": before.credits_refunded},
            after={"credits_refunded": after.credits_refunded},
            reason=reason.strip(),
        )
    return after


def move(*, public_id: str, channel: Channel | None, actor: User, reason: str) -> UpstreamJob:
    """Let the task's next submission go to one channel only, or to any again; only while it is queued.

    Raises:
        NotPossible: it was sent, may have been, or has ended; or the channel cannot take it.
    """
    _demand(reason)
    with transaction.atomic():
        if not _locked(public_id).is_open:
            raise NotPossible("This task has ended.")
        before = UpstreamJob.objects.filter(reference=public_id).select_related("channel").order_by("-number").first()
        if before is None:
            raise NotPossible("This task has no job.")
        try:
            after = interventions.move(job_id=before.pk, channel=channel)
        except (interventions.TooLate, ValueError) as error:
            raise NotPossible(str(error)) from error
        audit.note(
            organization_id=None,
            actor=actor,
            action="task.moved",
            target=public_id,
            before={"channel": str(before.channel or "any")},
            after={"channel": str(after.channel or "any")},
            reason=reason.strip(),
        )
    return after


def redeliver(*, public_id: str, actor: User, reason: str) -> int:
    """Have a task's webhooks sent again; return how many are.

    Raises:
        NotPossible: there are none, one of them cannot be sent any more, or a worker is sending them.
    """
    _demand(reason)
    with transaction.atomic():
        rows = list(Delivery.objects.filter(reference=public_id).defer("body"))
        if not rows:
            raise NotPossible("No webhook was written for this task: it has not ended, or it has no callback URL.")
        count = 0
        for row in rows:
            try:
                again = deliveries.redeliver(
                    organization_id=row.organization_id,
                    is_test=row.is_test,
                    delivery_id=row.pk,
                    actor=actor,
                    reason=reason.strip(),
                )
            except PublicError as error:
                raise NotPossible(error.message) from error
            count += again.leased_until is None or again.leased_until <= clock.now()
        if not count:
            raise NotPossible("A worker is sending it at this moment.")
    return count


def erase(*, public_id: str, actor: User, reason: str) -> Generation:
    """Delete the files, prompt and references of a task that has ended; a repeat changes nothing.

    Raises:
        NotPossible: it has not ended.
    """
    _demand(reason)
    with transaction.atomic():
        organization_id = _locked(public_id).organization_id
        try:
            return deletion.delete(
                public_id=public_id, organization_id=organization_id, actor=actor, reason=reason.strip()
            )
        except deletion.StillOpen as error:
            raise NotPossible("This task has not ended: fail it first, or wait for its video.") from error


def _locked(public_id: str) -> Generation:
    return Generation.objects.select_for_update().get(pk=public_id)


def _name(actor: User) -> str:
    return f"user:{actor.pk}"


def _demand(reason: str) -> None:
    if not 0 < len(reason.strip()) <= MAX_REASON_LENGTH:
        raise ValueError(f"Say why, in at most {MAX_REASON_LENGTH} characters.")
