"""Who may see what: every public route, with every kind of key that must not open it, and for every stranger."""

import datetime as dt
import re
from typing import Any

import pytest
from django.test import Client
from django.urls import get_resolver

from accounts import keys, organizations
from accounts.models import ApiKey
from accounts.tests.factories import UserFactory, issue_key
from billing import ledger
from generations.models import Generation
from generations.tests.callers import Caller, golden, minimal
from generations.tests.factories import create_generation, funded_organization
from seedancee2.lib import clock
from webhooks.models import Delivery
from webhooks.tests.factories import DeliveryFactory

pytestmark = pytest.mark.django_db

# Each with the scope that a key needs for it.
ROUTES = [
    ("get", "/v1/videos/generations", "read"),
    ("post", "/v1/videos/generations", "generate"),
    ("get", "/v1/videos/generations/{id}", "read"),
    ("get", "/v1/models", "read"),
    ("get", "/v1/usage", "usage"),
    ("get", "/v1/webhooks/deliveries", "webhooks"),
    ("get", "/v1/webhooks/deliveries/{delivery}", "webhooks"),
    ("post", "/v1/webhooks/deliveries/{delivery}/redeliver", "webhooks"),
    ("post", "/v1/webhooks/recover", "webhooks"),
    ("post", "/v1/webhooks/test", "webhooks"),
]

# What a POST needs besides a key to be taken; without an entry the least that makes a task.
BODIES = {
    "/v1/webhooks/deliveries/{delivery}/redeliver": "",
    "/v1/webhooks/recover": lambda: {"since": clock.iso(clock.now() - dt.timedelta(hours=1))},
    "/v1/webhooks/test": {"url": "https://nowhere.invalid/hook", "event": "video.generation.completed"},
}
TAKEN = {
    ("post", "/v1/videos/generations"): 201,
    ("post", "/v1/webhooks/deliveries/{delivery}/redeliver"): 202,
}


def _revoked() -> str:
    organization = funded_organization()
    issued = keys.issue(organization=organization, name="k", mode="live")
    keys.revoke(key=issued.key, revoked_by=None)
    return issued.secret


def _expired() -> str:
    secret = issue_key(funded_organization(), expires_at=clock.now() + dt.timedelta(hours=1))
    ApiKey.objects.update(expires_at=clock.now())
    return secret


def _suspended() -> str:
    organization = funded_organization()
    secret = issue_key(organization)
    organizations.suspend(organization=organization, actor=UserFactory.create(is_staff=True))
    return secret


def _bad_checksum() -> str:
    secret = issue_key(funded_organization())
    return secret[:-1] + ("a" if secret[-1] != "a" else "b")


def _unknown() -> str:
    secret = issue_key(funded_organization())
    ApiKey.objects.all().delete()
    return secret


BAD_KEYS = {
    "none": lambda: None,
    "empty": lambda: "",
    "malformed": lambda: "nonsense",
    "bad checksum": _bad_checksum,
    "unknown": _unknown,
    "revoked": _revoked,
    "expired": _expired,
    "suspended": _suspended,
}


def test_no_public_route_is_left_out_of_this_file():
    groups = [group for group in get_resolver().url_patterns if str(group.pattern).startswith("v1/")]
    found = {f"/{group.pattern}{route.pattern}" for group in groups for route in group.url_patterns}

    assert found == {re.sub(r"\{\w+\}", "<str:id>", path) for _, path, _ in ROUTES}


@pytest.mark.parametrize("kind", BAD_KEYS)
@pytest.mark.parametrize(("method", "path", "_scope"), ROUTES)
def test_a_bad_key_gets_the_same_401_whatever_is_wrong_with_it(method, path, _scope, kind):
    generation = create_generation(funded_organization(), is_test=True)
    failed_delivery(generation)
    secret = BAD_KEYS[kind]()
    headers = {} if secret is None else {"authorization": f"Bearer {secret}"}
    count = Generation.objects.count()

    reply = _send(Client(headers=headers), method, path, generation)

    assert reply.status_code == 401
    assert reply["WWW-Authenticate"] == "Bearer"
    assert reply.json() == {
        "error": {
            "code": "invalid_api_key",
            "message": "API key is missing, invalid, or disabled.",
            "type": "authentication_error",
        }
    }
    assert Generation.objects.count() == count
    assert Delivery.objects.get().state == "abandoned"


@pytest.mark.parametrize(("method", "path", "scope"), ROUTES)
def test_a_key_without_the_scope_gets_403_and_one_with_it_alone_is_let_in(method, path, scope):
    organization = funded_organization()
    generation = create_generation(organization)
    others = [other for other in ApiKey.Scope.values if other != scope]
    before = Generation.objects.count(), ledger.balance(organization_id=organization.pk)

    reply = _send(_client(issue_key(organization, scopes=others)), method, path, generation)

    assert reply.status_code == 403
    assert reply.json() == _denied(f"This API key may not do this: it lacks the scope {scope}.")
    assert (Generation.objects.count(), ledger.balance(organization_id=organization.pk)) == before
    only = _client(issue_key(organization, scopes=[scope]))
    assert _send(only, method, path, generation).status_code == TAKEN.get((method, path), 200)


@pytest.mark.parametrize(("method", "path", "_scope"), ROUTES)
def test_a_key_from_an_address_that_its_list_lacks_gets_403(method, path, _scope, settings):
    settings.ALLAUTH_TRUSTED_PROXY_COUNT = 1
    organization = funded_organization()
    generation = create_generation(organization)
    secret = issue_key(organization, allowed_networks=["203.0.113.0/24", "2001:db8::7"])
    before = Generation.objects.count()

    for forwarded, shown in [
        ("198.51.100.1", "198.51.100.1"),
        ("203.0.113.5, 198.51.100.1", "198.51.100.1"),  # what the client says of itself counts for nothing
        ("2001:db8::8", "2001:db8::8"),
        ("nonsense", "an unknown address"),
    ]:
        reply = _send(_client(secret, x_forwarded_for=forwarded), method, path, generation)
        assert reply.status_code == 403
        told = f"This API key may not be used from {shown}. Its list of addresses is kept in the console."
        assert reply.json() == _denied(told)
    assert Generation.objects.count() == before
    assert ApiKey.objects.get().last_used_at is None
    for forwarded in ("203.0.113.255", "198.51.100.1, 2001:DB8::7", "::ffff:203.0.113.9"):
        reply = _send(_client(secret, x_forwarded_for=forwarded), method, path, generation)
        assert reply.status_code == TAKEN.get((method, path), 200)


def test_a_bad_key_from_a_wrong_address_is_still_a_401(customer: Caller):
    issued = keys.issue(organization=customer.organization, name="k", mode="live", allowed_networks=["203.0.113.7"])
    assert _client(issued.secret).get("/v1/models").status_code == 403
    keys.revoke(key=issued.key, revoked_by=None)
    assert _client(issued.secret).get("/v1/models").status_code == 401


def test_every_view_names_the_scope_of_every_action():
    groups = [group for group in get_resolver().url_patterns if str(group.pattern).startswith("v1/")]
    for pattern in (route for group in groups for route in group.url_patterns):
        view, actions = pattern.callback.cls, set(pattern.callback.actions.values())
        assert actions <= set(view.scopes), view
        assert set(view.scopes.values()) <= set(ApiKey.Scope.values), view


def test_a_method_that_a_path_lacks_is_a_405_whatever_the_scopes(customer: Caller):
    client = _client(issue_key(customer.organization, scopes=["webhooks"]))
    assert client.delete("/v1/models").status_code == 405
    assert client.head("/v1/models").status_code == 403


def _send(http: Client, method: str, path: str, generation: Generation) -> Any:
    delivery = Delivery.objects.filter(reference=generation.public_id).first() or failed_delivery(generation)
    target = path.format(id=generation.public_id, delivery=delivery.pk)
    if method == "get":
        return http.get(target)
    body = BODIES.get(path, minimal())
    return http.post(target, body() if callable(body) else body, content_type="application/json")


def _client(secret: str, **headers: str) -> Client:
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    return Client(headers={"authorization": f"Bearer {secret}", **named})


def _denied(message: str) -> dict[str, Any]:
    return {"error": {"code": "permission_denied", "message": message, "type": "permission_error"}}


def test_nothing_of_a_customer_reaches_a_stranger_or_the_other_mode(customer: Caller, stranger: Caller):
    mine = create_generation(customer.organization, metadata={"secret": "of the customer"})
    tests = create_generation(customer.organization, is_test=True, metadata={"secret": "of the customer"})
    test_key = Caller(customer.organization, mode="test")
    everything = ["/v1/videos/generations", "/v1/usage", "/v1/models"]

    for caller, own, foreign in [
        (customer, {mine.public_id}, tests),
        (test_key, {tests.public_id}, mine),
        (stranger, set(), mine),
    ]:
        listed = {task["id"] for task in caller.get("/v1/videos/generations").json()["data"]}
        assert listed == own
        refusal = caller.get(f"/v1/videos/generations/{foreign.public_id}")
        unknown = caller.get("/v1/videos/generations/vid_01jz8b7q4x8k2p9w3m5c6n7r8s")
        malformed = caller.get("/v1/videos/generations/vid_nonsense")
        assert refusal.status_code == 404
        assert refusal.content == unknown.content == malformed.content
        assert caller.get("/v1/usage").json()["data"]["summary"]["total_jobs"] == len(own)
    assert not any(b"of the customer" in stranger.get(path).content for path in everything)


def failed_delivery(generation: Generation) -> Delivery:
    return DeliveryFactory.create(
        organization=generation.organization,
        is_test=generation.is_test,
        reference=generation.public_id,
        state="abandoned",
        due_at=None,
        finished_at=clock.now(),
    )


def test_no_webhook_of_a_customer_reaches_a_stranger_or_the_other_mode(customer: Caller, stranger: Caller):
    mine = failed_delivery(create_generation(customer.organization))
    tests = failed_delivery(create_generation(customer.organization, is_test=True))
    test_key = Caller(customer.organization, mode="test")
    base = "/v1/webhooks/deliveries"
    everything = (dt.datetime.now(dt.UTC) - dt.timedelta(days=1)).isoformat()

    for caller, own, foreign in [(customer, {mine.pk}, tests), (test_key, {tests.pk}, mine), (stranger, set(), mine)]:
        assert {row["id"] for row in caller.get(base).json()["data"]} == own
        assert caller.get(f"{base}?task={foreign.reference}").json()["data"] == []
        unknown = caller.get(f"{base}/dlv_01jz8b7q4x8k2p9w3m5c6n7r8s")
        assert unknown.status_code == 404
        for refused in (
            caller.get(f"{base}/{foreign.pk}"),
            caller.get(f"{base}/dlv_nonsense"),
            caller.post(f"{base}/{foreign.pk}/redeliver"),
        ):
            assert (refused.status_code, refused.content) == (404, unknown.content)
    assert Delivery.objects.filter(state="abandoned").count() == 2
    assert stranger.post("/v1/webhooks/recover", {"since": everything}).json()["data"]["recovered_count"] == 0
    assert Delivery.objects.filter(state="abandoned").count() == 2
    assert test_key.post("/v1/webhooks/recover", {"since": everything}).json()["data"]["recovered_count"] == 1
    assert set(Delivery.objects.values_list("pk", "state")) == {(mine.pk, "abandoned"), (tests.pk, "pending")}


def test_both_headers_with_different_keys_are_refused(customer: Caller, stranger: Caller):
    other = issue_key(stranger.organization)

    assert customer.get("/v1/models", x_api_key=other).status_code == 401
    assert customer.get("/v1/models", authorization="", x_api_key=other).status_code == 401
    assert Client(headers={"x-api-key": other}).get("/v1/models").json() == golden("models")
