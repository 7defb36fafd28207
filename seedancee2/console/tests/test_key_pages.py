"""The console's page of keys: who sees what, who may do what, and the secret that shows once."""

import datetime as dt
import re

import pytest
from django.test import Client
from pytest_django import DjangoAssertNumQueries

from accounts import clients, keys, roles
from accounts.models import ApiKey, AuditEntry, Membership, Organization, User
from accounts.tests.factories import MembershipFactory, OrganizationFactory, UserFactory, issue_key
from billing.models import KeyAllowance
from seedancee2.api.errors import InvalidApiKey
from seedancee2.lib import clock

pytestmark = pytest.mark.django_db

PAGE = "/console/keys/"
ALL = {"scopes": ApiKey.Scope.values}
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

    reply = client.post(PAGE, {"name": "new", "mode": "test", **ALL})
    assert reply.status_code == (200 if issues else 403)
    assert ApiKey.objects.filter(name="new").exists() == issues

    for key, sees, revokes in ((others, sees_others, revokes_others), (own, sees_own, revokes_own)):
        no = 403 if sees else 404
        address = f"{PAGE}{key.pk}/revoke/"
        assert client.get(address).status_code == (200 if revokes else no)
        assert client.post(address, {"confirm": key.name}).status_code == (302 if revokes else no)
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
    reply = client.post(PAGE, {"name": "render farm", "mode": "test", "expires_on": "2999-01-01", **ALL})
    assert "2200" in reply.content.decode()
    assert not ApiKey.objects.exists()

    last_day = clock.now().date() + dt.timedelta(days=3)
    reply = client.post(PAGE, {"name": "render farm", "mode": "test", "expires_on": last_day.isoformat(), **ALL})
    [secret] = set(SECRET.findall(reply.content.decode()))
    assert "no-store" in reply["Cache-Control"]
    assert clients.authenticate(secret).is_test
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
        ({"name": "k", "mode": "live", "scopes": []}, "Choose at least one"),
        ({"name": "k", "mode": "live", "scopes": ["admin"]}, "not one of the available choices"),
        ({"name": "k", "mode": "live", "allowed_models": ["nano"]}, "not one of the available choices"),
        ({"name": "k", "mode": "live", "allowed_networks": "203.0.113.1/24"}, "write 203.0.113.0/24 for all of it"),
        ({"name": "k", "mode": "live", "allowed_networks": "office"}, "“office” is no address"),
        ({"name": "k", "mode": "live", "monthly_credit_cap": "0"}, "greater than or equal to 1"),
        ({"name": "k", "mode": "test", "monthly_credit_cap": "5"}, "a test key costs no credits"),
        ({"name": "k", "mode": "live", "create_rate_limit": "601"}, "Must be at most 600 a minute"),
    ],
)
def test_what_is_wrong_is_said_beside_the_form(
    organization: Organization, values: dict[str, object], message: str
) -> None:
    reply = signed_in(member(organization)).post(PAGE, {**ALL, **values})
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
    for typed in ("", "another"):
        assert client.post(f"{PAGE}{key.pk}/revoke/", {"confirm": typed}).status_code == 200
        assert clients.authenticate(secret)
    reply = client.post(f"{PAGE}{key.pk}/revoke/", {"confirm": key.name}, follow=True)
    assert "is revoked" in reply.content.decode()
    key.refresh_from_db()
    assert (key.state, key.revoked_by) == ("revoked", user)
    with pytest.raises(InvalidApiKey):
        clients.authenticate(secret)
    assert b"This key is revoked" in client.get(f"{PAGE}{key.pk}/revoke/").content
    assert client.post(f"{PAGE}{key.pk}/revoke/", {"confirm": key.name}).status_code == 302


def test_another_organization_is_as_if_it_did_not_exist(organization: Organization) -> None:
    stranger = OrganizationFactory.create()
    key = key_named("secret plans", stranger)
    client = signed_in(member(organization))
    assert b"secret plans" not in client.get(PAGE).content
    for step in ("", "roll/", "revoke/"):
        for address in (f"{PAGE}{key.pk}/{step}", f"{PAGE}{key.pk}/{step}?organization={stranger.pk}"):
            assert client.get(address).status_code == 404
            assert client.post(address, {"confirm": key.name, "overlap": "0"}).status_code == 404
        assert client.post(f"{PAGE}{key.pk}/{step}", {"organization": stranger.pk}).status_code == 404
    assert client.post(PAGE, {"name": "k", "mode": "live", **ALL, "organization": stranger.pk}).status_code == 404
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
    client.post(PAGE, {"name": "from an old tab", "mode": "live", **ALL, "organization": first.pk})
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
    assert b"<script>alert" not in client.post(f"{PAGE}{key.pk}/revoke/", {"confirm": key.name}, follow=True).content


def test_many_keys_come_in_pages_with_working_ones_first(organization: Organization) -> None:
    dead = key_named("dead", organization)
    keys.revoke(key=dead, revoked_by=None)
    for number in range(50):
        key_named(f"key-{number:02}", organization)
    client = signed_in(member(organization))
    first, second = client.get(PAGE), client.get(f"{PAGE}?page=2")
    assert (len(first.context["rows"]), len(second.context["rows"])) == (50, 1)
    assert second.context["rows"][0].key == dead


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
    steps = ("", f"{key.pk}/", f"{key.pk}/roll/", f"{key.pk}/revoke/")
    pages = [client.get(f"{PAGE}{step}") for step in steps]
    pages += [client.get(f"/console/{name}/") for name in ("members", "members/leave", "audit", "settings")]
    pages += [
        client.post(PAGE, {"name": "n", "mode": "live", **ALL}),
        Client().get("/accounts/login/"),
        Client().get("/"),
    ]
    for page in pages:
        text = page.content.decode()
        assert page.status_code == 200
        assert not re.search(r"<script(?![^>]*\bsrc=)|<style|\sstyle=|\son[a-z]+=|javascript:", text)
        assert not re.search(r"(?:src|href)=\"https?://", text)


def test_every_term_of_a_key_is_set_in_the_form_and_changed_later(organization: Organization) -> None:
    user = member(organization, Role.DEVELOPER)
    client = signed_in(user)
    values = {
        "name": "render farm",
        "mode": "live",
        "scopes": ["generate", "read"],
        "allowed_models": ["mini", "fast"],
        "allowed_networks": "203.0.113.7, 2001:DB8::/48\n203.0.113.7/32\n",
        "monthly_credit_cap": "500",
        "create_rate_limit": "30",
    }
    client.post(PAGE, values)
    key = ApiKey.objects.get()
    assert (key.scopes, key.allowed_models) == (["generate", "read"], ["mini", "fast"])
    assert key.allowed_networks == ["203.0.113.7", "2001:db8::/48"]
    assert (key.monthly_credit_cap, key.create_rate_limit, key.request_rate_limit) == (500, 30, None)
    page = client.get(PAGE).content.decode()
    assert "may generate, read" in page
    assert "from 203.0.113.7 and 1 more" in page
    assert "0 of 500" in page

    # Its maker may narrow it only; more is for those who manage every key.
    wider = {**values, "monthly_credit_cap": "501"}
    assert "n owner or admin of your organization" in client.post(f"{PAGE}{key.pk}/", wider).content.decode()
    assert ApiKey.objects.get().monthly_credit_cap == 500
    narrower = {**values, "monthly_credit_cap": "499"}
    assert client.post(f"{PAGE}{key.pk}/", narrower).status_code == 302
    assert client.post(f"{PAGE}{key.pk}/", values).status_code == 200
    keys.change(key=key, changed_by=None, monthly_credit_cap=500)
    manager = member(organization)
    client = signed_in(manager)

    changed = {"name": "farm", "scopes": ["read"], "monthly_credit_cap": "", "allowed_networks": ""}
    assert client.post(f"{PAGE}{key.pk}/", changed).status_code == 302
    key.refresh_from_db()
    assert (key.name, key.scopes, key.monthly_credit_cap, key.allowed_networks) == ("farm", ["read"], None, [])
    entry = AuditEntry.objects.filter(action="key.changed").latest("pk")
    assert entry.before == {
        "name": "render farm",
        "scopes": ["generate", "read"],
        "addresses": ["203.0.113.7", "2001:db8::/48"],
        "models": ["mini", "fast"],
        "monthly cap": 500,
        "creates a minute": 30,
    }
    assert (entry.actor_name, entry.address) == (manager.email, "127.0.0.1")
    # Saved as it is shown, nothing changes and nothing is noted.
    assert client.post(f"{PAGE}{key.pk}/", changed).status_code == 302
    assert AuditEntry.objects.filter(action="key.changed").count() == 3


def test_a_change_that_is_refused_changes_nothing(organization: Organization) -> None:
    client = signed_in(member(organization))
    key = key_named("k", organization)
    reply = client.post(f"{PAGE}{key.pk}/", {"name": "other", **ALL, "create_rate_limit": "601"})
    assert b"Must be at most 600 a minute" in reply.content
    key.refresh_from_db()
    assert (key.name, key.create_rate_limit) == ("k", None)
    keys.revoke(key=key, revoked_by=None)
    assert b"This key is revoked" in client.post(f"{PAGE}{key.pk}/", {"name": "other", **ALL}).content
    assert b"Change it" not in client.get(f"{PAGE}{key.pk}/").content


def test_the_hour_of_an_expiry_stays_when_another_term_changes(organization: Organization) -> None:
    ends = clock.now() + dt.timedelta(days=3, hours=1)
    issued = keys.issue(organization=organization, name="k", mode="test", expires_at=ends)
    client = signed_in(member(organization))
    day = ends.date().isoformat()
    client.post(f"{PAGE}{issued.key.pk}/", {"name": "other", **ALL, "expires_on": day})
    issued.key.refresh_from_db()
    assert (issued.key.name, issued.key.expires_at) == ("other", ends)


def test_a_viewer_sees_a_key_and_cannot_touch_it(organization: Organization) -> None:
    key = key_named("k", organization)
    client = signed_in(member(organization, Role.VIEWER))
    page = client.get(f"{PAGE}{key.pk}/")
    assert page.status_code == 200
    assert b"Change it" not in page.content
    assert client.post(f"{PAGE}{key.pk}/", {"name": "other", **ALL}).status_code == 403
    for step in ("roll/", "revoke/"):
        assert client.get(f"{PAGE}{key.pk}/{step}").status_code == 403
        assert client.post(f"{PAGE}{key.pk}/{step}", {"confirm": "k", "overlap": "0"}).status_code == 403
    assert ApiKey.objects.get().state == "active"


def test_a_key_is_rolled_with_an_overlap_and_both_work(organization: Organization) -> None:
    user = member(organization)
    old_secret = issue_key(organization, created_by=user)
    old = ApiKey.objects.get()
    client = signed_in(user)
    assert b"24 hours" in client.get(f"{PAGE}{old.pk}/roll/").content
    assert b"valid choice" in client.post(f"{PAGE}{old.pk}/roll/", {"overlap": "5"}).content
    assert ApiKey.objects.count() == 1

    reply = client.post(f"{PAGE}{old.pk}/roll/", {"overlap": "168"})
    [secret] = set(SECRET.findall(reply.content.decode()))
    assert "no-store" in reply["Cache-Control"]
    assert clients.authenticate(secret).organization_id == organization.pk
    assert clients.authenticate(old_secret).organization_id == organization.pk
    old.refresh_from_db()
    assert old.expires_at is not None
    assert dt.timedelta(days=6, hours=23) < old.expires_at - clock.now() <= dt.timedelta(days=7)
    assert b"Replaced by" in client.get(f"{PAGE}{old.pk}/").content
    assert b"Replaces" in client.get(f"{PAGE}{old.replaced_by_id}/").content
    assert not SECRET.search(client.get(f"{PAGE}{old.pk}/roll/").content.decode())
    # A second click of the same form finds the key rolled.
    assert b"rolled already" in client.post(f"{PAGE}{old.pk}/roll/", {"overlap": "168"}).content
    assert ApiKey.objects.count() == 2


def test_keys_are_found_by_what_they_are(organization: Organization) -> None:
    user = member(organization)
    now = clock.now()
    key_named("fresh", organization)
    mine = key_named("mine", organization, user)
    keys.issue(organization=organization, name="ending", mode="test", expires_at=now + dt.timedelta(days=13))
    keys.revoke(key=key_named("dead", organization), revoked_by=None)
    old = key_named("stale", organization)
    ApiKey.objects.filter(pk=old.pk).update(created_at=now - dt.timedelta(days=200))
    ApiKey.objects.filter(pk=old.pk).update(last_used_at=now - dt.timedelta(days=91))
    over = key_named("over", organization)
    ApiKey.objects.filter(pk=over.pk).update(expires_at=now - dt.timedelta(days=1))
    client = signed_in(user)

    def found(query: str) -> list[str]:
        return sorted(row.key.name for row in client.get(f"{PAGE}?{query}").context["rows"])

    assert found("") == ["dead", "ending", "fresh", "mine", "over", "stale"]
    assert found("flag=unused") == ["stale"]
    assert found("flag=expiring") == ["ending"]
    assert found("state=revoked") == ["dead"]
    assert found("state=expired") == ["over"]
    assert found("state=active") == ["ending", "fresh", "mine", "stale"]
    assert found("mode=test") == ["ending"]
    assert found("maker=me") == ["mine"]
    assert found("q=FRE") == ["fresh"]
    assert found(f"q={mine.masked[-4:]}") == ["mine"]
    assert found("state=nonsense&mode=test") == ["ending"]
    assert b"No key is like that" in client.get(f"{PAGE}?q=nothing-like-it").content
    page = client.get(PAGE).content.decode()
    assert (page.count("unused for 90 days</span>"), page.count("expires soon</span>")) == (1, 1)


def test_the_bar_shows_what_the_cap_has_of_this_month(organization: Organization) -> None:
    secret = issue_key(organization, monthly_credit_cap=100)
    key = ApiKey.objects.get()
    month = clock.now().date().replace(day=1)
    KeyAllowance.objects.create(api_key=key, month=month, used=40)
    KeyAllowance.objects.create(api_key=key, month=(month - dt.timedelta(days=1)).replace(day=1), used=99)
    new = keys.roll(key=key, rolled_by=None, overlap=dt.timedelta(hours=1)).key
    page = signed_in(member(organization)).get(PAGE).content.decode()
    # The key and the one that replaced it share what was used.
    assert page.count("40 of 100") == 2
    assert '<progress max="100" value="40"' in page
    assert clients.authenticate(secret).allowance_id == key.pk
    assert new.origin_id == key.pk


def test_the_list_costs_the_same_however_many_keys_there_are(
    organization: Organization, django_assert_max_num_queries: DjangoAssertNumQueries
) -> None:
    client = signed_in(member(organization))
    for _ in range(20):
        issue_key(organization, monthly_credit_cap=10, created_by=UserFactory.create())
    client.get(PAGE)
    with django_assert_max_num_queries(8):
        client.get(PAGE)


def test_what_an_organization_demands_is_said_and_kept(organization: Organization) -> None:
    organization.longest_key_days, organization.demands_key_caps = 30, True
    organization.save()
    client = signed_in(member(organization))
    last = clock.now().date() + dt.timedelta(days=30)
    page = client.get(PAGE).content.decode()
    assert f'value="{last.isoformat()}"' in page
    assert "live for at most 30 days" in page
    values = {"name": "k", "mode": "live", **ALL, "monthly_credit_cap": "5", "expires_on": last.isoformat()}
    for wrong, message in (
        ({"expires_on": ""}, "This field is required"),
        ({"expires_on": (last + dt.timedelta(days=1)).isoformat()}, "may live for at most 30 days"),
        ({"monthly_credit_cap": ""}, "demands a cap on every live key"),
    ):
        assert message in client.post(PAGE, {**values, **wrong}).content.decode()
    assert not ApiKey.objects.exists()
    client.post(PAGE, values)
    client.post(PAGE, {**values, "name": "t", "mode": "test", "monthly_credit_cap": ""})
    assert ApiKey.objects.count() == 2
