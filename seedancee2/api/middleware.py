"""What must hold under `/v1` before and after the views: sizes, slashes, and JSON whatever happens."""

import io
from collections.abc import Callable
from typing import Any

import structlog
from django.conf import settings
from django.core.handlers.exception import convert_exception_to_response
from django.http import HttpRequest, HttpResponse, HttpResponseBase
from django.template.response import SimpleTemplateResponse
from django.urls import get_resolver
from django.utils.module_loading import import_string

from seedancee2.api import errors, rendering

log = structlog.get_logger(__name__)

PREFIX = "/v1"

_BY_STATUS: dict[int, type[errors.PublicError]] = {
    404: errors.NotFound,
    405: errors.MethodNotAllowed,
    413: errors.RequestTooLarge,
    415: errors.UnsupportedMediaType,
}


class PublicApiMiddleware:
    """Answers under `/v1` in the public page's form only (its "Errors"); everything else passes untouched.

    A request of the API goes through API_MIDDLEWARE and no further: sessions, cookies and forms are the pages', and
    took an eighth of the time of a read.
    """

    def __init__(self, get_response: Callable[[HttpRequest], HttpResponseBase]) -> None:
        self.get_response = get_response
        serve: Any = convert_exception_to_response(_serve)
        for path in reversed(settings.API_MIDDLEWARE):
            serve = convert_exception_to_response(import_string(path)(serve))
        self.serve: Callable[[HttpRequest], HttpResponseBase] = serve

    def __call__(self, request: HttpRequest) -> HttpResponseBase:
        """Serve one request."""
        path = request.path_info
        if path != PREFIX and not path.startswith(f"{PREFIX}/"):
            return self.get_response(request)
        if path.endswith("/"):
            # Served like none: a redirect would turn a POST into a GET in many clients.
            request.path_info = path[:-1]
            request.path = request.path[:-1]
        response = _refusal(request) or _as_json(self.serve(request))
        # A shared cache must not keep what was asked for with x-api-key, a header it does not know.
        response.headers.setdefault("Cache-Control", "private, no-cache")
        return response


def _serve(request: HttpRequest) -> HttpResponseBase:
    """Find the view and call it, as Django does behind its middleware."""
    request.get_host()  # refuses what ALLOWED_HOSTS does not have
    match = request.resolver_match = get_resolver().resolve(request.path_info)
    response: HttpResponseBase = match.func(request, *match.args, **match.kwargs)
    if isinstance(response, SimpleTemplateResponse):
        response = response.render()
    if isinstance(response, HttpResponse):
        response.headers.setdefault("Content-Length", str(len(response.content)))
    return response


def _refusal(request: HttpRequest) -> HttpResponse | None:
    """Refuse a body that is too large before anything reads it; one without a length is read here, up to the limit."""
    limit = settings.API_MAX_BODY_BYTES
    length = request.META.get("CONTENT_LENGTH") or ""
    if length.isdecimal():
        return _json(errors.RequestTooLarge()) if int(length[:19]) > limit else None
    source = request.META.get("wsgi.input")
    is_chunked = "chunked" in request.META.get("HTTP_TRANSFER_ENCODING", "").lower()
    if source is None or not (is_chunked and request.META.get("wsgi.input_terminated")):
        return None
    try:
        body = source.read(limit + 1)
    except OSError:
        return _json(errors.InvalidRequest("The request body could not be read to its end."))
    if len(body) > limit:
        return _json(errors.RequestTooLarge())
    # Django takes a request without a length for one without a body.
    request.META["CONTENT_LENGTH"] = str(len(body))
    request._stream = io.BytesIO(body)
    return None


def _as_json(response: HttpResponseBase) -> HttpResponseBase:
    is_json = response.headers.get("Content-Type", "").startswith("application/json")
    if response.status_code < 400 or is_json:
        return response
    if response.status_code >= 500:
        error: errors.PublicError = errors.InternalError()
    else:
        error = _BY_STATUS.get(response.status_code, errors.InvalidRequest)()
    replaced = _json(error)
    if "Allow" in response.headers:
        replaced.headers["Allow"] = response.headers["Allow"]
    response.close()
    return replaced


def _json(error: errors.PublicError) -> HttpResponse:
    response = HttpResponse(rendering.encode(error.as_json()), status=error.status, content_type="application/json")
    for name, value in error.headers.items():
        response.headers[name] = value
    return response
