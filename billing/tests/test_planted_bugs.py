"""Tests of the tests: each bug planted into the ledger must be caught by its machine, its checks or the database."""

import re
from typing import Any

import pytest

from billing import adjustments, ledger
from billing.tests.planting import plant
from billing.tests.test_ledger_machine import LedgerMachine, organizations

pytestmark = [pytest.mark.django_db, pytest.mark.usefixtures("organizations")]

__all__ = ["organizations"]

# A bug that only breaks the code would prove nothing.
BROKEN = re.compile(r"raised (NameError|AttributeError|TypeError|SyntaxError|ProgrammingError)")

BUGS = {
    "the UPDATE has no guard": (
        ledger,
        "_move",
        ("AND available + %(available)s >= 0", ""),
    ),
    "the entry is not written": (
        ledger,
        "capture",
        (
            '_move(reservation.account_id, Kind.CAPTURE, 0, -reservation.amount, reference, actor, "")',
            "with connection.cursor() as cursor:\n"
            "        cursor.execute('UPDATE billing_creditaccount SET reserved = reserved - %s'\n"
            "                       ' WHERE organization_id = %s', [reservation.amount, reservation.account_id])",
        ),
    ),
    "the sequence stands still": (
        ledger,
        "_move",
        ("sequence = sequence + 1", "sequence = sequence"),
    ),
    "the sequence skips": (
        ledger,
        "_move",
        ("sequence = sequence + 1", "sequence = sequence + 2"),
    ),
    "the balance after is that of before": (
        ledger,
        "_move",
        ("%(reserved)s, available, reserved,", "%(reserved)s, available - %(available)s, reserved - %(reserved)s,"),
    ),
    "a movement forgets what is held": (
        ledger,
        "_move",
        ("reserved = reserved + %(reserved)s", "reserved = reserved"),
    ),
    "a hold closes whatever its state": (
        ledger,
        "_close",
        ("pk=reference, state=Reservation.State.HELD", "pk=reference"),
    ),
    "a second close is silent": (
        ledger,
        "capture",
        (
            "    reservation = _close(",
            "    if Reservation.objects.filter(pk=reference, state='captured').exists():\n"
            "        return\n"
            "    reservation = _close(",
        ),
    ),
    "a closed hold is charged": (
        ledger,
        "_close",
        ("if not closed:", "if False:"),
    ),
    "a release forgets what is held": (
        ledger,
        "release",
        ("-reservation.amount", "0"),
    ),
    "a release is booked as a charge": (
        ledger,
        "release",
        ("_close(reference, Reservation.State.RELEASED)", "_close(reference, Reservation.State.CAPTURED)"),
    ),
    "a charge goes to another organization": (
        ledger,
        "capture",
        (
            "_move(reservation.account_id,",
            "_move(CreditAccount.objects.order_by('pk').values_list('pk', flat=True)[0],",
        ),
    ),
    "a release goes to another organization": (
        ledger,
        "release",
        (
            "_move(reservation.account_id,",
            "_move(CreditAccount.objects.order_by('pk').values_list('pk', flat=True)[0],",
        ),
    ),
    "a refund has no guard": (
        ledger,
        "refund",
        (" AND refunded + %(amount)s <= amount", ""),
    ),
    "a refund comes before the charge": (
        ledger,
        "refund",
        (" AND state = 'captured'", ""),
    ),
    "opening an account empties it": (
        ledger,
        "open_account",
        (
            "ignore_conflicts=True",
            "update_conflicts=True,\n        unique_fields=['organization'], update_fields=['available', 'reserved']",
        ),
    ),
    "a large adjustment moves at once": (
        adjustments,
        "request",
        ("if is_new and abs(amount) + _moved_alone_today(adjustment) <= adjustment.limit:", "if is_new:"),
    ),
    "many small adjustments pass for none": (
        adjustments,
        "request",
        ("abs(amount) + _moved_alone_today(adjustment)", "abs(amount)"),
    ),
    "a repeated request moves again": (
        adjustments,
        "request",
        ("if is_new and abs", "if abs"),
    ),
    "who asked may approve": (
        adjustments,
        "approve",
        ("if approved_by == adjustment.requested_by:", "if False:"),
    ),
    "what was declined can be approved": (
        adjustments,
        "approve",
        ("if adjustment.declined_at:", "if False:"),
    ),
    "what was moved can be declined": (
        adjustments,
        "decline",
        ("if adjustment.moved_at:", "if False:"),
    ),
}


# Steps of the machine, as it draws them itself, in an order that comes past every guard.
ANN, BOB = "user:ann", "user:bob"
TOUR: list[tuple[str, list[Any]]] = [
    ("begin", []),
    ("ask", []),
    ("reserve", [0, 1_000_000, False]),
    ("capture", ["start_1", False]),
    ("capture", ["start_1", False]),
    ("release", ["start_1", False]),
    ("release", ["start_2", False]),
    ("release", ["start_2", False]),
    ("capture", ["start_2", False]),
    ("refund", ["start_3", 10]),
    ("release", ["start_3", False]),
    ("refund", ["start_0", 30]),
    ("refund", ["start_0", 30]),
    ("grant", [0, 5, 0]),
    ("grant", [1, 5, 0]),
    ("adjust", [0, -1, 0, False]),
    ("request", [0, 150, BOB, "adj_5"]),
    ("request", [0, 150, BOB, "adj_6"]),
    ("request", [0, 150, BOB, "adj_5"]),
    ("request", [0, 210, BOB, "adj_7"]),
    ("request", [0, 50, ANN, "adj_4"]),
    ("request", [0, 50, ANN, "adj_4"]),
    ("approve", ["adj_0", ANN, True]),
    ("approve", ["adj_0", BOB, False]),
    ("approve", ["adj_0", BOB, False]),
    ("approve", ["adj_2", BOB, False]),
    ("decline", ["adj_0", BOB]),
]


def tour() -> None:
    machine = LedgerMachine()
    try:
        for step, values in TOUR:
            getattr(machine, step)(*values)
    finally:
        machine.teardown()


@pytest.mark.parametrize("name", BUGS)
def test_a_planted_bug_is_caught(name, monkeypatch):
    module, function, change = BUGS[name]
    plant(monkeypatch, module, function, change)

    with pytest.raises(AssertionError) as caught:
        tour()

    assert not BROKEN.search(str(caught.value))


def test_without_a_bug_the_tour_finds_nothing():
    tour()
