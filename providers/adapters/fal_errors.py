"""fal's error types in our words: a closed table (fal sheet §5). Submissions and results come with the same types."""

import dataclasses
from collections.abc import Mapping
from typing import Any, Final

from providers.adapters.base import ErrorClass


@dataclasses.dataclass(frozen=True, slots=True)
class Fault:
    """Whose fault a type is; a firm one stays so whatever the provider says about trying again."""

    error_class: ErrorClass
    is_firm: bool = False


# A customer is told of their own words and files, and laxer review is never shopped for.
_INPUT: Final = Fault(ErrorClass.CUSTOMER_INPUT, is_firm=True)
_MODERATION: Final = Fault(ErrorClass.CUSTOMER_MODERATION, is_firm=True)
_REFUSAL: Final = Fault(ErrorClass.CUSTOMER_MODERATION)
_CANCELLED: Final = Fault(ErrorClass.OUR_BUG, is_firm=True)
_BUG: Final = Fault(ErrorClass.OUR_BUG)
_TRANSIENT: Final = Fault(ErrorClass.TRANSIENT)

FAULTS: Final[Mapping[str, Fault]] = {
    "content_policy_violation": _MODERATION,
    "no_media_generated": _REFUSAL,
    "file_download_error": _INPUT,
    "image_load_error": _INPUT,
    "image_too_small": _INPUT,
    "image_too_large": _INPUT,
    "file_too_large": _INPUT,
    "unsupported_image_format": _INPUT,
    "unsupported_audio_format": _INPUT,
    "unsupported_video_format": _INPUT,
    "audio_duration_too_long": _INPUT,
    "audio_duration_too_short": _INPUT,
    "video_duration_too_long": _INPUT,
    "video_duration_too_short": _INPUT,
    "missing": _BUG,
    "one_of": _BUG,
    "literal_error": _BUG,
    "value_error": _BUG,
    "multiple_of": _BUG,
    "feature_not_supported": _BUG,
    "bad_request": _BUG,
    "internal_server_error": _TRANSIENT,
    "generation_timeout": _TRANSIENT,
    "downstream_service_error": _TRANSIENT,
    "downstream_service_unavailable": _TRANSIENT,
    "request_timeout": _TRANSIENT,
    "startup_timeout": _TRANSIENT,
    "runner_scheduling_failure": _TRANSIENT,
    "runner_connection_timeout": _TRANSIENT,
    "runner_disconnected": _TRANSIENT,
    "runner_connection_refused": _TRANSIENT,
    "runner_connection_error": _TRANSIENT,
    "runner_incomplete_response": _TRANSIENT,
    "runner_server_error": _TRANSIENT,
    "internal_error": _TRANSIENT,
    "client_disconnected": _CANCELLED,
    "client_cancelled": _CANCELLED,
}
_FAMILIES: Final[Mapping[str, Fault]] = {"unsupported_": _INPUT, "greater_than": _BUG, "less_than": _BUG}

# Statuses that settle a refused submission by themselves.
GATEWAY: Final[Mapping[int, ErrorClass]] = {
    401: ErrorClass.OUR_ACCOUNT,
    403: ErrorClass.OUR_ACCOUNT,
    404: ErrorClass.OUR_BUG,
    429: ErrorClass.CAPACITY,
}
# Whoever answered so gave up waiting for somebody who may have begun.
TIMEOUTS: Final = frozenset({408, 499})


@dataclasses.dataclass(frozen=True, slots=True)
class Said:
    """An error as the provider put it, whatever its shape; empty where it said nothing.

    `is_of_model` where the model itself spoke and not the platform around it, `is_retryable` where that was told.
    """

    kind: str
    field: str
    message: str
    cause: str
    is_of_model: bool
    is_retryable: bool | None

    @property
    def error_class(self) -> ErrorClass:
        """Return whose fault it is; UNKNOWN where nobody knows the type."""
        fault = _fault(self.kind)
        if fault is None:
            return ErrorClass.UNKNOWN
        if fault.is_firm or self.is_retryable is None:
            return fault.error_class
        # The provider's word about trying again wins over the table (§5.1).
        if self.is_retryable:
            return ErrorClass.TRANSIENT
        return ErrorClass.OUR_BUG if fault is _TRANSIENT else fault.error_class


def read(data: Any, headers: Mapping[str, str]) -> Said:
    """Read an error: `detail` is a list, a sentence, an object or missing (§9.7), and the type in one of three places.

    Without a known type in `detail` the platform's own counts, in the body or else in the headers.
    """
    data = data if isinstance(data, dict) else {}
    detail = data.get("detail")
    entries = [one for one in (detail if isinstance(detail, list) else [detail]) if isinstance(one, dict)]
    entry = next((one for one in entries if _text(one.get("type"))), next(iter(entries), {}))
    own = _text(entry.get("type"))
    kinds = [own, _text(data.get("error_type")), _text(headers.get("X-Fal-Error-Type"))]
    place = entry.get("loc")
    context = entry.get("ctx")
    extra = context.get("extra_info") if isinstance(context, dict) else None
    return Said(
        kind=next((kind for kind in kinds if _fault(kind)), next(filter(None, kinds), "")),
        field=str(place[-1]) if isinstance(place, list) and place else "",
        message=_text(entry.get("msg")) or _text(detail) or _text(data.get("error")),
        cause=_text(extra.get("reason")) if isinstance(extra, dict) else "",
        is_of_model=bool(own),
        is_retryable=_is_retryable(headers),
    )


def _fault(kind: str) -> Fault | None:
    families = (fault for stem, fault in _FAMILIES.items() if kind.startswith(stem))
    return FAULTS.get(kind) or next(families, None)


def _is_retryable(headers: Mapping[str, str]) -> bool | None:
    # Our own limit on waiting: the same request would wait as long again (§2).
    if headers.get("X-Fal-Request-Timeout-Type", "").lower() == "user":
        return False
    told = headers.get("X-Fal-Retryable") or headers.get("X-Fal-Needs-Retry") or ""
    return {"true": True, "false": False}.get(told.strip().lower())


def _text(value: Any) -> str:
    return value if isinstance(value, str) else ""
