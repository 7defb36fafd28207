"""The ledger: every unit explained, nothing negative, each hold closed once."""

import datetime as dt
import random
import threading

import pytest
import time_machine
from django.db import DatabaseError, IntegrityError, connection, connections, transaction

from accounts.tests.factories import OrganizationFactory
from billing import ledger, reconciliation
from billing.models import CreditAccount, LedgerEntry, Reservation
from seedancee2.api.errors import InsufficientCredits
from seedancee2.lib import clock

pytestmark = pytest.mark.django_db


def _organization(credits: int) -> int:
    organization = OrganizationFactory.create()
    ledger.open_account(organization_id=organization.pk)
    if credits:
        reference = f"grt_{organization.pk}"
        with transaction.atomic():
            ledger.grant(organization_id=organization.pk, amount=credits, reference=reference, actor="t", reason="t")
    return int(organization.pk)


def _reserve(organization_id: int, amount: int, reference: str) -> None:
    with transaction.atomic():
        ledger.reserve(organization_id=organization_id, amount=amount, reference=reference, actor="t")


def test_reserve_then_capture_charges_once():
    organization, stranger = _organization(100), _organization(7)

    _reserve(organization, 60, "vid_a")
    assert ledger.balance(organization_id=organization) == (40, 60)
    ledger.capture(reference="vid_a", actor="t")

    assert ledger.balance(organization_id=organization) == (40, 0)
    assert ledger.balance(organization_id=stranger) == (7, 0)
    rows = LedgerEntry.objects.filter(account_id=organization).order_by("sequence")
    assert list(rows.values_list("sequence", "kind", "available_after", "reserved_after")) == [
        (1, "grant", 100, 0),
        (2, "reserve", 40, 60),
        (3, "capture", 40, 0),
    ]
    assert reconciliation.discrepancies() == []


def test_release_gives_the_hold_back():
    organization = _organization(100)
    _reserve(organization, 60, "vid_a")

    ledger.release(reference="vid_a", actor="t", reason="generation_failed")

    assert ledger.balance(organization_id=organization) == (100, 0)
    assert Reservation.objects.get(pk="vid_a").state == "released"


@pytest.mark.parametrize("first", ["capture", "release"])
@pytest.mark.parametrize("second", ["capture", "release"])
def test_a_hold_is_closed_exactly_once(first, second):
    organization = _organization(100)
    _reserve(organization, 60, "vid_a")
    getattr(ledger, first)(reference="vid_a", actor="t")
    before = ledger.balance(organization_id=organization)

    with pytest.raises(ledger.ReservationClosed), transaction.atomic():
        getattr(ledger, second)(reference="vid_a", actor="t")

    assert ledger.balance(organization_id=organization) == before
    assert LedgerEntry.objects.filter(account_id=organization).count() == 3


def test_reserve_refuses_when_the_balance_is_one_short():
    organization = _organization(59)

    with pytest.raises(InsufficientCredits):
        _reserve(organization, 60, "vid_a")

    assert ledger.balance(organization_id=organization) == (59, 0)
    assert not Reservation.objects.exists()
    assert LedgerEntry.objects.filter(account_id=organization).count() == 1


def test_reserve_refuses_an_organization_without_an_account():
    organization = OrganizationFactory()

    with pytest.raises(InsufficientCredits):
        _reserve(organization.pk, 1, "vid_a")

    assert not CreditAccount.objects.filter(pk=organization.pk).exists()


def test_a_reference_is_granted_once():
    organization = _organization(5)

    with pytest.raises(ledger.RepeatedReference), transaction.atomic():
        ledger.grant(organization_id=organization, amount=5, reference=f"grt_{organization}", actor="t", reason="again")

    assert ledger.balance(organization_id=organization) == (5, 0)


def test_adjust_never_goes_below_zero():
    organization = _organization(5)

    with pytest.raises(InsufficientCredits):
        ledger.adjust(organization_id=organization, amount=-6, reference="adj_a", actor="t", reason="typing error")

    ledger.adjust(organization_id=organization, amount=-5, reference="adj_b", actor="t", reason="typing error")
    assert ledger.balance(organization_id=organization) == (0, 0)


@pytest.mark.parametrize(("amount", "reason"), [(0, "x"), (5, "  ")])
def test_adjust_needs_an_amount_and_a_reason(amount, reason):
    organization = _organization(5)

    with pytest.raises(ValueError, match="adjustment"):
        ledger.adjust(organization_id=organization, amount=amount, reference="adj_a", actor="t", reason=reason)

    assert ledger.balance(organization_id=organization) == (5, 0)


@pytest.mark.parametrize(
    "sql",
    [
        "UPDATE billing_ledgerentry SET reason = 'x'",
        "DELETE FROM billing_ledgerentry",
        "TRUNCATE billing_ledgerentry",
    ],
)
def test_the_database_refuses_to_change_entries(sql):
    organization = _organization(5)

    with pytest.raises(DatabaseError), transaction.atomic(), connection.cursor() as cursor:
        cursor.execute(sql)

    assert LedgerEntry.objects.filter(account_id=organization).count() == 1


def test_random_operations_keep_every_rule():
    rng = random.Random(20261122)
    organization, stranger = _organization(1_000), _organization(1_000)
    open_holds: list[str] = []
    for step in range(300):
        choice = rng.choice(["reserve", "capture", "release", "grant", "adjust"])
        try:
            with transaction.atomic():
                if choice == "reserve":
                    ledger.reserve(
                        organization_id=organization, amount=rng.randint(1, 200), reference=f"vid_{step}", actor="t"
                    )
                    open_holds.append(f"vid_{step}")
                elif choice in ("capture", "release") and open_holds:
                    reference = open_holds.pop(rng.randrange(len(open_holds)))
                    getattr(ledger, choice)(reference=reference, actor="t")
                elif choice == "grant":
                    ledger.grant(
                        organization_id=organization,
                        amount=rng.randint(1, 50),
                        reference=f"g{step}",
                        actor="t",
                        reason="",
                    )
                elif choice == "adjust":
                    ledger.adjust(
                        organization_id=organization,
                        amount=-rng.randint(1, 90),
                        reference=f"a{step}",
                        actor="t",
                        reason="r",
                    )
        except InsufficientCredits:
            pass
    assert reconciliation.discrepancies() == []
    assert ledger.balance(organization_id=stranger) == (1_000, 0)
    assert Reservation.objects.filter(state="held").count() == len(open_holds)


@pytest.mark.race
@pytest.mark.django_db(transaction=True)
def test_forty_parallel_reserves_on_a_balance_for_ten():
    organization = _organization(1_000)
    outcomes: list[str] = []

    def attempt(number: int) -> None:
        try:
            _reserve(organization, 100, f"vid_{number}")
            outcomes.append("held")
        except InsufficientCredits:
            outcomes.append("refused")
        finally:
            connections.close_all()

    threads = [threading.Thread(target=attempt, args=(number,)) for number in range(40)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    assert sorted(outcomes) == ["held"] * 10 + ["refused"] * 30
    assert ledger.balance(organization_id=organization) == (0, 1_000)
    assert reconciliation.discrepancies() == []


@pytest.mark.parametrize(
    ("sql", "rule"),
    [
        ("UPDATE billing_creditaccount SET available = available + 1", "balance_equals_entries"),
        ("UPDATE billing_creditaccount SET reserved = reserved + 1", "held_equals_open_reservations"),
        ("UPDATE billing_creditaccount SET sequence = sequence + 1", "sequence_has_no_gap"),
        ("UPDATE billing_reservation SET amount = amount + 1", "reservation_has_its_entries"),
        (
            "UPDATE billing_reservation SET state = 'captured', closed_at = now()",
            "reservation_has_its_entries",
        ),
    ],
)
def test_a_planted_mismatch_is_named(sql, rule):
    organization = _organization(100)
    _reserve(organization, 60, "vid_a")
    assert reconciliation.discrepancies() == []

    with connection.cursor() as cursor:
        cursor.execute(sql)

    assert rule in {item.rule for item in reconciliation.discrepancies()}


def test_refunds_never_exceed_the_charge():
    organization = _organization(100)
    _reserve(organization, 60, "vid_a")
    with pytest.raises(ValueError, match="cannot be refunded"):
        ledger.refund(reference="vid_a", amount=10, actor="t", reason="goodwill")
    ledger.capture(reference="vid_a", actor="t")

    ledger.refund(reference="vid_a", amount=20, actor="t", reason="goodwill")
    ledger.refund(reference="vid_a", amount=40, actor="t", reason="goodwill")
    for amount in (1, 0, -5):
        with pytest.raises(ValueError, match="cannot be refunded"):
            ledger.refund(reference="vid_a", amount=amount, actor="t", reason="goodwill")

    assert ledger.balance(organization_id=organization) == (100, 0)
    assert reconciliation.discrepancies() == []


def test_the_balance_of_any_past_moment_is_told():
    organization = _organization(0)
    start = dt.datetime(2026, 6, 29, 10, tzinfo=dt.UTC)
    with time_machine.travel(start, tick=False) as turned:
        ledger.grant(organization_id=organization, amount=100, reference="g1", actor="t", reason="t")
        turned.shift(60)
        _reserve(organization, 30, "vid_a")
        turned.shift(60)
        ledger.capture(reference="vid_a", actor="t")

    moments = [start - dt.timedelta(seconds=1), start, start + dt.timedelta(seconds=61), start + dt.timedelta(days=1)]
    balances = [ledger.balance_at(organization_id=organization, moment=moment) for moment in moments]

    assert balances == [(0, 0), (100, 0), (70, 30), (70, 0)]


def test_the_services_own_database_user_may_not_change_entries():
    with connection.cursor() as cursor:
        cursor.execute(
            "SELECT coalesce(array_agg(privilege_type::text), '{}') FROM information_schema.role_table_grants"
            " WHERE table_name = 'billing_ledgerentry' AND privilege_type IN ('UPDATE', 'DELETE', 'TRUNCATE')"
        )
        (remaining,) = cursor.fetchone()

    assert remaining == []


def test_the_past_balance_is_right_although_a_clock_went_back():
    organization = _organization(0)
    with time_machine.travel(dt.datetime(2126, 6, 29, 10, tzinfo=dt.UTC), tick=False) as turned:
        ledger.grant(organization_id=organization, amount=100, reference="g1", actor="t", reason="t")
        turned.shift(-0.005)
        ledger.grant(organization_id=organization, amount=50, reference="g2", actor="t", reason="t")
        turned.shift(3600)

        assert ledger.balance_at(organization_id=organization, moment=clock.now()) == (150, 0)


MOVEMENTS = {
    "grant": lambda account: ledger.grant(organization_id=account, amount=5, reference="g", actor="t", reason="t"),
    "adjust": lambda account: ledger.adjust(organization_id=account, amount=-5, reference="a", actor="t", reason="t"),
    "reserve": lambda account: ledger.reserve(organization_id=account, amount=5, reference="vid_c", actor="t"),
    "capture": lambda _: ledger.capture(reference="vid_a", actor="t"),
    "release": lambda _: ledger.release(reference="vid_a", actor="t"),
    "refund": lambda _: ledger.refund(reference="vid_b", amount=5, actor="t", reason="t"),
}


def _with_holds() -> int:
    """One hold that is open and one that was charged."""
    organization = _organization(100)
    _reserve(organization, 10, "vid_a")
    _reserve(organization, 20, "vid_b")
    with transaction.atomic():
        ledger.capture(reference="vid_b", actor="t")
    return organization


@pytest.mark.parametrize("movement", MOVEMENTS)
@pytest.mark.django_db(transaction=True)
def test_credits_move_in_a_transaction_only(movement):
    organization = _with_holds()
    other = OrganizationFactory.create().pk

    for account in (organization, other):
        with pytest.raises(ledger.NoTransaction, match="open one around this call"):
            MOVEMENTS[movement](account)

    assert ledger.balance(organization_id=organization) == (70, 10)
    assert LedgerEntry.objects.count() == 4
    assert list(Reservation.objects.order_by("pk").values_list("pk", "state", "refunded")) == [
        ("vid_a", "held", 0),
        ("vid_b", "captured", 0),
    ]
    assert not CreditAccount.objects.filter(pk=other).exists()


@pytest.mark.parametrize("movement", MOVEMENTS)
def test_a_movement_is_one_statement_and_one_row_of_the_account(movement, django_assert_num_queries):
    organization = _with_holds()
    updated = "SELECT pg_stat_get_xact_tuples_updated('billing_creditaccount'::regclass)"
    with connection.cursor() as cursor:
        cursor.execute(updated)
        (before,) = cursor.fetchone()

        # A grant and an adjustment make sure of the account first.
        with django_assert_num_queries(2 if movement in ("grant", "adjust") else 1):
            MOVEMENTS[movement](organization)

        cursor.execute(updated)
        assert cursor.fetchone() == (before + 1,)
    assert LedgerEntry.objects.filter(account_id=organization).count() == 5


def test_a_closed_hold_cannot_be_closed_otherwise_behind_our_back():
    organization = _with_holds()

    with pytest.raises(IntegrityError, match="billing_entry_closing"), transaction.atomic():
        LedgerEntry.objects.create(
            account_id=organization,
            sequence=5,
            kind="release",
            available_change=20,
            reserved_change=-20,
            available_after=90,
            reserved_after=0,
            reference="vid_b",
            actor="t",
        )


def test_a_past_balance_is_one_read(django_assert_num_queries):
    organization = _with_holds()
    before = clock.now() - dt.timedelta(days=1)

    with django_assert_num_queries(1):
        assert ledger.balance_at(organization_id=organization, moment=clock.now()) == (70, 10)
    assert ledger.balance_at(organization_id=organization, moment=before) == (0, 0)
