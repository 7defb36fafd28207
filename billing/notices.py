"""Mails about credits: low balances, and requests for credits and their answers.

Each is owed by a row until it is out: claimed with a lease, sent outside any transaction, then noted. A process that
dies in between, or a mail server that is away, delays the mail; at worst one goes out twice, with the same Message-ID.
"""

import contextlib
from collections.abc import Sequence
from email.utils import parseaddr
from typing import Any

import structlog
from django.conf import settings
from django.core.mail import EmailMessage
from django.db import transaction
from django.db.models import Q
from django.template.loader import render_to_string

from accounts.models import Membership, User
from billing import alerts
from billing.models import BalanceAlert, TopUpRequest
from seedancee2.lib import clock

log = structlog.get_logger(__name__)

LEASE = alerts.LEASE
AT_ONCE = 50  # organizations told of their balance in one sweep

Role = Membership.Role
State = TopUpRequest.State


class _ServerAway(Exception):
    """The mail server did not take a mail: the sweep ends, and what it had claimed is due again after its lease."""


def tell() -> int:
    """Send every mail that is due; return how many went out."""
    alerts.rearm()
    sent = 0
    with contextlib.suppress(_ServerAway):
        for organization_id in alerts.due()[:AT_ONCE]:
            if claimed := alerts.claim(organization_id=organization_id):
                sent += _tell_of_balance(claimed)
        while request := _claim(Q(staff_told_at__isnull=True)):
            sent += _tell_staff(request)
        while request := _claim(Q(customer_told_at__isnull=True, state__in=[State.GRANTED, State.DECLINED])):
            sent += _tell_customer(request)
    return sent


def people_of_billing(organization_id: int) -> list[str]:
    """List the addresses of who looks after an organization's credits: owners, admins and billing members."""
    people = User.objects.filter(
        is_active=True,
        memberships__organization_id=organization_id,
        memberships__role__in=[Role.OWNER, Role.ADMIN, Role.BILLING],
    )
    return list(people.order_by("email").values_list("email", flat=True))


def _tell_of_balance(claimed: Sequence[BalanceAlert]) -> bool:
    lowest = claimed[0]
    # The sequence of crossings, not of tries: a repeat after a crash is the same message.
    crossing = int(lowest.told_at.timestamp()) if lowest.told_at else 0
    is_sent = _send(
        "low_balance",
        to=people_of_billing(lowest.account_id),
        message_id=f"balance-{lowest.pk}-{crossing}",
        context={"account": lowest.account, "credits": lowest.credits},
    )
    alerts.told(claimed)
    return is_sent


def _tell_staff(request: TopUpRequest) -> bool:
    # One that was decided or withdrawn meanwhile needs nobody's attention.
    to = [settings.STAFF_EMAIL] if settings.STAFF_EMAIL and request.state == State.OPEN else []
    is_sent = _send("top_up_asked", to=to, message_id=f"{request.pk}-asked", context=_context(request))
    TopUpRequest.objects.filter(pk=request.pk).update(staff_told_at=clock.now(), leased_until=None)
    return is_sent


def _tell_customer(request: TopUpRequest) -> bool:
    asker = request.requested_by
    is_member = asker is not None and asker.is_active and _is_member(asker, request.account_id)
    to = [asker.email] if asker is not None and is_member else people_of_billing(request.account_id)
    is_sent = _send("top_up_decided", to=to, message_id=f"{request.pk}-decided", context=_context(request))
    TopUpRequest.objects.filter(pk=request.pk).update(customer_told_at=clock.now(), leased_until=None)
    return is_sent


def _is_member(user: User, organization_id: int) -> bool:
    return Membership.objects.filter(user=user, organization_id=organization_id).exists()


def _context(request: TopUpRequest) -> dict[str, Any]:
    return {"request": request, "account": request.account}


def _claim(due: Q) -> TopUpRequest | None:
    """Take the oldest request of which a mail is due, for LEASE; of several workers one gets it."""
    now = clock.now()
    is_free = Q(leased_until__isnull=True) | Q(leased_until__lt=now)
    with transaction.atomic():
        rows = TopUpRequest.objects.filter(due, is_free).select_for_update(of=("self",), skip_locked=True)
        rows = rows.select_related("account__organization", "requested_by", "adjustment")
        request = rows.order_by("created_at").first()
        if request is not None:
            TopUpRequest.objects.filter(pk=request.pk).update(leased_until=now + LEASE)
    return request


def _send(template: str, *, to: Sequence[str], message_id: str, context: dict[str, Any]) -> bool:
    """Send one mail, whose subject is the template's first line; False where there is nobody to have it.

    Raises:
        _ServerAway: it must be tried again.
    """
    if not to:
        log.warning("mail_for_nobody", template=template, message_id=message_id)
        return False
    organization = context["account"].organization
    # In one line, since the template's first line is the subject.
    name = " ".join(organization.name.split())
    values = {**context, "organization": organization, "name": name, "base_url": settings.PUBLIC_BASE_URL}
    subject, _, text = render_to_string(f"billing/mail/{template}.txt", values).partition("\n")
    domain = parseaddr(settings.DEFAULT_FROM_EMAIL)[1].rpartition("@")[2] or "localhost"
    mail = EmailMessage(
        " ".join(subject.split()), text.strip() + "\n", to=list(to), headers={"Message-ID": f"<{message_id}@{domain}>"}
    )
    try:
        mail.send()
    except OSError as error:  # smtplib's errors are OSErrors too
        if hasattr(error, "recipients"):  # refused by every server of the addresses: it would be for ever
            log.exception("mail_refused", template=template, message_id=message_id)
            return False
        log.warning("mail_not_sent", template=template, message_id=message_id, error=type(error).__name__)
        raise _ServerAway from error
    log.info("mail_sent", template=template, message_id=message_id, count=len(to))
    return True
