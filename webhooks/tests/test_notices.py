"""Notices: one mail when an endpoint has failed for a day, one when it works again, to owners and admins only."""

import datetime as dt
import threading
from collections.abc import Iterator
from typing import Any

import pytest
import time_machine
from django.core import mail
from django.db import connections

from accounts.models import Membership, Organization
from accounts.tests.factories import MembershipFactory, OrganizationFactory
from seedancee2.lib import clock
from tests.receivers import Answer, Receiver
from webhooks import delivery as deliveries
from webhooks import notices
from webhooks.models import Delivery, Endpoint
from webhooks.tests.factories import DeliveryFactory

pytestmark = pytest.mark.django_db

Role = Membership.Role
DAY = dt.timedelta(hours=24)


@pytest.fixture
def turned() -> Iterator[time_machine.Traveller]:
    """A clock that stands still until the test moves it."""
    with time_machine.travel("2026-06-29T10:00:00Z", tick=False) as traveller:
        yield traveller


@pytest.fixture
def organization() -> Organization:
    """An organization with somebody in each role, and an owner who left."""
    made = OrganizationFactory.create(name="Films & Co")
    for role in Role:
        MembershipFactory.create(organization=made, role=role, user__email=f"{role}@films.example")
    MembershipFactory.create(
        organization=made, role=Role.OWNER, user__email="gone@films.example", user__is_active=False
    )
    MembershipFactory.create(role=Role.OWNER, user__email="stranger@other.example")
    return made


def endpoint(organization: Organization, **fields: Any) -> Endpoint:
    """An endpoint that has failed for a day."""
    given = {
        "origin": "https://hooks.films.example:443",
        "failure_count": 5,
        "failing_since": clock.now() - DAY,
        "last_error": "The host could not be connected to.",
    }
    return Endpoint.objects.create(organization=organization, **given | fields)


def test_an_endpoint_that_failed_for_a_day_is_told_once_and_so_is_that_it_works_again(
    organization: Organization, turned: time_machine.Traveller
) -> None:
    row = endpoint(organization)

    assert [notices.send() for _ in range(3)] == [1, 0, 0]

    (told,) = mail.outbox
    assert sorted(told.to) == ["admin@films.example", "owner@films.example"]
    assert told.subject == "Webhooks of Films & Co do not arrive"
    assert "https://hooks.films.example:443 has failed since 28 June 2026, 10:00 UTC, 5 attempts in a row" in told.body
    assert "The host could not be connected to." in told.body
    page = f"http://testserver/console/webhooks/?organization={organization.pk}"
    assert page in told.body
    turned.shift(3 * DAY)
    assert notices.send() == 0

    Endpoint.objects.filter(pk=row.pk).update(failing_since=None, failure_count=0)

    assert [notices.send() for _ in range(3)] == [1, 0, 0]
    assert mail.outbox[1].subject == "Webhooks of Films & Co arrive again"
    assert "https://hooks.films.example:443 takes webhooks again." in mail.outbox[1].body
    assert page in mail.outbox[1].body
    assert mail.outbox[1].to == told.to


@pytest.mark.parametrize(
    "fields",
    [
        {"failure_count": 4},
        {"failing_since": dt.datetime(2026, 6, 28, 10, 0, 1, tzinfo=dt.UTC)},
        {"failing_since": None, "failure_count": 0},
    ],
    ids=["too few failures", "not for a day yet", "well"],
)
def test_others_are_not_told(organization: Organization, turned: Any, fields: dict[str, Any]) -> None:
    endpoint(organization, **fields)

    assert notices.send() == 0
    assert mail.outbox == []
    assert Endpoint.objects.get().told_at is None


def test_endpoints_of_one_organization_share_a_mail(organization: Organization, turned: Any) -> None:
    endpoint(organization)
    endpoint(organization, origin="https://second.films.example:443")

    assert notices.send() == 2

    (told,) = mail.outbox
    assert "https://hooks.films.example:443" in told.body
    assert "https://second.films.example:443" in told.body


def test_an_organization_without_readers_is_noted_and_holds_up_nobody(
    organization: Organization, turned: Any, caplog: pytest.LogCaptureFixture
) -> None:
    endpoint(OrganizationFactory.create(name="nobody there"))
    endpoint(organization)

    assert notices.send() == 2

    assert len(mail.outbox) == 1
    assert "'event': 'endpoint_notice_without_reader'" in caplog.text


def test_a_mail_that_cannot_be_sent_is_noted_and_sent_by_a_later_sweep(
    organization: Organization, turned: Any, settings: Any, caplog: pytest.LogCaptureFixture
) -> None:
    settings.EMAIL_BACKEND = "django.core.mail.backends.smtp.EmailBackend"
    settings.EMAIL_HOST, settings.EMAIL_PORT = "127.0.0.1", 1
    endpoint(organization)

    assert notices.send() == 0
    assert "'event': 'endpoint_notice_not_sent'" in caplog.text
    assert Endpoint.objects.get().told_at is None

    settings.EMAIL_BACKEND = "django.core.mail.backends.locmem.EmailBackend"
    assert [notices.send(), notices.send()] == [1, 0]
    assert len(mail.outbox) == 1


def test_what_attempts_leave_behind_is_what_is_told(
    organization: Organization, turned: time_machine.Traveller, settings: Any
) -> None:
    settings.OUTBOUND_ALLOWED_HOSTS = ["127.0.0.1"]
    with Receiver() as receiver:
        receiver.plan("/hook", Answer(503))
        DeliveryFactory.create(url=receiver.url("/hook"), organization=organization)
        while clock.now() < dt.datetime(2026, 6, 30, 10, tzinfo=dt.UTC):
            for row in deliveries.claim_due(1):
                deliveries.attempt(row)
            assert notices.send() == 0
            due_at = Endpoint.objects.get().due_at
            assert due_at is not None
            turned.move_to(min(due_at, dt.datetime(2026, 6, 30, 10, tzinfo=dt.UTC)))
        assert notices.send() == 1
        receiver.plan("/hook", Answer(200))
        turned.move_to(Delivery.objects.get().due_at)
        for row in deliveries.claim_due(1):
            deliveries.attempt(row)
        assert notices.send() == 1
    assert "The answer was 503." in mail.outbox[0].body
    assert mail.outbox[1].subject.endswith("arrive again")
    assert Endpoint.objects.get().told_at is None


@pytest.mark.race
@pytest.mark.django_db(transaction=True)
def test_of_several_sweeps_at_once_one_tells(organization: Organization) -> None:
    for number in range(10):
        endpoint(organization, origin=f"https://h{number}.films.example:443")
    start = threading.Barrier(4)
    counts: list[int] = []

    def sweep() -> None:
        start.wait()
        try:
            counts.append(notices.send())
        finally:
            connections.close_all()

    sweeps = [threading.Thread(target=sweep) for _ in range(4)]
    for one in sweeps:
        one.start()
    for one in sweeps:
        one.join()

    assert sum(counts) == 10
    told = "\n".join(str(message.body) for message in mail.outbox)
    assert [told.count(f"https://h{number}.films.example") for number in range(10)] == [1] * 10
