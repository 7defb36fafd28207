"""Mails at low balances and about requests for credits: to whom, how often, and through every fault."""

import concurrent.futures
import contextlib
import datetime as dt
import threading
from smtplib import SMTPRecipientsRefused, SMTPServerDisconnected

import pytest
import time_machine
from django.core import mail
from django.core.mail.backends.locmem import EmailBackend
from django.db import connections, transaction

from accounts.models import AuditEntry, Membership, Organization
from accounts.tests.factories import MembershipFactory, OrganizationFactory, UserFactory
from billing import alerts, ledger, notices, topups
from billing.models import BalanceAlert, TopUpRequest
from seedancee2.lib import clock, ids

pytestmark = pytest.mark.django_db

Role = Membership.Role
NOW = dt.datetime(2026, 11, 23, 12, tzinfo=dt.UTC)


class Unreliable(EmailBackend):
    """A mail server that fails as it is told, before or after it took the message."""

    fails_with: Exception | None = None
    is_after = False

    def send_messages(self, messages):
        """Take messages, or fail."""
        if self.fails_with is not None and not self.is_after:
            raise self.fails_with
        count = super().send_messages(messages)
        if self.fails_with is not None:
            raise self.fails_with
        return count


@pytest.fixture(autouse=True)
def _server(settings, monkeypatch):
    settings.EMAIL_BACKEND = f"{__name__}.Unreliable"
    settings.STAFF_EMAIL = "team@seedancee2.example"
    settings.DEFAULT_FROM_EMAIL = "Seedancee2 <no-reply@seedancee2.example>"
    settings.PUBLIC_BASE_URL = "https://api.example"


@pytest.fixture
def organization() -> Organization:
    organization = OrganizationFactory.create(name="North\nwind")
    for role in Role.values:
        MembershipFactory.create(
            organization=organization, role=role, user=UserFactory.create(email=f"{role}@example.com")
        )
    gone = UserFactory.create(email="gone@example.com", is_active=False)
    MembershipFactory.create(organization=organization, role=Role.OWNER, user=gone)
    MembershipFactory.create(role=Role.OWNER)
    return organization


def move(organization: Organization, amount: int) -> None:
    with transaction.atomic():
        ledger.adjust(
            organization_id=organization.pk, amount=amount, reference=ids.new("adj"), actor="t", reason="test"
        )


def add(organization: Organization, credits: int) -> BalanceAlert:
    return alerts.add(organization_id=organization.pk, credits=credits, added_by=UserFactory.create())


def test_one_mail_for_each_crossing_downward(organization):
    with time_machine.travel(NOW, tick=False) as traveller:
        move(organization, 1_000)
        add(organization, 500)
        assert notices.tell() == 0
        move(organization, -500)
        assert notices.tell() == 0  # 500 is not below 500
        move(organization, -1)
        assert [notices.tell() for _ in range(3)] == [1, 0, 0]
        move(organization, -100)
        assert notices.tell() == 0

        move(organization, 400)
        assert notices.tell() == 0
        traveller.shift(alerts.QUIET + dt.timedelta(seconds=1))
        move(organization, -400)
        assert [notices.tell() for _ in range(3)] == [1, 0, 0]

    first, second = mail.outbox
    assert first.subject == "North wind has 499 Seedancee2 credits left"
    assert sorted(first.to) == ["admin@example.com", "billing@example.com", "owner@example.com"]
    assert "below the 500" in first.body
    assert f"https://api.example/console/billing/?organization={organization.pk}" in first.body
    assert first.extra_headers["Message-ID"] != second.extra_headers["Message-ID"]


def test_a_balance_that_swings_around_the_threshold_tells_once_an_hour(organization):
    with time_machine.travel(NOW, tick=False) as traveller:
        move(organization, 500)
        add(organization, 500)
        for _ in range(59):
            move(organization, -20)
            notices.tell()
            move(organization, 20)
            notices.tell()
            traveller.shift(dt.timedelta(minutes=1))
        assert len(mail.outbox) == 1
        move(organization, -20)
        traveller.shift(dt.timedelta(minutes=2))
        assert notices.tell() == 1  # what was put off is told while it still holds


def test_several_thresholds_crossed_at_once_make_one_mail_about_the_lowest(organization):
    move(organization, 1_000)
    for credits in (900, 500, 100):
        add(organization, credits)
    move(organization, -800)

    assert [notices.tell(), notices.tell()] == [1, 0]

    assert "below the 500" in mail.outbox[0].body
    move(organization, -150)
    assert notices.tell() == 1
    assert "below the 100" in mail.outbox[1].body


def test_a_threshold_above_the_balance_waits_for_the_balance_to_rise(organization):
    move(organization, 100)
    alert = add(organization, 500)
    assert (alert.is_armed, notices.tell()) == (False, 0)
    move(organization, 400)
    assert notices.tell() == 0
    move(organization, -1)
    assert notices.tell() == 1


def test_held_credits_are_not_available(organization):
    move(organization, 1_000)
    add(organization, 500)
    with transaction.atomic():
        ledger.reserve(organization_id=organization.pk, amount=501, reference="vid_1", actor="t")

    assert notices.tell() == 1
    assert "Another 501 credits are held" in mail.outbox[0].body


@pytest.mark.parametrize("is_after", [False, True])
def test_a_mail_server_that_fails_only_delays(organization, monkeypatch, is_after):
    with time_machine.travel(NOW, tick=False) as traveller:
        move(organization, 1_000)
        add(organization, 500)
        move(organization, -600)
        monkeypatch.setattr(Unreliable, "fails_with", SMTPServerDisconnected("gone"))
        monkeypatch.setattr(Unreliable, "is_after", is_after)
        assert [notices.tell(), notices.tell()] == [0, 0]  # the second finds it leased
        monkeypatch.setattr(Unreliable, "fails_with", None)
        assert notices.tell() == 0
        traveller.shift(notices.LEASE + dt.timedelta(seconds=1))
        assert [notices.tell(), notices.tell()] == [1, 0]

    # Whoever got it twice got the same message twice.
    assert len(mail.outbox) == 1 + is_after
    assert len({message.extra_headers["Message-ID"] for message in mail.outbox}) == 1


def test_a_process_that_dies_while_it_sends_delays_only(organization, monkeypatch):
    with time_machine.travel(NOW, tick=False) as traveller:
        move(organization, 1_000)
        add(organization, 500)
        move(organization, -600)
        monkeypatch.setattr(Unreliable, "fails_with", KeyboardInterrupt())
        with pytest.raises(KeyboardInterrupt):
            notices.tell()
        monkeypatch.setattr(Unreliable, "fails_with", None)
        traveller.shift(notices.LEASE + dt.timedelta(seconds=1))
        assert notices.tell() == 1


def test_addresses_that_no_server_takes_are_not_tried_for_ever(organization, monkeypatch):
    move(organization, 1_000)
    add(organization, 500)
    move(organization, -600)
    monkeypatch.setattr(Unreliable, "fails_with", SMTPRecipientsRefused({}))
    notices.tell()
    assert BalanceAlert.objects.get().told_at is not None


@pytest.mark.django_db(transaction=True)
def test_eight_sweeps_at_once_send_one_mail():
    organization = MembershipFactory.create(role=Role.OWNER).organization
    move(organization, 1_000)
    for credits in (500, 600):
        add(organization, credits)
    topups.ask(organization_id=organization.pk, amount=5, note="", asked_by=UserFactory.create())
    move(organization, -600)

    def sweep(_):
        try:
            return notices.tell()
        finally:
            connections.close_all()

    with concurrent.futures.ThreadPoolExecutor(8) as pool:
        assert sum(pool.map(sweep, range(8))) == 2
    assert len(mail.outbox) == 2


def test_an_organization_without_anybody_to_tell_is_not_asked_again():
    organization = OrganizationFactory.create()
    move(organization, 100)
    add(organization, 50)
    move(organization, -60)

    assert notices.tell() == 0
    assert BalanceAlert.objects.get().is_armed is False


def test_setting_and_removing_is_noted_and_limited(organization):
    user = UserFactory.create()
    for credits in range(1, alerts.MAX_ALERTS + 1):
        alerts.add(organization_id=organization.pk, credits=credits, added_by=user)
    for credits in (0, -1, alerts.MAX_CREDITS + 1, 99):
        with pytest.raises(alerts.Refused):
            alerts.add(organization_id=organization.pk, credits=credits, added_by=user)
    with pytest.raises(BalanceAlert.DoesNotExist):
        alerts.remove(
            organization_id=OrganizationFactory.create().pk,
            alert_id=BalanceAlert.objects.get(credits=3).pk,
            removed_by=user,
        )
    assert BalanceAlert.objects.count() == alerts.MAX_ALERTS
    alerts.remove(organization_id=organization.pk, alert_id=BalanceAlert.objects.get(credits=3).pk, removed_by=user)
    with pytest.raises(alerts.Refused, match="already"):
        add(organization, 4)

    entries = AuditEntry.objects.filter(organization=organization)
    assert entries.filter(action="balance_alert.added").count() == alerts.MAX_ALERTS
    assert entries.get(action="balance_alert.removed").before == {"credits": 3}
    assert [alert.credits for alert in alerts.of(organization_id=organization.pk)] == [10, 9, 8, 7, 6, 5, 4, 2, 1]


def test_the_staff_are_told_of_a_request_and_the_asker_of_its_end(organization, settings):
    settings.ADJUSTMENT_LIMIT = 100
    asker = Membership.objects.get(organization=organization, role=Role.BILLING).user
    request = topups.ask(organization_id=organization.pk, amount=1_050, note="<May> & June", asked_by=asker)
    assert [notices.tell(), notices.tell()] == [1, 0]
    [asked] = mail.outbox
    assert asked.to == ["team@seedancee2.example"]
    assert asked.subject == "North wind asks for 1,050 credits"
    assert "<May> & June" in asked.body
    assert f"/admin/billing/topuprequest/{request.pk}/change/" in asked.body

    topups.grant(request_id=request.pk, amount=90, reason="Invoice 7", granted_by=UserFactory.create())
    assert [notices.tell(), notices.tell()] == [1, 0]
    granted = mail.outbox[1]
    assert granted.to == ["billing@example.com"]
    assert granted.subject == "90 credits were added for North wind"
    assert "You asked for 1,050" in granted.body
    assert "Invoice 7" in granted.body


def test_who_left_is_not_told_but_those_who_stayed(organization):
    asker = Membership.objects.get(organization=organization, role=Role.BILLING).user
    request = topups.ask(organization_id=organization.pk, amount=5, note="", asked_by=asker)
    notices.tell()
    Membership.objects.filter(user=asker).delete()
    topups.decline(request_id=request.pk, reason="No order", declined_by=UserFactory.create())

    notices.tell()

    assert sorted(mail.outbox[1].to) == ["admin@example.com", "owner@example.com"]
    assert "was declined" in mail.outbox[1].subject
    assert "No order" in mail.outbox[1].body


def test_without_an_address_of_the_staff_a_request_still_waits_in_the_admin(organization, settings):
    settings.STAFF_EMAIL = ""
    topups.ask(organization_id=organization.pk, amount=5, note="", asked_by=UserFactory.create())

    assert [notices.tell(), notices.tell()] == [0, 0]
    assert TopUpRequest.objects.get().staff_told_at <= clock.now()
    assert mail.outbox == []


def test_a_withdrawn_request_is_told_to_nobody_afterwards(organization):
    asker = UserFactory.create()
    request = topups.ask(organization_id=organization.pk, amount=5, note="", asked_by=asker)
    notices.tell()
    topups.withdraw(organization_id=organization.pk, request_id=request.pk, withdrawn_by=asker)

    assert notices.tell() == 0


def test_what_was_withdrawn_before_anybody_was_told_troubles_nobody(organization):
    asker = UserFactory.create()
    request = topups.ask(organization_id=organization.pk, amount=5, note="", asked_by=asker)
    topups.withdraw(organization_id=organization.pk, request_id=request.pk, withdrawn_by=asker)

    assert (notices.tell(), mail.outbox) == (0, [])


def test_a_mail_server_that_is_away_is_asked_once_in_a_sweep(organization, monkeypatch):
    for _ in range(3):
        topups.ask(organization_id=OrganizationFactory.create().pk, amount=5, note="", asked_by=UserFactory.create())
    monkeypatch.setattr(Unreliable, "fails_with", SMTPServerDisconnected("gone"))
    assert notices.tell() == 0
    assert TopUpRequest.objects.filter(leased_until__isnull=False).count() == 1

    monkeypatch.setattr(Unreliable, "fails_with", None)
    assert notices.tell() == 2


@pytest.mark.race
@pytest.mark.django_db(transaction=True)
def test_of_many_added_at_once_no_more_than_the_most_stay():
    organization, user = OrganizationFactory.create(), UserFactory.create()
    begin = threading.Barrier(6)

    def add_some(number: int) -> None:
        begin.wait(10)
        try:
            for credits in range(1 + 4 * number, 5 + 4 * number):
                with contextlib.suppress(alerts.Refused):
                    alerts.add(organization_id=organization.pk, credits=credits, added_by=user)
        finally:
            connections.close_all()

    with concurrent.futures.ThreadPoolExecutor(max_workers=6) as pool:
        list(pool.map(add_some, range(6)))

    assert BalanceAlert.objects.count() == alerts.MAX_ALERTS
