"""Keys over their life: what they are told, changed, rolled and revoked, and what the audit log has of it."""

import datetime as dt
import threading
from collections import Counter
from concurrent.futures import ThreadPoolExecutor

import pytest
import time_machine
from django.db import connections
from django.test import RequestFactory

from accounts import audit, clients, keys
from accounts.models import ApiKey, AuditEntry, Organization, User
from accounts.tests.factories import OrganizationFactory, UserFactory, issue_key
from accounts.tests.locks import takes_first
from seedancee2.api.errors import InvalidApiKey, InvalidRequest, PermissionDenied

NOON = dt.datetime(2026, 11, 20, 12, tzinfo=dt.UTC)
DAY = dt.timedelta(days=1)


@pytest.fixture
def organization(db: None) -> Organization:
    return OrganizationFactory.create()


@pytest.fixture
def person(db: None) -> User:
    return UserFactory.create(email="ada@example.com")


def entries() -> list[tuple[str, str]]:
    return list(AuditEntry.objects.order_by("pk").values_list("action", "actor_name"))


def test_a_key_may_everything_unless_it_is_told_otherwise(organization):
    client = clients.authenticate(issue_key(organization))
    assert client.scopes == {"generate", "read", "usage", "webhooks"}
    assert (client.allowed_models, client.monthly_credit_cap, client.callback_hosts) == ((), None, ())
    assert client.allowance_id == client.api_key_id


def test_a_client_carries_what_its_key_was_told(organization):
    organization.callback_hosts = ["hooks.example.com"]
    organization.save()
    secret = issue_key(organization, scopes=["usage", "read"], allowed_models=["mini"], monthly_credit_cap=7)
    client = clients.authenticate(secret)
    assert (client.scopes, client.allowed_models, client.monthly_credit_cap) == ({"read", "usage"}, ("mini",), 7)
    assert client.callback_hosts == ("hooks.example.com",)
    assert ApiKey.objects.get().scopes == ["read", "usage"]


def test_a_key_with_every_term_costs_one_query_too(organization, django_assert_num_queries):
    secret = issue_key(organization, scopes=["read"], allowed_networks=["127.0.0.0/8"], monthly_credit_cap=7)
    clients.authenticate(secret, find_address=lambda: "127.0.0.1")
    with django_assert_num_queries(1):
        clients.authenticate(secret, find_address=lambda: "127.0.0.1")


def test_the_address_is_asked_for_only_where_it_is_needed(organization):
    asked = []
    secret = issue_key(organization)
    clients.authenticate(secret, find_address=lambda: asked.append(1) or "203.0.113.7")
    clients.authenticate(secret, find_address=lambda: asked.append(2))
    assert asked == [1]
    assert ApiKey.objects.get().last_used_address == "203.0.113.7"


def test_without_a_known_address_a_list_lets_nobody_in(organization):
    secret = issue_key(organization, allowed_networks=["127.0.0.0/8"])
    with pytest.raises(PermissionDenied, match="an unknown address"):
        clients.authenticate(secret)


def test_a_request_past_the_trusted_proxies_has_no_address(settings):
    settings.ALLAUTH_TRUSTED_PROXY_COUNT = 2
    request = RequestFactory().get("/", headers={"x-forwarded-for": "203.0.113.7"})
    assert audit.client_address(request) is None


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"scopes": []}, "scopes: must be some of"),
        ({"scopes": ["read", "admin"]}, "scopes: must be some of"),
        ({"allowed_networks": ["office"]}, "allowed_networks: “office”"),
        ({"monthly_credit_cap": 0}, "monthly_credit_cap: must be 1"),
        ({"monthly_credit_cap": 10**13}, "monthly_credit_cap: must be 1"),
        ({"monthly_credit_cap": 5, "mode": "test"}, "monthly_credit_cap: is for live keys"),
        ({"request_rate_limit": 10**7}, "request_rate_limit: must be 1"),
    ],
)
def test_terms_that_make_no_sense_are_refused(organization, values, message):
    with pytest.raises(InvalidRequest, match=message):
        keys.issue(**{"organization": organization, "name": "k", "mode": "live", **values})
    assert not ApiKey.objects.exists()
    assert not AuditEntry.objects.exists()


def test_members_are_held_to_the_policies_and_staff_are_not(organization, person):
    organization.longest_key_days, organization.demands_key_caps = 90, True
    organization.save()
    staff = UserFactory.create(is_staff=True)
    with time_machine.travel(NOON, tick=False):
        latest = dt.datetime(2027, 2, 19, tzinfo=dt.UTC)  # the end of the ninetieth day
        for values, message in (
            ({"monthly_credit_cap": 1}, "expires_at: keys of .* may live for at most 90 days"),
            ({"monthly_credit_cap": 1, "expires_at": latest + DAY}, "may live for at most 90 days"),
            ({"expires_at": latest}, "monthly_credit_cap: .* demands a cap on every live key"),
            (
                {"expires_at": latest, "monthly_credit_cap": 1, "create_rate_limit": 601},
                "create_rate_limit: must be at",
            ),
        ):
            with pytest.raises(InvalidRequest, match=message):
                keys.issue(organization=organization, name="k", mode="live", created_by=person, **values)
            for maker in (staff, None):
                keys.issue(organization=organization, name="k", mode="live", created_by=maker, **values)
        keys.issue(
            organization=organization,
            name="mine",
            mode="live",
            created_by=person,
            expires_at=latest,
            monthly_credit_cap=1,
            create_rate_limit=600,
        )
    assert ApiKey.objects.filter(created_by=person).count() == 1


def test_a_change_does_not_stretch_the_longest_life(organization, person):
    organization.longest_key_days = 10
    organization.save()
    with time_machine.travel(NOON, tick=False):
        key = keys.issue(
            organization=organization, name="k", mode="live", created_by=person, expires_at=NOON + 5 * DAY
        ).key
    with time_machine.travel(NOON + 4 * DAY, tick=False):
        with pytest.raises(InvalidRequest, match="at most 10 days"):
            keys.change(key=key, changed_by=person, expires_at=NOON + 11 * DAY)
        assert keys.change(key=key, changed_by=person, expires_at=NOON + 10 * DAY).expires_at == NOON + 10 * DAY


def test_a_key_that_a_later_policy_forbids_can_be_narrowed_and_nothing_else(organization, person):
    key = keys.issue(organization=organization, name="k", mode="live", created_by=person, create_rate_limit=500).key
    organization.longest_key_days, organization.demands_key_caps = 10, True
    organization.save()
    before = ApiKey.objects.values().get()
    for wider in ({"create_rate_limit": 501}, {"create_rate_limit": None}, {"request_rate_limit": 6001}):
        with pytest.raises(InvalidRequest):
            keys.change(key=key, changed_by=person, **wider)
    assert ApiKey.objects.values().get() == before

    keys.change(key=key, changed_by=person, scopes=["read"], create_rate_limit=400, allowed_networks=["10.0.0.0/8"])
    keys.change(key=key, changed_by=person, name="narrow", monthly_credit_cap=5)
    keys.change(key=key, changed_by=person, expires_at=NOON + 900 * DAY)

    key.refresh_from_db()
    assert (key.name, key.scopes, key.create_rate_limit, key.monthly_credit_cap) == ("narrow", ["read"], 400, 5)


def test_what_becomes_of_a_key_stands_in_the_audit_log(organization, person):
    key = keys.issue(
        organization=organization, name="farm", mode="live", created_by=person, scopes=["read"], monthly_credit_cap=9
    ).key
    keys.change(key=key, changed_by=person, monthly_credit_cap=None, name="barn")
    keys.change(key=key, changed_by=person, name="barn")
    new = keys.roll(key=key, rolled_by=person, overlap=DAY).key
    keys.revoke(key=key, revoked_by=None)
    keys.revoke(key=key, revoked_by=person)
    keys.import_existing(organization=organization, name="old", secret="ak-0123456789abcdef-from-another-system")

    issued, changed, rolled, revoked, imported = AuditEntry.objects.order_by("pk")
    assert entries() == [
        ("key.issued", "ada@example.com"),
        ("key.changed", "ada@example.com"),
        ("key.rolled", "ada@example.com"),
        ("key.revoked", "system"),
        ("key.imported", "system"),
    ]
    assert issued.after == {"name": "farm", "mode": "live", "scopes": ["read"], "monthly cap": 9}
    assert (changed.before, changed.after) == (
        {"name": "farm", "monthly cap": 9},
        {"name": "barn", "monthly cap": None},
    )
    assert (rolled.target, rolled.after["replaces"]) == (f"barn ({new.masked})", key.masked)
    assert revoked.target == f"barn ({key.masked})"
    assert imported.after == {"name": "old", "mode": "live"}
    assert {entry.organization_id for entry in AuditEntry.objects.all()} == {organization.pk}


def test_the_audit_log_has_no_secret(organization, person):
    first = keys.issue(organization=organization, name="k", mode="live", created_by=person)
    second = keys.roll(key=first.key, rolled_by=person, overlap=DAY)
    told = str(list(AuditEntry.objects.values()))
    for issued in (first, second):
        assert issued.secret not in told
        assert issued.secret[19:-4] not in told


def test_a_rolled_key_is_as_the_old_one_and_lives_as_long(organization, person):
    maker = UserFactory.create()
    with time_machine.travel(NOON, tick=False):
        old = keys.issue(
            organization=organization,
            name="farm",
            mode="live",
            created_by=maker,
            expires_at=NOON + 30 * DAY,
            scopes=["read"],
            allowed_networks=["203.0.113.7"],
            allowed_models=["mini"],
            monthly_credit_cap=9,
            create_rate_limit=5,
            request_rate_limit=6,
        )
    with time_machine.travel(NOON + 10 * DAY, tick=False):
        new = keys.roll(key=old.key, rolled_by=person, overlap=7 * DAY)
    old.key.refresh_from_db()
    assert (new.key.expires_at, old.key.expires_at) == (NOON + 40 * DAY, NOON + 17 * DAY)
    assert (old.key.replaced_by, new.key.origin, new.key.replaced_by) == (new.key, old.key, None)
    same = "name mode scopes allowed_networks allowed_models monthly_credit_cap create_rate_limit request_rate_limit"
    for name in [*same.split(), "created_by", "organization"]:
        assert getattr(new.key, name) == getattr(old.key, name), name
    with time_machine.travel(NOON + 17 * DAY - dt.timedelta(milliseconds=1), tick=False):
        for issued in (old, new):
            assert clients.authenticate(issued.secret, find_address=lambda: "203.0.113.7")
    with time_machine.travel(NOON + 17 * DAY, tick=False):
        with pytest.raises(InvalidApiKey):
            clients.authenticate(old.secret)
        assert clients.authenticate(new.secret, find_address=lambda: "203.0.113.7")


def test_an_overlap_never_prolongs_the_old_key(organization, person):
    with time_machine.travel(NOON, tick=False):
        old = keys.issue(organization=organization, name="k", mode="live", expires_at=NOON + DAY).key
        keys.roll(key=old, rolled_by=person, overlap=7 * DAY)
    old.refresh_from_db()
    assert old.expires_at == NOON + DAY


def test_without_an_overlap_the_old_key_ends_at_once(organization, person):
    old = keys.issue(organization=organization, name="k", mode="live")
    new = keys.roll(key=old.key, rolled_by=person, overlap=dt.timedelta())
    old.key.refresh_from_db()
    assert (old.key.state, old.key.revoked_by) == ("revoked", person)
    with pytest.raises(InvalidApiKey):
        clients.authenticate(old.secret)
    assert clients.authenticate(new.secret)


def test_a_key_that_does_not_work_is_neither_rolled_nor_changed(organization, person):
    revoked = keys.issue(organization=organization, name="k", mode="live").key
    keys.revoke(key=revoked, revoked_by=person)
    with time_machine.travel(NOON, tick=False):
        expired = keys.issue(organization=organization, name="k", mode="live", expires_at=NOON + DAY).key
    rolled = keys.issue(organization=organization, name="k", mode="live").key
    keys.roll(key=rolled, rolled_by=person, overlap=DAY)
    count = ApiKey.objects.count(), AuditEntry.objects.count()
    for key, message in ((revoked, "is revoked"), (expired, "is expired"), (rolled, "rolled already")):
        with time_machine.travel(NOON + 2 * DAY), pytest.raises(InvalidRequest, match=message):
            keys.roll(key=key, rolled_by=person, overlap=DAY)
    for key in (revoked, expired):
        with time_machine.travel(NOON + 2 * DAY), pytest.raises(InvalidRequest):
            keys.change(key=key, changed_by=person, name="other")
    assert (ApiKey.objects.count(), AuditEntry.objects.count()) == count


def test_rolling_takes_over_a_longer_life_only_as_far_as_the_policy_lets_it(organization, person):
    with time_machine.travel(NOON, tick=False):
        for_ever = keys.issue(organization=organization, name="k", mode="live").key
        again = keys.issue(organization=organization, name="k", mode="live").key
        organization.longest_key_days = 30
        organization.save()
        latest = dt.datetime(2026, 12, 21, tzinfo=dt.UTC)
        assert keys.roll(key=for_ever, rolled_by=person, overlap=DAY).key.expires_at == latest
        staff = UserFactory.create(is_staff=True)
        assert keys.roll(key=again, rolled_by=staff, overlap=DAY).key.expires_at is None


@pytest.mark.race
@pytest.mark.django_db(transaction=True)
def test_of_many_rolls_at_once_one_makes_a_key() -> None:
    key = keys.issue(organization=OrganizationFactory.create(), name="k", mode="live").key
    begin = threading.Barrier(6)

    def roll(_number: int) -> str:
        begin.wait(10)
        try:
            keys.roll(key=key, rolled_by=None, overlap=DAY)
        except InvalidRequest:
            return "refused"
        finally:
            connections.close_all()
        return "rolled"

    with ThreadPoolExecutor(max_workers=6) as pool:
        assert Counter(pool.map(roll, range(6))) == {"rolled": 1, "refused": 5}
    assert ApiKey.objects.count() == 2
    assert AuditEntry.objects.filter(action="key.rolled").count() == 1


@pytest.mark.race
@pytest.mark.django_db(transaction=True)
def test_a_change_locks_the_older_keys_first() -> None:
    """As revoking many does: each would else wait for the other."""
    old = keys.issue(organization=OrganizationFactory.create(), name="k", mode="live").key
    new = keys.roll(key=old, rolled_by=None, overlap=DAY).key
    assert takes_first(lambda: keys.change(key=new, changed_by=None, scopes=["read"]), first=old, then=new)
    assert list(ApiKey.objects.values_list("scopes", flat=True)) == [["read"], ["read"]]
