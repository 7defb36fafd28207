"""Adjustments: small ones at once, large ones by two people, and the database itself insists."""

import pytest
from django.db import IntegrityError, transaction

from accounts.tests.factories import MembershipFactory, OrganizationFactory
from billing import adjustments, ledger, reconciliation
from billing.models import Adjustment, LedgerEntry
from seedancee2.api.errors import InsufficientCredits
from seedancee2.lib import clock

pytestmark = pytest.mark.django_db

ANN, BOB = "user:900000001", "user:900000002"  # nobody that a test makes has these numbers


@pytest.fixture(autouse=True)
def _limit(settings):
    settings.ADJUSTMENT_LIMIT = 100


def _request(amount: int, *, by: str = ANN, **values) -> Adjustment:
    organization = OrganizationFactory.create()
    return adjustments.request(
        organization_id=organization.pk, amount=amount, reason="goodwill", requested_by=by, **values
    )


def _balance(adjustment: Adjustment) -> tuple[int, int]:
    return ledger.balance(organization_id=adjustment.account_id)


def test_up_to_the_limit_one_person_is_enough():
    adjustment = _request(100)

    assert adjustment.moved_at is not None
    assert _balance(adjustment) == (100, 0)


def test_above_the_limit_nothing_moves_until_somebody_else_approves():
    adjustment = _request(101)
    assert _balance(adjustment) == (0, 0)
    with pytest.raises(adjustments.NotAllowed, match="Somebody else"):
        adjustments.approve(adjustment_id=adjustment.pk, approved_by=ANN)
    assert _balance(adjustment) == (0, 0)

    adjustments.approve(adjustment_id=adjustment.pk, approved_by=BOB)
    adjustments.approve(adjustment_id=adjustment.pk, approved_by=BOB)

    assert _balance(adjustment) == (101, 0)
    entry = LedgerEntry.objects.get()
    assert (entry.kind, entry.actor, entry.reason) == ("adjust", f"{ANN}, approved by {BOB}", "goodwill")
    assert reconciliation.discrepancies() == []


def test_nobody_moves_credits_of_an_organization_they_are_a_member_of():
    waiting = _request(101)
    member = MembershipFactory.create(organization_id=waiting.account_id, role="viewer").user
    by = f"user:{member.pk}"

    with pytest.raises(adjustments.NotAllowed, match="member of this organization"):
        adjustments.request(organization_id=waiting.account_id, amount=5, reason="goodwill", requested_by=by)
    with pytest.raises(adjustments.NotAllowed, match="member of this organization"):
        adjustments.approve(adjustment_id=waiting.pk, approved_by=by)

    assert (_balance(waiting), Adjustment.objects.count()) == ((0, 0), 1)
    assert _balance(_request(5, by=by)) == (5, 0)


def test_the_database_refuses_to_move_a_large_amount_by_one_person():
    adjustment = _request(101)

    for approver in ("", ANN):
        with pytest.raises(IntegrityError, match="four_eyes"), transaction.atomic():
            Adjustment.objects.filter(pk=adjustment.pk).update(moved_at=clock.now(), approved_by=approver)


def test_a_later_limit_does_not_free_what_waits(settings):
    adjustment = _request(101)
    settings.ADJUSTMENT_LIMIT = 1_000_000

    with pytest.raises(adjustments.NotAllowed):
        adjustments.approve(adjustment_id=adjustment.pk, approved_by=ANN)


def test_a_declined_adjustment_never_moves():
    adjustment = _request(101)
    adjustments.decline(adjustment_id=adjustment.pk, declined_by=BOB)

    with pytest.raises(adjustments.NotAllowed, match="declined"):
        adjustments.approve(adjustment_id=adjustment.pk, approved_by=BOB)

    assert _balance(adjustment) == (0, 0)


def test_a_double_click_moves_once():
    first = _request(50, adjustment_id="adj_1")
    adjustments.request(
        organization_id=first.account_id, amount=50, reason="goodwill", requested_by=ANN, adjustment_id="adj_1"
    )

    assert _balance(first) == (50, 0)


def test_a_correction_down_never_goes_below_zero():
    with pytest.raises(InsufficientCredits), transaction.atomic():
        _request(-1)

    assert not Adjustment.objects.exists()


def test_the_command_line_acts_alone_under_its_own_name():
    adjustment = _request(1_000_000, by=adjustments.CLI)

    assert _balance(adjustment) == (1_000_000, 0)
    assert LedgerEntry.objects.get().actor == "system:cli"


def test_a_moved_adjustment_without_its_entry_is_named():
    adjustment = _request(101)
    Adjustment.objects.filter(pk=adjustment.pk).update(moved_at=clock.now(), approved_by=BOB)

    assert [item.rule for item in reconciliation.discrepancies()] == ["adjustment_has_its_entry"]


def test_slices_do_not_get_round_the_limit():
    first = _request(60)
    values = {"organization_id": first.account_id, "reason": "goodwill"}

    second = adjustments.request(amount=-41, requested_by=ANN, **values)
    other_person = adjustments.request(amount=40, requested_by=BOB, **values)

    assert (second.moved_at, other_person.moved_at is None) == (None, False)
    assert _balance(first) == (100, 0)
    adjustments.approve(adjustment_id=second.pk, approved_by=BOB)
    assert _balance(first) == (59, 0)


@pytest.mark.parametrize(("amount", "reason"), [(0, "x"), (10**12 + 1, "x"), (5, " "), (5, "x" * 501)])
def test_nonsense_is_refused(amount, reason):
    organization = OrganizationFactory.create()

    with pytest.raises(ValueError, match="adjustment"):
        adjustments.request(organization_id=organization.pk, amount=amount, reason=reason, requested_by=ANN)

    assert not Adjustment.objects.exists()


def test_an_id_serves_one_adjustment_only():
    first = _request(50, adjustment_id="adj_1")

    with pytest.raises(ValueError, match="another adjustment"), transaction.atomic():
        _request(50, adjustment_id="adj_1")

    assert _balance(first) == (50, 0)
    assert Adjustment.objects.count() == 1
