"""One line for each request: who, what and how long, never a query, a key or a body."""

import pytest
import structlog
from django.http import HttpRequest, HttpResponse
from django.test import RequestFactory
from structlog.testing import capture_logs

from seedancee2.lib.requestlog import RequestLogMiddleware


def serve(request: HttpRequest, status: int = 200) -> HttpResponse:
    """Serve one request through the middleware."""

    def view(_: HttpRequest) -> HttpResponse:
        structlog.contextvars.bind_contextvars(organization_id=7)
        return HttpResponse(status=status)

    response = RequestLogMiddleware(view)(request)
    assert isinstance(response, HttpResponse)
    return response


def test_line_names_the_request_and_nothing_that_is_private() -> None:
    request = RequestFactory().post(
        "/v1/videos/generations?key=abc", {"prompt": "secret"}, headers={"authorization": "Bearer x"}
    )

    with capture_logs(processors=[structlog.contextvars.merge_contextvars]) as written:
        response = serve(request, 201)

    (line,) = written
    assert line.pop("ms") >= 0
    assert line == {
        "event": "request",
        "log_level": "info",
        "method": "POST",
        "path": "/v1/videos/generations",
        "status": 201,
        "request_id": response.headers["X-Request-Id"],
        "organization_id": 7,
    }


@pytest.mark.parametrize("path", ["/healthz", "/metrics", "/static/app.css"])
def test_what_machines_ask_all_the_time_is_whispered(path: str) -> None:
    with capture_logs() as written:
        serve(RequestFactory().get(path))

    assert [line["log_level"] for line in written] == ["debug"]


def test_path_cannot_forge_a_line() -> None:
    with capture_logs() as written:
        serve(RequestFactory().get("/v1/a%0Ab" + "x" * 1000))

    assert written[0]["path"].startswith("/v1/a%0Abxxx")
    assert len(written[0]["path"]) == 300


def test_nothing_of_a_request_is_left_for_the_next() -> None:
    first = serve(RequestFactory().get("/a")).headers["X-Request-Id"]

    assert structlog.contextvars.get_contextvars() == {}
    assert serve(RequestFactory().get("/a")).headers["X-Request-Id"] != first
