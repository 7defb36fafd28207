"""Rights and second factors of people: given by superusers alone, each change with its entry beside it."""

from typing import Any

import pytest
from allauth.mfa.models import Authenticator
from allauth.mfa.totp.internal.auth import TOTP, generate_totp_secret
from django.contrib.auth.models import Group, Permission
from django.test import Client

from accounts import audit
from accounts.models import AuditEntry, User
from accounts.tests.factories import UserFactory

pytestmark = pytest.mark.django_db

INLINE = {"memberships-TOTAL_FORMS": "0", "memberships-INITIAL_FORMS": "0"}


@pytest.fixture
def superuser() -> User:
    return UserFactory.create(email="root@seedancee2.example", is_staff=True, is_superuser=True)


@pytest.fixture
def client(superuser: User) -> Client:
    client = Client()
    client.force_login(superuser)
    return client


def entries() -> list[tuple[str, str, dict[str, Any], dict[str, Any]]]:
    rows = AuditEntry.objects.filter(organization=None, is_by_staff=True).order_by("pk")
    return list(rows.values_list("action", "target", "before", "after"))


def test_what_superusers_change_about_people_and_groups_is_noted(client: Client, superuser: User) -> None:
    group = Group.objects.create(name="night shift")
    secret = "a long enough password"
    new = {"email": "ada@example.com", "name": "Ada", "usable_password": "true", "password1": secret}
    client.post("/admin/accounts/user/add/", new | {"password2": secret} | INLINE)
    ada = User.objects.get(email="ada@example.com")
    form = {"email": ada.email, "name": "Ada", "is_active": "on", "is_staff": "on", "groups": [group.pk]}
    assert client.post(f"/admin/accounts/user/{ada.pk}/change/", form | INLINE).status_code == 302
    right = Permission.objects.get(codename="view_organization")
    assert client.post(f"/admin/auth/group/{group.pk}/change/", {"name": "nights", "permissions": [right.pk]})
    another = "another long password"
    form = {"usable_password": "true", "password1": another, "password2": another}
    assert client.post(f"/admin/accounts/user/{ada.pk}/password/", form).status_code == 302
    TOTP.activate(ada, generate_totp_secret())
    factor = Authenticator.objects.get()
    assert client.post(f"/admin/mfa/authenticator/{factor.pk}/delete/", {"post": "yes"}).status_code == 302
    assert client.post(f"/admin/auth/group/{group.pk}/delete/", {"post": "yes"}).status_code == 302

    ada.refresh_from_db()
    assert (ada.is_staff, ada.check_password(another), Authenticator.objects.count()) == (True, True, 0)
    found = entries()
    assert [(action, target) for action, target, _, _ in found] == [
        ("user.added", "ada@example.com"),
        ("user.changed", "ada@example.com"),
        ("group.changed", "nights"),
        ("user.password_set", "ada@example.com"),
        ("authenticator.deleted", "ada@example.com: TOTP Authenticator"),
        ("group.deleted", "nights"),
    ]
    assert found[1][2:] == ({"is_staff": False, "groups": []}, {"is_staff": True, "groups": ["night shift"]})
    assert found[2][3] == {"name": "nights", "permissions": [str(right)]}
    everything = str(list(AuditEntry.objects.values()))
    assert secret not in everything
    assert another not in everything
    assert ada.password not in everything


def test_without_its_entry_nothing_is_changed(client: Client, monkeypatch: pytest.MonkeyPatch) -> None:
    group = Group.objects.create(name="night shift")
    ada = UserFactory.create(email="ada@example.com")
    TOTP.activate(ada, generate_totp_secret())
    password = ada.password
    client.raise_request_exception = False

    def fail(**_: Any) -> None:
        raise RuntimeError("the log is full")

    monkeypatch.setattr(audit, "note", fail)
    posts = [
        (f"/admin/accounts/user/{ada.pk}/change/", {"email": ada.email, "is_active": "on", "is_staff": "on"} | INLINE),
        (
            f"/admin/accounts/user/{ada.pk}/password/",
            {"usable_password": "true"} | dict.fromkeys(("password1", "password2"), "another long password"),
        ),
        (f"/admin/auth/group/{group.pk}/change/", {"name": "nights"}),
        (f"/admin/auth/group/{group.pk}/delete/", {"post": "yes"}),
        (f"/admin/mfa/authenticator/{Authenticator.objects.get().pk}/delete/", {"post": "yes"}),
    ]

    assert [client.post(address, form).status_code for address, form in posts] == [500] * 5

    ada.refresh_from_db()
    assert (ada.is_staff, ada.password) == (False, password)
    assert (Group.objects.get(pk=group.pk).name, Authenticator.objects.count()) == ("night shift", 1)


def test_nobody_but_a_superuser_gives_rights_or_takes_a_second_factor_of_the_staff(superuser: User) -> None:
    user = UserFactory.create(is_staff=True)
    user.user_permissions.set(Permission.objects.all())
    client = Client()
    client.force_login(user)
    group = Group.objects.create(name="night shift")
    user.groups.add(group)
    ada = UserFactory.create(email="ada@example.com")
    TOTP.activate(superuser, generate_totp_secret())
    TOTP.activate(ada, generate_totp_secret())
    of_root, of_ada = Authenticator.objects.order_by("pk")
    rights = {"is_staff": "on", "is_superuser": "on", "groups": [group.pk], "is_active": "on"}
    before = AuditEntry.objects.count()

    assert client.post(f"/admin/auth/group/{group.pk}/change/", {"name": "x"}).status_code == 403
    assert client.post("/admin/auth/group/add/", {"name": "x"}).status_code == 403
    assert client.post(f"/admin/auth/group/{group.pk}/delete/", {"post": "yes"}).status_code == 403
    assert client.post(f"/admin/accounts/user/{superuser.pk}/password/", {"password1": "x"}).status_code == 403
    assert client.post(f"/admin/accounts/user/{user.pk}/change/", rights).status_code == 403
    assert client.post(f"/admin/mfa/authenticator/{of_root.pk}/delete/", {"post": "yes"}).status_code == 403
    chosen = {"action": "delete_selected", "_selected_action": [of_root.pk, of_ada.pk], "post": "yes"}
    client.post("/admin/mfa/authenticator/", chosen)
    assert Authenticator.objects.count() == 2
    assert AuditEntry.objects.count() == before
    client.post(f"/admin/accounts/user/{ada.pk}/change/", {"email": ada.email, "name": "Ada"} | rights | INLINE)
    ada.refresh_from_db()
    assert (ada.name, ada.is_staff, ada.is_superuser, ada.groups.count()) == ("Ada", False, False, 0)
    assert client.post(f"/admin/mfa/authenticator/{of_ada.pk}/delete/", {"post": "yes"}).status_code == 302
    assert list(Authenticator.objects.all()) == [of_root]


def test_the_staff_change_their_password_where_it_is_written_down(client: Client) -> None:
    user = UserFactory.create(is_staff=True)
    user.set_password("the old password")
    user.save()
    client.force_login(user)
    form = {
        "old_password": "the old password",
        "new_password1": "another password 7",
        "new_password2": "another password 7",
    }

    for reply in (client.get("/admin/password_change/"), client.post("/admin/password_change/", form)):
        assert reply["Location"] == "/accounts/password/change/"

    user.refresh_from_db()
    assert user.check_password("the old password")
