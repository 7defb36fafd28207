"""What goes wrong at Replicate: HTTP problems, and the prose of predictions that failed (sheet §4)."""

import math
import re
from collections.abc import Mapping, Sequence
from http import HTTPStatus
from typing import Any, NamedTuple

from providers.emulators.server import Response, json_response


class Problem(NamedTuple):
    """One documented HTTP error."""

    status: int
    title: str
    detail: str
    field: str = ""
    """The input that `invalid_fields` names."""
    headers: Mapping[str, str] = {}


THROTTLED = "Request was throttled. Your rate limit resets in ~{seconds}s."
LOW_CREDIT = (
    "Request was throttled. Your rate limit for creating predictions is reduced to 6 requests per minute with a burst "
    "of 1 requests while you have less than $5.0 in credit. Your rate limit resets in ~{seconds}s."
)
PROBLEMS: dict[str, Problem] = {
    "400": Problem(400, "Bad request", "The request body is not a JSON object."),
    "401": Problem(401, "Unauthenticated", "You did not pass a valid authentication token."),
    "402": Problem(
        402,
        "Insufficient credit",
        "You have insufficient credit to run this model. Go to https://replicate.com/account/billing#billing to "
        "purchase credit.",
    ),
    "402/spending-limit": Problem(402, "Monthly spend limit reached", "You've hit your monthly spend limit."),
    "403": Problem(403, "Forbidden", "You do not have permission to perform this action."),
    "404": Problem(404, "Not found", "The requested resource could not be found."),
    "422": Problem(422, "Input validation failed", "- input.prompt: Invalid type. Expected: string", "input.prompt"),
    "422/url": Problem(
        422,
        "Input validation failed",
        "- input.reference_images.0: Does not match format 'uri'",
        "input.reference_images.0",
    ),
    "429": Problem(429, "", THROTTLED.format(seconds=30), headers={"Retry-After": "30"}),
    "429/no-retry-after": Problem(429, "", THROTTLED.format(seconds=30)),
    "429/low-credit": Problem(429, "", LOW_CREDIT.format(seconds=10), headers={"Retry-After": "10"}),
    "500": Problem(500, "Internal server error", "Something went wrong."),
    "502": Problem(502, "Bad gateway", "The upstream did not answer."),
    "503": Problem(503, "Service unavailable", "The service is temporarily unavailable."),
    "504": Problem(504, "Gateway timeout", "The upstream did not answer in time."),
}

FAILURES = {
    "E005": "The input or output was flagged as sensitive. Please try again with different inputs. (E005)",
    "sensitive": "The request contains sensitive content.",
    "content-policy": "The request violates the content policy.",
    "real-person": "The input image may contain a real person.",
    "copyright": "The output may be subject to copyright restrictions.",
    "validation": "Input validation error: duration must be -1 or between 4 and 15.",
    "reference-length": "Input validation error: reference videos must not be longer than 15 seconds in total.",
    "download": "could not download {url}",
    "fetch": "failed to fetch {url}",
    "image": "Invalid image: cannot identify image file.",
    "403": "403 Client Error: Forbidden for url: {url}",
    "404": "404 Client Error: Not Found for url: {url}",
    "director": "Director: unexpected error handling prediction (E6716)",
    "interrupted": "Prediction interrupted; please retry (code: PA)",
    "cuda": "CUDA out of memory.",
    "timeout": "Prediction timed out.",
    "queue-full": "The queue is full. Please try again later.",
    "high-demand": "Service is temporarily unavailable due to high demand. Please try again later.",
    "unknown": "Something that nobody has written down went wrong.",
}
_PLATFORM_CODE = re.compile(r"E1\d{3}")


def failure(code: str, urls: Sequence[str] = ()) -> str:
    """Return the sentence for a code: an entry of `FAILURES`, a platform code E1000 to E1999, or else `code` itself."""
    if _PLATFORM_CODE.fullmatch(code):
        return f"Prediction failed on the platform. ({code})"
    return FAILURES.get(code, code).replace("{url}", urls[0] if urls else "https://cdn.example/ref1.png")


def problem(code: str, instance: str, detail: str = "") -> Response:
    """Return the documented error of this code: an HTTP status, where need be with `/variant`."""
    entry = PROBLEMS.get(code) or _undocumented(code)
    body: dict[str, Any] = {"detail": detail or entry.detail}
    if entry.title:  # A throttled request gets the detail only.
        body |= {"title": entry.title, "status": entry.status, "type": "about:blank", "instance": instance}
    if entry.field:
        body["invalid_fields"] = [{"type": "invalid", "field": entry.field, "description": entry.detail}]
    return json_response(body, entry.status, entry.headers)


def _undocumented(code: str) -> Problem:
    status = HTTPStatus(int(code.partition("/")[0]))
    return Problem(status.value, status.phrase, status.description or status.phrase)


def throttled(seconds: float, *, has_low_credit: bool) -> Response:
    """Return 429 for a request that may be repeated in `seconds`."""
    rest = math.ceil(seconds)
    detail = (LOW_CREDIT if has_low_credit else THROTTLED).format(seconds=rest)
    return json_response({"detail": detail}, 429, {"Retry-After": str(rest)})


def invalid(faults: Sequence[tuple[str, str]], instance: str) -> Response:
    """Return 422 for these faults: field and description of each."""
    return json_response(
        {
            "title": "Input validation failed",
            "detail": "".join(f"- {field}: {description}\n" for field, description in faults),
            "status": 422,
            "type": "about:blank",
            "instance": instance,
            "invalid_fields": [
                {"type": "invalid", "field": field, "description": description} for field, description in faults
            ],
        },
        422,
    )
