"""Looks into the ledger that an index serves: its entries are many, and few of their columns are in one."""

import datetime as dt

from django.db.models import Q

from billing.models import LedgerEntry, Reservation

_MOMENT = dt.timedelta(seconds=10)  # longer than any transaction may take
_CLOSING = (LedgerEntry.Kind.CAPTURE, LedgerEntry.Kind.RELEASE)
_BY_HAND = (LedgerEntry.Kind.GRANT, LedgerEntry.Kind.ADJUST, LedgerEntry.Kind.REFUND)


def of_task(*, reference: str, account_id: int, since: dt.datetime) -> Q:
    """Return what finds a task's entries: its hold, taken within seconds of `since`, its end, and its refunds."""
    # No index leads to the entry of a hold by its reference; the account's index by time does.
    is_hold = Q(
        kind=LedgerEntry.Kind.RESERVE,
        reference=reference,
        account_id=account_id,
        created_at__gte=since,
        created_at__lt=since + _MOMENT,
    )
    is_end = Q(kind__in=_CLOSING, reference=reference)
    # Each refund adds what was given back in all: id/5, id/20. In every collation letters come after digits.
    is_refund = Q(kind=LedgerEntry.Kind.REFUND, reference__gt=f"{reference}/", reference__lt=f"{reference}/a")
    return is_hold | is_end | is_refund


def of_reference(reference: str) -> Q:
    """Return what finds the entries of a task, of an adjustment or of a grant."""
    hold = Reservation.objects.filter(pk=reference).values("account_id", "created_at").first()
    if hold is None:
        return Q(kind__in=_BY_HAND, reference=reference)
    return of_task(reference=reference, account_id=hold["account_id"], since=hold["created_at"])
