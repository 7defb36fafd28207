"""Visits: one of the staff looks at the console as an organization sees it, for a while and changing nothing.

Each has a reason, and an entry in the organization's audit log when it begins and one when it ends, whoever ends it.
The session of the browser holds the visit's number, so that it is nobody else's and goes with the session.
"""

import datetime as dt

from django.db import transaction

from accounts import audit
from accounts.models import Organization, StaffVisit, User
from seedancee2.lib import clock

PERMISSION = "accounts.act_as_organization"
LONGEST = dt.timedelta(minutes=30)
MAX_REASON_LENGTH = 500


def begin(*, organization: Organization, visitor: User, reason: str) -> StaffVisit:
    """Begin a visit.

    Raises:
        ValueError: the reason is empty or too long.
    """
    reason = reason.strip()
    if not 0 < len(reason) <= MAX_REASON_LENGTH:
        raise ValueError(f"Say why, in at most {MAX_REASON_LENGTH} characters.")
    now = clock.now()
    with transaction.atomic():
        visit = StaffVisit.objects.create(
            organization=organization, visitor=visitor, reason=reason, started_at=now, ends_at=now + LONGEST
        )
        _note("console.opened_by_staff", visit, {"until": clock.iso(visit.ends_at)})
    return visit


def running(*, number: int, visitor: User) -> StaffVisit | None:
    """Return a visit of this person that has not ended; a right that was taken away ends it."""
    rows = StaffVisit.objects.filter(pk=number, visitor=visitor, ended_at=None).select_related("organization")
    visit = rows.first()
    if visit is None:
        return None
    visit.visitor = visitor
    if visit.ends_at <= clock.now() or not visitor.is_staff or not visitor.has_perm(PERMISSION):
        end(visit=visit)
        return None
    return visit


def end(*, visit: StaffVisit) -> None:
    """End a visit; one that has ended stays as it is."""
    now = clock.now()
    with transaction.atomic():
        if StaffVisit.objects.filter(pk=visit.pk, ended_at=None).update(ended_at=now):
            minutes = max(1, round((min(now, visit.ends_at) - visit.started_at).total_seconds() / 60))
            _note("console.left_by_staff", visit, {"minutes": minutes})


def end_overdue() -> int:
    """End the visits whose time is over, as those of browsers that were closed; return how many."""
    overdue = StaffVisit.objects.filter(ended_at=None, ends_at__lte=clock.now()).select_related(
        "organization", "visitor"
    )
    found = list(overdue.order_by("ends_at")[:100])
    for visit in found:
        end(visit=visit)
    return len(found)


def _note(action: str, visit: StaffVisit, after: dict[str, object]) -> None:
    audit.note(
        organization_id=visit.organization_id,
        actor=visit.visitor,
        action=action,
        target=visit.organization.name,
        after=after,
        reason=visit.reason,
        is_by_staff=True,
    )
