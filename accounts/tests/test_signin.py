"""Sign-in with allauth, for customers and staff."""

import os
import re
import socket
import subprocess
import sys
from typing import Any

import pytest
from allauth.mfa.models import Authenticator
from allauth.mfa.totp.internal.auth import TOTP, generate_totp_secret
from django.conf import LazySettings
from django.contrib.sessions.models import Session
from django.core import mail as django_mail
from django.core.cache import caches
from django.test import Client

from accounts.models import AuditEntry
from accounts.signin import MfaAdapter
from accounts.tests.factories import PASSWORD, UserFactory
from seedancee2.lib.cache import Cache

pytestmark = pytest.mark.django_db

LOGIN = "/accounts/login/"


def test_a_person_signs_in_by_address_in_any_case_and_out_again() -> None:
    UserFactory.create(email="ada@example.com")
    client = Client()
    reply = client.post(LOGIN, {"login": "Ada@Example.com", "password": PASSWORD})
    assert (reply.status_code, reply["Location"]) == (302, "/console/")
    assert client.get("/accounts/logout/").status_code == 200
    assert "_auth_user_id" in client.session
    client.post("/accounts/logout/")
    assert "_auth_user_id" not in client.session


def test_a_wrong_password_and_an_unknown_address_read_the_same() -> None:
    UserFactory.create(email="ada@example.com")
    message = "are not correct"
    for address in ("ada@example.com", "nobody@example.com"):
        reply = Client().post(LOGIN, {"login": address, "password": "wrong"})
        assert reply.status_code == 200
        assert message in reply.content.decode()


def test_people_without_a_password_or_set_inactive_stay_out() -> None:
    UserFactory.create(email="new@example.com", password=None)
    UserFactory.create(email="gone@example.com", is_active=False)
    for address in ("new@example.com", "gone@example.com"):
        client = Client()
        client.post(LOGIN, {"login": address, "password": PASSWORD})
        assert "_auth_user_id" not in client.session


def test_the_admin_is_entered_through_the_same_sign_in() -> None:
    reply = Client().get("/admin/", follow=True)
    assert reply.redirect_chain[-1][0].startswith("/accounts/login/?next=")
    client = Client()
    client.force_login(UserFactory.create())
    assert client.get("/admin/", follow=True).status_code == 403
    client.force_login(UserFactory.create(is_staff=True))
    assert client.get("/admin/").status_code == 200


def test_second_factor_secrets_are_sealed_at_rest() -> None:
    adapter = MfaAdapter()
    sealed = adapter.encrypt("JBSWY3DPEHPK3PXP")
    assert "JBSWY3DP" not in sealed
    assert adapter.decrypt(sealed) == "JBSWY3DPEHPK3PXP"


def test_a_second_factor_is_asked_for_and_stored_sealed() -> None:
    user = UserFactory.create(email="ada@example.com")
    secret = generate_totp_secret()
    TOTP.activate(user, secret)
    assert secret not in str(Authenticator.objects.get().data)
    client = Client()
    reply = client.post(LOGIN, {"login": "ada@example.com", "password": PASSWORD})
    assert reply["Location"] == "/accounts/2fa/authenticate/"
    assert "_auth_user_id" not in client.session
    assert client.get("/accounts/2fa/authenticate/").status_code == 200


def wrong(client: Client, address: str = "ada@example.com") -> Any:
    return client.post(LOGIN, {"login": address, "password": "wrong"})


def test_the_sixth_wrong_password_and_the_right_one_after_it_are_refused() -> None:
    UserFactory.create(email="ada@example.com")
    UserFactory.create(email="bob@example.com")
    client = Client()
    for _ in range(5):
        assert "are not correct" in wrong(client).content.decode()
    assert "Too many failed attempts" in wrong(client).content.decode()
    reply = client.post(LOGIN, {"login": "ada@example.com", "password": PASSWORD})
    assert "Too many failed attempts" in reply.content.decode()
    assert "_auth_user_id" not in client.session
    # Nobody else is locked out, not even from the same address.
    assert client.post(LOGIN, {"login": "bob@example.com", "password": PASSWORD}).status_code == 302


def test_an_unknown_address_is_limited_like_a_known_one() -> None:
    client = Client()
    for _ in range(5):
        wrong(client, "nobody@example.com")
    assert "Too many failed attempts" in wrong(client, "nobody@example.com").content.decode()


def test_more_than_thirty_attempts_from_one_address_meet_the_page_that_says_wait(settings: LazySettings) -> None:
    settings.PASSWORD_HASHERS = ["django.contrib.auth.hashers.MD5PasswordHasher"]  # thirty slow hashes prove nothing
    client = Client()
    for number in range(30):
        assert wrong(client, f"person{number}@example.com").status_code == 200
    reply = wrong(client, "another@example.com")
    assert reply.status_code == 429
    assert b"Wait a minute" in reply.content
    assert b"seedancee2/app.css" in reply.content


def test_without_redis_people_sign_in_and_attempts_are_still_limited(
    settings: LazySettings, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Cache, "_asked_again_at", 0.0)  # later tests have their Redis again
    UserFactory.create(email="ada@example.com")
    UserFactory.create(email="bob@example.com")
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))  # bound and not listening: connections are refused
        nowhere = f"redis://127.0.0.1:{taken.getsockname()[1]}/0"
        settings.CACHES = {"default": settings.CACHES["default"] | {"LOCATION": nowhere}}
        client = Client()
        assert client.post(LOGIN, {"login": "bob@example.com", "password": PASSWORD}).status_code == 302
        assert client.get("/accounts/profile/").status_code == 200
        attacker = Client()
        for _ in range(5):
            assert "are not correct" in wrong(attacker).content.decode()
        assert "Too many failed attempts" in wrong(attacker).content.decode()
        caches["default"].clear()


def test_signing_in_changes_the_session_and_its_cookie_is_for_this_site_alone() -> None:
    UserFactory.create(email="ada@example.com")
    client = Client()
    session = client.session
    session["before"] = "kept"
    session.save()
    before = client.cookies["sessionid"].value
    client.post(LOGIN, {"login": "ada@example.com", "password": PASSWORD})
    cookie = client.cookies["sessionid"]
    assert cookie.value != before
    assert (cookie["httponly"], cookie["samesite"], cookie["max-age"]) == (True, "Lax", 14 * 86_400)
    assert not Session.objects.filter(session_key=before).exists()


def test_changing_the_password_signs_out_everywhere_else() -> None:
    user = UserFactory.create(email="ada@example.com")
    here, there = Client(), Client()
    for client in (here, there):
        client.post(LOGIN, {"login": user.email, "password": PASSWORD})
    new = "another battery staple"
    reply = here.post("/accounts/password/change/", {"oldpassword": "wrong", "password1": new})
    assert "not your current password" in reply.content.decode()
    assert there.get("/accounts/profile/").status_code == 200
    assert here.post("/accounts/password/change/", {"oldpassword": PASSWORD, "password1": new}).status_code == 302
    assert here.get("/accounts/profile/").status_code == 200
    assert there.get("/accounts/profile/")["Location"].startswith(LOGIN)
    assert [mail.subject for mail in django_mail.outbox] == ["Your password has changed"]
    entry = AuditEntry.objects.get()
    assert (entry.action, entry.actor, entry.organization, entry.address) == (
        "password.changed",
        user,
        None,
        "127.0.0.1",
    )
    assert Client().post(LOGIN, {"login": user.email, "password": PASSWORD}).status_code == 200
    assert Client().post(LOGIN, {"login": user.email, "password": new}).status_code == 302


def test_in_production_cookies_are_for_this_host_alone_and_by_https() -> None:
    names = ("SESSION_COOKIE_NAME", "SESSION_COOKIE_SECURE", "CSRF_COOKIE_NAME", "CSRF_COOKIE_SECURE", "SIGNUP_OPEN")
    code = f"from django.conf import settings; print([getattr(settings, name) for name in {names}])"
    given = os.environ | {"LOCAL_MODE": "false", "PUBLIC_BASE_URL": "https://api.seedancee2.ai"}
    printed = subprocess.run([sys.executable, "-c", code], env=given, capture_output=True, text=True, check=True).stdout
    assert printed.strip() == "['__Host-sessionid', True, '__Host-csrftoken', True, False]"


def test_a_forgotten_password_is_reset_by_mail_once_and_ends_every_session() -> None:
    user = UserFactory.create(email="ada@example.com")
    there = Client()
    there.post(LOGIN, {"login": user.email, "password": PASSWORD})
    client = Client()
    assert (
        client.post("/accounts/password/reset/", {"email": user.email})["Location"] == "/accounts/password/reset/done/"
    )
    link = re.search(r"http://testserver(/\S+)", str(django_mail.outbox[0].body))
    assert link is not None
    form = client.get(link[1])["Location"]
    assert b"Choose a new password" in client.get(form).content
    assert b"At least 10" in client.post(form, {"password1": "short"}).content
    new = "another battery staple"
    assert client.post(form, {"password1": new})["Location"] == "/accounts/password/reset/key/done/"
    assert there.get("/accounts/profile/")["Location"].startswith(LOGIN)
    assert b"does not work any more" in Client().get(link[1]).content
    assert Client().post(LOGIN, {"login": user.email, "password": new}).status_code == 302


def test_resetting_tells_nobody_which_addresses_have_accounts() -> None:
    UserFactory.create(email="ada@example.com")
    replies = [Client().post("/accounts/password/reset/", {"email": f"{who}@example.com"}) for who in ("ada", "eve")]
    assert {(reply.status_code, reply["Location"]) for reply in replies} == {(302, "/accounts/password/reset/done/")}
    assert [(mail.to, mail.subject) for mail in django_mail.outbox] == [
        (["ada@example.com"], "Choose a new password"),
        (["eve@example.com"], "There is no account with this address"),
    ]


def test_a_mail_server_that_is_away_is_told_and_breaks_nothing(settings: LazySettings) -> None:
    UserFactory.create(email="ada@example.com")
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        settings.EMAIL_BACKEND = "django.core.mail.backends.smtp.EmailBackend"
        settings.EMAIL_HOST, settings.EMAIL_PORT = taken.getsockname()
        reply = Client().post("/accounts/password/reset/", {"email": "ada@example.com"}, follow=True)
    assert reply.status_code == 200
    assert b"could not send a mail just now" in reply.content


def test_sessions_are_listed_and_the_others_signed_out() -> None:
    user = UserFactory.create()
    here = Client(headers={"user-agent": "Mozilla/5.0 (X11; Linux x86_64; rv:140.0) Gecko/20100101 Firefox/140.0"})
    there = Client(headers={"user-agent": "<script>alert(1)</script>"})
    for client in (here, there):
        client.post(LOGIN, {"login": user.email, "password": PASSWORD})
    stranger = Client()
    stranger.post(LOGIN, {"login": UserFactory.create().email, "password": PASSWORD})
    page = here.get("/accounts/sessions/").content.decode()
    assert page.count('data-label="Signed in"') == 2
    assert "Firefox on Linux" in page
    assert "&lt;script&gt;alert(1)&lt;" in page
    assert "<script>alert" not in page
    assert here.post("/accounts/sessions/").status_code == 302
    assert here.get("/accounts/profile/").status_code == 200
    assert there.get("/accounts/profile/").status_code == 302
    assert stranger.get("/accounts/profile/").status_code == 200
