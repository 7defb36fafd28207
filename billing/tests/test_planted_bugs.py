"""Tests of the tests: each bug planted into the ledger must be caught by its machine, its checks or the database."""

import re
from typing import Any

import pytest

from billing import adjustments, ledger
from billing.tests.planting import plant, plant_in_database
from billing.tests.test_ledger_machine import LedgerMachine, organizations

pytestmark = [pytest.mark.django_db, pytest.mark.usefixtures("organizations")]

__all__ = ["organizations"]

# A bug that only breaks the code would prove nothing.
BROKEN = re.compile(r"raised (NameError|AttributeError|TypeError|SyntaxError|ProgrammingError|InternalError)")

DATABASE = None  # instead of a module: the function is the database's
FIRST_ACCOUNT = "(SELECT min(organization_id) FROM billing_creditaccount)"

BUGS = {
    "the UPDATE has no guard": (
        DATABASE,
        "billing_move",
        (" AND available + p_available >= 0", ""),
    ),
    "the entry is not written": (
        DATABASE,
        "billing_close",
        (
            "RETURN billing_move(hold.account_id, 'capture', 0, -hold.amount, p_reference, p_actor, p_reason, p_at);",
            "UPDATE billing_creditaccount SET reserved = reserved - hold.amount"
            " WHERE organization_id = hold.account_id;"
            " RETURN (SELECT e FROM billing_ledgerentry e WHERE e.reference = p_reference);",
        ),
    ),
    "the entry of a reserve is written twice": (
        DATABASE,
        "billing_move",
        (
            "    RETURN entry;",
            "    IF p_kind = 'reserve' THEN\n"
            "        INSERT INTO billing_ledgerentry SELECT (e).* FROM (SELECT jsonb_populate_record(entry,"
            " jsonb_build_object('id', entry.id + 1000000, 'sequence', entry.sequence + 1000000)) AS e) copy;\n"
            "    END IF;\n    RETURN entry;",
        ),
    ),
    "the sequence stands still": (
        DATABASE,
        "billing_move",
        ("sequence = sequence + 1", "sequence = sequence"),
    ),
    "the sequence skips": (
        DATABASE,
        "billing_move",
        ("sequence = sequence + 1", "sequence = sequence + 2"),
    ),
    "the balance after is that of before": (
        DATABASE,
        "billing_move",
        ("account.available, account.reserved,", "account.available - p_available, account.reserved - p_reserved,"),
    ),
    "a movement forgets what is held": (
        DATABASE,
        "billing_move",
        ("reserved = reserved + p_reserved", "reserved = reserved"),
    ),
    "a reserve holds less than it takes": (
        DATABASE,
        "billing_reserve",
        ("organization_id, p_amount, 'held'", "organization_id, p_amount - 1, 'held'"),
    ),
    "a hold closes whatever its state": (
        DATABASE,
        "billing_close",
        (" AND state = 'held'", ""),
    ),
    "a second close is silent": (
        ledger,
        "capture",
        (
            "    _close(",
            "    if Reservation.objects.filter(pk=reference, state='captured').exists():\n        return\n    _close(",
        ),
    ),
    "a closed hold is charged": (
        DATABASE,
        "billing_close",
        (
            "        RETURN NULL;",
            "        SELECT * FROM billing_reservation WHERE reference = p_reference INTO hold;",
        ),
    ),
    "a release forgets what is held": (
        DATABASE,
        "billing_close",
        ("'release', hold.amount, -hold.amount", "'release', hold.amount, 0"),
    ),
    "a release is booked as a charge": (
        ledger,
        "release",
        ("Reservation.State.RELEASED", "Reservation.State.CAPTURED"),
    ),
    "a charge goes to another organization": (
        DATABASE,
        "billing_close",
        ("billing_move(hold.account_id, 'capture'", f"billing_move({FIRST_ACCOUNT}, 'capture'"),
    ),
    "a release goes to another organization": (
        DATABASE,
        "billing_close",
        ("billing_move(hold.account_id, 'release'", f"billing_move({FIRST_ACCOUNT}, 'release'"),
    ),
    "a refund has no guard": (
        DATABASE,
        "billing_refund",
        (" AND refunded + p_amount <= amount", ""),
    ),
    "a refund comes before the charge": (
        DATABASE,
        "billing_refund",
        (" AND state = 'captured'", ""),
    ),
    "a refund has the reference of its hold": (
        DATABASE,
        "billing_refund",
        ("p_reference || '/' || hold.refunded", "p_reference"),
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
        ("if is_new and abs(amount) + _moved_alone_today(requested_by) <= adjustment.limit:", "if is_new:"),
    ),
    "many small adjustments pass for none": (
        adjustments,
        "request",
        ("abs(amount) + _moved_alone_today(requested_by)", "abs(amount)"),
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
        machine.prepare()
        for step, values in TOUR:
            getattr(machine, step)(*values)
    finally:
        machine.teardown()


@pytest.mark.parametrize("name", BUGS)
def test_a_planted_bug_is_caught(name, monkeypatch):
    module, function, change = BUGS[name]
    if module is DATABASE:
        plant_in_database(function, change)
    else:
        plant(monkeypatch, module, function, change)

    with pytest.raises(AssertionError) as caught:
        tour()

    assert not BROKEN.search(str(caught.value))


def test_without_a_bug_the_tour_finds_nothing():
    tour()
