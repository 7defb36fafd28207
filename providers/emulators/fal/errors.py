"""What the provider says when it refuses: every documented error type, in the shapes it comes in (fal sheet §5)."""

import dataclasses
from collections.abc import Mapping
from typing import Any

from providers.emulators.server import DROPPED, HUNG, Response, json_response

MODEL: dict[str, tuple[int, str]] = {
    "content_policy_violation": (
        422,
        "The content could not be processed because it was flagged by a content checker.",
    ),
    "file_download_error": (422, "Failed to download the file. Please check if the URL is accessible and try again."),
    "image_load_error": (422, "Failed to load the image. Please ensure the image file is not corrupted."),
    "image_too_small": (422, "Image dimensions are too small."),
    "image_too_large": (422, "Image dimensions are too large."),
    "file_too_large": (422, "The file size is too large."),
    "unsupported_image_format": (422, "Unsupported image format. Supported formats are JPEG, PNG and WebP."),
    "unsupported_audio_format": (422, "Unsupported audio format. Supported formats are MP3 and WAV."),
    "unsupported_video_format": (422, "Unsupported video format. Supported formats are MP4 and MOV."),
    "audio_duration_too_long": (422, "Audio duration exceeds the maximum allowed."),
    "audio_duration_too_short": (422, "Audio duration is below the minimum allowed."),
    "video_duration_too_long": (422, "Video duration exceeds the maximum allowed."),
    "video_duration_too_short": (422, "Video duration is below the minimum allowed."),
    "missing": (422, "Field required"),
    "one_of": (422, "Exactly one of the fields must be set"),
    "literal_error": (422, "Input is not one of the permitted values"),
    "value_error": (422, "Value error"),
    "multiple_of": (422, "Input is not a multiple of the permitted step"),
    "feature_not_supported": (422, "The requested feature is not supported."),
    "no_media_generated": (422, "No media was generated. Try a different prompt."),
    "internal_server_error": (500, "Internal server error"),
    "generation_timeout": (504, "Generation timeout"),
    "downstream_service_error": (400, "Downstream service error"),
    "downstream_service_unavailable": (500, "Downstream service unavailable"),
}
_FAMILIES = {
    "unsupported_": "The file is of an unsupported kind.",
    "greater_than": "Input should be greater",
    "less_than": "Input should be less",
}
INFRASTRUCTURE: dict[str, tuple[int, str]] = {
    "request_timeout": (504, "Request timed out"),
    "startup_timeout": (504, "Runner startup timed out"),
    "runner_scheduling_failure": (503, "Runner could not be scheduled"),
    "runner_connection_timeout": (503, "Runner connection timed out"),
    "runner_disconnected": (503, "Runner disconnected"),
    "runner_connection_refused": (503, "Runner connection refused"),
    "runner_connection_error": (503, "Runner connection error"),
    "runner_incomplete_response": (502, "Runner incomplete response"),
    "runner_server_error": (500, "Runner server error"),
    "internal_error": (500, "Internal error"),
    "client_disconnected": (499, "Client disconnected"),
    "client_cancelled": (499, "Request was cancelled by the client"),
    "bad_request": (400, "Bad request"),
}
GATEWAY: dict[str, tuple[int, str]] = {
    "401": (401, "Invalid or missing authentication credentials."),
    "403": (
        403,
        "User is locked. Reason: Exhausted balance. Top up your balance at fal.ai/dashboard/billing.",
    ),
    "403/abuse": (403, "User is locked. Reason: Content policy abuse."),
    "403/access": (403, "Access to this application is denied for this key."),
    "404": (404, "Application not found"),
    "429": (429, "Queue is full: the maximum queue length was exceeded."),
    "429/rate": (429, "Too many requests. Rate limit exceeded."),
}
RETRYABLE = {
    "file_download_error",
    "internal_server_error",
    "generation_timeout",
    "downstream_service_error",
    "downstream_service_unavailable",
    *(name for name, (status, _) in INFRASTRUCTURE.items() if status >= 500),
}
_FIELDS = ("prompt", "image_url", "end_image_url", "image_urls", "video_urls", "audio_urls")


@dataclasses.dataclass(frozen=True, slots=True)
class Failure:
    """How a request ends that does not end well; only infrastructure failures have words for the status answer."""

    status: int
    body: Mapping[str, Any]
    headers: Mapping[str, str]
    status_words: Mapping[str, str] = dataclasses.field(default_factory=dict)
    is_early: bool = False

    @property
    def response(self) -> Response:
        """Return the failure as an answer."""
        return json_response(dict(self.body), self.status, self.headers)


def entry(field: str, kind: str, message: str, value: Any, *, reason: str = "") -> dict[str, Any]:
    """Return one element of a model error's `detail`; an empty field stands for the whole body."""
    context = {"ctx": {"extra_info": {"reason": reason}}} if reason else {}
    return {
        "loc": ["body", field] if field else ["body"],
        "msg": message,
        "type": kind,
        "url": f"https://docs.fal.ai/errors#{kind}",
        **context,
        "input": value,
    }


def invalid(faults: list[dict[str, Any]]) -> Failure:
    """Return the refusal of an input that breaks the schema."""
    return Failure(422, {"detail": faults}, _headers(faults[0]["type"], frozenset()))


def infrastructure(kind: str, variants: frozenset[str] = frozenset(), message: str = "") -> Failure:
    """Return a failure of the platform itself, which is flat."""
    status, sentence = INFRASTRUCTURE[kind]
    words = {"error": message or sentence, "error_type": kind}
    return Failure(
        status,
        {"detail": message or sentence, "error_type": kind},
        _headers(kind, variants),
        status_words=words,
        is_early="early" in variants,
    )


def model(kind: str, payload: Mapping[str, Any], variants: frozenset[str] = frozenset(), *, field: str = "") -> Failure:
    """Return a failure of the model, of a known type; its `detail` is a list unless a variant wants it otherwise."""
    status, message = MODEL.get(kind) or (422, next(text for stem, text in _FAMILIES.items() if kind.startswith(stem)))
    field = field or next((name for name in _FIELDS if name in variants), "") or _field_of(kind, payload, variants)
    if kind == "content_policy_violation" and field.startswith(("image", "end_image")):
        message = "The image could not be processed because it was flagged by a content checker."
    reason = "partner_validation_failed" if "person" in variants else ""
    fault = entry(field, kind, message, payload.get(field), reason=reason)
    body: dict[str, Any] = {"detail": [fault]}
    if "string" in variants:
        body = {"detail": message}
    elif "object" in variants:
        body = {"detail": fault}
    elif "no-detail" in variants:
        body = {}
    return Failure(status, body, _headers(kind, variants), is_early="early" in variants)


def named(code: str, payload: Mapping[str, Any]) -> Failure | None:
    """Return the failure `CODE` or `CODE/variant/…` of the tables above; None where there is no such code."""
    if code in GATEWAY:
        status, message = GATEWAY[code]
        return Failure(status, {"detail": message}, {})
    kind, *rest = code.split("/")
    variants = frozenset(rest)
    if kind in INFRASTRUCTURE:
        return infrastructure(kind, variants)
    if kind in MODEL or kind.startswith(tuple(_FAMILIES)):
        return model(kind, payload, variants)
    return None


def prose(text: str) -> Failure:
    """Return a failure that is a sentence and nothing else."""
    return Failure(422, {"detail": text}, {})


def gateway(code: str) -> Response:
    """Return a refusal by the gateway: a sentence and nothing else."""
    status, sentence = GATEWAY[code]
    return detail(sentence, status)


def detail(sentence: str, status: int) -> Response:
    """Return an answer whose `detail` is a sentence."""
    return json_response({"detail": sentence}, status)


def nginx(status: int, words: str) -> Response:
    """Return the page of the ingress, which has no `x-fal-request-id`."""
    page = f"<html>\r\n<head><title>{status} {words}</title></head>\r\n<body>\r\n<center><h1>{status} {words}</h1>"
    body = page + "</center>\r\n<hr><center>nginx</center>\r\n</body>\r\n</html>\r\n"
    return Response(status, body.encode(), {"Content-Type": "text/html"})


def _headers(kind: str, variants: frozenset[str]) -> dict[str, str]:
    headers = {"X-Fal-Error-Type": kind}
    is_retryable = (kind in RETRYABLE or "retryable" in variants) and not variants & {"not-retryable", "user"}
    if "no-header" not in variants:
        name = "X-Fal-Needs-Retry" if "older" in variants else "X-Fal-Retryable"
        headers[name] = "true" if is_retryable else "false"
    if "user" in variants:
        headers["X-Fal-Request-Timeout-Type"] = "user"
    return headers


def _field_of(kind: str, payload: Mapping[str, Any], variants: frozenset[str]) -> str:
    given = [name for name in _FIELDS[1:] if payload.get(name)]
    if given and (kind == "file_download_error" or "person" in variants):
        return given[0]
    for word in ("image", "video", "audio"):
        if word in kind:
            return next((name for name in given if word in name), f"{word}_urls")
    return "prompt"


BAD_GATEWAY = nginx(502, "Bad Gateway")
NO_REQUEST = detail("Request not found", 404)
DISTURBANCES = {
    "html": BAD_GATEWAY,
    "html-200": Response(200, BAD_GATEWAY.body, BAD_GATEWAY.headers),
    "empty": Response(200),
    "5xx": infrastructure("internal_error").response,
    "429": gateway("429/rate"),
    "drop": DROPPED,
    "hang": HUNG,
    "404": NO_REQUEST,
    "401": gateway("401"),
}
"""Answers that have nothing to do with the request, by the words of the knobs."""
