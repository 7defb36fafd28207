"""The console's page of keys: who sees what, who may do what, and the secret that shows once."""

import datetime as dt
import re

import pytest
from django.test import Client

from accounts import keys, roles
from accounts.models import ApiKey, Membership, Organization, User
from accounts.tests.factories import MembershipFactory, OrganizationFactory, UserFactory, issue_key
from seedancee2.api.errors import InvalidApiKey
from seedancee2.lib import clock

pytestmark = pytest.mark.django_db

PAGE = "/console/keys/"
SECRET = re.compile(r"sk_seedancee2_(?:live|test)_[0-9A-Za-z]{38}")
Role = Membership.Role

# Role: sees keys of others, sees own, issues, revokes others', revokes own. 200 and 302 are yes, 403 and 404 are no.
TABLE = {
    Role.OWNER: (True, True, True, True, True),
    Role.ADMIN: (True, True, True, True, True),
    Role.DEVELOPER: (False, True, True, False, True),
    Role.BILLING: (False, False, False, False, False),
    Role.VIEWER: (True, True, False, False, False),
}


@pytest.fixture
def organization() -> Organization:
    return OrganizationFactory.create(name="Northwind")


def signed_in(user: User) -> Client:
    client = Client()
    client.force_login(user)
    return client


def member(organization: Organization, role: str = Role.OWNER) -> User:
    return MembershipFactory.create(organization=organization, role=role).user


def key_named(name: str, organization: Organization, created_by: User | None = None) -> ApiKey:
    return keys.issue(organization=organization, name=name, mode="live", created_by=created_by).key


@pytest.mark.parametrize("role", Role.values)
def test_the_roles_table_cell_by_cell(organization: Organization, role: str) -> None:
    sees_others, sees_own, issues, revokes_others, revokes_own = TABLE[Role(role)]
    user = member(organization, role)
    others, own = key_named("of-others", organization, UserFactory.create()), key_named("of-mine", organization, user)
    client = signed_in(user)

    page = client.get(PAGE)
    assert page.status_code == 200
    assert (b"of-others" in page.content) == sees_others
    assert (b"of-mine" in page.content) == sees_own
    assert (b"Issue key" in page.content) == issues
    assert (f"/keys/{others.pk}/revoke/".encode() in page.content) == revokes_others
    assert (f"/keys/{own.pk}/revoke/".encode() in page.content) == revokes_own

    reply = client.post(PAGE, {"name": "new", "mode": "test"})
    assert reply.status_code == (200 if issues else 403)
    assert ApiKey.objects.filter(name="new").exists() == issues

    for key, sees, revokes in ((others, sees_others, revokes_others), (own, sees_own, revokes_own)):
        no = 403 if sees else 404
        address = f"{PAGE}{key.pk}/revoke/"
        assert client.get(address).status_code == (200 if revokes else no)
        assert client.post(address).status_code == (302 if revokes else no)
        key.refresh_from_db()
        assert (key.revoked_at is not None) == revokes


def test_an_unknown_role_may_do_nothing(organization: Organization) -> None:
    membership = Membership(user=UserFactory.create(), organization=organization, role="intern")
    assert not any(roles.may(membership, permission) for permission in roles.Permission)


def test_an_owner_alone_makes_owners() -> None:
    may = {role for role in Role.values if roles.Permission.MANAGE_OWNERS in roles.TABLE[role]}
    assert may == {Role.OWNER}


def test_the_secret_is_shown_once_and_works(organization: Organization) -> None:
    user = member(organization)
    client = signed_in(user)
    reply = client.post(PAGE, {"name": "render farm", "mode": "test", "expires_on": "2999-01-01"})
    assert "2200" in reply.content.decode()
    assert not ApiKey.objects.exists()

    last_day = clock.now().date() + dt.timedelta(days=3)
    reply = client.post(PAGE, {"name": "render farm", "mode": "test", "expires_on": last_day.isoformat()})
    [secret] = set(SECRET.findall(reply.content.decode()))
    assert "no-store" in reply["Cache-Control"]
    assert keys.authenticate(secret).is_test
    key = ApiKey.objects.get()
    assert (key.organization, key.created_by, key.name) == (organization, user, "render farm")
    assert key.expires_at == dt.datetime.combine(last_day + dt.timedelta(days=1), dt.time.min, tzinfo=dt.UTC)

    again = client.get(PAGE)
    assert not SECRET.search(again.content.decode())
    assert key.masked in again.content.decode()
    assert "no-store" in again["Cache-Control"]
    assert not SECRET.search(str(dict(client.session)))


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"name": "", "mode": "live"}, "This field is required"),
        ({"name": "x" * 81, "mode": "live"}, "at most 80"),
        ({"name": "a\tb", "mode": "live"}, "printable"),
        ({"name": "k", "mode": "production"}, "not one of the available choices"),
        ({"name": "k", "mode": "live", "expires_on": "2020-01-01"}, "This day is over"),
        ({"name": "k", "mode": "live", "expires_on": "soon"}, "Enter a valid date"),
    ],
)
def test_what_is_wrong_is_said_beside_the_form(
    organization: Organization, values: dict[str, str], message: str
) -> None:
    reply = signed_in(member(organization)).post(PAGE, values)
    assert reply.status_code == 200
    assert message in reply.content.decode()
    assert not ApiKey.objects.exists()


def test_revoking_asks_first_then_says_so_and_the_key_is_dead(organization: Organization) -> None:
    user = member(organization)
    secret = issue_key(organization)
    key = ApiKey.objects.get()
    client = signed_in(user)
    assert b"cannot be undone" in client.get(f"{PAGE}{key.pk}/revoke/").content
    key.refresh_from_db()
    assert key.state == "active"
    reply = client.post(f"{PAGE}{key.pk}/revoke/", follow=True)
    assert "is revoked" in reply.content.decode()
    key.refresh_from_db()
    assert (key.state, key.revoked_by) == ("revoked", user)
    with pytest.raises(InvalidApiKey):
        keys.authenticate(secret)
    assert b"This key is revoked" in client.get(f"{PAGE}{key.pk}/revoke/").content
    assert client.post(f"{PAGE}{key.pk}/revoke/").status_code == 302


def test_another_organization_is_as_if_it_did_not_exist(organization: Organization) -> None:
    stranger = OrganizationFactory.create()
    key = key_named("secret plans", stranger)
    client = signed_in(member(organization))
    assert b"secret plans" not in client.get(PAGE).content
    for address in (f"{PAGE}{key.pk}/revoke/", f"{PAGE}{key.pk}/revoke/?organization={stranger.pk}"):
        assert client.get(address).status_code == 404
        assert client.post(address).status_code == 404
    assert client.post(f"{PAGE}{key.pk}/revoke/", {"organization": stranger.pk}).status_code == 404
    assert client.post(PAGE, {"name": "k", "mode": "live", "organization": stranger.pk}).status_code == 404
    assert client.post("/console/organization/", {"organization": stranger.pk}).status_code == 404
    assert client.get(f"{PAGE}99999999999999999999/revoke/").status_code == 404
    key.refresh_from_db()
    assert key.revoked_at is None
    assert not ApiKey.objects.filter(name="k").exists()


def test_a_person_switches_between_organizations_and_old_pages_act_on_what_they_show() -> None:
    user = UserFactory.create()
    first, second = OrganizationFactory.create(name="Aardvark"), OrganizationFactory.create(name="Zebra")
    for organization in (second, first):
        MembershipFactory.create(user=user, organization=organization, role=Role.OWNER)
    client = signed_in(user)
    assert client.get(PAGE).context["organization"] == first
    client.post("/console/organization/", {"organization": second.pk})
    assert client.get(PAGE).context["organization"] == second
    # A page of the first organization, left open in another tab, is sent now.
    client.post(PAGE, {"name": "from an old tab", "mode": "live", "organization": first.pk})
    assert ApiKey.objects.get().organization == first
    key = ApiKey.objects.get()
    assert client.get(f"{PAGE}{key.pk}/revoke/?organization={first.pk}").status_code == 200
    # Once the person has left an organization, the session's memory of it counts for nothing.
    Membership.objects.filter(organization=second).delete()
    assert client.get(PAGE).context["organization"] == first


def test_members_never_see_the_addresses_of_staff(organization: Organization) -> None:
    key_named("by staff", organization, UserFactory.create(email="staff@seedancee2.example", is_staff=True))
    key_named("by a colleague", organization, UserFactory.create(email="colleague@example.com"))
    page = signed_in(member(organization)).get(PAGE).content.decode()
    assert "staff@seedancee2.example" not in page
    assert "the Seedancee2 team" in page
    assert "colleague@example.com" in page


def test_names_are_escaped(organization: Organization) -> None:
    key = key_named("<script>alert(1)</script>", organization)
    client = signed_in(member(organization))
    assert b"<script>alert" not in client.get(PAGE).content
    assert b"<script>alert" not in client.post(f"{PAGE}{key.pk}/revoke/", follow=True).content


def test_many_keys_come_in_pages_with_working_ones_first(organization: Organization) -> None:
    dead = key_named("dead", organization)
    keys.revoke(key=dead, revoked_by=None)
    for number in range(50):
        key_named(f"key-{number:02}", organization)
    client = signed_in(member(organization))
    first, second = client.get(PAGE), client.get(f"{PAGE}?page=2")
    assert (len(first.context["rows"]), len(second.context["rows"])) == (50, 1)
    assert second.context["rows"][0][0] == dead


def test_a_suspended_organization_is_told_so(organization: Organization) -> None:
    organization.is_suspended = True
    organization.save()
    assert b"is suspended" in signed_in(member(organization)).get(PAGE).content


def test_a_person_without_an_organization_gets_help() -> None:
    client = signed_in(UserFactory.create())
    reply = client.get(PAGE)
    assert reply.status_code == 200
    assert b"You belong to no organization yet" in reply.content
    assert client.post(PAGE, {"name": "k", "mode": "live"}).status_code == 403


def test_signing_in_comes_first_and_leads_back() -> None:
    for address in ("/console/", PAGE, f"{PAGE}1/revoke/", "/console/organization/"):
        reply = Client().get(address)
        assert reply.status_code == 302
        assert reply["Location"] == f"/accounts/login/?next={address}"


def test_a_form_from_elsewhere_changes_nothing(organization: Organization) -> None:
    client = Client(enforce_csrf_checks=True)
    client.force_login(member(organization))
    key = key_named("k", organization)
    for address in (PAGE, f"{PAGE}{key.pk}/revoke/", "/console/organization/"):
        reply = client.post(address, {"name": "new", "mode": "live", "organization": organization.pk})
        assert reply.status_code == 403
    assert ApiKey.objects.get().state == "active"


def test_nothing_changes_by_get(organization: Organization) -> None:
    client = signed_in(member(organization))
    assert client.get("/console/organization/", {"organization": organization.pk}).status_code == 405
    assert client.get(PAGE, {"name": "k", "mode": "live"}).status_code == 200
    assert not ApiKey.objects.exists()


def test_the_pages_hold_no_inline_script_or_style(organization: Organization) -> None:
    client = signed_in(member(organization))
    key = key_named("k", organization)
    pages = [client.get(address) for address in (PAGE, f"{PAGE}{key.pk}/revoke/")]
    pages += [client.post(PAGE, {"name": "n", "mode": "live"}), Client().get("/accounts/login/"), Client().get("/")]
    for page in pages:
        text = page.content.decode()
        assert page.status_code == 200
        assert not re.search(r"<script(?![^>]*\bsrc=)|<style|\sstyle=|\son[a-z]+=|javascript:", text)
        assert not re.search(r"(?:src|href)=\"https?://", text)
