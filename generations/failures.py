"""Why a task failed, in the customers' words; nothing of a provider's wording gets this far."""

from generations.models import Generation
from providers.adapters.base import ErrorClass, Reason

ErrorCode = Generation.ErrorCode

MESSAGES = {
    ErrorCode.GENERATION_FAILED: "The video could not be generated. Please try again with a different prompt.",
    ErrorCode.CONTENT_POLICY_VIOLATION: (
        "The prompt, a reference or the result was refused by the content policy. Please change the request."
    ),
    ErrorCode.INVALID_REFERENCE: (
        "A reference could not be fetched or read. Check that its URL is public and its format is supported."
    ),
    ErrorCode.GENERATION_TIMEOUT: "The video was not finished in time. Please try again.",
    ErrorCode.CANCELED: "The task was canceled by the Seedancee2 team.",
}

_BY_CLASS: dict[str, Generation.ErrorCode] = {
    ErrorClass.CUSTOMER_INPUT: ErrorCode.INVALID_REFERENCE,
    ErrorClass.CUSTOMER_MODERATION: ErrorCode.CONTENT_POLICY_VIOLATION,
}


_BY_REASON = {
    Reason.AUDIO_ALONE: "Audio cannot be the only reference. Add an image or a video, or remove the audio.",
}


def message_for(code: Generation.ErrorCode, reason: str = "") -> str:
    """Return what the customer is told: the reason where there is one that they can act on."""
    return _BY_REASON[Reason(reason)] if reason else MESSAGES[code]


def code_for(error_class: str) -> Generation.ErrorCode:
    """Return the public error code for an adapter's error class."""
    return _BY_CLASS.get(error_class, ErrorCode.GENERATION_FAILED)
