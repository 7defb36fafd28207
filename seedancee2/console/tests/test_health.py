"""Is it up, is it ready, and who may read the figures."""

import json

import pytest

from seedancee2.lib import heartbeats

pytestmark = pytest.mark.django_db


def test_healthz_answers_under_any_host_name(client):
    reply = client.get("/healthz", headers={"host": "10.1.2.3"})

    assert (reply.status_code, reply.json()) == (200, {"status": "ok"})


def test_readyz_names_what_is_missing(client):
    with heartbeats.connect() as redis:
        redis.flushdb()
    heartbeats.note(heartbeats.BEAT)
    heartbeats.note(heartbeats.WORKER)

    reply = client.get("/readyz")

    assert reply.status_code == 503
    assert sorted(json.loads(reply.content)["missing"]) == ["deliver", "media", "poll"]
    for part in (heartbeats.POLL, heartbeats.DELIVER, heartbeats.MEDIA):
        heartbeats.note(part)
    assert client.get("/readyz").json() == {"status": "ok", "missing": {}}


def test_readyz_names_a_broker_that_is_away(client, settings):
    settings.REDIS_URL = "redis://127.0.0.1:1/0"

    assert list(client.get("/readyz").json()["missing"]) == ["broker"]


def test_metrics_are_for_whoever_has_the_token(client, settings):
    settings.LOCAL_MODE = False
    settings.METRICS_TOKEN = ""
    assert client.get("/metrics", headers={"authorization": "Bearer "}).status_code == 404
    settings.METRICS_TOKEN = "a-long-token"

    assert client.get("/metrics").status_code == 404
    reply = client.get("/metrics", headers={"authorization": "Bearer a-long-token"})

    assert reply.status_code == 200
    assert b"seedancee2_requests_passed_unlimited" in reply.content


def test_secrets_in_paths_are_not_logged(client, caplog):
    client.get("/accounts/password/reset/key/3f-secret-token/")

    assert "secret-token" not in caplog.text
    assert "/accounts/password/reset/key/" in caplog.text
