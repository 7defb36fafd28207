"""Every exception of a `/v1` view becomes the error body of the public page ("Errors")."""

import math
from typing import Any

import structlog
from django.core.exceptions import PermissionDenied, RequestDataTooBig, SuspiciousOperation
from django.http import Http404, UnreadablePostError
from rest_framework import exceptions
from rest_framework.response import Response
from rest_framework.views import set_rollback

from seedancee2.api import errors

log = structlog.get_logger(__name__)


def handle(exc: Exception, context: dict[str, Any]) -> Response:
    """Answer with the error's JSON; what nobody foresaw is a 500, written to the log with its traceback."""
    error = _translate(exc, context)
    if error.status >= 500:
        log.error("request_failed", view=type(context.get("view")).__name__, exc_info=exc)
    set_rollback()
    return Response(error.as_json(), status=error.status, headers=error.headers)


def _translate(exc: Exception, context: dict[str, Any]) -> errors.PublicError:
    if isinstance(exc, errors.PublicError):
        return exc
    if isinstance(exc, (exceptions.NotAuthenticated, exceptions.AuthenticationFailed)):
        return errors.InvalidApiKey()
    if isinstance(exc, (exceptions.PermissionDenied, PermissionDenied)):
        return errors.PermissionDenied()
    if isinstance(exc, (exceptions.NotFound, Http404)):
        return errors.NotFound()
    if isinstance(exc, exceptions.MethodNotAllowed):
        return _method_not_allowed(context)
    if isinstance(exc, exceptions.UnsupportedMediaType):
        return errors.UnsupportedMediaType()
    if isinstance(exc, exceptions.Throttled):
        wait = math.ceil(getattr(exc, "wait", None) or 60)
        return errors.RateLimitExceeded(headers={"Retry-After": str(wait)})
    if isinstance(exc, RequestDataTooBig):
        return errors.RequestTooLarge()
    if isinstance(exc, UnreadablePostError):
        return errors.InvalidRequest("The request body could not be read to its end.")
    if isinstance(exc, exceptions.ParseError):
        return errors.InvalidRequest("The request body is not valid JSON.")
    if isinstance(exc, SuspiciousOperation) or (
        isinstance(exc, exceptions.APIException) and 400 <= exc.status_code < 500
    ):
        return errors.InvalidRequest()
    return errors.InternalError()


def _method_not_allowed(context: dict[str, Any]) -> errors.MethodNotAllowed:
    allowed = ", ".join(context["view"].allowed_methods)
    return errors.MethodNotAllowed(f"This method is not allowed here. Allowed: {allowed}.", headers={"Allow": allowed})
