"""Allowances of keys: bugs planted into how they are counted must be found, and months end where UTC says."""

import datetime as dt

import pytest
import time_machine
from django.db import IntegrityError, connection, transaction

from accounts.models import Organization
from accounts.tests.factories import OrganizationFactory, issue_key
from billing import allowances, ledger, reconciliation
from billing.allowances import Allowance
from billing.models import KeyAllowance
from billing.tests.planting import plant_in_database
from seedancee2.api.errors import InsufficientCredits

pytestmark = pytest.mark.django_db


@pytest.fixture
def organization() -> Organization:
    """An organization with 1,000 credits and a key with a cap of 100."""
    made = OrganizationFactory.create()
    issue_key(made, monthly_credit_cap=100)
    with transaction.atomic():
        ledger.grant(organization_id=made.pk, amount=1_000, reference="grt_1", actor="t", reason="t")
    return made


def _reserve(organization: Organization, reference: str, amount: int = 30) -> None:
    allowance = Allowance(api_key_id=organization.api_keys.get().pk, monthly_cap=100)
    with transaction.atomic():
        ledger.reserve(
            organization_id=organization.pk, amount=amount, reference=reference, actor="t", allowance=allowance
        )


def _tour(organization: Organization) -> list[str]:
    for reference in ("vid_a", "vid_b", "vid_c"):
        _reserve(organization, reference)
    with transaction.atomic():
        ledger.release(reference="vid_a", actor="t")
        ledger.capture(reference="vid_b", actor="t")
        ledger.refund(reference="vid_b", amount=10, actor="t", reason="r")
    return sorted({found.rule for found in reconciliation.discrepancies()})


def test_what_a_tour_leaves_is_explained(organization):
    assert _tour(organization) == []
    assert KeyAllowance.objects.get().used == 50


@pytest.mark.parametrize(
    ("function", "old", "new"),
    [
        ("billing_reserve_within", "SET used = a.used + p_amount", "SET used = a.used + p_amount - 1"),
        ("billing_close", "used = used - hold.amount", "used = used"),
        ("billing_close", "used = used - hold.amount", "used = used - hold.amount - 1"),
        ("billing_refund", "used = used - p_amount", "used = used - hold.amount"),
        ("billing_refund", "WHERE id = hold.allowance_id", "WHERE false"),
        ("billing_reserve_within", "p_at, allowance.id", "p_at, NULL"),
    ],
)
def test_a_planted_bug_is_found(organization, function, old, new):
    plant_in_database(function, (old, new))
    assert _tour(organization) == ["allowance_equals_its_holds"]


def test_a_guard_that_is_taken_away_lets_too_much_pass(organization):
    plant_in_database("billing_reserve_within", (" WHERE a.used + p_amount <= cap", ""))
    for number in range(4):
        _reserve(organization, f"vid_{number}")
    assert KeyAllowance.objects.get().used == 120


def test_with_its_guard_the_cap_holds_to_the_unit(organization):
    for reference, amount in (("vid_a", 30), ("vid_b", 70)):
        _reserve(organization, reference, amount)
    with pytest.raises(InsufficientCredits, match="0 are left, and this video costs 1"):
        _reserve(organization, "vid_c", 1)
    assert KeyAllowance.objects.get().used == 100
    assert ledger.balance(organization_id=organization.pk) == (900, 100)


def test_a_hold_in_the_allowance_of_another_month_is_found(organization):
    _reserve(organization, "vid_a")
    KeyAllowance.objects.update(month=dt.date(2020, 1, 1))
    assert [found.rule for found in reconciliation.discrepancies()] == ["hold_counts_in_its_month"]


def test_no_allowance_goes_below_zero(organization):
    _reserve(organization, "vid_a")
    with pytest.raises(IntegrityError, match="billing_allowance_used"), transaction.atomic():
        KeyAllowance.objects.update(used=-1)


@pytest.mark.parametrize(
    ("moment", "month", "resets_at"),
    [
        ("2026-11-30T23:59:59.999Z", "2026-11-01", "2026-12-01"),
        ("2026-12-01T00:00:00Z", "2026-12-01", "2027-01-01"),
        ("2028-02-29T12:00:00Z", "2028-02-01", "2028-03-01"),
        ("2027-01-31T00:00:00Z", "2027-01-01", "2027-02-01"),
    ],
)
def test_a_month_is_that_of_utc_whatever_the_session_thinks(organization, moment, month, resets_at):
    with connection.cursor() as cursor:
        cursor.execute("SET LOCAL TIME ZONE 'Pacific/Auckland'")
    at = dt.datetime.fromisoformat(moment)
    with time_machine.travel(at, tick=False):
        _reserve(organization, "vid_a")
        assert allowances.used_this_month([organization.api_keys.get().pk]) == {organization.api_keys.get().pk: 30}
    assert KeyAllowance.objects.get().month == dt.date.fromisoformat(month)
    assert allowances.resets_at(at) == dt.datetime.fromisoformat(f"{resets_at}T00:00:00+00:00")
    assert reconciliation.discrepancies() == []
