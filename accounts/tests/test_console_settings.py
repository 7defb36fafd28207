"""The console's page of settings."""

import pytest
from allauth.mfa.totp.internal.auth import TOTP, generate_totp_secret
from django.test import Client

from accounts import organizations
from accounts.models import AuditEntry, Membership, Organization, User
from accounts.tests.factories import MembershipFactory, OrganizationFactory
from seedancee2.api.errors import InvalidRequest

pytestmark = pytest.mark.django_db

PAGE = "/console/settings/"


@pytest.fixture
def organization() -> Organization:
    return OrganizationFactory.create(name="Northwind")


@pytest.fixture
def owner(organization: Organization) -> User:
    return MembershipFactory.create(organization=organization, role=Membership.Role.OWNER).user


@pytest.fixture
def client(owner: User) -> Client:
    found = Client()
    found.force_login(owner)
    return found


def test_settings_are_saved_and_the_log_has_what_differs(client, owner, organization):
    values = {
        "name": "Northwind Ltd",
        "callback_hosts": "Hooks.Example.com\n*.loom.example, hooks.example.com",
        "media_retention_days": "30",
        "demands_key_caps": "on",
        "longest_key_days": "90",
    }
    reply = client.post(PAGE, values, follow=True)
    assert b"The settings are saved" in reply.content
    organization.refresh_from_db()
    assert organization.name == "Northwind Ltd"
    assert organization.callback_hosts == ["hooks.example.com", "*.loom.example"]
    assert (organization.media_retention_days, organization.prompt_retention_days) == (30, None)
    assert (organization.demands_key_caps, organization.longest_key_days) == (True, 90)
    entry = AuditEntry.objects.get()
    assert (entry.action, entry.actor, entry.target) == ("organization.changed", owner, "Northwind Ltd")
    assert entry.before == {
        "name": "Northwind",
        "callback_hosts": [],
        "media_retention_days": None,
        "demands_key_caps": False,
        "longest_key_days": None,
    }
    assert entry.after["callback_hosts"] == ["hooks.example.com", "*.loom.example"]
    page = client.get(PAGE).content.decode()
    assert "hooks.example.com\n*.loom.example</textarea>" in page
    client.post(PAGE, values)
    assert AuditEntry.objects.count() == 1


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"name": ""}, "This field is required"),
        ({"name": "a\tb"}, "1 to 120 printable characters"),
        ({"name": "southwind"}, "Another organization has this name"),
        ({"callback_hosts": "https://hooks.example.com"}, "is no host name"),
        ({"callback_hosts": "hooks.example.com/path"}, "is no host name"),
        ({"callback_hosts": "hooks.example.com:8443"}, "is no host name"),
        ({"callback_hosts": "hooks.example.com:443"}, "is no host name"),
        ({"callback_hosts": "user@hooks.example.com"}, "is no host name"),
        ({"callback_hosts": "*.*.example.com"}, "is no host name"),
        ({"callback_hosts": "*"}, "is no host name"),
        ({"media_retention_days": "0"}, "greater than or equal to 1"),
        ({"prompt_retention_days": "3651"}, "less than or equal to 3650"),
        ({"longest_key_days": "soon"}, "Enter a whole number"),
        ({"demands_second_factor": "on"}, "Set up your own second factor first"),
    ],
)
def test_what_is_wrong_is_said_beside_the_field_and_nothing_changes(client, organization, values, message):
    OrganizationFactory.create(name="Southwind")
    before = Organization.objects.filter(pk=organization.pk).values().get()
    reply = client.post(PAGE, {"name": "Northwind", "media_retention_days": "5", **values})
    assert reply.status_code == 200
    page = reply.content.decode()
    assert message in page
    assert 'aria-invalid="true"' in page
    assert Organization.objects.filter(pk=organization.pk).values().get() == before
    assert not AuditEntry.objects.exists()


def test_a_second_factor_is_demanded_by_who_has_one(client, owner, organization):
    TOTP.activate(owner, generate_totp_secret())
    client.post(PAGE, {"name": "Northwind", "demands_second_factor": "on"})
    organization.refresh_from_db()
    assert organization.demands_second_factor


def test_the_domain_refuses_what_no_form_would_send(organization):
    for values in (
        {"media_retention_days": 0},
        {"longest_key_days": 10**6},
        {"callback_hosts": [f"h{number}.example" for number in range(101)]},
    ):
        with pytest.raises(InvalidRequest, match=next(iter(values))):
            organizations.change(organization=organization, actor=None, **values)
    assert not AuditEntry.objects.exists()


def test_a_post_of_another_organization_is_404(client, organization):
    stranger = OrganizationFactory.create()
    assert client.post(PAGE, {"name": "mine now", "organization": stranger.pk}).status_code == 404
    stranger.refresh_from_db()
    assert stranger.name != "mine now"


def test_deleting_is_not_offered_and_it_is_said_how(client, settings):
    assert b"Write to the Seedancee2 team" in client.get(PAGE).content
    settings.STAFF_EMAIL = "help@seedancee2.example"
    assert b'href="mailto:help@seedancee2.example"' in client.get(PAGE).content


def test_a_hostile_name_is_escaped(client, organization):
    client.post(PAGE, {"name": "<script>alert(1)</script>"})
    for page in ("settings", "members", "members/leave", "audit", "keys"):
        assert b"<script>alert" not in client.get(f"/console/{page}/").content
