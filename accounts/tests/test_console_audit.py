"""The console's page of the audit log."""

import csv
import datetime as dt
import io

import pytest
import time_machine
from django.test import Client

from accounts import audit
from accounts.models import AuditEntry, Membership, Organization, User
from accounts.tests.factories import MembershipFactory, OrganizationFactory, UserFactory

pytestmark = pytest.mark.django_db

PAGE = "/console/audit/"
NOON = dt.datetime(2026, 11, 20, 12, tzinfo=dt.UTC)


@pytest.fixture
def organization() -> Organization:
    return OrganizationFactory.create(name="Northwind")


@pytest.fixture
def client(organization: Organization) -> Client:
    found = Client()
    found.force_login(MembershipFactory.create(organization=organization, role=Membership.Role.ADMIN).user)
    return found


def note(organization: Organization, actor: User | None = None, action: str = "key.issued", **values: object) -> None:
    facts = {"target": "render farm", **values}
    audit.note(organization_id=organization.pk, actor=actor, action=action, **facts)  # type: ignore[arg-type]


def rows(client: Client, query: str = "") -> list[list[str]]:
    reply = client.get(f"{PAGE}?format=csv&{query}")
    assert reply["Content-Type"] == "text/csv; charset=utf-8"
    return list(csv.reader(io.StringIO(reply.getvalue().decode())))[1:]


def test_changes_are_told_readably(organization, client):
    note(
        organization,
        UserFactory.create(email="ada@example.com"),
        "organization.changed",
        before={"callback_hosts": [], "demands_key_caps": False, "longest_key_days": 90},
        after={"callback_hosts": ["a.example", "b.example"], "demands_key_caps": True, "longest_key_days": None},
    )
    page = " ".join(client.get(PAGE).content.decode().split())
    assert "Organization changed" in page
    assert "callback hosts</span> <ins>a.example, b.example</ins>" in page
    assert "demands key caps</span> <del>no</del> <ins>yes</ins>" in page
    assert 'longest key days</span> <del>90</del> <span class="soft">none</span>' in page
    assert "ada@example.com" in page


def test_our_staff_are_a_team_without_address_and_reason(organization, client):
    staff = UserFactory.create(email="staff@seedancee2.example", is_staff=True)
    note(organization, staff, reason="looks like fraud")
    note(organization, None, "key.revoked", reason="nightly")
    AuditEntry.objects.create(
        organization=organization,
        actor=staff,
        actor_name=staff.email,
        is_by_staff=True,
        action="key.revoked",
        target="k",
        address="198.51.100.77",
    )
    for text in (client.get(PAGE).content.decode(), str(rows(client))):
        assert "the Seedancee2 team" in text
        for hidden in ("staff@seedancee2", "looks like fraud", "nightly", "198.51.100.77"):
            assert hidden not in text
    assert rows(client, "person=staff@seedancee2.example") == rows(client)
    assert [row[1] for row in rows(client, "person=the+Seedancee2+team")] == ["the Seedancee2 team"] * 2


def test_filters_live_in_the_address(organization, client):
    ada, bob = UserFactory.create(email="ada@example.com"), UserFactory.create(email="bob@example.com")
    for day, actor, action in ((0, ada, "key.issued"), (1, bob, "key.issued"), (2, ada, "key.revoked")):
        with time_machine.travel(NOON + dt.timedelta(days=day), tick=False):
            note(organization, actor, action, target=f"{actor.email[:3]} {day}")

    def found(query: str) -> list[str]:
        shown = [row.entry.target for row in client.get(f"{PAGE}?{query}").context["entries"]]
        assert [row[3] for row in rows(client, query)] == shown
        return shown

    assert found("") == ["ada 2", "bob 1", "ada 0"]
    assert found("person=ada@example.com") == ["ada 2", "ada 0"]
    assert found("action=key.issued") == ["bob 1", "ada 0"]
    assert found("person=ada@example.com&action=key.issued") == ["ada 0"]
    assert found("since=2026-11-21&until=2026-11-21") == ["bob 1"]
    assert found("until=2026-11-20") == ["ada 0"]
    assert found("since=nonsense&action=key.revoked") == ["ada 2"]
    assert b"No entry is like that" in client.get(f"{PAGE}?since=2030-01-01").content


def test_what_our_staff_weigh_among_themselves_is_not_told(organization, client):
    staff = UserFactory.create(is_staff=True)
    for action in (*audit.INTERNAL, "credits.adjusted"):
        note(organization, staff, action)
    assert [row[2] for row in rows(client)] == ["credits.adjusted"]
    page = client.get(PAGE)
    assert [row.entry.action for row in page.context["entries"]] == ["credits.adjusted"]
    assert b"adjustment declined" not in page.content
    assert not rows(client, "action=credits.adjustment_declined&")[1:]


def test_the_log_comes_in_pages_that_new_entries_do_not_skew(organization, client):
    for number in range(120):
        note(organization, target=f"k{number:03}", action="key.issued" if number % 2 else "key.revoked")

    def targets(reply: object) -> list[str]:
        return [row.entry.target for row in reply.context["entries"]]  # type: ignore[attr-defined]

    first = client.get(PAGE)
    note(organization, target="meanwhile")
    second = client.get(PAGE + first.context["older"])
    third = client.get(PAGE + second.context["older"])
    assert targets(first) + targets(second) + targets(third) == [f"k{number:03}" for number in reversed(range(120))]
    assert third.context["older"] is None
    assert third.context["newest"].startswith("?organization=")
    filtered = client.get(f"{PAGE}?action=key.revoked")
    assert filtered.context["older"].startswith("?action=key.revoked&before=")
    assert len(targets(client.get(PAGE + filtered.context["older"]))) == 10
    assert len(rows(client)) == 121
    assert client.get(f"{PAGE}?before={10**30}").status_code == 200


def test_the_download_holds_more_than_one_chunk(organization, client, monkeypatch):
    monkeypatch.setattr("accounts.console_audit.IN_A_CHUNK", 7)
    for number in range(20):
        note(organization, target=str(number))
    assert [row[3] for row in rows(client)] == [str(number) for number in reversed(range(20))]


def test_a_formula_becomes_a_text_in_the_download(organization, client):
    for target in ('=HYPERLINK("https://evil.example")', "+1", "-1", "@x", "\tx", "plain"):
        note(organization, target=target)
    assert [row[3][:1] for row in rows(client)] == ["p", "'", "'", "'", "'", "'"]


def test_hostile_text_is_escaped(organization, client):
    script = "<script>alert(1)</script>"
    note(
        organization,
        UserFactory.create(),
        target=script,
        before={script: script},
        after={script: [script]},
        reason=script,
    )
    assert b"<script>alert" not in client.get(PAGE).content


def test_nothing_of_another_organization_is_seen(client):
    note(OrganizationFactory.create(), UserFactory.create(email="eve@example.com"), target="secret plans")
    audit.note(organization_id=None, actor=None, action="rate.changed", target="secret plans")
    page = client.get(PAGE).content
    assert b"secret plans" not in page
    assert b"eve@example.com" not in page
    assert b"Nothing has been changed yet" in page
    assert rows(client) == []


def test_an_entry_has_the_address_that_the_trusted_proxy_saw(organization, settings):
    settings.ALLAUTH_TRUSTED_PROXY_COUNT = 1
    owner = MembershipFactory.create(organization=organization, role=Membership.Role.OWNER).user
    browser = Client(headers={"x-forwarded-for": "203.0.113.1, 198.51.100.9"})
    browser.force_login(owner)
    browser.post("/console/settings/", {"name": "Northwind Ltd"})
    assert AuditEntry.objects.get().address == "198.51.100.9"
