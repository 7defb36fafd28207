"""What a request under `/v1` passes, and what it does not."""

import pytest
from django.db import connection
from django.test.utils import CaptureQueriesContext

from accounts.tests.factories import OrganizationFactory, UserFactory, issue_key

pytestmark = pytest.mark.django_db


def _key() -> dict[str, str]:
    return {"authorization": f"Bearer {issue_key(OrganizationFactory.create())}"}


def test_a_session_is_neither_read_nor_made(client):
    client.force_login(UserFactory.create())
    with CaptureQueriesContext(connection) as queries:
        refused = client.get("/v1/models")
        served = client.get("/v1/models", headers=_key())

    assert (refused.status_code, served.status_code) == (401, 200)
    assert not any("session" in query["sql"] for query in queries)
    for reply in (refused, served):
        assert not reply.cookies
        assert "Cookie" not in reply.headers.get("Vary", "")
        assert "Content-Security-Policy" not in reply.headers


def test_what_protects_a_reply_is_kept(client, settings):
    settings.ALLOWED_HOSTS = ["api.example"]
    good = client.get(
        "/v1/models",
        headers={"host": "api.example", **_key()},
    )
    other = client.get("/v1/models", headers={"host": "elsewhere.example"})

    protecting = ("X-Content-Type-Options", "X-Frame-Options", "Referrer-Policy", "Cross-Origin-Opener-Policy")
    assert [good.headers[name] for name in protecting] == ["nosniff", "DENY", "same-origin", "same-origin"]
    assert good.headers["X-Request-Id"].startswith("req_")
    assert good.headers["Content-Length"] == str(len(good.content))
    assert other.status_code == 400
    assert other.json()["error"]["code"] == "invalid_request"


def test_plain_http_is_sent_to_https_where_it_is_demanded(client, settings):
    settings.SECURE_SSL_REDIRECT = True
    reply = client.get("/v1/models")

    assert (reply.status_code, reply.headers["Location"]) == (301, "https://testserver/v1/models")


def test_what_a_view_cannot_foresee_is_told_as_an_error_of_ours(client, monkeypatch):
    client.raise_request_exception = False
    # Outside of the views, which answer for themselves.
    monkeypatch.setattr("seedancee2.api.middleware.get_resolver", None)

    reply = client.get("/v1/models", headers=_key())

    assert (reply.status_code, reply.json()["error"]["code"]) == (500, "internal_error")
