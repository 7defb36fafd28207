"""Many at once on one hold: a hold is closed once, whoever comes first, and a balance for N carries exactly N."""

import threading
from collections import Counter
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor

import pytest
from django.db import connections, transaction

from accounts.tests.factories import OrganizationFactory
from billing import adjustments, ledger, reconciliation
from billing.models import LedgerEntry, Reservation
from seedancee2.api.errors import InsufficientCredits

pytestmark = [pytest.mark.race, pytest.mark.django_db(transaction=True)]

THREADS = 8  # fewer than the pool has connections


def _organization(credits: int) -> int:
    organization: int = OrganizationFactory.create().pk
    with transaction.atomic():
        ledger.grant(organization_id=organization, amount=credits, reference="grt_1", actor="t", reason="t")
    return organization


def _reserve(organization: int, amount: int, reference: str) -> None:
    with transaction.atomic():
        ledger.reserve(organization_id=organization, amount=amount, reference=reference, actor="t")


def _at_once(calls: Iterable[Callable[[], object]]) -> Counter[str]:
    """Make all calls, eight at a time, each in its own transaction; count how they ended."""
    begin = threading.Barrier(THREADS)
    first = threading.local()

    def one(call: Callable[[], object]) -> str:
        if not hasattr(first, "passed"):
            first.passed = True
            begin.wait(10)
        try:
            with transaction.atomic():
                call()
        except (
            ledger.ReservationClosed,
            ledger.RepeatedReference,
            adjustments.NotAllowed,
            InsufficientCredits,
            ValueError,
        ) as error:
            return type(error).__name__
        finally:
            connections.close_all()
        return "done"

    with ThreadPoolExecutor(max_workers=THREADS) as pool:
        return Counter(pool.map(one, calls))


def _close(kind: str, reference: str) -> Callable[[], object]:
    call = ledger.capture if kind == "capture" else ledger.release
    return lambda: call(reference=reference, actor="t")


@pytest.mark.parametrize("kind", ["capture", "release"])
def test_a_hundred_identical_closes_move_once(kind):
    organization = _organization(100)
    _reserve(organization, 60, "vid_a")

    ended = _at_once([_close(kind, "vid_a")] * 100)

    assert ended == {"done": 1, "ReservationClosed": 99}
    assert LedgerEntry.objects.filter(reference="vid_a", kind=kind).count() == 1
    assert ledger.balance(organization_id=organization) == ((40, 0) if kind == "capture" else (100, 0))
    assert reconciliation.discrepancies() == []


def test_of_a_charge_and_a_release_exactly_one_wins():
    organization = _organization(1_000)
    holds = [f"vid_{number}" for number in range(25)]
    for reference in holds:
        _reserve(organization, 10, reference)

    ended = _at_once(_close(kind, reference) for reference in holds for kind in ("capture", "release") * 2)

    assert ended == {"done": 25, "ReservationClosed": 75}
    captured = Reservation.objects.filter(state="captured").count()
    assert ledger.balance(organization_id=organization) == (1_000 - 10 * captured, 0)
    assert reconciliation.discrepancies() == []


def test_two_hundred_reserves_on_a_balance_for_fifty():
    organization = _organization(1_000)

    ended = _at_once(
        lambda number=number: ledger.reserve(
            organization_id=organization, amount=20, reference=f"vid_{number}", actor="t"
        )
        for number in range(200)
    )

    assert ended == {"done": 50, "InsufficientCredits": 150}
    assert ledger.balance(organization_id=organization) == (0, 1_000)
    assert reconciliation.discrepancies() == []


def test_partial_refunds_at_once_never_exceed_the_charge():
    organization = _organization(100)
    _reserve(organization, 100, "vid_a")
    with transaction.atomic():
        ledger.capture(reference="vid_a", actor="t")

    ended = _at_once([lambda: ledger.refund(reference="vid_a", amount=10, actor="t", reason="r")] * 40)

    assert ended == {"done": 10, "ValueError": 30}
    assert ledger.balance(organization_id=organization) == (100, 0)
    assert reconciliation.discrepancies() == []


def test_refunds_of_one_person_at_once_never_exceed_the_days_limit(settings):
    settings.ADJUSTMENT_LIMIT = 30
    organization = _organization(100)
    _reserve(organization, 100, "vid_a")
    with transaction.atomic():
        ledger.capture(reference="vid_a", actor="t")

    def give_back():
        adjustments.demand_refund(organization_id=organization, amount=10, refunded_by="user:1")
        ledger.refund(reference="vid_a", amount=10, actor="user:1", reason="r")

    ended = _at_once([give_back] * 20)

    assert ended == {"done": 3, "AboveLimit": 17}
    assert ledger.balance(organization_id=organization) == (30, 0)


def test_approvals_of_several_people_at_once_move_once(settings):
    settings.ADJUSTMENT_LIMIT = 10
    organization = _organization(100)
    name = adjustments.request(organization_id=organization, amount=500, reason="r", requested_by="user:ann").pk

    ended = _at_once(
        lambda number=number: adjustments.approve(adjustment_id=name, approved_by=f"user:{number}")
        for number in range(40)
    )

    assert ended == {"done": 40}
    assert ledger.balance(organization_id=organization) == (600, 0)
    assert reconciliation.discrepancies() == []
