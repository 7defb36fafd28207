"""Notices: owners and admins learn by mail that a destination of theirs has long failed, and that it works again.

That they were told is written first, by a statement that only one process can win, and the mail is sent after it:
nobody is told twice, whatever crashes.
"""

import datetime as dt
from collections import defaultdict
from collections.abc import Sequence
from typing import Final

import structlog
from django.conf import settings
from django.core.mail import EmailMessage
from django.db.models import QuerySet
from django.template.loader import render_to_string

from accounts.models import Membership, Organization
from seedancee2.lib import clock
from webhooks.models import Endpoint

log = structlog.get_logger(__name__)

TOLD_AFTER: Final = dt.timedelta(hours=24)  # without any success
LEAST_FAILURES: Final = 5

_AT_ONCE: Final = 200  # endpoints; the next ones follow with the next sweep
_READERS: Final = (Membership.Role.OWNER, Membership.Role.ADMIN)


def send() -> int:
    """Mail about endpoints that have failed for a day, and about those told of that work again; return how many."""
    now = clock.now()
    failing = Endpoint.objects.filter(
        failing_since__lte=now - TOLD_AFTER, failure_count__gte=LEAST_FAILURES, told_at=None
    )
    well = Endpoint.objects.filter(told_at__isnull=False, failing_since=None)
    return _tell(failing, "failing", told_at=now) + _tell(well, "recovered", told_at=None)


def _tell(found: QuerySet[Endpoint], what: str, *, told_at: dt.datetime | None) -> int:
    rows: defaultdict[Organization, list[Endpoint]] = defaultdict(list)
    count = 0
    for endpoint in found.select_related("organization").order_by("pk")[:_AT_ONCE]:
        # Guarded by what made it be found: of two sweeps one tells.
        if found.filter(pk=endpoint.pk).update(told_at=told_at):
            rows[endpoint.organization].append(endpoint)
            count += 1
    for organization, endpoints in rows.items():
        if not _mail(organization, endpoints, what):
            # Found again by the next sweep; guarded by what this one wrote.
            for endpoint in endpoints:
                Endpoint.objects.filter(pk=endpoint.pk, told_at=told_at).update(told_at=endpoint.told_at)
            count -= len(endpoints)
    return count


def _mail(organization: Organization, endpoints: Sequence[Endpoint], what: str) -> bool:
    """Send one mail; tell whether that is done with, which it is as well where nobody reads it."""
    readers = Membership.objects.filter(organization=organization, role__in=_READERS, user__is_active=True)
    addresses = list(readers.order_by("user__email").values_list("user__email", flat=True))
    if not addresses:
        log.warning("endpoint_notice_without_reader", organization=organization.pk, what=what)
        return True
    context = {"organization": organization, "endpoints": endpoints, "base_url": settings.PUBLIC_BASE_URL}
    # The first line is the subject.
    subject, _, body = render_to_string(f"webhooks/{what}.txt", context).partition("\n")
    try:
        EmailMessage(subject.strip(), body.lstrip("\n"), to=addresses).send()
    except Exception:  # a mail server raises many kinds; one mail that cannot be sent must not keep back the others
        log.exception("endpoint_notice_not_sent", organization=organization.pk, what=what)
        return False
    return True
