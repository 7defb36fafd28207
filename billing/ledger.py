"""The only writer of balances: a movement is one guarded UPDATE and one entry, in the caller's transaction.

Outside a transaction every movement raises `NoTransaction`.

Each is one call of a function of the database (`billing/migrations/0004_movement_functions.py`, 0006, 0007, 0011):
planned once a session, it takes little more than half the time of the same statements sent from here. A hold is
captured or released exactly once. Lock order: generation, reservation, a key's allowance, then the credit account last,
since its row is the one that others of the same organization wait for.
"""

import datetime as dt
from typing import Any

from django.db import IntegrityError, connection

from billing.allowances import Allowance
from billing.models import CreditAccount, LedgerEntry, Reservation
from seedancee2.api.errors import InsufficientCredits
from seedancee2.lib import clock, statements

Kind = LedgerEntry.Kind

_MOVE = "SELECT * FROM billing_move(%s, %s, %s, %s, %s, %s, %s, %s)"
_RESERVE = "SELECT id FROM billing_reserve(%s, %s, %s, %s, %s)"
_RESERVE_WITHIN = "SELECT id, available_after FROM billing_reserve_within(%s, %s, %s, %s, %s, %s, %s)"
_CLOSE = "SELECT id FROM billing_close(%s, %s, %s, %s, %s)"
_REFUND = "SELECT * FROM billing_refund(%s, %s, %s, %s, %s)"


class NoTransaction(Exception):
    """Credits were to move outside a transaction: a bug, since nothing would roll back with them."""


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
    return _move(organization_id, Kind.GRANT, amount, reference, actor, reason)


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
    return _move(organization_id, Kind.ADJUST, amount, reference, actor, reason)


def reserve(
    *, organization_id: int, amount: int, reference: str, actor: str, allowance: Allowance | None = None
) -> None:
    """Hold credits for a generation, counted for its key and within that key's monthly cap if it has one.

    Raises:
        InsufficientCredits: the available credits, or what is left of the allowance, do not cover the amount; the
            caller must roll back.
    """
    now = clock.now()
    if allowance is None:
        entry = _call(_RESERVE, organization_id, amount, reference, actor, now)
    else:
        within = (allowance.api_key_id, allowance.monthly_cap)
        entry = _call(_RESERVE_WITHIN, organization_id, amount, reference, actor, now, *within)
    if entry["id"]:
        return
    used = entry.get("available_after")
    raise InsufficientCredits(allowance.refusal(amount, used, now) if allowance and used is not None else None)


def capture(*, reference: str, actor: str) -> None:
    """Turn a hold into a charge.

    Raises:
        ReservationClosed: the hold is not open.
    """
    _close(reference, Reservation.State.CAPTURED, actor, "")


def release(*, reference: str, actor: str, reason: str = "") -> None:
    """Give a hold back.

    Raises:
        ReservationClosed: the hold is not open.
    """
    _close(reference, Reservation.State.RELEASED, actor, reason)


def refund(*, reference: str, amount: int, actor: str, reason: str) -> LedgerEntry:
    """Give captured credits of a generation back later, in whole or in part.

    Raises:
        ValueError: the amount is not positive, or more than was captured and not refunded yet.
    """
    entry = _call(_REFUND, reference, amount, actor, reason, clock.now())
    if not entry["id"]:
        raise ValueError(f"{amount} credits cannot be refunded for {reference}: not charged, or given back already.")
    return LedgerEntry(**entry)


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


def _close(reference: str, state: Reservation.State, actor: str, reason: str) -> None:
    if not _call(_CLOSE, reference, state.value, actor, reason, clock.now())["id"]:
        raise ReservationClosed(f"The hold for {reference} is not open; it cannot become {state}.")


def _move(organization_id: int, kind: Kind, amount: int, reference: str, actor: str, reason: str) -> LedgerEntry:
    _insist_on_transaction()
    open_account(organization_id=organization_id)
    try:
        entry = _call(_MOVE, organization_id, kind.value, amount, 0, reference, actor, reason, clock.now())
    except IntegrityError as error:
        if "billing_entry_reference" in str(error):
            raise RepeatedReference(f"There is already a {kind} for {reference}.") from error
        raise
    if not entry["id"]:
        raise InsufficientCredits
    return LedgerEntry(**entry)


def _call(function: str, *values: str | int | dt.datetime | None) -> dict[str, Any]:
    """Call a function of the database; return of the entry what was asked for, without an id where nothing may move."""
    _insist_on_transaction()
    with statements.planned_once() as cursor:
        cursor.execute(function, values)
        return dict(zip([column.name for column in cursor.description], cursor.fetchone(), strict=True))


def _insist_on_transaction() -> None:
    if not connection.in_atomic_block:
        raise NoTransaction("Credits move in the transaction of what they are moved for: open one around this call.")
