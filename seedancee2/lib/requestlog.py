"""One line for each request, and the id that joins it to everything else written meanwhile."""

import time
from collections.abc import Callable

import structlog
from django.http import HttpRequest, HttpResponseBase
from django.utils.encoding import iri_to_uri

from seedancee2.lib import ids

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
            write = log.debug if request.path.startswith(_UNINTERESTING) else log.info
            write(
                "request",
                method=(request.method or "")[:16],
                path=_shown_path(request),
                status=response.status_code,
                ms=round((time.monotonic() - started) * 1000),
            )
        finally:
            structlog.contextvars.clear_contextvars()
        return response


def _shown_path(request: HttpRequest) -> str:
    # Links for sign-in and callbacks carry their secret in the path: outside the API only the route is written.
    if request.path.startswith("/v1"):
        return iri_to_uri(request.path)[:300]
    return f"/{request.resolver_match.route}" if request.resolver_match else "(no such path)"
