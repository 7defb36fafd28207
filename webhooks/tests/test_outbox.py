"""The outbox row: written with the change it tells of, once for each event."""

import json
from typing import Any

import pytest
from django.db import transaction

from accounts.models import Organization
from accounts.tests.factories import OrganizationFactory
from seedancee2.lib import ids, wakeups
from webhooks import outbox
from webhooks.models import Delivery

pytestmark = pytest.mark.django_db


@pytest.fixture
def woken(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Note the tasks that are woken instead of waking them."""
    names: list[str] = []
    monkeypatch.setattr(wakeups, "wake", names.append)
    return names


def enqueue(
    organization: Organization, *, reference: str = "vid_1", event: str = "video.generation.completed"
) -> Delivery:
    """Put an event into the outbox."""
    return outbox.enqueue(
        organization_id=organization.pk,
        is_test=False,
        reference=reference,
        event=event,
        url="https://Customer.example/hook?token=1",
        body=json.dumps({"data": "ü"}).encode(),
    )


def test_enqueue_writes_a_row_due_now_and_wakes_the_lane_on_commit(
    woken: list[str], django_capture_on_commit_callbacks: Any
) -> None:
    organization = OrganizationFactory.create()

    with django_capture_on_commit_callbacks(execute=True):
        delivery = enqueue(organization)
        assert woken == []

    assert woken == ["webhooks.deliver"]
    delivery.refresh_from_db()
    assert ids.is_valid(delivery.delivery_id, "dlv")
    assert (delivery.state, delivery.attempt_count, delivery.due_at) == ("pending", 0, delivery.created_at)
    assert (delivery.url, delivery.host) == ("https://Customer.example/hook?token=1", "https://customer.example:443")
    assert bytes(delivery.body) == json.dumps({"data": "ü"}).encode()


def test_the_same_event_again_gives_the_same_row(woken: list[str]) -> None:
    organization = OrganizationFactory.create()

    first = enqueue(organization)

    assert enqueue(organization).pk == first.pk
    assert enqueue(organization, event="video.generation.failed").pk != first.pk
    assert enqueue(organization, reference="vid_2").pk != first.pk
    assert Delivery.objects.count() == 3


@pytest.mark.django_db(transaction=True)
def test_a_change_that_is_rolled_back_tells_nothing(woken: list[str]) -> None:
    organization = OrganizationFactory.create()

    with transaction.atomic():
        enqueue(organization)
        transaction.set_rollback(True)

    assert (Delivery.objects.count(), woken) == (0, [])


def test_a_url_that_the_rules_no_longer_allow_does_not_stop_the_task(woken: list[str]) -> None:
    organization = OrganizationFactory.create()

    delivery = outbox.enqueue(
        organization_id=organization.pk,
        is_test=True,
        reference="vid_1",
        event="video.generation.failed",
        url="ftp://customer.example/",
        body=b"{}",
    )

    assert (delivery.host, delivery.is_test) == ("invalid", True)
