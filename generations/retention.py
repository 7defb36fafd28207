"""Retention: what an organization does not want kept any longer is deleted, day by day, in small batches.

A mark per organization says how far that got, so that a night's work is a night's tasks, however many there are.
"""

import datetime as dt
import time
from collections.abc import Callable, Sequence
from typing import Final

import structlog
from django.db import transaction
from django.db.models import Q, QuerySet

from accounts import audit
from accounts.models import Organization
from generations import deletion
from generations.models import Generation, RetentionMark
from seedancee2.lib import clock

log = structlog.get_logger(__name__)

Subject = RetentionMark.Subject

BATCH: Final = 200
BUDGET_SECONDS: Final = 120.0  # of one run; the rest is done by the next
_BEGINNING: Final = dt.datetime(1970, 1, 1, tzinfo=dt.UTC)

_WORK: Final[dict[Subject, Callable[[Sequence[str]], int]]] = {
    Subject.MEDIA: deletion.hide_files,
    Subject.PROMPTS: deletion.erase_prompts,
}


def enforce() -> int:
    """Delete what is older than its organization wants it kept; return how many files and prompts went."""
    count = 0
    ends_at = time.monotonic() + BUDGET_SECONDS
    for organization in Organization.objects.order_by("pk").iterator(chunk_size=500):
        for subject in Subject:
            if (days := days_kept(organization, subject)) is not None:
                count += _enforce(organization, subject, clock.now() - dt.timedelta(days=days), ends_at)
    return count


def days_kept(organization: Organization, subject: Subject) -> int | None:
    """Return for how many days after its creation a task's media or prompt is kept; None where it is kept for good."""
    return organization.media_retention_days if subject == Subject.MEDIA else organization.prompt_retention_days


def _enforce(organization: Organization, subject: Subject, cutoff: dt.datetime, ends_at: float) -> int:
    count = sum(_enforce_in_mode(organization.pk, subject, is_test, cutoff, ends_at) for is_test in (False, True))
    if count:
        log.info("retention_enforced", organization_id=organization.pk, subject=subject, count=count)
    return count


def _enforce_in_mode(organization_id: int, subject: Subject, is_test: bool, cutoff: dt.datetime, ends_at: float) -> int:
    mark, _ = RetentionMark.objects.get_or_create(
        organization_id=organization_id, subject=subject, is_test=is_test, defaults={"until": _BEGINNING}
    )
    count = 0
    position, is_held_up = (mark.until, ""), False
    while position[0] < cutoff and time.monotonic() < ends_at:
        with transaction.atomic():
            batch = list(_after(position, organization_id, is_test, cutoff)[:BATCH])
            deleted = _WORK[subject]([task.public_id for task in batch if not task.is_open])
            if deleted:
                _note(organization_id, subject, cutoff, deleted)
            count += deleted
            # A task that is still open is waited for: the mark stays before it, whatever is deleted behind.
            still_open = next((task.created_at for task in batch if task.is_open), None)
            if not is_held_up:
                mark.until = still_open or (batch[-1].created_at if len(batch) == BATCH else cutoff)
                mark.save(update_fields=["until"])
            is_held_up = is_held_up or still_open is not None
        if len(batch) < BATCH:
            break
        position = (batch[-1].created_at, batch[-1].public_id)
    return count


def _note(organization_id: int, subject: Subject, cutoff: dt.datetime, count: int) -> None:
    """Write an entry for each batch, in its transaction: a run that dies has told of all that it deleted."""
    audit.note(
        organization_id=organization_id,
        actor=None,
        action="retention.enforced",
        target=f"{subject} of tasks created before {clock.iso(cutoff)}",
        after={"deleted": count},
    )


def _after(
    position: tuple[dt.datetime, str], organization_id: int, is_test: bool, cutoff: dt.datetime
) -> QuerySet[Generation]:
    """Select tasks in the order of the index generations_list, from a position on."""
    created_at, public_id = position
    own = Generation.objects.filter(organization_id=organization_id, is_test=is_test, created_at__lt=cutoff)
    later = own.filter(created_at__gte=created_at).filter(Q(created_at__gt=created_at) | Q(public_id__gt=public_id))
    return later.only("public_id", "created_at", "status").order_by("created_at", "public_id")
