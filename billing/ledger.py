"""The only writer of balances: a movement is one guarded UPDATE and one entry, in the caller's transaction.

A hold is captured or released exactly once. Lock order: generation, reservation, then the credit account last, since
its row is the one that others of the same organization wait for.
"""

import datetime as dt

from django.db import IntegrityError, connection

from billing.models import CreditAccount, LedgerEntry, Reservation
from seedancee2.api.errors import InsufficientCredits
from seedancee2.lib import clock

Kind = LedgerEntry.Kind


class ReservationClosed(Exception):
    """The hold was already closed the other way: a bug, so the whole transaction must roll back."""


class RepeatedReference(Exception):
    """A movement of this kind was already made for this reference; the transaction must roll back."""


def open_account(*, organization_id: int) -> None:
    """Make sure that an organization has a credit account; a repeat changes nothing."""
    CreditAccount.objects.bulk_create([CreditAccount(organization_id=organization_id)], ignore_conflicts=True)


def grant(*, organization_id: int, amount: int, reference: str, actor: str, reason: str) -> LedgerEntry:
    """Add bought or given credits.

    Raises:
        ValueError: the amount is not positive.
        RepeatedReference: this reference was granted before.
    """
    if amount <= 0:
        raise ValueError("The amount of a grant must be positive.")
    open_account(organization_id=organization_id)
    return _move(organization_id, Kind.GRANT, amount, 0, reference, actor, reason)


def adjust(*, organization_id: int, amount: int, reference: str, actor: str, reason: str) -> LedgerEntry:
    """Correct a balance up or down by hand, with a reason.

    Raises:
        ValueError: the amount is zero or the reason is empty.
        InsufficientCredits: a correction down exceeds the available credits.
        RepeatedReference: this reference was used before.
    """
    if amount == 0:
        raise ValueError("The amount of an adjustment must not be zero.")
    if not reason.strip():
        raise ValueError("An adjustment needs a reason.")
    open_account(organization_id=organization_id)
    return _move(organization_id, Kind.ADJUST, amount, 0, reference, actor, reason)


def reserve(*, organization_id: int, amount: int, reference: str, actor: str) -> None:
    """Hold credits for a generation.

    Raises:
        InsufficientCredits: the available credits do not cover the amount; the caller must roll back.
    """
    with connection.cursor() as cursor:
        cursor.execute(
            "INSERT INTO billing_reservation (reference, account_id, amount, state, created_at)"
            " SELECT %s, organization_id, %s, 'held', %s FROM billing_creditaccount WHERE organization_id = %s",
            [reference, amount, clock.now(), organization_id],
        )
        has_account = cursor.rowcount == 1
    if not has_account:
        raise InsufficientCredits
    _move(organization_id, Kind.RESERVE, -amount, amount, reference, actor, "")


def capture(*, reference: str, actor: str) -> None:
    """Turn a hold into a charge.

    Raises:
        ReservationClosed: the hold is not open.
    """
    reservation = _close(reference, Reservation.State.CAPTURED)
    _move(reservation.account_id, Kind.CAPTURE, 0, -reservation.amount, reference, actor, "")


def release(*, reference: str, actor: str, reason: str = "") -> None:
    """Give a hold back.

    Raises:
        ReservationClosed: the hold is not open.
    """
    reservation = _close(reference, Reservation.State.RELEASED)
    _move(reservation.account_id, Kind.RELEASE, reservation.amount, -reservation.amount, reference, actor, reason)


def refund(*, reference: str, amount: int, actor: str, reason: str) -> LedgerEntry:
    """Give captured credits of a generation back later, in whole or in part.

    Raises:
        ValueError: the amount is not positive, or more than was captured and not refunded yet.
    """
    with connection.cursor() as cursor:
        # The guard is in the statement, so that two partial refunds can never exceed the charge together.
        cursor.execute(
            "UPDATE billing_reservation SET refunded = refunded + %(amount)s WHERE reference = %(reference)s"
            " AND state = 'captured' AND %(amount)s > 0 AND refunded + %(amount)s <= amount"
            " RETURNING account_id, refunded",
            {"amount": amount, "reference": reference},
        )
        row = cursor.fetchone()
    if row is None:
        raise ValueError(f"{amount} credits cannot be refunded for {reference}: not charged, or given back already.")
    account_id, refunded = row
    return _move(account_id, Kind.REFUND, amount, 0, f"{reference}/{refunded}", actor, reason)


def balance_at(*, organization_id: int, moment: dt.datetime) -> tuple[int, int]:
    """Return the available and the held credits as they were at a past moment: one read of an index."""
    row = (
        LedgerEntry.objects.filter(account_id=organization_id, created_at__lte=moment)
        .order_by("-created_at", "-sequence")
        .values_list("available_after", "reserved_after")
        .first()
    )
    return row or (0, 0)


def balance(*, organization_id: int) -> tuple[int, int]:
    """Return the available and the held credits of an organization."""
    row = CreditAccount.objects.filter(pk=organization_id).values_list("available", "reserved").first()
    return row or (0, 0)


def _close(reference: str, state: Reservation.State) -> Reservation:
    closed = Reservation.objects.filter(pk=reference, state=Reservation.State.HELD).update(
        state=state, closed_at=clock.now()
    )
    if not closed:
        raise ReservationClosed(f"The hold for {reference} is not open; it cannot become {state}.")
    return Reservation.objects.get(pk=reference)


def _move(
    organization_id: int, kind: Kind, available: int, reserved: int, reference: str, actor: str, reason: str
) -> LedgerEntry:
    # One statement: the guard, the balance, its sequence number and the entry cannot come apart. The time follows the
    # sequence although it was taken before the wait for the row, so that a past balance is the last entry's.
    sql = """
        WITH account AS (
            UPDATE billing_creditaccount
               SET available = available + %(available)s, reserved = reserved + %(reserved)s, sequence = sequence + 1,
                   moved_at = greatest(moved_at, %(now)s)
             WHERE organization_id = %(organization)s AND available + %(available)s >= 0
         RETURNING organization_id, sequence, available, reserved, moved_at
        )
        INSERT INTO billing_ledgerentry
               (account_id, sequence, kind, available_change, reserved_change, available_after, reserved_after,
                reference, actor, reason, created_at)
        SELECT organization_id, sequence, %(kind)s, %(available)s, %(reserved)s, available, reserved,
               %(reference)s, %(actor)s, %(reason)s, moved_at
          FROM account
     RETURNING id, sequence, available_after, reserved_after, created_at
    """
    now = clock.now()
    values: dict[str, str | int | dt.datetime] = {
        "organization": organization_id,
        "kind": kind.value,
        "available": available,
        "reserved": reserved,
        "reference": reference,
        "actor": actor,
        "reason": reason,
        "now": now,
    }
    try:
        with connection.cursor() as cursor:
            cursor.execute(sql, values)
            row = cursor.fetchone()
    except IntegrityError as error:
        if "billing_entry_reference" in str(error):
            raise RepeatedReference(f"There is already a {kind} for {reference}.") from error
        raise
    if row is None:
        raise InsufficientCredits
    return LedgerEntry(
        pk=row[0],
        account_id=organization_id,
        sequence=row[1],
        kind=kind,
        available_change=available,
        reserved_change=reserved,
        available_after=row[2],
        reserved_after=row[3],
        reference=reference,
        actor=actor,
        reason=reason,
        created_at=row[4],
    )
