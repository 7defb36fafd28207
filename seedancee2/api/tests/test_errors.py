"""Every exception, and every reply of Django's own, is the public page's error JSON under /v1."""

import io
import json
from collections.abc import Iterator
from typing import Any

import pytest
from django.core.exceptions import PermissionDenied, RequestDataTooBig, SuspiciousOperation
from django.core.handlers.wsgi import WSGIRequest
from django.http import Http404, HttpRequest, HttpResponse, HttpResponseNotAllowed, UnreadablePostError
from django.test import Client
from django.urls import path
from rest_framework import exceptions
from rest_framework.request import Request
from rest_framework.response import Response

from seedancee2.api import errors, responses
from seedancee2.api.middleware import PublicApiMiddleware
from seedancee2.api.views import PublicViewSet

RAISED: list[Exception] = []


class ProbeViewSet(PublicViewSet):
    """Raises what a test put in its way, else echoes."""

    authentication_classes = []
    permission_classes = []

    def list(self, request: Request) -> Response:
        """Raise, or answer."""
        if RAISED:
            raise RAISED.pop()
        return responses.data("fine", headers={"X-Extra": "1"})

    def create(self, request: Request) -> Response:
        """Echo the parsed body."""
        return responses.data(request.data)


def broken(request: HttpRequest) -> HttpResponse:
    """Fail outside DRF."""
    raise RuntimeError("broken")


def picky(request: HttpRequest) -> HttpResponse:
    """Answer as Django's own 405."""
    return HttpResponseNotAllowed(["PUT"])


def refusing(request: HttpRequest) -> HttpResponse:
    """Answer with HTML."""
    return HttpResponse("<h1>no</h1>", status=403)


def handler404(request: HttpRequest, exception: Exception) -> HttpResponse:
    """Answer as a page for people does."""
    return HttpResponse("<h1>nothing here</h1>", status=404)


urlpatterns = [
    path("v1/probe", ProbeViewSet.as_view({"get": "list", "post": "create"})),
    path("v1/broken", broken),
    path("v1/picky", picky),
    path("v1/refusing", refusing),
    path("page", refusing),
]
pytestmark = pytest.mark.urls(__name__)


@pytest.fixture(autouse=True)
def _nothing_raised() -> Iterator[None]:
    yield
    RAISED.clear()


@pytest.fixture
def http() -> Client:
    """A program that sees a 500 as a reply."""
    return Client(raise_request_exception=False)


def error_of(response: Any) -> tuple[int, str, str]:
    """Return status, code and type, after looking at the form of the whole reply."""
    assert response.headers["Content-Type"] == "application/json"
    assert response.headers["X-Request-Id"].startswith("req_")
    assert response.headers["Cache-Control"] == "private, no-cache"
    body = json.loads(response.content)
    assert list(body) == ["error"]
    assert list(body["error"]) == ["code", "message", "type"]
    assert body["error"]["message"].endswith((".", "?"))
    return response.status_code, body["error"]["code"], body["error"]["type"]


TABLE = [
    (errors.InvalidRequest(), 400, "invalid_request", "invalid_request_error"),
    (errors.InvalidApiKey(), 401, "invalid_api_key", "authentication_error"),
    (errors.InsufficientCredits(), 402, "insufficient_credits", "billing_error"),
    (errors.PermissionDenied(), 403, "permission_denied", "permission_error"),
    (errors.ModelNotFound(), 404, "model_not_found", "invalid_request_error"),
    (errors.TaskNotFound(), 404, "task_not_found", "invalid_request_error"),
    (errors.IdempotencyKeyInUse(), 409, "idempotency_key_in_use", "invalid_request_error"),
    (errors.RequestTooLarge(), 413, "request_too_large", "invalid_request_error"),
    (errors.UnsupportedMediaType(), 415, "unsupported_media_type", "invalid_request_error"),
    (errors.IdempotencyKeyReused(), 422, "idempotency_key_reused", "invalid_request_error"),
    (errors.RateLimitExceeded(), 429, "rate_limit_exceeded", "rate_limit_error"),
    (errors.InternalError(), 500, "internal_error", "api_error"),
    (exceptions.NotAuthenticated(), 401, "invalid_api_key", "authentication_error"),
    (exceptions.AuthenticationFailed(), 401, "invalid_api_key", "authentication_error"),
    (exceptions.PermissionDenied(), 403, "permission_denied", "permission_error"),
    (PermissionDenied(), 403, "permission_denied", "permission_error"),
    (exceptions.NotFound(), 404, "not_found", "invalid_request_error"),
    (Http404(), 404, "not_found", "invalid_request_error"),
    (exceptions.ParseError("x"), 400, "invalid_request", "invalid_request_error"),
    (exceptions.ValidationError({"a": ["b"]}), 400, "invalid_request", "invalid_request_error"),
    (exceptions.NotAcceptable(), 400, "invalid_request", "invalid_request_error"),
    (exceptions.UnsupportedMediaType("x"), 415, "unsupported_media_type", "invalid_request_error"),
    (exceptions.Throttled(wait=3.2), 429, "rate_limit_exceeded", "rate_limit_error"),
    (exceptions.APIException("secret"), 500, "internal_error", "api_error"),
    (SuspiciousOperation("x"), 400, "invalid_request", "invalid_request_error"),
    (RequestDataTooBig(), 413, "request_too_large", "invalid_request_error"),
    (UnreadablePostError(), 400, "invalid_request", "invalid_request_error"),
    (ValueError("secret"), 500, "internal_error", "api_error"),
    (RecursionError(), 500, "internal_error", "api_error"),
]


@pytest.mark.parametrize(("raised", "status", "code", "kind"), TABLE, ids=lambda value: type(value).__name__)
def test_every_exception_becomes_its_row_of_the_table(
    http: Client, raised: Exception, status: int, code: str, kind: str
) -> None:
    RAISED.append(raised)

    response = http.get("/v1/probe")

    assert error_of(response) == (status, code, kind)
    assert b"secret" not in response.content
    assert ("WWW-Authenticate" in response.headers) == (status == 401)


def test_unforeseen_errors_are_logged_with_their_traceback_and_shown_without(
    http: Client, caplog: pytest.LogCaptureFixture
) -> None:
    RAISED.append(ValueError("secret detail"))

    response = http.get("/v1/probe")

    assert response.json()["error"]["message"] == "An unexpected error occurred. Please try again."
    assert any("request_failed" in str(record.msg) for record in caplog.records)


def test_throttled_requests_are_told_when_to_come_back(http: Client) -> None:
    RAISED.append(exceptions.Throttled(wait=3.2))

    assert http.get("/v1/probe").headers["Retry-After"] == "4"


@pytest.mark.parametrize("method", ["put", "patch", "delete", "options", "trace"])
def test_other_methods_are_405_with_allow(http: Client, method: str) -> None:
    response = http.generic(method.upper(), "/v1/probe")

    assert error_of(response) == (405, "method_not_allowed", "invalid_request_error")
    assert response.headers["Allow"] == "GET, POST, HEAD"


def test_successful_replies_are_plain(http: Client) -> None:
    response = http.get("/v1/probe?format=html", headers={"accept": "text/html"})

    assert (response.status_code, response.content) == (200, b'{"data":"fine"}')
    assert response.headers["Content-Type"] == "application/json"
    assert response.headers["X-Extra"] == "1"
    assert "Allow" not in response.headers
    assert http.head("/v1/probe").content == b""


@pytest.mark.parametrize("target", ["/v1", "/v1/", "/v1/nothing", "/v1/nothing/here/", "/v1/probe//", "/v1/Probe"])
def test_unknown_paths_are_404_in_json(http: Client, target: str) -> None:
    assert error_of(http.get(target)) == (404, "not_found", "invalid_request_error")
    assert error_of(http.post(target, {"a": 1})) == (404, "not_found", "invalid_request_error")


def test_pages_outside_the_api_are_left_alone(http: Client) -> None:
    response = http.get("/page")

    assert (response.status_code, response.content) == (403, b"<h1>no</h1>")
    assert response.headers["X-Request-Id"].startswith("req_")


def test_replies_made_outside_drf_are_json_too(http: Client) -> None:
    assert error_of(http.get("/v1/broken")) == (500, "internal_error", "api_error")
    assert error_of(http.get("/v1/refusing")) == (400, "invalid_request", "invalid_request_error")
    response = http.get("/v1/picky")
    assert error_of(response) == (405, "method_not_allowed", "invalid_request_error")
    assert response.headers["Allow"] == "PUT"


def test_debug_pages_never_show_under_the_api(http: Client, settings: Any) -> None:
    settings.DEBUG = True

    assert error_of(http.get("/v1/broken"))[0] == 500
    assert error_of(http.get("/v1/nothing"))[0] == 404


def test_wrong_host_is_refused_in_json(http: Client) -> None:
    assert error_of(http.get("/v1/probe", headers={"host": "evil.example"}))[0] == 400


def test_too_many_query_parameters_are_refused_in_json(http: Client, settings: Any) -> None:
    settings.DATA_UPLOAD_MAX_NUMBER_FIELDS = 1
    RAISED.append(SuspiciousOperation())

    assert error_of(http.get("/v1/probe?a=1&b=2"))[0] == 400


def test_trailing_slash_is_served_like_none(http: Client) -> None:
    response = http.post("/v1/probe/", '{"a": 1}', content_type="application/json")

    assert (response.status_code, response.content) == (200, b'{"data":{"a":1}}')


def test_request_ids_are_ours_and_new_each_time(http: Client) -> None:
    seen = {http.get("/v1/probe", headers={"x-request-id": "mine"}).headers["X-Request-Id"] for _ in range(3)}

    assert len(seen) == 3
    assert "mine" not in seen


def test_large_bodies_are_413_by_their_length(http: Client) -> None:
    response = http.post("/v1/probe", b" " * (256 * 1024 + 1), content_type="application/json")

    assert error_of(response) == (413, "request_too_large", "invalid_request_error")
    fitting = json.dumps({"a": "x" * (256 * 1024 - 9)}, separators=(",", ":"))
    assert http.post("/v1/probe", fitting, content_type="application/json").status_code == 200


@pytest.mark.parametrize(("size", "status"), [(10, 200), (256 * 1024 - 8, 200), (256 * 1024 + 1, 413)])
def test_bodies_without_a_length_are_limited_while_they_are_read(size: int, status: int) -> None:
    body = b'{"a":"' + b"x" * (size - 8) + b'"}'
    source = io.BytesIO(body + b"never read" * 1000) if status == 413 else io.BytesIO(body)
    environ = {
        "REQUEST_METHOD": "POST",
        "PATH_INFO": "/v1/probe",
        "SERVER_NAME": "testserver",
        "SERVER_PORT": "80",
        "HTTP_TRANSFER_ENCODING": "chunked",
        "wsgi.input_terminated": True,
        "wsgi.input": source,
    }

    def view(request: HttpRequest) -> HttpResponse:
        response = ProbeViewSet.as_view({"post": "create"})(request)
        assert isinstance(response, Response)
        rendered: HttpResponse = response.render()
        return rendered

    response = PublicApiMiddleware(view)(WSGIRequest(environ))

    assert response.status_code == status
    assert source.tell() <= 256 * 1024 + 1


def test_forms_are_415_in_json(http: Client) -> None:
    assert error_of(http.post("/v1/probe", {"a": "1"})) == (415, "unsupported_media_type", "invalid_request_error")
    form = http.post("/v1/probe", "a=1", content_type="application/x-www-form-urlencoded")
    assert error_of(form)[0] == 415


def test_sessions_mean_nothing_to_the_api(http: Client) -> None:
    http.cookies["sessionid"] = "x" * 32

    response = http.post("/v1/probe", "{}", content_type="text/plain")

    assert response.status_code == 200
    assert "Set-Cookie" not in response.headers
