"""The staff's pages for people, organizations and keys."""

import re

import pytest
from allauth.mfa.models import Authenticator
from allauth.mfa.totp.internal.auth import TOTP, generate_totp_secret
from django.contrib.admin.models import LogEntry
from django.contrib.auth.models import Permission
from django.test import Client

from accounts import clients, keys
from accounts.models import ApiKey, AuditEntry, Membership, Organization, User
from accounts.tests.factories import MembershipFactory, OrganizationFactory, UserFactory, issue_key
from seedancee2.api.errors import InvalidApiKey
from seedancee2.lib import ids

pytestmark = pytest.mark.django_db

WHY = "asked by mail"
SECRET = re.compile(r"sk_seedancee2_(?:live|test)_[0-9A-Za-z]{38}")


@pytest.fixture
def staff() -> User:
    return UserFactory.create(email="staff@seedancee2.example", is_staff=True, is_superuser=True)


@pytest.fixture
def client(staff: User) -> Client:
    client = Client()
    client.force_login(staff)
    return client


@pytest.fixture
def organization() -> Organization:
    return OrganizationFactory.create(name="Northwind")


def address(model: str, row: User | Organization | ApiKey, page: str) -> str:
    return f"/admin/accounts/{model}/{row.pk}/{page}/"


def test_every_list_and_page_opens(client: Client, staff: User, organization: Organization) -> None:
    issue_key(organization)
    MembershipFactory.create(organization=organization)
    TOTP.activate(staff, generate_totp_secret())
    key = ApiKey.objects.get()
    for page in (
        "/admin/",
        "/admin/accounts/user/",
        "/admin/accounts/user/add/",
        address("user", staff, "change"),
        address("user", staff, "password"),
        "/admin/accounts/organization/?q=north",
        "/admin/accounts/organization/add/",
        address("organization", organization, "change"),
        "/admin/accounts/apikey/?q=test",
        f"/admin/accounts/apikey/?organization__id__exact={organization.pk}",
        address("apikey", key, "change"),
        address("apikey", key, "history"),
        "/admin/auth/group/",
        "/admin/mfa/authenticator/",
        f"/admin/mfa/authenticator/{Authenticator.objects.get().pk}/change/",
    ):
        assert client.get(page).status_code == 200, page


def test_a_person_is_made_in_lower_case_with_a_hashed_password(client: Client) -> None:
    password = "a long enough password"
    values = {"email": "Ada@Example.COM", "name": "Ada", "usable_password": "true"}
    values |= {"password1": password, "password2": password}
    inline = {"memberships-TOTAL_FORMS": "0", "memberships-INITIAL_FORMS": "0"}
    reply = client.post("/admin/accounts/user/add/", values | inline)
    assert reply.status_code == 302, reply.content
    user = User.objects.get(name="Ada")
    assert user.email == "ada@example.com"
    assert user.check_password(password)
    page = client.get(address("user", user, "change")).content.decode()
    assert user.password not in page
    again = client.post("/admin/accounts/user/add/", values | inline)
    assert "already exists" in again.content.decode()


def test_a_membership_is_given_on_the_organizations_page(client: Client, organization: Organization) -> None:
    user = UserFactory.create()
    values = {
        "name": "Northwind",
        "is_webhook_signing_enabled": "on",
        "create_rate_limit": "60",
        "memberships-TOTAL_FORMS": "1",
        "memberships-INITIAL_FORMS": "0",
        "memberships-0-user": user.pk,
        "memberships-0-role": "owner",
        "memberships-0-organization": organization.pk,
    }
    reply = client.post(address("organization", organization, "change"), values)
    assert reply.status_code == 302, reply.content
    organization.refresh_from_db()
    assert organization.create_rate_limit == 60
    assert Membership.objects.get().user == user


def test_a_key_is_issued_and_its_secret_shown_once(client: Client, staff: User, organization: Organization) -> None:
    page = address("organization", organization, "issue-key")
    assert "no-store" in client.get(page)["Cache-Control"]
    asked = {"name": "first", "mode": "live", "reference": client.get(page).context["form"]["reference"].value()}
    for lacking in ({"reason": ""}, {"reason": WHY, "reference": ""}, {"reason": WHY, "reference": "key_1"}):
        assert client.post(page, asked | lacking).status_code == 200
    assert not ApiKey.objects.exists()
    reply = client.post(page, asked | {"reason": WHY})
    [secret] = set(SECRET.findall(reply.content.decode()))
    assert "no-store" in reply["Cache-Control"]
    assert clients.authenticate(secret).organization_id == organization.pk
    key = ApiKey.objects.get()
    assert key.created_by == staff
    change = client.get(address("apikey", key, "change")).content.decode()
    assert secret not in change
    assert bytes(key.digest).hex() not in change
    assert not SECRET.search(client.get(page).content.decode())
    assert secret not in str([*LogEntry.objects.values(), *AuditEntry.objects.values()])
    assert AuditEntry.objects.get().reason == WHY

    # A second click, and what another page sends.
    again = client.post(page, asked | {"reason": WHY}).content.decode()
    assert "This form was sent twice" in again
    assert not SECRET.search(again)
    assert (ApiKey.objects.count(), AuditEntry.objects.count()) == (1, 1)
    assert SECRET.search(client.post(page, asked | {"reason": WHY, "reference": ids.new("key")}).content.decode())
    assert ApiKey.objects.count() == 2


def test_what_the_domain_refuses_is_told(client: Client, organization: Organization) -> None:
    page = address("organization", organization, "issue-key")
    once = {"reference": ids.new("key")}
    reply = client.post(page, {"name": "a\tb", "mode": "live", "reason": WHY} | once)
    assert "printable" in reply.content.decode()
    past = {"name": "k", "mode": "live", "reason": WHY, "expires_on": "2020-01-01"} | once
    assert client.post(page, past).status_code == 200
    assert not ApiKey.objects.exists()
    assert client.get("/admin/accounts/organization/999999/issue-key/").status_code == 404


def test_an_organization_is_suspended_and_reinstated(client: Client, organization: Organization) -> None:
    secret = issue_key(organization)
    suspend, reinstate = (address("organization", organization, page) for page in ("suspend", "reinstate"))
    assert "keys that work: 1; open tasks: 0" in client.get(suspend).content.decode()
    assert client.post(suspend).status_code == 200
    assert clients.authenticate(secret)
    assert client.get(reinstate).status_code == 403
    assert client.post(suspend, {"reason": WHY}).status_code == 302
    with pytest.raises(InvalidApiKey):
        clients.authenticate(secret)
    assert client.post(suspend, {"reason": WHY}).status_code == 403
    assert client.post(reinstate, {"reason": "paid"}).status_code == 302
    assert clients.authenticate(secret)
    assert LogEntry.objects.count() == 2
    assert list(AuditEntry.objects.order_by("pk").values_list("action", "reason"))[-2:] == [
        ("organization.suspended", WHY),
        ("organization.reinstated", "paid"),
    ]


def test_a_key_is_revoked_after_a_question(client: Client, staff: User, organization: Organization) -> None:
    issue_key(organization)
    key = ApiKey.objects.get()
    page = address("apikey", key, "revoke")
    question = client.get(page).content.decode()
    assert f"Type “{key.last_four}” to confirm" in question
    assert "_selected_action" not in question
    assert client.post(page, {"reason": WHY, "confirm": "no"}).status_code == 200
    assert client.post(page, {"confirm": key.last_four}).status_code == 200
    key.refresh_from_db()
    assert key.state == "active"
    assert client.post(page, {"reason": WHY, "confirm": key.last_four}).status_code == 302
    key.refresh_from_db()
    assert (key.state, key.revoked_by) == ("revoked", staff)
    assert AuditEntry.objects.get(action="key.revoked").reason == WHY
    assert client.get(page).status_code == 403


def test_chosen_keys_are_revoked_after_a_question(client: Client, organization: Organization) -> None:
    for _ in range(3):
        issue_key(organization)
    first, second, third = ApiKey.objects.order_by("pk")
    chosen = {"action": "revoke_selected", "_selected_action": [first.pk, second.pk]}
    question = client.post("/admin/accounts/apikey/", chosen)
    assert b"Revoke 2 keys?" in question.content
    assert f"…{second.last_four} of Northwind, never used" in question.content.decode()
    for answer in ({"confirm": "3", "reason": WHY}, {"confirm": "2"}):
        assert client.post("/admin/accounts/apikey/", chosen | {"confirmed": "yes"} | answer).status_code == 200
    assert not ApiKey.objects.filter(revoked_at__isnull=False).exists()
    answer = {"confirmed": "yes", "confirm": "2", "reason": WHY}
    assert client.post("/admin/accounts/apikey/", chosen | answer).status_code == 302
    assert list(ApiKey.objects.filter(revoked_at__isnull=True)) == [third]
    assert AuditEntry.objects.filter(action="key.revoked", reason=WHY).count() == 2


def test_facts_of_a_key_cannot_be_changed_and_no_key_or_organization_deleted(
    client: Client, organization: Organization
) -> None:
    issue_key(organization)
    key = ApiKey.objects.get()
    values = {"name": "other", "mode": "test", "revoked_at": "", "create_rate_limit": "5", "last_four": "aaaa"}
    client.post(address("apikey", key, "change"), values)
    after = ApiKey.objects.get()
    assert after.create_rate_limit == 5
    assert (after.name, after.mode, after.last_four) == (key.name, key.mode, key.last_four)
    assert client.get("/admin/accounts/apikey/add/").status_code == 403
    for page in (address("apikey", key, "delete"), address("organization", organization, "delete")):
        assert client.post(page, {"post": "yes"}).status_code == 403
    chosen = {"action": "delete_selected", "_selected_action": [key.pk], "post": "yes"}
    client.post("/admin/accounts/apikey/", chosen)
    assert ApiKey.objects.filter(pk=key.pk).exists()


def test_an_old_page_does_not_undo_a_suspension(client: Client, organization: Organization) -> None:
    form_page = address("organization", organization, "change")
    Organization.objects.filter(pk=organization.pk).update(is_suspended=True)
    values = {"name": "Northwind Ltd", "memberships-TOTAL_FORMS": "0", "memberships-INITIAL_FORMS": "0"}
    assert client.post(form_page, values).status_code == 302
    organization.refresh_from_db()
    assert (organization.name, organization.is_suspended) == ("Northwind Ltd", True)


def test_second_factor_secrets_are_not_shown(client: Client, staff: User) -> None:
    secret = generate_totp_secret()
    TOTP.activate(staff, secret)
    row = Authenticator.objects.get()
    page = client.get(f"/admin/mfa/authenticator/{row.pk}/change/").content.decode()
    assert secret not in page
    assert row.data["secret"] not in page
    assert client.get("/admin/mfa/authenticator/add/").status_code == 403


def test_staff_with_few_rights_do_few_things(organization: Organization) -> None:
    user = UserFactory.create(is_staff=True)
    user.user_permissions.add(Permission.objects.get(codename="view_organization"))
    client = Client()
    client.force_login(user)
    issue_key(organization)
    assert client.get(address("organization", organization, "change")).status_code == 200
    for page in ("issue-key", "suspend", "keys"):
        assert client.post(address("organization", organization, page)).status_code == 403
    assert client.post(address("apikey", ApiKey.objects.get(), "revoke")).status_code == 403
    assert ApiKey.objects.get().state == "active"


def test_a_form_from_elsewhere_changes_nothing(staff: User, organization: Organization) -> None:
    client = Client(enforce_csrf_checks=True)
    client.force_login(staff)
    issue_key(organization)
    key = ApiKey.objects.get()
    for page in (
        address("organization", organization, "issue-key"),
        address("organization", organization, "suspend"),
        address("apikey", key, "revoke"),
    ):
        assert client.post(page, {"name": "k", "mode": "live", "reason": WHY}).status_code == 403
    key.refresh_from_db()
    assert key.state == "active"
    assert ApiKey.objects.count() == 1


def test_what_staff_change_stands_in_the_customers_audit_log(
    client: Client, staff: User, organization: Organization
) -> None:
    other = UserFactory.create(email="ada@example.com")
    form_page = address("organization", organization, "change")
    inline = {
        "memberships-TOTAL_FORMS": "1",
        "memberships-INITIAL_FORMS": "0",
        "memberships-0-user": other.pk,
        "memberships-0-role": "owner",
        "memberships-0-organization": organization.pk,
    }
    facts = {"name": "Northwind", "is_webhook_signing_enabled": "on"}
    client.post(form_page, {**facts, "create_rate_limit": "60", **inline})
    membership = Membership.objects.get()
    inline |= {
        "memberships-INITIAL_FORMS": "1",
        "memberships-0-id": membership.pk,
        "memberships-0-role": "admin",
    }
    # The last owner stays one, whoever asks.
    page = client.post(form_page, {**facts, "create_rate_limit": "60", **inline}, follow=True)
    assert b"Make somebody else an owner first" in page.content
    removal = {**inline, "memberships-0-role": "owner", "memberships-0-DELETE": "on"}
    page = client.post(form_page, {**facts, "create_rate_limit": "60", **removal}, follow=True)
    assert b"Make somebody else an owner first" in page.content
    assert Membership.objects.get().role == "owner"
    MembershipFactory.create(organization=organization, role="owner")
    client.post(form_page, {**facts, "create_rate_limit": "60", **inline})
    asked = {"name": "first", "mode": "live", "reason": WHY, "reference": ids.new("key")}
    client.post(address("organization", organization, "issue-key"), asked)
    key = ApiKey.objects.get()
    client.post(address("apikey", key, "change"), {"monthly_credit_cap": "70", "create_rate_limit": ""})
    client.post(address("apikey", key, "revoke"), {"reason": WHY, "confirm": key.last_four})
    client.post(address("organization", organization, "suspend"), {"reason": WHY})
    client.post(address("organization", organization, "suspend"), {"reason": WHY})

    entries = AuditEntry.objects.filter(organization=organization).order_by("pk")
    assert [(entry.action, entry.before, entry.after) for entry in entries] == [
        ("organization.changed", {"create_rate_limit": None}, {"create_rate_limit": 60}),
        ("member.added", {}, {"role": "owner"}),
        ("member.role_changed", {"role": "owner"}, {"role": "admin"}),
        ("key.issued", {}, {"name": "first", "mode": "live"}),
        ("key.changed", {"monthly cap": None}, {"monthly cap": 70}),
        ("key.revoked", {}, {}),
        ("organization.suspended", {}, {}),
    ]
    assert {(entry.actor, entry.is_by_staff) for entry in entries} == {(staff, True)}


def test_a_new_organization_of_the_admin_stands_in_its_audit_log(client: Client) -> None:
    inline = {"memberships-TOTAL_FORMS": "0", "memberships-INITIAL_FORMS": "0"}
    client.post("/admin/accounts/organization/add/", {"name": "Eastwind", **inline})
    entry = AuditEntry.objects.get()
    assert (entry.action, entry.organization, entry.is_by_staff) == (
        "organization.made",
        Organization.objects.get(name="Eastwind"),
        True,
    )


def test_a_membership_cannot_be_bent_to_another_person(client: Client, organization: Organization) -> None:
    membership = MembershipFactory.create(organization=organization)
    values = {
        "name": "Northwind",
        "memberships-TOTAL_FORMS": "1",
        "memberships-INITIAL_FORMS": "1",
        "memberships-0-id": membership.pk,
        "memberships-0-user": UserFactory.create().pk,
        "memberships-0-role": "owner",
        "memberships-0-organization": organization.pk,
    }
    page = client.post(address("organization", organization, "change"), values, follow=True)
    assert b"add another instead" in page.content
    after = Membership.objects.get()
    assert (after.user, after.role) == (membership.user, "developer")


def test_a_key_that_is_revoked_is_not_changed_any_more(client: Client, organization: Organization) -> None:
    key = keys.issue(organization=organization, name="k", mode="live").key
    keys.revoke(key=key, revoked_by=None)
    page = client.post(address("apikey", key, "change"), {"create_rate_limit": "5"}, follow=True)
    assert b"This key is revoked" in page.content
    assert ApiKey.objects.get().create_rate_limit is None


def test_an_old_page_changes_what_its_reader_changed_and_no_more(client: Client, organization: Organization) -> None:
    issue_key(organization)
    key, member = ApiKey.objects.get(), MembershipFactory.create(organization=organization, role="admin")
    MembershipFactory.create(organization=organization, role="owner")
    pages = {}
    for model, row in (("organization", organization), ("apikey", key)):
        shown = client.get(address(model, row, "change")).context
        forms = [shown["adminform"].form]
        for formset in shown["inline_admin_formsets"]:
            forms += [formset.formset.management_form, *formset.formset.initial_forms]
        fields = [field for form in forms for field in form]
        pages[model] = {field.html_name: field.value() for field in fields}
        pages[model] |= {field.html_initial_name: field.value() for field in fields if field.field.show_hidden_initial}
        pages[model] = {name: value for name, value in pages[model].items() if value not in (None, False)}
    Organization.objects.update(name="Southwind", create_rate_limit=7)
    ApiKey.objects.update(create_rate_limit=5, monthly_credit_cap=70)
    Membership.objects.filter(pk=member.pk).update(role="viewer")

    for model, row in (("organization", organization), ("apikey", key)):
        reply = client.post(address(model, row, "change"), pages[model] | {"request_rate_limit": "9"})
        assert reply.status_code == 302, reply.content.decode()

    organization.refresh_from_db()
    key.refresh_from_db()
    member.refresh_from_db()
    assert (organization.name, organization.create_rate_limit, organization.request_rate_limit) == ("Southwind", 7, 9)
    assert (key.create_rate_limit, key.monthly_credit_cap, key.request_rate_limit) == (5, 70, 9)
    assert (member.role, AuditEntry.objects.filter(action="member.role_changed").count()) == ("viewer", 0)


def test_a_key_in_the_search_of_a_list_leads_to_it_and_is_not_shown(client: Client, organization: Organization) -> None:
    keys.import_existing(organization=organization, name="old", secret="their-own-key-0123456789")
    key = ApiKey.objects.get()
    for model in ("apikey", "organization", "user"):
        page = client.get(f"/admin/accounts/{model}/", {"q": "key=their-own-key-0123456789"}, follow=True)
        assert page.redirect_chain[0][0] == address("apikey", key, "change")
        assert "their-own-key" not in page.content.decode()
