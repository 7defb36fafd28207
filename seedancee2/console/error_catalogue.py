"""What each public error means and what to do about it, for the page `/errors`; a test holds it complete."""

import dataclasses
from typing import Final

from generations.models import Generation
from seedancee2.api import errors

ErrorCode = Generation.ErrorCode


@dataclasses.dataclass(frozen=True, slots=True)
class Entry:
    """One error of the API."""

    error: type[errors.PublicError]
    meaning: str
    remedy: str
    is_worth_retrying: bool


_TEXTS: Final[dict[type[errors.PublicError], tuple[str, str, bool]]] = {
    errors.InvalidRequest: (
        "A parameter is missing or not valid. The message names each by its path.",
        "Correct what the message names. The same request gives the same answer.",
        False,
    ),
    errors.InvalidApiKey: (
        "The key is missing, malformed, unknown, revoked or expired, or your organization is suspended.",
        "Send “Authorization: Bearer” and a key that the console shows as active.",
        False,
    ),
    errors.InsufficientCredits: (
        "The available credits, or what is left of the key's monthly cap, do not cover the price. Nothing was held.",
        "Ask for credits in the console under Billing, or have an admin raise the key's cap, as the message says. "
        "A test key needs neither.",
        False,
    ),
    errors.PermissionDenied: (
        "The key is valid but may not do this.",
        "Use a key that is allowed to, or ask an owner or admin of your organization for one.",
        False,
    ),
    errors.ModelNotFound: (
        "No active model has this name.",
        "Use one of the names that GET /v1/models lists.",
        False,
    ),
    errors.TaskNotFound: (
        "Your organization has no task with this id; live keys do not see test tasks, nor test keys live ones.",
        "Check the id, and that the key is of the mode in which the task was created.",
        False,
    ),
    errors.NotFound: ("The path does not exist.", "Compare the path with the API reference.", False),
    errors.MethodNotAllowed: (
        "The path exists, but not with this method.",
        "Use one of the methods in the Allow header.",
        False,
    ),
    errors.IdempotencyKeyInUse: (
        "A request with the same Idempotency-Key is still being processed.",
        "Wait as long as Retry-After says and send the same request again.",
        True,
    ),
    errors.RequestTooLarge: (
        "The body is larger than 256 KiB.",
        "Send references as URLs instead of putting them into the body.",
        False,
    ),
    errors.UnsupportedMediaType: (
        "The body is not JSON.",
        "Send JSON with Content-Type: application/json.",
        False,
    ),
    errors.IdempotencyKeyReused: (
        "This Idempotency-Key was used before, with another body.",
        "Use a new key for a new request, and the same body for a retry.",
        False,
    ),
    errors.RateLimitExceeded: (
        "Too many requests with this key in a minute.",
        "Wait as long as Retry-After says; a longer pause after each refusal helps.",
        True,
    ),
    errors.InternalError: (
        "The fault is ours.",
        "Send the request again with the same Idempotency-Key, so that it is done once. If it stays, tell support the "
        "X-Request-Id.",
        True,
    ),
}

# What to do about a task that was accepted and then failed; its credits are given back in any case.
FAILURES: Final[dict[str, str]] = {
    ErrorCode.GENERATION_FAILED: "Create the task again, or say the prompt differently.",
    ErrorCode.CONTENT_POLICY_VIOLATION: "Change the prompt or the references.",
    ErrorCode.INVALID_REFERENCE: "See that the URL answers without a login and that the file has a supported format.",
    ErrorCode.GENERATION_TIMEOUT: "Create the task again.",
    ErrorCode.CANCELED: "Ask the Seedancee2 team why.",
}


def entries() -> list[Entry]:
    """List every error of the API in the order of their statuses."""
    found = [Entry(error, *_TEXTS[error]) for error in errors.PublicError.__subclasses__()]
    return sorted(found, key=lambda entry: entry.error.status)
