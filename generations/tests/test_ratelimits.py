"""Rate limits: per key, told in headers, and passed where Redis is away."""

import socket
import threading
import time
from collections.abc import Iterator
from typing import Any

import pytest

from accounts.tests.factories import issue_key
from generations.tests.callers import Caller, minimal
from generations.tests.factories import funded_organization
from seedancee2.api import ratelimits
from seedancee2.api.errors import RateLimitExceeded

pytestmark = pytest.mark.django_db

HEADERS = ("RateLimit-Limit", "RateLimit-Remaining", "RateLimit-Reset")


@pytest.fixture(autouse=True)
def _ask_again() -> Iterator[None]:
    ratelimits._asked_again_at = 0.0
    ratelimits._shares.clear()
    yield
    ratelimits._asked_again_at = 0.0


def test_a_key_has_so_many_creates_a_minute_and_is_told(customer: Caller, stranger: Caller, settings):
    settings.RATE_LIMIT_CREATES = 3
    replies = [customer.create(minimal()) for _ in range(4)]

    assert [reply.status_code for reply in replies] == [201, 201, 201, 429]
    assert [reply["RateLimit-Remaining"] for reply in replies] == ["2", "1", "0", "0"]
    assert {reply["RateLimit-Limit"] for reply in replies} == {"3"}
    assert all(1 <= int(reply["RateLimit-Reset"]) <= 60 for reply in replies)
    assert replies[-1].json() == {
        "error": {
            "code": "rate_limit_exceeded",
            "message": "Too many requests. Slow down and retry after the time in the Retry-After header.",
            "type": "rate_limit_error",
        }
    }
    assert replies[-1]["Retry-After"] == "20"
    # Reading goes on, and so does everybody else.
    assert customer.get("/v1/models").status_code == 200
    assert stranger.create(minimal()).status_code == 201
    assert customer.holdings()[-1] == (1_000 - 60, 60)


def test_a_process_takes_a_thousandth_of_a_limit_at_a_time(monkeypatch):
    asked = []
    script = ratelimits._script

    def counted(url: str) -> Any:
        asked.append(url)
        return script(url)

    monkeypatch.setattr(ratelimits, "_script", counted)

    def remaining() -> int:
        allowance = ratelimits.take(bucket="request", identity=-1, per_minute=3_000)
        assert allowance is not None
        assert 1 <= allowance.reset_seconds <= 60
        return allowance.remaining

    assert [remaining() for _ in range(7)] == [2_999, 2_998, 2_997, 2_996, 2_995, 2_994, 2_993]
    assert len(asked) == 3
    # Another process knows nothing of what is left of the share here, and a minute later nobody does.
    ratelimits._shares.clear()
    assert remaining() == 2_990
    share = ratelimits._shares["request", -1, 3_000]
    share.ends_at = time.monotonic()
    assert remaining() == 2_987
    assert len(asked) == 5


def test_a_limit_is_kept_to_the_last_request_however_large_the_shares_are():
    limit = 5_000
    for _ in range(limit):
        ratelimits.take(bucket="request", identity=-2, per_minute=limit)

    with pytest.raises(RateLimitExceeded) as refused:
        ratelimits.take(bucket="request", identity=-2, per_minute=limit)
    assert refused.value.headers["RateLimit-Remaining"] == "0"
    assert refused.value.headers["Retry-After"] == "1"
    # Another limit of the same key holds at once.
    larger = ratelimits.take(bucket="request", identity=-2, per_minute=limit + 1_000)
    assert larger is not None
    assert larger.remaining == 999


def test_forged_addresses_change_nothing(customer: Caller, settings):
    settings.RATE_LIMIT_REQUESTS = 2

    statuses = [customer.get("/v1/models", x_forwarded_for=f"10.0.0.{number}").status_code for number in range(4)]

    assert statuses == [200, 200, 429, 429]


def test_the_limit_of_the_key_goes_before_the_organizations_before_the_settings(settings):
    settings.RATE_LIMIT_REQUESTS = 100
    organization = funded_organization()
    organization.request_rate_limit = 50
    organization.save()

    assert Caller(organization).get("/v1/models")["RateLimit-Limit"] == "50"
    key = issue_key(organization, request_rate_limit=7)
    reply = Caller(organization).get("/v1/models", authorization=f"Bearer {key}")
    assert reply["RateLimit-Limit"] == "7"


def test_refused_keys_are_not_counted(client):
    reply = client.get("/v1/models", headers={"authorization": "Bearer nothing-that-is-known"})

    assert reply.status_code == 401
    assert not any(name in reply for name in HEADERS)


def test_without_redis_requests_pass_and_it_is_counted(customer: Caller, settings):
    settings.REDIS_URL = "redis://127.0.0.1:1/0"
    settings.RATE_LIMIT_REQUESTS = 1
    before = ratelimits.passed_unlimited._value.get()

    replies = [customer.get("/v1/models") for _ in range(3)]

    assert [reply.status_code for reply in replies] == [200, 200, 200]
    assert not any(name in replies[0] for name in HEADERS)
    assert ratelimits.passed_unlimited._value.get() == before + 3


def test_a_frozen_redis_is_asked_once_and_then_left_alone(customer: Caller, settings, monkeypatch):
    accepted = threading.Semaphore(0)
    with socket.create_server(("127.0.0.1", 0)) as frozen:
        connections: list[socket.socket] = []

        def accept() -> None:
            while True:
                try:
                    connections.append(frozen.accept()[0])
                except OSError:
                    return
                accepted.release()

        threading.Thread(target=accept, daemon=True).start()
        settings.REDIS_URL = f"redis://127.0.0.1:{frozen.getsockname()[1]}/0"
        monkeypatch.setattr(ratelimits, "PAUSE_AFTER_FAILURE", 60.0)
        monkeypatch.setattr(ratelimits, "_TIMEOUT", 0.07)

        assert [customer.get("/v1/models").status_code for _ in range(20)] == [200] * 20

        assert accepted.acquire(timeout=1)
        assert len(connections) <= 2
    for connection in connections:
        connection.close()
