"""Sign-up: who may, what a newcomer gets, and joining by invitation."""

import re
from typing import Any

import pytest
from allauth.account.models import EmailAddress
from django.conf import LazySettings
from django.core import mail
from django.test import Client

from accounts import organizations
from accounts.console import SESSION_KEY
from accounts.models import AuditEntry, Invitation, Membership, Organization, User
from accounts.tests.factories import PASSWORD, MembershipFactory, OrganizationFactory, UserFactory
from accounts.tests.test_invitations import invite, token_of_last_mail
from seedancee2.lib import clock

pytestmark = pytest.mark.django_db

SIGNUP = "/accounts/signup/"
LOGIN = "/accounts/login/"


@pytest.fixture(autouse=True)
def _open(settings: LazySettings) -> None:
    settings.SIGNUP_OPEN = True
    settings.SIGNUP_CREDITS = 0


def sign_up(client: Client, **changes: str) -> Any:
    return client.post(SIGNUP, {"name": "Ada Lovelace", "email": "ada@example.com", "password1": PASSWORD} | changes)


def nothing_was_made() -> bool:
    models = (User, Organization, Membership, EmailAddress, AuditEntry)
    return not any(model.objects.exists() for model in models)


def test_a_newcomer_owns_an_organization_named_after_them_and_is_in_the_console() -> None:
    client = Client()
    assert sign_up(client, email="Ada@Example.com")["Location"] == "/console/"
    user = User.objects.get()
    assert (user.name, user.email) == ("Ada Lovelace", "ada@example.com")
    membership = Membership.objects.get()
    assert (membership.user, membership.role, membership.organization.name) == (user, "owner", "Ada Lovelace")
    entry = AuditEntry.objects.get()
    assert (entry.action, entry.actor, entry.organization) == ("organization.signed_up", user, membership.organization)
    assert client.get("/console/keys/").status_code == 200


def test_the_setting_closes_the_door(settings: LazySettings) -> None:
    settings.SIGNUP_OPEN = False
    assert b"Sign-up is closed" in sign_up(Client()).content
    assert b"Create an account" not in Client().get(LOGIN).content
    assert nothing_was_made()
    settings.SIGNUP_OPEN = True
    assert b"Create an account" in Client().get(LOGIN).content


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"name": ""}, "This field is required"),
        ({"name": "Win at https://evil.example"}, "Write a name, not a link."),
        ({"name": "a\u0000b"}, "Null characters are not allowed"),
        ({"name": "x" * 121}, "at most 120 characters"),
        ({"email": "no address"}, "Enter a valid email address."),
        ({"password1": "short"}, "at least 10 characters"),
        ({"password1": "1234567890123"}, "entirely numeric"),
    ],
)
def test_what_is_wrong_is_said_beside_its_field(changes: dict[str, str], says: str) -> None:
    reply = sign_up(Client(), **changes)
    assert reply.status_code == 200
    (field,) = changes
    assert re.search(rf'id="id_{field}_error"[^§]*?{re.escape(says)}', reply.content.decode())
    assert nothing_was_made()


def test_organizations_of_namesakes_are_numbered_and_of_the_nameless_named_by_address() -> None:
    OrganizationFactory.create(name="ada lovelace")
    names = [organizations.sign_up(owner=UserFactory.create(name="Ada Lovelace")).name for _ in range(2)]
    assert names == ["Ada Lovelace 2", "Ada Lovelace 3"]
    assert organizations.sign_up(owner=UserFactory.create(name="", email="grace@example.com")).name == "grace"
    long = [organizations.sign_up(owner=UserFactory.create(name="x" * 120)).name for _ in range(2)]
    assert long == ["x" * 120, "x" * 118 + " 2"]


def test_hostile_names_are_shown_and_never_run() -> None:
    client = Client()
    sign_up(client, name="<script>alert(1)</script>")
    for address in ("/console/keys/", "/accounts/profile/"):
        page = client.get(address).content.decode()
        assert "&lt;script&gt;alert(1)&lt;/script&gt;" in page
        assert "<script>alert" not in page


def test_in_production_the_address_is_confirmed_first(settings: LazySettings) -> None:
    settings.ACCOUNT_EMAIL_VERIFICATION = "mandatory"
    client = Client()
    assert sign_up(client)["Location"] == "/accounts/confirm-email/"
    assert "_auth_user_id" not in client.session
    assert (
        Client().post(LOGIN, {"login": "ada@example.com", "password": PASSWORD})["Location"].endswith("/confirm-email/")
    )
    assert mail.outbox[0].subject == "Confirm your e-mail address"
    assert "Ada" not in mail.outbox[0].body  # a stranger chose that name, and may have written anything
    link = re.search(r"http://testserver(/\S+)", str(mail.outbox[0].body))
    assert link is not None
    assert b"ada@example.com" in client.get(link[1]).content
    assert client.post(link[1])["Location"] == "/console/"
    assert "_auth_user_id" in client.session
    assert Client().post(LOGIN, {"login": "ada@example.com", "password": PASSWORD})["Location"] == "/console/"


def test_signing_up_tells_nobody_which_addresses_have_accounts(settings: LazySettings) -> None:
    settings.ACCOUNT_EMAIL_VERIFICATION = "mandatory"
    UserFactory.create(email="ada@example.com", name="Ada")
    replies = [sign_up(Client(), email=f"{who}@example.com") for who in ("ada", "new")]
    assert {(reply.status_code, reply["Location"]) for reply in replies} == {(302, "/accounts/confirm-email/")}
    assert [(message.to, message.subject) for message in mail.outbox] == [
        (["ada@example.com"], "You have an account already"),
        (["new@example.com"], "Confirm your e-mail address"),
    ]
    assert User.objects.get(email="ada@example.com").name == "Ada"
    assert Organization.objects.count() == 1


# --- By invitation. ---


@pytest.fixture
def token() -> str:
    """The token of the mail that invites ada@example.com to Northwind."""
    owner = MembershipFactory.create(organization=OrganizationFactory.create(name="Northwind"), role="owner")
    token = invite(owner)
    mail.outbox.clear()
    return token


def followed(token: str) -> Client:
    """A browser in which the link of an invitation was followed."""
    client = Client()
    assert client.get(f"/console/invitations/{token}/").status_code == 302
    return client


def joined() -> list[str]:
    return [str(seat.user) for seat in Membership.objects.filter(organization__name="Northwind", role="developer")]


def test_the_invited_sign_up_behind_a_closed_door_and_join_without_a_mail(settings: LazySettings, token: str) -> None:
    settings.SIGNUP_OPEN = False
    settings.ACCOUNT_EMAIL_VERIFICATION = "mandatory"
    client = followed(token)
    assert b"<strong>ada@example.com</strong>" in client.get(SIGNUP).content
    assert sign_up(client)["Location"] == "/console/"
    assert joined() == ["ada@example.com"]
    assert (mail.outbox, EmailAddress.objects.get().verified) == ([], True)
    assert Organization.objects.count() == 1
    assert client.session[SESSION_KEY] == Organization.objects.get().pk
    assert "invitation" not in client.session


def test_an_invitation_opens_the_door_for_its_own_address_only(settings: LazySettings, token: str) -> None:
    settings.SIGNUP_OPEN = False
    reply = sign_up(followed(token), email="eve@example.com")
    assert "You were invited as ada@example.com" in reply.content.decode()
    assert (joined(), User.objects.count()) == ([], 1)
    settings.SIGNUP_OPEN = True
    assert sign_up(followed(token), email="eve@example.com").status_code == 302
    assert joined() == []
    assert Membership.objects.get(user__email="eve@example.com").organization.name == "Ada Lovelace"


def test_an_invitation_that_is_gone_leaves_nobody_behind(settings: LazySettings, token: str) -> None:
    settings.SIGNUP_OPEN = False
    client = followed(token)
    Invitation.objects.update(withdrawn_at=clock.now())
    reply = sign_up(client)
    assert reply["Location"] == LOGIN
    assert b"it was withdrawn" in client.get(LOGIN).content
    assert (joined(), User.objects.count(), Membership.objects.count()) == ([], 1, 1)
    assert b"Sign-up is closed" in client.get(SIGNUP).content


def test_the_invited_who_have_an_account_join_by_a_click_after_signing_in(token: str) -> None:
    UserFactory.create(email="ada@example.com")
    UserFactory.create(email="eve@example.com")
    other = followed(token)
    other.post(LOGIN, {"login": "eve@example.com", "password": PASSWORD})
    assert joined() == []
    client = followed(token)
    reply = client.post(LOGIN, {"login": "ada@example.com", "password": PASSWORD}, follow=True)
    assert (reply.request["PATH_INFO"], b"Join Northwind" in reply.content) == ("/console/invitation/", True)
    assert joined() == []
    assert b"Welcome to Northwind" in client.post("/console/invitation/", follow=True).content
    assert joined() == ["ada@example.com"]


def test_without_organizations_of_ones_own_newcomers_wait_for_an_invitation(settings: LazySettings) -> None:
    settings.SIGNUP_OPEN, settings.SIGNUP_MAKES_ORGANIZATION = True, False
    client = Client()
    assert b"Sign up" in client.get("/").content
    assert sign_up(client).status_code == 302
    assert (Organization.objects.count(), Membership.objects.count(), User.objects.count()) == (0, 0, 1)
    page = client.get("/console/").content
    assert b"You belong to no organization yet" in page
    invite(MembershipFactory.create(organization=OrganizationFactory.create(name="Northwind"), role="owner"))
    client.get(f"/console/invitations/{token_of_last_mail()}/")
    assert b"Welcome to Northwind" in client.post("/console/invitation/", follow=True).content
    assert joined() == ["ada@example.com"]
    settings.SIGNUP_OPEN = False
    assert b"Sign up" not in Client().get("/").content
