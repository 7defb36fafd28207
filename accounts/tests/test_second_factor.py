"""Who must have a second factor: members of organizations that demand one, and our staff."""

import datetime as dt
import re
import time

import pytest
import time_machine
from allauth.account.models import EmailAddress
from allauth.mfa.models import Authenticator
from allauth.mfa.recovery_codes.internal.auth import RecoveryCodes
from allauth.mfa.totp.internal.auth import (
    TOTP,
    format_hotp_value,
    generate_totp_secret,
    hotp_value,
)
from django.conf import LazySettings
from django.core import mail
from django.test import Client

from accounts.models import ApiKey, AuditEntry, Membership, Organization, User
from accounts.tests.factories import PASSWORD, MembershipFactory, OrganizationFactory, UserFactory, issue_key

pytestmark = pytest.mark.django_db

LOGIN = "/accounts/login/"
SET_UP = "/accounts/2fa/"


@pytest.fixture
def strict() -> Organization:
    return OrganizationFactory.create(name="Northwind & Sons", demands_second_factor=True)


def code_of(secret: str) -> str:
    return format_hotp_value(hotp_value(secret, int(time.time()) // 30))


def signed_in(user: User) -> Client:
    client = Client()
    client.force_login(user)
    return client


def test_members_without_one_are_led_to_set_one_up_and_told_why(strict: Organization) -> None:
    user = MembershipFactory.create(organization=strict, role="owner").user
    client = signed_in(user)
    for address in ("/console/", "/console/keys/", f"/console/keys/?organization={strict.pk}"):
        reply = client.get(address)
        assert (reply.status_code, reply["Location"], reply["Cache-Control"]) == (
            302,
            SET_UP,
            "max-age=0, no-cache, no-store, must-revalidate, private",
        )
    page = client.get(SET_UP).content.decode()
    assert "Northwind &amp; Sons asks everyone who enters for a second factor." in page
    assert "Needed to enter: Northwind &amp; Sons." in page
    reply = client.post("/console/keys/", {"name": "new", "mode": "test"})
    assert (reply.status_code, reply["Location"]) == (302, SET_UP)
    assert not ApiKey.objects.exists()


@pytest.mark.parametrize("role", Membership.Role.values)
def test_every_role_is_held_to_it(strict: Organization, role: str) -> None:
    client = signed_in(MembershipFactory.create(organization=strict, role=role).user)
    assert client.get("/console/keys/")["Location"] == SET_UP


def test_with_an_app_they_are_in_and_with_recovery_codes_alone_they_are_not(strict: Organization) -> None:
    user = MembershipFactory.create(organization=strict).user
    client = signed_in(user)
    RecoveryCodes.activate(user)
    assert client.get("/console/keys/").status_code == 302
    TOTP.activate(user, generate_totp_secret())
    assert client.get("/console/keys/").status_code == 200


def test_other_organizations_stay_open(strict: Organization) -> None:
    user = MembershipFactory.create(organization=strict).user
    other = MembershipFactory.create(user=user, organization__name="Zebra").organization
    client = signed_in(user)
    assert client.get("/console/keys/")["Location"] == SET_UP  # Northwind comes first
    assert client.post("/console/organization/", {"organization": other.pk})["Location"].startswith("/console/?")
    assert b"Zebra" in client.get("/console/keys/").content
    assert client.post("/console/organization/", {"organization": strict.pk})["Location"] == SET_UP
    assert b"Zebra" in client.get("/console/keys/").content


def test_the_profile_shows_nothing_of_an_organization_that_waits_for_one(strict: Organization) -> None:
    user = MembershipFactory.create(organization=strict).user
    issue_key(strict, name="of northwind", created_by=user)
    page = signed_in(user).get("/accounts/profile/").content.decode()
    assert "asks for a second factor" in page
    assert "of northwind" not in page
    assert f"?organization={strict.pk}" not in page


def test_a_stranger_learns_nothing_of_whether_an_organization_demands_one(strict: Organization) -> None:
    client = signed_in(MembershipFactory.create().user)
    assert client.get(f"/console/keys/?organization={strict.pk}").status_code == 404


def test_staff_enter_the_admin_with_one_only_where_the_setting_says_so(settings: LazySettings) -> None:
    user = UserFactory.create(is_staff=True, is_superuser=True)
    client = signed_in(user)
    settings.STAFF_NEEDS_SECOND_FACTOR = False
    assert client.get("/admin/").status_code == 200
    settings.STAFF_NEEDS_SECOND_FACTOR = True
    for address in (
        "/admin/",
        "/admin/accounts/organization/",
        "/admin/login/",
        "/admin/no-such-page/",
        "/admin/search/",
        "/admin/billing/rate/add/",
    ):
        assert client.get(address)["Location"] == SET_UP
    target = OrganizationFactory.create()
    reply = client.post("/admin/accounts/organization/", {"action": "suspend", "_selected_action": [target.pk]})
    assert reply["Location"] == SET_UP
    target.refresh_from_db()
    assert not target.is_suspended
    assert b"The Seedancee2 admin asks everyone who enters for a second factor." in client.get(SET_UP).content
    TOTP.activate(user, generate_totp_secret())
    assert client.get("/admin/").status_code == 200


def test_others_meet_the_admins_own_refusal(settings: LazySettings) -> None:
    settings.STAFF_NEEDS_SECOND_FACTOR = True
    assert Client().get("/admin/", follow=True).redirect_chain[-1][0].startswith(LOGIN)
    assert signed_in(UserFactory.create()).get("/admin/", follow=True).status_code == 403


@pytest.mark.django_db(transaction=True)  # mails go out once it is committed
def test_an_app_is_set_up_asked_for_and_turned_off_each_after_the_password() -> None:
    user = UserFactory.create(email="ada@example.com")
    client = Client()
    client.post(LOGIN, {"login": user.email, "password": PASSWORD})
    activate = "/accounts/2fa/totp/activate/"
    reply = client.get(activate)
    assert reply["Location"].startswith("/accounts/reauthenticate/?next=")
    assert "This password is not correct" in client.post(reply["Location"], {"password": "no"}).content.decode()
    assert client.post(reply["Location"], {"password": PASSWORD, "next": activate})["Location"] == activate
    found = re.search(r'id="totp-secret">([A-Z2-7]+)<', client.get(activate).content.decode())
    assert found is not None
    assert "This code is not correct" in client.post(activate, {"code": "000000"}).content.decode()
    assert not Authenticator.objects.exists()
    assert client.post(activate, {"code": code_of(found[1])})["Location"] == "/accounts/2fa/recovery-codes/"
    codes = re.findall(r"^(?:.*>)?(\d{8})$", client.get("/accounts/2fa/recovery-codes/").content.decode(), re.MULTILINE)
    assert len(codes) == 10
    text = client.get("/accounts/2fa/recovery-codes/download/")
    assert text["Content-Disposition"] == 'attachment; filename="recovery-codes.txt"'
    assert text.content.decode().split()[-10:] == codes

    again = Client()
    assert again.post(LOGIN, {"login": user.email, "password": PASSWORD})["Location"] == "/accounts/2fa/authenticate/"
    assert "This code is not correct" in again.post("/accounts/2fa/authenticate/", {"code": "0"}).content.decode()
    assert "_auth_user_id" not in again.session
    assert again.post("/accounts/2fa/authenticate/", {"code": codes[0]})["Location"] == "/console/"
    assert b"9 of 10 left" in again.get(SET_UP).content
    third = Client()
    third.post(LOGIN, {"login": user.email, "password": PASSWORD})
    third.post("/accounts/2fa/authenticate/", {"code": codes[0]})
    assert "_auth_user_id" not in third.session  # each code works once

    assert client.post("/accounts/2fa/totp/deactivate/")["Location"] == SET_UP
    assert not Authenticator.objects.exists()
    subjects = [message.subject for message in mail.outbox]
    assert subjects == ["Your authenticator app is on", "Your authenticator app is off"]
    assert list(AuditEntry.objects.order_by("pk").values_list("action", "actor_name", "after__type")) == [
        ("second_factor.added", user.email, "TOTP Authenticator"),
        ("second_factor.added", user.email, "Recovery codes"),
        ("second_factor.removed", user.email, "TOTP Authenticator"),
        ("second_factor.removed", user.email, "Recovery codes"),
    ]


def test_the_sixth_wrong_code_is_refused_whatever_the_session() -> None:
    user = UserFactory.create(email="ada@example.com")
    secret = generate_totp_secret()
    TOTP.activate(user, secret)
    for _ in range(5):
        client = Client()
        client.post(LOGIN, {"login": user.email, "password": PASSWORD})
        assert "This code is not correct" in client.post("/accounts/2fa/authenticate/", {"code": "1"}).content.decode()
    reply = client.post("/accounts/2fa/authenticate/", {"code": code_of(secret)})
    assert "Too many failed attempts" in reply.content.decode()
    assert "_auth_user_id" not in client.session


@pytest.mark.parametrize(("seconds", "is_taken"), [(0, True), (30, True), (60, False), (-30, True), (-60, False)])
def test_a_code_is_taken_half_a_minute_early_or_late(seconds: int, is_taken: bool) -> None:
    user = UserFactory.create()
    secret = generate_totp_secret()
    TOTP.activate(user, secret)
    client = Client()
    client.post(LOGIN, {"login": user.email, "password": PASSWORD})
    now = dt.datetime.now(dt.UTC).replace(second=0, microsecond=0)
    with time_machine.travel(now, tick=False):
        code = code_of(secret)
    with time_machine.travel(now + dt.timedelta(seconds=seconds), tick=False):
        client.post("/accounts/2fa/authenticate/", {"code": code})

    assert ("_auth_user_id" in client.session) == is_taken


def test_in_production_the_address_is_confirmed_before_a_second_factor(settings: LazySettings) -> None:
    settings.MFA_ALLOW_UNVERIFIED_EMAIL = False
    user = UserFactory.create()
    EmailAddress.objects.create(user=user, email=user.email, primary=True, verified=False)
    client = signed_in(user)
    assert client.get("/accounts/2fa/totp/activate/")["Location"] == SET_UP
    assert b"Confirm your e-mail address first" in client.get(SET_UP).content


def test_the_second_factor_is_no_key_to_another_account() -> None:
    ada, eve = UserFactory.create(), UserFactory.create()
    passkey = Authenticator.objects.create(user=ada, type=Authenticator.Type.WEBAUTHN, data={"name": "mine"})
    client = Client()
    client.post(LOGIN, {"login": eve.email, "password": PASSWORD})
    client.post("/accounts/reauthenticate/", {"password": PASSWORD, "next": SET_UP})
    for what in ("edit", "remove"):
        address = f"/accounts/2fa/webauthn/keys/{passkey.pk}/{what}/"
        assert client.get(address).status_code == 404
        assert client.post(address, {"name": "eve's"}).status_code == 404
    passkey.refresh_from_db()
    assert passkey.data == {"name": "mine"}
