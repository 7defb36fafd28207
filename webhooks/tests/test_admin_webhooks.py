"""What the staff see of deliveries: everything that happened, nothing that can be changed, no secret."""

import pytest
from django.contrib import admin
from django.test import Client

from accounts.models import User
from seedancee2.lib import clock
from webhooks import secrets
from webhooks.models import Delivery, DeliveryAttempt, SigningSecret
from webhooks.tests.factories import DeliveryFactory

pytestmark = pytest.mark.django_db


@pytest.fixture
def staff(client: Client) -> Client:
    client.force_login(User.objects.create_superuser("staff@example.com", "a long password"))
    return client


def test_a_delivery_is_shown_with_its_attempts_and_no_secret(staff: Client) -> None:
    sent = DeliveryFactory.create(url="https://customer.example/hook", body='{"data":"<ü>"}'.encode())
    secret = secrets.current(organization_id=sent.organization_id)
    DeliveryAttempt.objects.create(
        delivery=sent, number=1, started_at=clock.now(), duration_ms=12, status_code=500, response_excerpt="<b>oops</b>"
    )

    page = staff.get(f"/admin/webhooks/delivery/{sent.pk}/change/").content.decode()

    assert "https://customer.example/hook" in page
    assert "&lt;b&gt;oops&lt;/b&gt;" in page
    assert "<b>oops" not in page
    assert secret not in page
    assert 'name="_save"' not in page


def test_deliveries_are_found_by_their_ids(staff: Client) -> None:
    wanted, other = DeliveryFactory.create_batch(2)

    for text in (wanted.delivery_id, wanted.reference):
        page = staff.get("/admin/webhooks/delivery/", {"q": text, "state__exact": "pending"}).content.decode()
        assert wanted.delivery_id in page
        assert other.delivery_id not in page


@pytest.mark.parametrize("action", ["add/", "{}/delete/"])
def test_nothing_can_be_made_or_unmade(staff: Client, action: str) -> None:
    sent = DeliveryFactory.create()

    assert staff.post(f"/admin/webhooks/delivery/{action.format(sent.pk)}", {"post": "yes"}).status_code == 403
    assert Delivery.objects.count() == 1


def test_nothing_can_be_changed(staff: Client) -> None:
    sent = DeliveryFactory.create()

    response = staff.post(f"/admin/webhooks/delivery/{sent.pk}/change/", {"url": "https://evil.example/"})

    assert response.status_code == 403
    sent.refresh_from_db()
    assert sent.url == "https://customer.example/hook"


def test_secrets_have_no_page() -> None:
    assert not admin.site.is_registered(SigningSecret)
