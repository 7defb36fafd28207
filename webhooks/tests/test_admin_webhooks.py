"""What the staff see of deliveries: everything that happened, no secret; and that they can have them sent again."""

import datetime as dt
from typing import Any

import pytest
from django.conf import LazySettings
from django.contrib import admin
from django.contrib.admin.models import LogEntry
from django.contrib.auth.models import Permission
from django.test import Client

from accounts.models import AuditEntry, User
from accounts.tests.factories import OrganizationFactory
from seedancee2.lib import clock, destinations, ids
from tests.receivers import Receiver
from webhooks import admin as pages
from webhooks import lookups, secrets
from webhooks.models import Delivery, DeliveryAttempt, Endpoint, SigningSecret
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


def failed(**values: Any) -> Delivery:
    return DeliveryFactory.create(**{"state": "abandoned", "due_at": None, "finished_at": clock.now()} | values)


def histories() -> list[tuple[str | None, str]]:
    return list(LogEntry.objects.order_by("pk").values_list("object_id", "change_message"))


def test_a_delivery_is_sent_again_with_a_reason_in_its_history(staff: Client) -> None:
    row, other = failed(attempt_count=12), failed()
    address = f"/admin/webhooks/delivery/{row.pk}/redeliver/"

    assert b"Send this webhook again?" in staff.get(address).content
    assert b"This field is required" in staff.post(address, {"reason": ""}).content
    row.refresh_from_db()
    assert (row.state, histories()) == ("abandoned", [])
    staff.post(address, {"reason": "the customer asked, ticket 7"})

    row.refresh_from_db()
    other.refresh_from_db()
    assert (row.state, row.schedule_base, other.state) == ("pending", 12, "abandoned")
    assert histories() == [(row.pk, "Sent again: the customer asked, ticket 7")]


def test_selected_deliveries_are_sent_again_and_those_that_cannot_are_named(staff: Client) -> None:
    good, empty, other = failed(), failed(body=b""), failed()
    chosen = {"action": "redeliver_selected", "_selected_action": [good.pk, empty.pk]}

    asked = staff.post("/admin/webhooks/delivery/", chosen).content.decode()
    assert "Send 2 webhooks again?" in asked
    assert Delivery.objects.filter(state="pending").count() == 0
    page = staff.post("/admin/webhooks/delivery/", chosen | {"confirmed": "yes", "reason": "outage"}, follow=True)

    assert f"{good.pk} is being sent again." in page.content.decode()
    assert f"{empty.pk}: The body of this webhook was deleted" in page.content.decode()
    assert set(Delivery.objects.values_list("pk", "state")) == {
        (good.pk, "pending"),
        (empty.pk, "abandoned"),
        (other.pk, "abandoned"),
    }
    assert histories() == [(good.pk, "Sent again: outage")]


def test_what_failed_is_recovered_for_one_organization_with_a_reason_in_its_history(staff: Client) -> None:
    row, other = failed(), failed()
    test = failed(organization=row.organization, is_test=True)
    form = {
        "organization": row.organization_id,
        "mode": "live",
        "since": f"{clock.now() - dt.timedelta(days=1):%Y-%m-%dT%H:%M}",
        "reason": "their receiver is back",
    }
    address = "/admin/webhooks/delivery/recover/"

    assert b"Recover failed webhooks" in staff.get(address).content
    assert b"This field is required" in staff.post(address, form | {"reason": ""}).content
    assert b"within the last 30 days" in staff.post(address, form | {"since": "2020-01-01T00:00"}).content
    assert histories() == []
    assert b"No organization has this name" in staff.post(address, form | {"organization": "Nobody"}).content
    page = staff.post(address, form | {"organization": f" {row.organization.name.upper()} "}, follow=True)

    assert b"1 failed webhook is being sent again." in page.content
    states = dict(Delivery.objects.values_list("pk", "state"))
    assert states == {row.pk: "pending", other.pk: "abandoned", test.pk: "abandoned"}
    assert histories() == [(str(row.organization_id), "Recovered 1 failed webhooks: their receiver is back")]


def paused(**values: Any) -> Endpoint:
    DeliveryFactory.create(**values)
    later = clock.now() + dt.timedelta(minutes=20)
    Endpoint.objects.update(failing_since=clock.now(), failure_count=9, paused_until=later, due_at=later)
    return Endpoint.objects.latest("pk")


def test_a_paused_endpoint_is_tried_with_a_reason_and_no_other(staff: Client) -> None:
    endpoint = paused()
    other = paused(url="https://other.example/hook")
    address = f"/admin/webhooks/endpoint/{endpoint.pk}/try-now/"

    assert "open" in staff.get(f"/admin/webhooks/endpoint/{endpoint.pk}/change/").content.decode()
    assert b"This field is required" in staff.post(address, {"reason": ""}).content
    assert AuditEntry.objects.count() == 0
    assert b"is tried now" in staff.post(address, {"reason": "they mended it"}, follow=True).content

    endpoint.refresh_from_db()
    assert endpoint.due_at is not None
    assert endpoint.due_at <= clock.now()
    assert Endpoint.objects.get(pk=other.pk).paused_until == other.paused_until
    entry = AuditEntry.objects.get()
    assert (entry.action, entry.target, entry.reason) == ("endpoint.tried", endpoint.origin, "they mended it")
    assert b"is not paused" in staff.post(address, {"reason": "again"}, follow=True).content
    assert AuditEntry.objects.count() == 1


@pytest.mark.parametrize(
    ("query", "is_found"), [("q=customer.example", True), ("q=other.example", False), ("state=paused", True)]
)
def test_endpoints_are_found_by_host_and_state(staff: Client, query: str, is_found: bool) -> None:
    endpoint = paused()

    page = staff.get(f"/admin/webhooks/endpoint/?{query}").content.decode()

    assert (f"/admin/webhooks/endpoint/{endpoint.pk}/change/" in page) is is_found


def test_a_test_webhook_is_sent_once_and_its_answer_shown(staff: Client, settings: LazySettings) -> None:
    organization = OrganizationFactory.create()
    form = {"organization": organization.name, "event": "video.generation.failed", "reason": "ticket 9"}
    settings.OUTBOUND_ALLOWED_HOSTS = ["127.0.0.1"]
    with Receiver() as receiver:
        form |= {"url": receiver.url()}
        refused = staff.post("/admin/webhooks/delivery/send-test/", form).content.decode()
        assert "never had a webhook sent to this host" in refused
        assert (receiver.requests, AuditEntry.objects.count()) == ([], 0)
        Endpoint.objects.create(organization=organization, origin=destinations.parse(receiver.url()).origin)
        page = staff.post("/admin/webhooks/delivery/send-test/", form).content.decode()

    assert "It arrived." in page
    assert len(receiver.requests) == 1
    entry = AuditEntry.objects.get()
    assert (entry.action, entry.organization_id, entry.reason) == ("webhook.tested", organization.pk, "ticket 9")
    assert Delivery.objects.count() == 0
    private = staff.post("/admin/webhooks/delivery/send-test/", form | {"url": "http://10.0.0.1/"}).content.decode()
    assert "The URL" in private
    assert AuditEntry.objects.count() == 1


def test_deliveries_are_narrowed_by_when_they_were_written(staff: Client) -> None:
    new = DeliveryFactory.create()
    old = DeliveryFactory.create(delivery_id=ids.first("dlv", at=clock.now() - dt.timedelta(days=2)))

    for made, count in (("hour", 1), ("day", 1), ("3days", 2), ("nonsense", 2)):
        page = staff.get("/admin/webhooks/delivery/", {"made": made}).content.decode()
        assert (new.pk in page, old.pk in page) == (True, count == 2), made


def test_only_those_with_the_permission_may_send_again(client: Client) -> None:
    row = failed()
    person = User.objects.create_user("support@example.com", "a long password", is_staff=True)
    person.user_permissions.add(Permission.objects.get(codename="view_delivery"))
    client.force_login(person)
    addresses = [f"/admin/webhooks/delivery/{row.pk}/redeliver/", "/admin/webhooks/delivery/recover/"]

    for address in addresses:
        assert client.get(address).status_code == 403
        assert client.post(address, {"reason": "r"}).status_code == 403
    chosen = {"action": "redeliver_selected", "_selected_action": [row.pk], "confirmed": "yes", "reason": "r"}
    client.post("/admin/webhooks/delivery/", chosen)
    row.refresh_from_db()
    assert row.state == "abandoned"

    person.user_permissions.add(Permission.objects.get(codename="redeliver_delivery"))
    for address in addresses:
        assert client.get(address).status_code == 200
    client.post(addresses[0], {"reason": "r"})
    row.refresh_from_db()
    assert row.state == "pending"


def test_a_list_of_hosts_makes_a_receiver_known_and_another_customers_endpoint_does_not() -> None:
    listing, other = OrganizationFactory.create(callback_hosts=["*.example.com"]), OrganizationFactory.create()
    Endpoint.objects.create(organization=other, origin=destinations.parse("https://customer.example/").origin)

    assert lookups.is_known(organization=listing, url="https://hooks.example.com/x")
    assert lookups.is_known(organization=other, url="https://customer.example/x")
    for url in ("https://customer.example/x", "https://example.com/x"):
        assert not lookups.is_known(organization=listing, url=url), url


def test_no_more_are_sent_again_at_once_than_a_page_names(staff: Client, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pages, "MOST_AT_ONCE", 2)
    rows = [failed() for _ in range(3)]
    form = {"action": "redeliver_selected", "confirmed": "yes", "reason": "outage"}

    page = staff.post("/admin/webhooks/delivery/", form | {"_selected_action": [row.pk for row in rows]}, follow=True)
    assert "Choose 1 to 2 webhooks." in page.content.decode()
    across = form | {"_selected_action": [rows[0].pk], "select_across": "1"}
    assert b"one by one" in staff.post("/admin/webhooks/delivery/", across, follow=True).content

    assert Delivery.objects.filter(state="abandoned").count() == 3
    assert histories() == []
