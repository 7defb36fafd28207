"""Asking for credits: one open request, two people above the limit, and every step in the audit log."""

import concurrent.futures

import pytest
from django.db import connection, connections

from accounts import audit
from accounts.models import AuditEntry, Organization, User
from accounts.tests.factories import OrganizationFactory, UserFactory
from billing import adjustments, ledger, reconciliation, topups
from billing.models import Adjustment, LedgerEntry, TopUpRequest

pytestmark = pytest.mark.django_db

State = TopUpRequest.State


@pytest.fixture(autouse=True)
def _limit(settings):
    settings.ADJUSTMENT_LIMIT = 100


@pytest.fixture
def organization() -> Organization:
    return OrganizationFactory.create()


@pytest.fixture
def ann() -> User:
    return UserFactory.create(is_staff=True)


@pytest.fixture
def bob() -> User:
    return UserFactory.create(is_staff=True)


def ask(organization: Organization, amount: int = 100) -> TopUpRequest:
    customer = UserFactory.create()
    return topups.ask(organization_id=organization.pk, amount=amount, note=" for May ", asked_by=customer)


def actions(organization: Organization) -> list[str]:
    return list(AuditEntry.objects.filter(organization=organization).order_by("pk").values_list("action", flat=True))


def balance(organization: Organization) -> tuple[int, int]:
    return ledger.balance(organization_id=organization.pk)


def test_a_grant_within_the_limit_moves_at_once_and_once(organization, ann):
    request = ask(organization)

    for _ in range(2):
        topups.grant(request_id=request.pk, amount=100, reason="Invoice 7", granted_by=ann)

    request.refresh_from_db()
    assert (request.state, request.reply, request.note) == (State.GRANTED, "Invoice 7", "for May")
    assert balance(organization) == (100, 0)
    entry = LedgerEntry.objects.get()
    assert (entry.kind, entry.reason, entry.actor, entry.reference) == (
        "adjust",
        "Invoice 7",
        f"user:{ann.pk}",
        request.pk,
    )
    assert actions(organization) == [
        "credits.requested",
        "credits.adjustment_requested",
        "credits.adjusted",
        "credits.request_granted",
    ]
    granted = AuditEntry.objects.get(action="credits.request_granted")
    assert (granted.actor, granted.before, granted.after) == (ann, {"asked": 100}, {"granted": 100})
    assert reconciliation.discrepancies() == []


def test_above_the_limit_a_second_person_ends_the_request(organization, ann, bob):
    request = ask(organization, 101)

    topups.grant(request_id=request.pk, amount=101, reason="Invoice 7", granted_by=ann)

    request.refresh_from_db()
    assert (request.state, request.adjustment_id, balance(organization)) == (State.OPEN, request.pk, (0, 0))
    with pytest.raises(topups.NotOpen):
        topups.withdraw(organization_id=organization.pk, request_id=request.pk, withdrawn_by=bob)
    with pytest.raises(adjustments.NotAllowed):
        adjustments.approve(adjustment_id=request.pk, approved_by=f"user:{ann.pk}")
    assert balance(organization) == (0, 0)

    adjustments.approve(adjustment_id=request.pk, approved_by=f"user:{bob.pk}")

    request.refresh_from_db()
    assert (request.state, request.reply, balance(organization)) == (State.GRANTED, "Invoice 7", (101, 0))
    assert request.decided_at is not None
    assert actions(organization)[-2:] == ["credits.adjustment_approved", "credits.adjusted"]
    assert AuditEntry.objects.get(action="credits.adjustment_approved").actor == bob


def test_a_declined_adjustment_declines_the_request_without_the_words_of_the_grant(organization, ann, bob):
    request = ask(organization, 101)
    topups.grant(request_id=request.pk, amount=101, reason="Invoice 7", granted_by=ann)

    adjustments.decline(adjustment_id=request.pk, declined_by=f"user:{bob.pk}")

    request.refresh_from_db()
    assert (request.state, request.reply, balance(organization)) == (State.DECLINED, "", (0, 0))
    told = audit.told_to_customer(organization.pk).order_by("-pk")[0]
    assert (told.action, told.target, told.actor) == ("credits.request_declined", request.pk, bob)
    assert (told.before, told.after, told.reason) == ({"asked": 101}, {}, "")


def test_declining_takes_the_waiting_adjustment_along(organization, ann, bob):
    request = ask(organization, 101)
    topups.grant(request_id=request.pk, amount=101, reason="Invoice 7", granted_by=ann)

    topups.decline(request_id=request.pk, reason="No order yet", declined_by=bob)

    request.refresh_from_db()
    assert (request.state, request.reply, balance(organization)) == (State.DECLINED, "No order yet", (0, 0))
    assert Adjustment.objects.get().declined_at is not None
    told = AuditEntry.objects.filter(action="credits.request_declined")
    assert list(told.values_list("reason", flat=True)) == ["No order yet"]
    with pytest.raises(topups.NotOpen):
        topups.grant(request_id=request.pk, amount=1, reason="x", granted_by=ann)
    assert balance(organization) == (0, 0)


def test_one_request_is_open_at_a_time(organization, ann):
    first = ask(organization)
    with pytest.raises(topups.AlreadyOpen):
        ask(organization, 5)
    assert TopUpRequest.objects.count() == 1
    assert actions(organization) == ["credits.requested"]

    topups.decline(request_id=first.pk, reason="No", declined_by=ann)
    second = ask(organization, 5)
    topups.withdraw(organization_id=organization.pk, request_id=second.pk, withdrawn_by=ann)
    ask(organization, 6)

    assert [row.state for row in TopUpRequest.objects.order_by("pk")] == [State.DECLINED, State.WITHDRAWN, State.OPEN]
    with pytest.raises(topups.NotOpen):
        topups.grant(request_id=second.pk, amount=5, reason="x", granted_by=ann)
    assert balance(organization) == (0, 0)


def test_nobody_grants_what_they_asked_for(organization, ann):
    request = topups.ask(organization_id=organization.pk, amount=5, note="", asked_by=ann)

    with pytest.raises(adjustments.NotAllowed):
        topups.grant(request_id=request.pk, amount=5, reason="x", granted_by=ann)

    assert (balance(organization), Adjustment.objects.count()) == ((0, 0), 0)


def test_nor_approves_it_as_the_second_person(organization, ann, bob):
    request = topups.ask(organization_id=organization.pk, amount=500, note="", asked_by=ann)
    topups.grant(request_id=request.pk, amount=500, reason="x", granted_by=bob)

    with pytest.raises(adjustments.NotAllowed, match="customer who asked"):
        adjustments.approve(adjustment_id=request.pk, approved_by=f"user:{ann.pk}")

    assert balance(organization) == (0, 0)
    assert "credits.adjusted" not in actions(organization)
    carol = UserFactory.create(is_staff=True)
    adjustments.approve(adjustment_id=request.pk, approved_by=f"user:{carol.pk}")
    assert balance(organization) == (500, 0)
    assert actions(organization)[-1] == "credits.adjusted"


@pytest.mark.parametrize("amount", [0, -5, topups.MAX_AMOUNT + 1])
def test_nonsense_is_not_asked_for_and_not_granted(organization, ann, amount):
    with pytest.raises(ValueError, match="credits"):
        ask(organization, amount)
    assert not TopUpRequest.objects.exists()
    request = ask(organization, 7)
    with pytest.raises(ValueError, match="credit"):
        topups.grant(request_id=request.pk, amount=amount, reason="x", granted_by=ann)
    with pytest.raises(ValueError, match="reason"):
        topups.grant(request_id=request.pk, amount=7, reason=" ", granted_by=ann)
    with pytest.raises(ValueError, match="reason"):
        topups.decline(request_id=request.pk, reason=" ", declined_by=ann)

    request.refresh_from_db()
    assert (request.state, request.adjustment_id, balance(organization)) == (State.OPEN, None, (0, 0))


def test_a_stranger_withdraws_nothing(organization, ann):
    request = ask(organization)

    with pytest.raises(TopUpRequest.DoesNotExist):
        topups.withdraw(
            organization_id=OrganizationFactory.create().pk, request_id=request.pk, withdrawn_by=UserFactory.create()
        )

    request.refresh_from_db()
    assert request.state == State.OPEN


@pytest.mark.django_db(transaction=True)
def test_eight_clicks_at_once_ask_once_and_grant_once():
    organization, customer = OrganizationFactory.create(), UserFactory.create()
    staff = [UserFactory.create(is_staff=True) for _ in range(8)]

    def at_once(work, arguments):
        def run(argument):
            try:
                return work(argument)
            except topups.AlreadyOpen:
                return None
            finally:
                connections.close_all()

        with concurrent.futures.ThreadPoolExecutor(8) as pool:
            return list(pool.map(run, arguments))

    asked = at_once(
        lambda n: topups.ask(organization_id=organization.pk, amount=50, note=str(n), asked_by=customer), range(8)
    )
    [request] = [one for one in asked if one]
    at_once(lambda one: topups.grant(request_id=request.pk, amount=50, reason="x", granted_by=one), staff)

    assert TopUpRequest.objects.count() == 1
    assert balance(organization) == (50, 0)
    assert AuditEntry.objects.filter(action="credits.request_granted").count() == 1
    assert connection.is_usable()
