"""The console's pages about webhooks: who sees what, who may do what, and nothing of another organization."""

import datetime as dt
import re
from collections.abc import Iterator
from typing import Any

import pytest
from django.test import Client

from accounts import organizations
from accounts.models import AuditEntry, Membership, Organization, User
from accounts.tests.factories import MembershipFactory, OrganizationFactory
from seedancee2.lib import clock
from tests.receivers import Answer, Receiver
from webhooks import delivery, secrets, signing
from webhooks.models import Delivery, DeliveryAttempt, SigningSecret
from webhooks.tests.factories import DeliveryFactory

pytestmark = pytest.mark.django_db

PAGE = "/console/webhooks/"
TEST, RECOVER, SIGNING = f"{PAGE}test/", f"{PAGE}recover/", f"{PAGE}signing/"
SECRET, ROTATE = f"{SIGNING}secret/", f"{SIGNING}rotate/"
Role = Membership.Role

# Role: sees webhooks, sends again and tests, manages signing.
TABLE = {
    Role.OWNER: (True, True, True),
    Role.ADMIN: (True, True, True),
    Role.DEVELOPER: (True, True, False),
    Role.BILLING: (False, False, False),
    Role.VIEWER: (False, False, False),
}


@pytest.fixture
def organization() -> Organization:
    return OrganizationFactory.create(name="Northwind")


@pytest.fixture
def receiver(settings: Any) -> Iterator[Receiver]:
    settings.OUTBOUND_ALLOWED_HOSTS = ["127.0.0.1"]
    with Receiver() as running:
        yield running


def signed_in(user: User) -> Client:
    client = Client()
    client.force_login(user)
    return client


def member(organization: Organization, role: str = Role.OWNER) -> Client:
    return signed_in(MembershipFactory.create(organization=organization, role=role).user)


def failed(organization: Organization, **values: Any) -> Delivery:
    values = {"state": "abandoned", "due_at": None, "finished_at": clock.now()} | values
    return DeliveryFactory.create(organization=organization, **values)


def yesterday() -> str:
    return f"{clock.now() - dt.timedelta(days=1):%Y-%m-%dT%H:%M}"


def text(reply: Any) -> str:
    assert reply.status_code == 200, reply.content
    return str(reply.content.decode())


@pytest.mark.parametrize("role", Role.values)
def test_the_roles_table_cell_by_cell(organization: Organization, receiver: Receiver, role: str) -> None:
    sees, redelivers, manages = TABLE[Role(role)]
    row = failed(organization)
    client = member(organization, role)
    one = f"{PAGE}deliveries/{row.pk}/"
    secret = secrets.current(organization_id=organization.pk)

    assert (b'href="/console/webhooks/?organization=' in client.get("/console/keys/").content) == sees
    for address, may in ((PAGE, sees), (one, sees), (TEST, redelivers), (RECOVER, redelivers), (SIGNING, manages)):
        reply = client.get(address)
        assert reply.status_code == (200 if may else 403), address
        assert secret.encode() not in reply.content
    assert client.get(SECRET).status_code == client.get(ROTATE).status_code == (405 if manages else 403)

    assert client.post(one).status_code == (302 if redelivers else 403)
    assert Delivery.objects.get().state == ("pending" if redelivers else "abandoned")
    sample = {"url": receiver.url("/hook"), "event": "video.generation.failed"}
    assert client.post(TEST, sample).status_code == (200 if redelivers else 403)
    assert len(receiver.requests) == redelivers
    another = failed(organization)
    assert client.post(RECOVER, {"mode": "live", "since": yesterday()}).status_code == (302 if redelivers else 403)
    another.refresh_from_db()
    assert another.state == ("pending" if redelivers else "abandoned")

    revealed = client.post(SECRET)
    assert revealed.status_code == (200 if manages else 403)
    assert (secret.encode() in revealed.content) == manages
    assert client.post(ROTATE, {"overlap": "3600"}).status_code == (302 if manages else 403)
    assert SigningSecret.objects.count() == 1 + manages
    assert client.post(SIGNING, {"signing": "off"}).status_code == (302 if manages else 403)
    organization.refresh_from_db()
    assert organization.is_webhook_signing_enabled != manages


def test_nobody_reaches_the_webhooks_of_another_organization(organization: Organization) -> None:
    theirs = failed(organization)
    secret = secrets.current(organization_id=organization.pk)
    stranger = member(OrganizationFactory.create())
    one = f"{PAGE}deliveries/{theirs.pk}/"

    assert theirs.reference not in text(stranger.get(PAGE))
    for reply in (stranger.get(one), stranger.post(one), stranger.get(f"{PAGE}deliveries/nonsense/")):
        assert reply.status_code == 404
    named = {
        "organization": str(organization.pk),
        "mode": "live",
        "since": yesterday(),
        "overlap": "0",
        "signing": "off",
    }
    for address in (one, RECOVER, SECRET, ROTATE, SIGNING, TEST):
        reply = stranger.post(address, named)
        assert reply.status_code == 404
        assert secret.encode() not in reply.content
    assert stranger.get(PAGE, named).status_code == 404
    assert stranger.post(RECOVER, {"mode": "live", "since": yesterday()}).status_code == 302
    theirs.refresh_from_db()
    organization.refresh_from_db()
    assert (theirs.state, organization.is_webhook_signing_enabled) == ("abandoned", True)
    assert secrets.active(organization_id=organization.pk) == [secret]


def test_filters_stand_in_the_url_and_live_and_test_are_apart(organization: Organization) -> None:
    at = dt.datetime(2026, 7, 1, 23, 59, tzinfo=dt.UTC)
    live = failed(organization, created_at=at)
    delivered = failed(organization, state="delivered", event="video.generation.failed")
    test = failed(organization, is_test=True)
    client = member(organization)

    def shows(**filters: str) -> set[str]:
        page = text(client.get(PAGE, filters))
        return {row.reference for row in (live, delivered, test) if row.reference in re.sub(r'value="[^"]*"', "", page)}

    assert shows() == shows(mode="live") == {live.reference, delivered.reference}
    assert shows(mode="test") == {test.reference}
    assert shows(state="failed") == {live.reference}
    assert shows(state="pending") == set()
    assert shows(event="video.generation.failed") == {delivered.reference}
    assert shows(task=live.reference) == {live.reference}
    assert shows(last_day="2026-07-01") == {live.reference}
    assert shows(last_day="2026-06-30") == set()
    assert shows(first_day="2026-07-02") == {delivered.reference}
    assert shows(state="abandoned") == shows(first_day="x") == set()
    assert "Enter a valid date" in text(client.get(PAGE, {"first_day": "x"}))
    assert "No webhook fits these filters" in text(client.get(PAGE, {"task": "vid_x"}))


def test_many_come_in_pages_that_keep_the_filters(organization: Organization) -> None:
    made = [failed(organization, created_at=clock.now() - dt.timedelta(minutes=number)) for number in range(45)]
    client = member(organization)
    seen: list[str] = []
    address = f"{PAGE}?state=failed"
    for is_last in (False, False, True):
        page = text(client.get(address))
        seen += re.findall(r"<code>(vid_\w+)</code>", page)
        older = re.search(r'<a href="(\?[^"]+)">Older</a>', page)
        assert (older is None) == is_last
        if older:
            assert "state=failed" in older[1]
            address = PAGE + older[1].replace("&amp;", "&")
    assert seen == [row.reference for row in made]
    assert client.get(f"{PAGE}?cursor=nonsense").status_code == 404


def test_a_webhook_shows_its_attempts_and_is_sent_again(organization: Organization, receiver: Receiver) -> None:
    row = failed(organization, url=receiver.url("/hook"), attempt_count=1, body='{"data":{"note":"<ü>"}}'.encode())
    DeliveryAttempt.objects.create(
        delivery=row, number=1, started_at=clock.now(), duration_ms=12, status_code=502, response_excerpt="<b>bad</b>"
    )
    client = member(organization, Role.DEVELOPER)
    address = f"{PAGE}deliveries/{row.pk}/"

    page = text(client.get(address))
    assert "The server answered 502 instead of a 2xx status." in page
    assert "&lt;b&gt;bad&lt;/b&gt;" in page
    assert "&quot;note&quot;: &quot;&lt;ü&gt;&quot;" in page
    assert "<b>bad" not in page
    again = client.post(address, follow=True)
    assert "It is being sent again." in text(again)
    [claimed] = delivery.claim_due(16)
    delivery.attempt(claimed)

    assert [request.headers["x-seedancee2-delivery"] for request in receiver.requests] == [row.pk]
    row.refresh_from_db()
    assert (row.state, row.attempt_count) == ("delivered", 2)
    assert "Delivered." in text(client.get(address))


def test_what_cannot_be_sent_again_says_so(organization: Organization) -> None:
    row = failed(organization, body=b"")
    client = member(organization)
    address = f"{PAGE}deliveries/{row.pk}/"

    page = text(client.get(address))
    assert "cannot be sent again" in page
    assert "Send it again" not in page
    assert "cannot be sent again" in text(client.post(address, follow=True))
    row.refresh_from_db()
    assert row.state == "abandoned"


def test_a_test_webhook_shows_what_was_sent_and_what_came_back(organization: Organization, receiver: Receiver) -> None:
    receiver.plan("/hook", Answer(201, b"<i>taken</i>"), Answer(500))
    client = member(organization)
    form = {"url": receiver.url("/hook"), "event": "video.generation.completed"}

    good, bad = text(client.post(TEST, form)), text(client.post(TEST, form))

    assert "Your server took it" in good
    assert "&lt;i&gt;taken&lt;/i&gt;" in good
    assert receiver.requests[0].headers["x-seedancee2-signature"] in good
    assert "This would have failed" in bad
    assert "The server answered 500 instead of a 2xx status." in bad
    assert not Delivery.objects.exists()


def test_a_bad_url_is_explained_and_not_called(organization: Organization) -> None:
    with Receiver() as internal:
        page = text(member(organization).post(TEST, {"url": internal.url("/"), "event": "video.generation.failed"}))
        assert internal.connection_count == 0
    assert "The URL must not point to a private address." in page


def test_the_list_of_hosts_binds_samples_and_what_is_sent_again(organization: Organization, receiver: Receiver) -> None:
    browser, url = member(organization), receiver.url("/hook")
    organizations.change(organization=organization, actor=None, callback_hosts=["127.0.0.1", "*.loom.example"])
    listed = ((url, "http://127.0.0.1:8001"), ("https://a.loom.example/", "https://a.loom.example:443"))
    kept = [failed(organization, url=one, host=host) for one, host in listed]
    others = ("https://loom.example/", "https://evil.example/", "https://loom.example.evil.example/")
    left = [failed(organization, url=one, host=f"{one[:-1]}:443") for one in others]

    assert "must name a host that your organization allows: 127.0.0.1" in text(
        browser.post(TEST, {"url": others[1], "event": "video.generation.completed"})
    )
    assert "must name a host" in text(browser.post(f"{PAGE}deliveries/{left[0].pk}/", follow=True))
    assert AuditEntry.objects.filter(action="webhook.redelivered").count() == 0
    assert "2 failed webhooks are being sent again." in text(
        browser.post(RECOVER, {"mode": "live", "since": yesterday()}, follow=True)
    )
    assert set(Delivery.objects.filter(state="pending").values_list("pk", flat=True)) == {row.pk for row in kept}


def test_recovery_tells_how_many_and_refuses_what_is_too_long_ago(organization: Organization) -> None:
    for _ in range(2):
        failed(organization)
    failed(organization, is_test=True)
    client = member(organization)

    old = text(client.post(RECOVER, {"mode": "live", "since": "2020-01-01T00:00"}))
    assert "since must lie within the last 30 days." in old
    assert Delivery.objects.filter(state="pending").count() == 0
    done = text(client.post(RECOVER, {"mode": "live", "since": yesterday()}, follow=True))
    assert "2 failed webhooks are being sent again." in done
    assert set(Delivery.objects.values_list("is_test", "state")) == {(False, "pending"), (True, "abandoned")}
    none = text(client.post(RECOVER, {"mode": "live", "since": yesterday()}, follow=True))
    assert "Nothing had failed since then" in none


@pytest.mark.parametrize("overlap", signing.OVERLAPS)
def test_the_secret_rotates_with_the_overlap_that_was_chosen(organization: Organization, overlap: int) -> None:
    old = secrets.current(organization_id=organization.pk)
    client = member(organization, Role.ADMIN)
    now = clock.now()

    page = text(client.post(ROTATE, {"overlap": str(overlap)}, follow=True))

    new = secrets.current(organization_id=organization.pk)
    assert new != old
    assert old not in page
    assert new not in page
    retires_at = SigningSecret.objects.exclude(retires_at=None).get().retires_at
    assert retires_at is not None
    assert abs((retires_at - now).total_seconds() - overlap) < 10
    assert secrets.active(organization_id=organization.pk) == ([new, old] if overlap else [new])
    assert ("signs beside it until" in page) == bool(overlap)
    shown = client.post(SECRET)
    assert new in text(shown)
    assert "no-store" in shown["Cache-Control"]


def test_an_overlap_that_is_not_offered_changes_nothing(organization: Organization) -> None:
    secret = secrets.current(organization_id=organization.pk)

    assert "Select a valid choice" in text(member(organization).post(ROTATE, {"overlap": "999999999"}))

    assert secrets.active(organization_id=organization.pk) == [secret]


def test_signing_is_switched_with_a_warning_first(organization: Organization, receiver: Receiver) -> None:
    client = member(organization)
    assert "cannot tell our webhooks from forged ones" in text(client.get(SIGNING))

    assert "Signing is off now" in text(client.post(SIGNING, {"signing": "off"}, follow=True))
    form = {"url": receiver.url("/hook"), "event": "video.generation.failed"}
    client.post(TEST, form)
    assert "Signing is on now" in text(client.post(SIGNING, {"signing": "on"}, follow=True))
    client.post(TEST, form)

    assert ["x-seedancee2-signature" in request.headers for request in receiver.requests] == [False, True]
    assert client.post(SIGNING, {"signing": "maybe"}).status_code == 404


def test_signing_in_comes_first_and_forms_from_elsewhere_change_nothing(organization: Organization) -> None:
    row = failed(organization)
    addresses = [f"{PAGE}deliveries/{row.pk}/", TEST, RECOVER, SIGNING, SECRET, ROTATE]
    user = MembershipFactory.create(organization=organization, role=Role.OWNER).user
    checked = Client(enforce_csrf_checks=True)
    checked.force_login(user)
    values = {"mode": "live", "since": yesterday(), "overlap": "0", "signing": "off"}

    for address in [PAGE, *addresses]:
        assert Client().get(address)["Location"] == f"/accounts/login/?next={address}"
    for address in addresses:
        assert checked.post(address, values).status_code == 403
    row.refresh_from_db()
    organization.refresh_from_db()
    assert (row.state, organization.is_webhook_signing_enabled) == ("abandoned", True)
    assert not SigningSecret.objects.exists()


def test_the_pages_hold_no_inline_script_or_style_and_label_every_field(
    organization: Organization, receiver: Receiver
) -> None:
    row = failed(organization)
    client = member(organization)
    pages = [client.get(address) for address in (PAGE, f"{PAGE}deliveries/{row.pk}/", TEST, RECOVER, SIGNING)]
    pages += [client.post(SECRET), client.post(TEST, {"url": receiver.url("/"), "event": "video.generation.failed"})]

    for page in pages:
        html = text(page)
        assert not re.search(r"<script(?![^>]*\bsrc=)|<style|\sstyle=|\son[a-z]+=|javascript:", html)
        fields = re.findall(r'<(?:input|select|textarea)(?![^>]*type="hidden")[^>]*\bid="([^"]+)"', html)
        visible = re.findall(r'<(?:input|select|textarea)(?![^>]*type="hidden")', html)
        assert len(fields) == len(visible)
        assert set(fields) <= set(re.findall(r'<label for="([^"]+)"', html))


def test_what_people_do_stands_in_the_audit_log_without_the_secret(organization: Organization) -> None:
    row = failed(organization)
    client = member(organization)
    client.post(SECRET)
    client.post(ROTATE, {"overlap": "3600"})
    client.post(SIGNING, {"signing": "off"})
    client.post(f"{PAGE}deliveries/{row.pk}/")
    failed(organization)
    client.post(RECOVER, {"mode": "live", "since": yesterday()})

    entries = AuditEntry.objects.filter(organization=organization).order_by("pk")
    assert [(one.action, one.target) for one in entries] == [
        ("signing_secret.shown", "webhooks"),
        ("signing_secret.rotated", "webhooks"),
        ("signing.switched", "webhooks"),
        ("webhook.redelivered", row.pk),
        ("webhooks.recovered", "webhooks"),
    ]
    assert [one.actor for one in entries] == [Membership.objects.get(organization=organization).user] * 5
    assert "whsec_" not in str([(one.before, one.after) for one in entries])
    assert entries[4].after["count"] == 1
