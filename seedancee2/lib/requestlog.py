"""One line and one figure for each request, and the id that joins it to everything else written meanwhile."""

import time
from collections.abc import Callable

import structlog
from django.http import HttpRequest, HttpResponseBase
from django.utils.encoding import iri_to_uri

from seedancee2.lib import ids, metrics

log = structlog.get_logger(__name__)

HEADER = "X-Request-Id"

# Asked for every few seconds by machines.
_UNINTERESTING = ("/healthz", "/readyz", "/metrics", "/static/")


class RequestLogMiddleware:
    """Gives every request an id of ours, binds it to the log, and writes one line without query, body or key."""

    def __init__(self, get_response: Callable[[HttpRequest], HttpResponseBase]) -> None:
        self.get_response = get_response

    def __call__(self, request: HttpRequest) -> HttpResponseBase:
        """Serve the request; whoever is recognized on the way binds `organization_id`."""
        started = time.monotonic()
        # A value sent by the client is not taken over: the id must be one that nobody else can choose.
        request_id = ids.new("req")
        structlog.contextvars.clear_contextvars()
        structlog.contextvars.bind_contextvars(request_id=request_id)
        try:
            response = self.get_response(request)
            response.headers[HEADER] = request_id
            seconds = time.monotonic() - started
            route = _route(request)
            metrics.note_request(method=request.method or "", route=route, status=response.status_code, seconds=seconds)
            write = log.debug if request.path.startswith(_UNINTERESTING) else log.info
            write(
                "request",
                method=(request.method or "")[:16],
                # Links for sign-in and callbacks carry their secret in the path: only the API's is written.
                path=iri_to_uri(request.path)[:300] if request.path.startswith("/v1") else route,
                status=response.status_code,
                ms=round(seconds * 1000),
            )
        finally:
            structlog.contextvars.clear_contextvars()
        return response


def _route(request: HttpRequest) -> str:
    return f"/{request.resolver_match.route}" if request.resolver_match else "(no such path)"
