"""Sign-in with allauth, for customers and staff."""

import pytest
from allauth.mfa.models import Authenticator
from allauth.mfa.totp.internal.auth import TOTP, generate_totp_secret
from django.conf import LazySettings
from django.test import Client

from accounts.models import User
from accounts.signin import MfaAdapter
from accounts.tests.factories import PASSWORD, UserFactory

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


def test_sign_up_follows_the_setting(settings: LazySettings) -> None:
    newcomer = {"email": "new@example.com", "password1": PASSWORD, "password2": PASSWORD}
    settings.SIGNUP_OPEN = False
    assert b"Sign-up is closed" in Client().post("/accounts/signup/", newcomer).content
    assert b"Create an account" not in Client().get(LOGIN).content
    assert not User.objects.exists()
    settings.SIGNUP_OPEN = True
    assert b"Create an account" in Client().get(LOGIN).content
    Client().post("/accounts/signup/", newcomer)
    assert User.objects.get().email == "new@example.com"


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


@pytest.mark.parametrize("address", ["login/", "password/reset/", "password/reset/done/", "signup/", "inactive/"])
def test_the_pages_of_newcomers_render(address: str) -> None:
    reply = Client().get(f"/accounts/{address}")
    assert reply.status_code == 200
    assert b"seedancee2/app.css" in reply.content


@pytest.mark.parametrize("address", ["2fa/", "email/", "password/change/", "logout/", "reauthenticate/"])
def test_the_pages_of_an_account_render(address: str) -> None:
    client = Client()
    client.post(LOGIN, {"login": UserFactory.create().email, "password": PASSWORD})
    reply = client.get(f"/accounts/{address}")
    assert reply.status_code == 200
    assert b"seedancee2/app.css" in reply.content
