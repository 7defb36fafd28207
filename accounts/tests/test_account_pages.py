"""The pages of a person's account: each in our look and under the strict policy, and the profile."""

import re
from html.parser import HTMLParser

import pytest
from allauth.account.models import EmailAddress
from allauth.mfa.models import Authenticator
from allauth.mfa.recovery_codes.internal.auth import RecoveryCodes
from allauth.mfa.totp.internal.auth import TOTP, generate_totp_secret
from django.core import mail
from django.test import Client
from django.urls import get_resolver
from django.urls.resolvers import URLPattern, URLResolver

from accounts.models import AuditEntry, Membership, User
from accounts.tests.factories import PASSWORD, MembershipFactory, OrganizationFactory, UserFactory, issue_key

pytestmark = pytest.mark.django_db

# Pages for everybody, and those of somebody who is signed in and has just said so again.
OPEN = {
    "account_login": "login/",
    "account_signup": "signup/",
    "account_reset_password": "password/reset/",
    "account_reset_password_done": "password/reset/done/",
    "account_reset_password_from_key": "password/reset/key/1-no/",
    "account_reset_password_from_key_done": "password/reset/key/done/",
    "account_email_verification_sent": "confirm-email/",
    "account_confirm_email": "confirm-email/no/",
    "account_inactive": "inactive/",
}
OWN = {
    "account_profile": "profile/",
    "account_logout": "logout/",
    "account_email": "email/",
    "account_change_password": "password/change/",
    "account_reauthenticate": "reauthenticate/",
    "mfa_index": "2fa/",
    "mfa_reauthenticate": "2fa/reauthenticate/",
    "mfa_deactivate_totp": "2fa/totp/deactivate/",
    "mfa_view_recovery_codes": "2fa/recovery-codes/",
    "mfa_generate_recovery_codes": "2fa/recovery-codes/generate/",
    "mfa_list_webauthn": "2fa/webauthn/",
    "mfa_add_webauthn": "2fa/webauthn/add/",
    "mfa_edit_webauthn": "2fa/webauthn/keys/{passkey}/edit/",
    "mfa_remove_webauthn": "2fa/webauthn/keys/{passkey}/remove/",
    "usersessions_list": "sessions/",
}
# Shown in a state of its own, by a test of its own here or in the files beside this one.
ELSEWHERE = {
    "account_set_password",
    "account_confirm_login_code",  # sign-in by a mailed code is off: it leads to the sign-in page
    "mfa_authenticate",
    "mfa_activate_totp",
    "mfa_download_recovery_codes",
    "mfa_reauthenticate_webauthn",
    "mfa_login_webauthn",
}


class Page(HTMLParser):
    """Finds what a strict policy would refuse, and controls without a label."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.faults: list[str] = []
        self._labelled: set[str] = set()
        self._controls: list[dict[str, str | None]] = []
        self.feed(text)
        self.faults += [
            f"no label: {control}"
            for control in self._controls
            if control.get("id") not in self._labelled and not control.get("aria-label")
        ]

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        given = dict(attrs)
        self.faults += [f"{tag} {name}" for name in given if name == "style" or name.startswith("on")]
        if tag == "style" or (tag == "script" and "src" not in given and given.get("type") != "application/json"):
            self.faults.append(f"inline {tag}")
        for name in ("src", "href", "action"):
            if (given.get(name) or "").startswith(("http:", "https:", "//", "javascript:")):
                self.faults.append(f"{tag} {name}={given[name]}")
        if tag == "label" and given.get("for"):
            self._labelled.add(str(given["for"]))
        if tag in ("input", "select", "textarea") and given.get("type") != "hidden":
            self._controls.append(given)


@pytest.fixture
def user() -> User:
    user = UserFactory.create(email="ada@example.com", name="Ada")
    TOTP.activate(user, generate_totp_secret())
    RecoveryCodes.activate(user)
    return user


@pytest.fixture
def client(user: User) -> Client:
    client = Client()
    client.force_login(user)
    client.post("/accounts/reauthenticate/", {"password": PASSWORD, "next": "/accounts/2fa/"})
    return client


def check(text: str) -> None:
    assert "seedancee2/app.css" in text
    assert "<h1>" in text
    assert Page(text).faults == []
    # None of allauth's own words for things that we call otherwise.
    assert not re.search(r"Two-Factor|Security Key|Sign In|Sign Up|Email", text)


def test_every_address_of_an_account_is_looked_at_here() -> None:
    def names(patterns: list[URLPattern | URLResolver]) -> set[str]:
        found: set[str] = set()
        for pattern in patterns:
            found |= names(pattern.url_patterns) if isinstance(pattern, URLResolver) else {str(pattern.name)}
        return found

    below = [p for p in get_resolver().url_patterns if isinstance(p, URLResolver) and str(p.pattern) == "accounts/"]
    assert names(list(below)) == OPEN.keys() | OWN.keys() | ELSEWHERE


@pytest.mark.parametrize("address", OPEN.values(), ids=OPEN)
def test_pages_for_everybody(address: str) -> None:
    reply = Client().get(f"/accounts/{address}")
    assert reply.status_code == 200
    assert "script-src 'self'" in reply["Content-Security-Policy"]
    check(reply.content.decode())


@pytest.mark.parametrize("address", OWN.values(), ids=OWN)
def test_pages_of_ones_own(client: Client, user: User, address: str) -> None:
    path = f"/accounts/{address}"
    if "{passkey}" in path:
        passkey = Authenticator.objects.create(user=user, type=Authenticator.Type.WEBAUTHN, data=PASSKEY)
        path = path.format(passkey=passkey.pk)
    reply = client.get(path)
    assert reply.status_code == 200
    check(reply.content.decode())
    # Who is not signed in is led to the sign-in; who signs out twice, to the beginning.
    leads_to = Client().get(path)["Location"]
    assert leads_to.startswith("/accounts/login/") or (address, leads_to) == ("logout/", "/")


def test_ones_own_pages_are_ones_own_whatever_the_role_and_nobody_elses(user: User) -> None:
    passkey = Authenticator.objects.create(user=user, type=Authenticator.Type.WEBAUTHN, data=PASSKEY)
    for role in [*Membership.Role.values, "none"]:
        other = UserFactory.create(email=f"{role}@example.com")
        if role != "none":
            MembershipFactory.create(user=other, role=role)
        TOTP.activate(other, generate_totp_secret())
        RecoveryCodes.activate(other)
        client = Client()
        client.force_login(other)
        client.post("/accounts/reauthenticate/", {"password": PASSWORD, "next": "/accounts/2fa/"})
        for address in OWN.values():
            is_of_passkey = "{passkey}" in address
            reply = client.get(f"/accounts/{address.format(passkey=passkey.pk)}")
            assert (address, role, reply.status_code) == (address, role, 404 if is_of_passkey else 200)
            if is_of_passkey:
                assert client.post(f"/accounts/{address.format(passkey=passkey.pk)}", {"name": "x"}).status_code == 404
    assert Authenticator.objects.get(pk=passkey.pk).data == PASSKEY


# A passkey as fido2 keeps it: enough to be listed, and no browser has its private half.
PASSKEY = {
    "name": "<b>laptop</b>",
    "passwordless": True,
    "credential": {"clientExtensionResults": {"credProps": {"rk": True}}},
}


def test_names_of_passkeys_are_shown_and_never_run(client: Client, user: User) -> None:
    Authenticator.objects.create(user=user, type=Authenticator.Type.WEBAUTHN, data=PASSKEY)
    page = client.get("/accounts/2fa/webauthn/").content.decode()
    assert "&lt;b&gt;laptop&lt;/b&gt;" in page
    assert "<b>laptop" not in page


def test_setting_up_an_app_shows_its_secret_as_a_picture_and_as_text() -> None:
    client = Client()
    client.force_login(UserFactory.create())
    client.post("/accounts/reauthenticate/", {"password": PASSWORD, "next": "/accounts/2fa/"})
    page = client.get("/accounts/2fa/totp/activate/").content.decode()
    check(page)
    assert 'src="data:image/svg+xml' in page
    assert re.search(r'<code id="totp-secret">[A-Z2-7]{32}</code>', page)


def test_who_has_no_password_sets_one() -> None:
    client = Client()
    user = UserFactory.create(password=None)
    client.force_login(user)
    assert client.get("/accounts/password/change/")["Location"] == "/accounts/password/set/"
    check(client.get("/accounts/password/set/").content.decode())
    client.post("/accounts/password/set/", {"password1": PASSWORD})
    user.refresh_from_db()
    assert user.check_password(PASSWORD)
    assert [message.subject for message in mail.outbox] == ["Your account has a password now"]


def test_the_second_step_of_signing_in(user: User) -> None:
    client = Client()
    client.post("/accounts/login/", {"login": user.email, "password": PASSWORD})
    page = client.get("/accounts/2fa/authenticate/").content.decode()
    check(page)
    assert "Use a passkey" not in page  # there is none


# --- The profile ---


def test_a_person_changes_their_name_which_is_written_down(client: Client, user: User) -> None:
    assert client.post("/accounts/profile/", {"name": "  Ada   Lovelace "})["Location"] == "/accounts/profile/"
    assert b"Your name is saved." in client.get("/accounts/profile/").content
    user.refresh_from_db()
    assert user.name == "Ada Lovelace"
    entry = AuditEntry.objects.get()
    assert (entry.action, entry.before, entry.after) == ("person.renamed", {"name": "Ada"}, {"name": "Ada Lovelace"})
    client.post("/accounts/profile/", {"name": "Ada Lovelace"})
    assert AuditEntry.objects.count() == 1


@pytest.mark.parametrize("name", ["", " ", "x" * 121, "see http://evil.example", "www.evil.example"])
def test_names_that_are_none_change_nothing(client: Client, user: User, name: str) -> None:
    reply = client.post("/accounts/profile/", {"name": name})
    assert reply.status_code == 200
    assert 'id="id_name_error"' in reply.content.decode()
    user.refresh_from_db()
    assert (user.name, AuditEntry.objects.count()) == ("Ada", 0)


def test_the_profile_lists_ones_organizations_and_own_keys_of_all_of_them(client: Client, user: User) -> None:
    developer = MembershipFactory.create(user=user, organization__name="Northwind", role="developer").organization
    billing = MembershipFactory.create(user=user, organization__name="Contoso", role="billing").organization
    left, strange = OrganizationFactory.create(name="Left"), OrganizationFactory.create(name="Strange")
    issue_key(developer, name="mine at northwind", created_by=user)
    issue_key(billing, name="mine at contoso", created_by=user)
    issue_key(developer, name="of a colleague", created_by=MembershipFactory.create(organization=developer).user)
    issue_key(left, name="mine at left", created_by=user)
    issue_key(strange, name="of strangers")
    page = client.get("/accounts/profile/").content.decode()
    for shown in ("Northwind", "Contoso", "mine at northwind", "mine at contoso"):
        assert shown in page
    for hidden in ("of a colleague", "mine at left", "of strangers", "Strange", "sk_seedancee2_live_0"):
        assert hidden not in page
    assert f'aria-label="Issue a key at {developer.name}"' in page
    assert f'aria-label="Issue a key at {billing.name}"' not in page
    assert client.get(f"/console/keys/?organization={developer.pk}").status_code == 200


def test_the_profile_is_for_the_signed_in_and_not_stored() -> None:
    for reply in (Client().get("/accounts/profile/"), Client().post("/accounts/profile/", {"name": "Eve"})):
        assert reply["Location"] == "/accounts/login/?next=/accounts/profile/"
    client = Client()
    client.force_login(UserFactory.create(name="<img src=x onerror=alert(1)>"))
    reply = client.get("/accounts/profile/")
    assert "no-store" in reply["Cache-Control"]
    assert b"<img src=x" not in reply.content
    assert not Membership.objects.exists()


def test_addresses_are_added_confirmed_made_main_and_removed() -> None:
    user = UserFactory.create(email="ada@example.com")
    EmailAddress.objects.create(user=user, email=user.email, primary=True, verified=True)
    client = Client()
    client.force_login(user)
    client.post("/accounts/reauthenticate/", {"password": PASSWORD, "next": "/accounts/email/"})
    client.post("/accounts/email/", {"action_add": "", "email": "new@example.com"})
    assert (mail.outbox[0].to, mail.outbox[0].subject) == (["new@example.com"], "Confirm your e-mail address")
    assert client.post("/accounts/login/", {}).status_code == 302
    client.post("/accounts/email/", {"action_primary": "", "email": "new@example.com"})
    user.refresh_from_db()
    assert user.email == "ada@example.com"  # not before it is confirmed
    link = re.search(r"http://testserver(/\S+)", str(mail.outbox[0].body))
    assert link is not None
    client.post(link[1])
    client.post("/accounts/email/", {"action_primary": "", "email": "new@example.com"})
    user.refresh_from_db()
    assert user.email == "new@example.com"
    client.post("/accounts/email/", {"action_remove": "", "email": "ada@example.com"})
    assert list(EmailAddress.objects.values_list("email", flat=True)) == ["new@example.com"]
    assert [(message.to, message.subject) for message in mail.outbox[1:]] == [
        (["ada@example.com"], "Your main e-mail address has changed"),
        (["new@example.com"], "An e-mail address was removed"),
    ]
    assert list(AuditEntry.objects.order_by("pk").values_list("action", "before", "after")) == [
        ("email.added", {}, {"email": "new@example.com"}),
        ("email.confirmed", {}, {"email": "new@example.com"}),
        ("email.made_main", {"email": "ada@example.com"}, {"email": "new@example.com"}),
        ("email.removed", {}, {"email": "ada@example.com"}),
    ]
