"""What a key may not: models that it was not given, more credits a month than its cap, callbacks to unlisted hosts."""

import datetime as dt
import threading
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
import time_machine
from django.db import connections
from django.test import Client

from accounts import keys, organizations
from accounts.models import ApiKey, AuditEntry, Organization
from accounts.tests.factories import issue_key
from billing import ledger
from billing import reconciliation as ledger_reconciliation
from billing.models import KeyAllowance, Reservation
from generations import lifecycle, reconciliation
from generations.models import Generation, ModelAlias
from generations.tests.callers import TASKS, Caller, minimal
from generations.tests.factories import funded_organization
from seedancee2.lib import clock

NOON = dt.datetime(2026, 11, 20, 12, tzinfo=dt.UTC)
REACHED = (
    "This API key has reached its cap of {cap} credits a month: {left} are left, and this video costs 20. "
    "The cap begins anew on 2026-12-01 at 00:00 UTC; an owner or admin of your organization can raise it in the "
    "console."
)


def caller(organization: Organization, mode: str = "live", **terms: Any) -> Caller:
    """Make a client program with a key that was told these terms."""
    found = Caller(organization, mode)
    found._http.defaults["HTTP_AUTHORIZATION"] = f"Bearer {issue_key(organization, mode, **terms)}"
    return found


def used() -> dict[dt.date, int]:
    """Return what the allowances say, by month."""
    return dict(KeyAllowance.objects.values_list("month", "used"))


def end(public_id: str, *, is_good: bool) -> None:
    """End a task."""
    if is_good:
        lifecycle.complete(public_id=public_id, assets=[])
    else:
        lifecycle.fail(public_id=public_id, code=Generation.ErrorCode.GENERATION_FAILED)


@pytest.mark.django_db
def test_a_model_that_the_key_was_not_given_is_403_after_404_and_before_402() -> None:
    client = caller(funded_organization(1), allowed_models=["fast", "pro"])
    before = client.holdings()

    assert client.create({**minimal(), "model": "nano"}).status_code == 404
    reply = client.create(minimal())

    assert reply.status_code == 403
    assert reply.json()["error"] == {
        "code": "permission_denied",
        "message": "This API key may not use the model mini, only fast, pro.",
        "type": "permission_error",
    }
    assert client.create({**minimal(), "model": "fast"}).status_code == 402
    assert client.holdings() == before


@pytest.mark.django_db
def test_an_old_name_counts_as_the_model_it_stands_for() -> None:
    ModelAlias.objects.create(alias="tiny", model_id="mini")
    client = caller(funded_organization(), allowed_models=["mini"])
    assert client.create({**minimal(), "model": "tiny"}).status_code == 201
    assert (
        caller(client.organization, allowed_models=["fast"]).create({**minimal(), "model": "tiny"}).status_code == 403
    )


@pytest.mark.django_db
def test_a_cap_that_is_reached_is_402_with_what_is_left_and_when_it_begins_anew() -> None:
    with time_machine.travel(NOON, tick=False):
        client = caller(funded_organization(), monthly_credit_cap=50)
        assert [client.create(minimal()).status_code for _ in range(2)] == [201, 201]
        before = client.holdings()

        reply = client.create(minimal())

        assert reply.status_code == 402
        assert reply.json()["error"] == {
            "code": "insufficient_credits",
            "message": REACHED.format(cap=50, left=10),
            "type": "billing_error",
        }
        assert client.holdings() == before
        assert used() == {dt.date(2026, 11, 1): 40}
    with time_machine.travel(dt.datetime(2026, 12, 1, tzinfo=dt.UTC), tick=False):
        assert client.create(minimal()).status_code == 201
    assert used() == {dt.date(2026, 11, 1): 40, dt.date(2026, 12, 1): 20}


@pytest.mark.django_db
def test_a_price_above_the_whole_cap_is_refused_without_a_trace() -> None:
    with time_machine.travel(NOON, tick=False):
        reply = caller(funded_organization(), monthly_credit_cap=19).create(minimal())
    assert reply.status_code == 402
    assert reply.json()["error"]["message"] == REACHED.format(cap=19, left=19)
    assert used() == {}


@pytest.mark.django_db
def test_a_balance_that_is_too_low_says_so_and_leaves_the_cap_alone() -> None:
    client = caller(funded_organization(19), monthly_credit_cap=500)
    reply = client.create(minimal())
    assert reply.status_code == 402
    assert reply.json()["error"]["message"] == "Your credit balance is too low. Please top up."
    assert used() == {}


@pytest.mark.django_db
def test_what_is_given_back_goes_to_the_month_of_its_hold() -> None:
    november, december = dt.date(2026, 11, 1), dt.date(2026, 12, 1)
    with time_machine.travel(NOON, tick=False):
        client = caller(funded_organization(), monthly_credit_cap=60)
        failing, completed, later = (client.create(minimal()).json()["data"]["id"] for _ in range(3))
        end(completed, is_good=True)
        assert used() == {november: 60}
        end(failing, is_good=False)
        assert used() == {november: 40}
        assert client.create(minimal()).status_code == 201
        assert client.create(minimal()).status_code == 402
    with time_machine.travel(dt.datetime(2026, 12, 3, tzinfo=dt.UTC), tick=False):
        assert client.create(minimal()).status_code == 201
        end(later, is_good=False)
        lifecycle.refund(public_id=completed, amount=5, actor="t", reason="r")
        assert used() == {november: 35, december: 20}
        assert ledger_reconciliation.discrepancies() == []


@pytest.mark.django_db
def test_test_keys_leave_no_allowance() -> None:
    assert caller(funded_organization(), mode="test").create(minimal()).status_code == 201
    assert used() == {}
    assert not Reservation.objects.exists()


@pytest.mark.django_db
def test_a_cap_counts_what_the_key_used_before_it_was_set_and_while_it_was_lifted() -> None:
    client = caller(funded_organization())
    key = ApiKey.objects.latest("pk")
    failing, _ = (client.create(minimal()).json()["data"]["id"] for _ in range(2))
    assert list(used().values()) == [40]
    keys.change(key=key, changed_by=None, monthly_credit_cap=59)
    reply = client.create(minimal())
    assert (reply.status_code, "59 credits a month: 19 are left" in reply.json()["error"]["message"]) == (402, True)
    end(failing, is_good=False)
    keys.change(key=key, changed_by=None, monthly_credit_cap=None)
    assert [client.create(minimal()).status_code for _ in range(2)] == [201, 201]
    keys.change(key=key, changed_by=None, monthly_credit_cap=79)
    assert client.create(minimal()).status_code == 402
    assert list(used().values()) == [60]
    assert ledger_reconciliation.discrepancies() == []


@pytest.mark.django_db
def test_what_a_key_is_told_holds_for_the_one_that_it_replaced() -> None:
    organization = funded_organization()
    client = caller(organization)
    old = ApiKey.objects.latest("pk")
    middle = keys.roll(key=old, rolled_by=None, overlap=dt.timedelta(days=7)).key
    new = keys.roll(key=middle, rolled_by=None, overlap=dt.timedelta(days=7)).key
    ends_at = clock.now() + dt.timedelta(days=1)

    keys.change(key=new, changed_by=None, allowed_models=["fast"], monthly_credit_cap=30, expires_at=ends_at)

    assert client.create(minimal()).status_code == 403
    keys.change(key=new, changed_by=None, allowed_models=[], name="farm", expires_at=ends_at + dt.timedelta(days=30))
    assert [client.create(minimal()).status_code for _ in range(2)] == [201, 402]
    for key in (old, middle):
        key.refresh_from_db()
        assert (key.monthly_credit_cap, key.expires_at, key.name == "farm") == (30, ends_at, False)
    entry = AuditEntry.objects.filter(action="key.changed").earliest("pk")
    assert entry.after["keys it replaced, changed too"] == [old.masked, middle.masked]


@pytest.mark.django_db
def test_a_key_and_the_one_that_replaced_it_share_one_cap() -> None:
    organization = funded_organization()
    client = caller(organization, monthly_credit_cap=40)
    assert client.create(minimal()).status_code == 201
    old = ApiKey.objects.get(monthly_credit_cap=40)
    rolled = Caller(organization)
    issued = keys.roll(key=old, rolled_by=None, overlap=dt.timedelta(days=1))
    issued = keys.roll(key=issued.key, rolled_by=None, overlap=dt.timedelta(days=1))
    rolled._http.defaults["HTTP_AUTHORIZATION"] = f"Bearer {issued.secret}"
    assert rolled.create(minimal()).status_code == 201
    assert rolled.create(minimal()).status_code == 402
    assert client.create(minimal()).status_code == 402
    assert list(KeyAllowance.objects.values_list("api_key_id", "used")) == [(old.pk, 40)]


@pytest.mark.django_db
def test_a_replay_costs_the_cap_nothing() -> None:
    client = caller(funded_organization(), monthly_credit_cap=20)
    replies = [client.create(minimal(), idempotency_key="k") for _ in range(3)]
    assert [reply.status_code for reply in replies] == [201] * 3
    assert len({reply.content for reply in replies}) == 1
    assert list(used().values()) == [20]


@pytest.mark.race
@pytest.mark.django_db(transaction=True)
@pytest.mark.parametrize("is_rolled", [False, True])
def test_of_fifty_creates_at_once_on_a_cap_for_ten_exactly_ten_pass(is_rolled: bool) -> None:
    organization = funded_organization(10_000)
    secrets = [issue_key(organization, monthly_credit_cap=200)]
    if is_rolled:
        key = ApiKey.objects.get()
        secrets.append(keys.roll(key=key, rolled_by=None, overlap=dt.timedelta(days=1)).secret)
    begin = threading.Barrier(8)

    def create(number: int) -> int:
        client = Client(headers={"authorization": f"Bearer {secrets[number % len(secrets)]}"})
        if number < 8:
            begin.wait(10)
        try:
            return client.post(TASKS, minimal(), content_type="application/json").status_code
        finally:
            connections.close_all()

    with ThreadPoolExecutor(max_workers=8) as pool:
        ended = Counter(pool.map(create, range(50)))

    assert ended == {201: 10, 402: 40}
    assert list(used().values()) == [200]
    assert ledger.balance(organization_id=organization.pk) == (9_800, 200)
    assert Generation.objects.count() == 10
    assert reconciliation.discrepancies() == []


@pytest.mark.race
@pytest.mark.django_db(transaction=True)
def test_creates_and_failures_at_once_neither_deadlock_nor_lose_credits() -> None:
    organization = funded_organization(10_000)
    secret = issue_key(organization, monthly_credit_cap=60)
    http = Client(headers={"authorization": f"Bearer {secret}"})
    begin = threading.Barrier(6)

    def create_and_fail(number: int) -> int:
        begin.wait(10)
        try:
            passed = 0
            for _ in range(6):
                reply = http.post(TASKS, minimal(), content_type="application/json")
                if reply.status_code == 201:
                    passed += 1
                    end(reply.json()["data"]["id"], is_good=False)
            return passed
        finally:
            connections.close_all()

    with ThreadPoolExecutor(max_workers=6) as pool:
        passed = sum(pool.map(create_and_fail, range(6)))

    assert passed >= 6
    assert list(used().values()) == [0]
    assert ledger.balance(organization_id=organization.pk) == (10_000, 0)
    assert reconciliation.discrepancies() == []


@pytest.mark.django_db
def test_callbacks_go_to_the_hosts_that_the_organization_lists(customer: Caller) -> None:
    def url_passes(url: str) -> bool:
        return customer.create({**minimal(), "callback_url": url}).status_code == 201

    assert url_passes("https://anywhere.example.com/")
    organizations.change(
        organization=customer.organization,
        actor=None,
        callback_hosts=["Hooks.Example.com", "*.loom.example"],
    )
    assert url_passes("https://hooks.example.com:8443/a?b=c")
    assert url_passes("https://a.b.loom.example/")
    assert customer.create(minimal()).status_code == 201
    told = customer.refused({**minimal(), "callback_url": "https://example.com/hooks.example.com"})
    assert told == (
        "callback_url must name a host that your organization allows: hooks.example.com, *.loom.example. "
        "Its admins keep the list in the console's settings."
    )
    for url in ("https://loom.example/", "https://notloom.example/", "https://hooks.example.com.evil.example/"):
        assert "callback_url must name a host" in customer.refused({**minimal(), "callback_url": url})
    both = customer.refused({**minimal(duration=99), "callback_url": "https://evil.example/"})
    assert both.index("input.duration") < both.index("callback_url")
    assert "valid host name" in customer.refused({**minimal(), "callback_url": "https://a..b/"})


@pytest.mark.django_db
def test_the_list_of_hosts_is_one_organizations_alone(customer: Caller, stranger: Caller) -> None:
    organizations.change(organization=customer.organization, actor=None, callback_hosts=["hooks.example.com"])
    assert stranger.create({**minimal(), "callback_url": "https://elsewhere.example/"}).status_code == 201
