"""The errors that customers can meet: a class for each row of the public page's table ("Errors") and its additions."""

from collections.abc import Mapping
from typing import Any, ClassVar


class PublicError(Exception):
    """An error whose code, type, status and message are shown to the customer as they are."""

    status: ClassVar[int] = 500
    code: ClassVar[str] = "internal_error"
    type: ClassVar[str] = "api_error"
    default_message: ClassVar[str] = "An unexpected error occurred. Please try again."

    def __init__(self, message: str | None = None, *, headers: Mapping[str, str] | None = None) -> None:
        self.message = message or self.default_message
        self.headers = dict(headers or {})
        super().__init__(self.message)

    def as_json(self) -> dict[str, Any]:
        """Return the page's error body."""
        return {"error": {"code": self.code, "message": self.message, "type": self.type}}


class InvalidRequest(PublicError):
    """Missing or invalid parameters; the message names each of them by its path."""

    status = 400
    code = "invalid_request"
    type = "invalid_request_error"
    default_message = "The request is not valid."


class InvalidApiKey(PublicError):
    """The key is missing, malformed, unknown, revoked or expired, or its organization is suspended."""

    status = 401
    code = "invalid_api_key"
    type = "authentication_error"
    default_message = "API key is missing, invalid, or disabled."

    def __init__(self, message: str | None = None, *, headers: Mapping[str, str] | None = None) -> None:
        super().__init__(message, headers={"WWW-Authenticate": "Bearer", **(headers or {})})


class InsufficientCredits(PublicError):
    """The available credits do not cover the price."""

    status = 402
    code = "insufficient_credits"
    type = "billing_error"
    default_message = "Your credit balance is too low. Please top up."


class PermissionDenied(PublicError):
    """The key may not do this."""

    status = 403
    code = "permission_denied"
    type = "permission_error"
    default_message = "This API key is not allowed to do this."


class ModelNotFound(PublicError):
    """No active model has this name."""

    status = 404
    code = "model_not_found"
    type = "invalid_request_error"
    default_message = "The model does not exist or is inactive. Use one of the names listed by GET /v1/models."


class TaskNotFound(PublicError):
    """No task of this organization and mode has this id."""

    status = 404
    code = "task_not_found"
    type = "invalid_request_error"
    default_message = "No video task has this ID."


class NotFound(PublicError):
    """The path does not exist."""

    status = 404
    code = "not_found"
    type = "invalid_request_error"
    default_message = "This path does not exist. The API's paths are listed at /docs."


class DeliveryNotFound(NotFound):
    """No webhook delivery of this organization and mode has this id."""

    default_message = "No webhook delivery has this ID."


class MethodNotAllowed(PublicError):
    """The path exists, but not with this method."""

    status = 405
    code = "method_not_allowed"
    type = "invalid_request_error"
    default_message = "This method is not allowed here."


class IdempotencyKeyInUse(PublicError):
    """A request with the same Idempotency-Key is still under way."""

    status = 409
    code = "idempotency_key_in_use"
    type = "invalid_request_error"
    default_message = "A request with this Idempotency-Key is still being processed. Retry in a moment."


class RequestTooLarge(PublicError):
    """The body is larger than the API takes."""

    status = 413
    code = "request_too_large"
    type = "invalid_request_error"
    default_message = "The request body must not be larger than 256 KiB."


class UnsupportedMediaType(PublicError):
    """The body is not JSON."""

    status = 415
    code = "unsupported_media_type"
    type = "invalid_request_error"
    default_message = "Send the request body as JSON with Content-Type: application/json."


class IdempotencyKeyReused(PublicError):
    """The Idempotency-Key was used before, with another body."""

    status = 422
    code = "idempotency_key_reused"
    type = "invalid_request_error"
    default_message = "This Idempotency-Key was already used with a different request body. Use a new key."


class RateLimitExceeded(PublicError):
    """Too many requests in this minute."""

    status = 429
    code = "rate_limit_exceeded"
    type = "rate_limit_error"
    default_message = "Too many requests. Slow down and retry after the time in the Retry-After header."


class InternalError(PublicError):
    """A fault of ours."""
