"""Low-balance alerts: the balances at which an organization wants a mail, and which of them are due."""

import datetime as dt
from collections.abc import Sequence

from django.db import IntegrityError, transaction
from django.db.models import F, Q, QuerySet

from accounts import audit
from accounts.models import Organization, User
from billing import ledger
from billing.models import BalanceAlert
from seedancee2.lib import clock

MAX_ALERTS = 10  # of one organization
MAX_CREDITS = 10**12
# A hold that comes and goes around a threshold would cross it at every task: one mail in so long is enough.
QUIET = dt.timedelta(hours=1)
LEASE = dt.timedelta(minutes=2)  # longer than a mail server is waited for


class Refused(Exception):
    """The alert cannot be set; the message says why."""


def of(*, organization_id: int) -> list[BalanceAlert]:
    """List an organization's alerts, the highest first."""
    return list(BalanceAlert.objects.filter(account_id=organization_id).order_by("-credits"))


def add(*, organization_id: int, credits: int, added_by: User) -> BalanceAlert:
    """Tell the organization from now on when its available credits fall below this.

    Where they are below already nothing was crossed: the alert is armed once they rise.

    Raises:
        Refused: the number is out of range, is set already, or there are MAX_ALERTS.
    """
    if not 0 < credits <= MAX_CREDITS:
        raise Refused(f"Enter a number from 1 to {MAX_CREDITS:,}.")
    with transaction.atomic():
        # One at a time, so that the count holds until the commit.
        Organization.objects.select_for_update(no_key=True).get(pk=organization_id)
        ledger.open_account(organization_id=organization_id)
        if BalanceAlert.objects.filter(account_id=organization_id).count() >= MAX_ALERTS:
            raise Refused(f"{MAX_ALERTS} thresholds are the most. Remove one first.")
        available, _ = ledger.balance(organization_id=organization_id)
        try:
            with transaction.atomic():
                alert = BalanceAlert.objects.create(
                    account_id=organization_id, credits=credits, is_armed=available >= credits
                )
        except IntegrityError as error:
            raise Refused("There is a mail at this balance already.") from error
        audit.note(
            organization_id=organization_id,
            actor=added_by,
            action="balance_alert.added",
            target=f"below {credits} credits",
            after={"credits": credits},
        )
    return alert


def remove(*, organization_id: int, alert_id: int, removed_by: User) -> BalanceAlert:
    """Send no mail at this balance any more.

    Raises:
        BalanceAlert.DoesNotExist: this organization has no such alert.
    """
    with transaction.atomic():
        alert = BalanceAlert.objects.select_for_update().get(pk=alert_id, account_id=organization_id)
        alert.delete()
        audit.note(
            organization_id=organization_id,
            actor=removed_by,
            action="balance_alert.removed",
            target=f"below {alert.credits} credits",
            before={"credits": alert.credits},
        )
    return alert


def rearm() -> int:
    """Arm the alerts whose balance has risen to their threshold again."""
    risen = BalanceAlert.objects.filter(is_armed=False, account__available__gte=F("credits"))
    return BalanceAlert.objects.filter(pk__in=risen.values("pk")).update(is_armed=True)


def due() -> list[int]:
    """List the organizations of which some alert is due."""
    return list(_due().order_by("account_id").values_list("account_id", flat=True).distinct())


def claim(*, organization_id: int) -> list[BalanceAlert]:
    """Take an organization's due alerts for LEASE, the lowest first; of several workers one gets each."""
    with transaction.atomic():
        rows = _due().filter(account_id=organization_id).select_for_update(of=("self",), skip_locked=True)
        found = list(rows.select_related("account__organization").order_by("credits"))
        _rows(found).update(leased_until=clock.now() + LEASE)
    return found


def told(alerts: Sequence[BalanceAlert]) -> None:
    """Note that the mail is out: these alerts rest until the balance has risen."""
    _rows(alerts).update(is_armed=False, told_at=clock.now(), leased_until=None)


def _due() -> QuerySet[BalanceAlert]:
    now = clock.now()
    is_quiet = Q(told_at__isnull=True) | Q(told_at__lt=now - QUIET)
    is_free = Q(leased_until__isnull=True) | Q(leased_until__lt=now)
    return BalanceAlert.objects.filter(is_quiet, is_free, is_armed=True, account__available__lt=F("credits"))


def _rows(alerts: Sequence[BalanceAlert]) -> QuerySet[BalanceAlert]:
    return BalanceAlert.objects.filter(pk__in=[alert.pk for alert in alerts])
