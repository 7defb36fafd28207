"""The web's worker: gunicorn's threads, with its own refusals in the public page's form instead of HTML."""

import contextlib
import json
import time
from http import HTTPStatus
from typing import Any

import structlog
from gunicorn.http import errors as http_errors
from gunicorn.workers.gthread import ThreadWorker

from seedancee2.api import errors
from seedancee2.lib import ids

log = structlog.get_logger(__name__)

# What is refused before the application sees a request (RFC 9110, 15.5; RFC 6585, 5); anything else unreadable is 400.
_STATUSES = {
    http_errors.LimitRequestLine: HTTPStatus.REQUEST_URI_TOO_LONG,
    http_errors.LimitRequestHeaders: HTTPStatus.REQUEST_HEADER_FIELDS_TOO_LARGE,
    http_errors.ExpectationFailed: HTTPStatus.EXPECTATION_FAILED,
    http_errors.UnsupportedTransferCoding: HTTPStatus.NOT_IMPLEMENTED,
}

_COURTESY_SECONDS = 0.001


class Worker(ThreadWorker):  # type: ignore[misc] # gunicorn has no types
    """Serves requests in threads."""

    def accept(self, listener: Any) -> None:
        """Accept a connection; a process that has more of them than threads lets another go first.

        Measured: of two processes the one that woke first took all sixteen connections of a client, and kept them.
        """
        if self.nr_conns >= self.cfg.threads:
            time.sleep(_COURTESY_SECONDS)
        super().accept(listener)

    def handle_error(self, req: Any, client: Any, addr: Any, exc: BaseException) -> None:
        """Answer a request that could not be read, or that broke gunicorn itself, with the error's JSON."""
        is_unreadable = isinstance(exc, http_errors.ParseException)
        status = _STATUSES.get(type(exc), HTTPStatus.BAD_REQUEST if is_unreadable else HTTPStatus.INTERNAL_SERVER_ERROR)
        request_id = ids.new("req")
        log.warning("request_unreadable", request_id=request_id, status=status.value, error=type(exc).__name__)
        error = errors.InvalidRequest(f"The request is no HTTP that this service takes: {status.phrase}.")
        body = json.dumps(
            (error if is_unreadable else errors.InternalError()).as_json(), separators=(",", ":")
        ).encode()
        head = (
            f"HTTP/1.1 {status.value} {status.phrase}\r\nConnection: close\r\nContent-Type: application/json\r\n"
            f"X-Request-Id: {request_id}\r\nContent-Length: {len(body)}\r\n\r\n"
        )
        with contextlib.suppress(OSError):  # whoever sent this may be gone already
            client.sendall(head.encode() + body)
