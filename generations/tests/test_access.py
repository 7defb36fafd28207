"""Who may see what: every public route, with every kind of key that must not open it, and for every stranger."""

import datetime as dt
import re

import pytest
from django.test import Client
from django.urls import get_resolver

from accounts import keys, organizations
from accounts.models import ApiKey
from accounts.tests.factories import UserFactory, issue_key
from generations.models import Generation
from generations.tests.callers import Caller, golden, minimal
from generations.tests.factories import create_generation, funded_organization
from seedancee2.lib import clock
from webhooks.models import Delivery
from webhooks.tests.factories import DeliveryFactory

pytestmark = pytest.mark.django_db

ROUTES = [
    ("get", "/v1/videos/generations"),
    ("post", "/v1/videos/generations"),
    ("get", "/v1/videos/generations/{id}"),
    ("get", "/v1/models"),
    ("get", "/v1/usage"),
    ("get", "/v1/webhooks/deliveries"),
    ("get", "/v1/webhooks/deliveries/{delivery}"),
    ("post", "/v1/webhooks/deliveries/{delivery}/redeliver"),
    ("post", "/v1/webhooks/recover"),
    ("post", "/v1/webhooks/test"),
]


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

    assert found == {re.sub(r"\{\w+\}", "<str:id>", path) for _, path in ROUTES}


@pytest.mark.parametrize("kind", BAD_KEYS)
@pytest.mark.parametrize(("method", "path"), ROUTES)
def test_a_bad_key_gets_the_same_401_whatever_is_wrong_with_it(method, path, kind):
    generation = create_generation(funded_organization(), is_test=True)
    delivery = failed_delivery(generation)
    secret = BAD_KEYS[kind]()
    headers = {} if secret is None else {"authorization": f"Bearer {secret}"}
    count = Generation.objects.count()

    http = Client(headers=headers)
    target = path.format(id=generation.public_id, delivery=delivery.pk)
    reply = http.get(target) if method == "get" else http.post(target, minimal(), content_type="application/json")

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
