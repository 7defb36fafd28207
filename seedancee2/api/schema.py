"""How the OpenAPI document is drawn from the `/v1` views: their security, errors and common headers."""

import json
import threading
from collections.abc import Callable, Iterator
from typing import Any

from django.http import HttpRequest, HttpResponse
from django.views.decorators.http import conditional_page, require_safe
from drf_spectacular import openapi
from drf_spectacular.extensions import OpenApiAuthenticationExtension
from drf_spectacular.generators import SchemaGenerator
from drf_spectacular.utils import (
    Direction,
    OpenApiExample,
    OpenApiParameter,
    OpenApiResponse,
    extend_schema_field,
    extend_schema_serializer,
)
from rest_framework import serializers

from seedancee2.api import cursors, errors

Endpoint = tuple[str, str, str, Callable[..., Any]]
Schema = dict[str, Any]

# Every URL that is taken matches; which hosts are private cannot be said in a pattern.
URL_PATTERN = r"^[Hh][Tt][Tt][Pp][Ss]?://[^\s/?#@\\]+([/?#][^\s\\]*)?$"
# Everything that is read as a date or a time matches; a date such as February 30 still is none.
MOMENT_PATTERN = (
    r"^[0-9]{4}-?(0[1-9]|1[0-2])-?(0[1-9]|[12][0-9]|3[01])"
    r"([Tt ][0-2][0-9](:?[0-5][0-9](:?[0-5][0-9]([.,][0-9]+)?)?)?([Zz]|[ +-][0-9:.]+)?)?$"
)
NO_NUL_PATTERN = r"^[^\u0000]*$"

MOMENT: Schema = {"type": "string", "pattern": MOMENT_PATTERN}
EARLY = [OpenApiExample("time", value="2026-07-01T00:00:00.000Z"), OpenApiExample("day", value="2026-07-01")]
LATE = [OpenApiExample("time", value="2026-07-31T23:59:59.999Z"), OpenApiExample("day", value="2026-07-31")]

_SECONDS: Schema = {"type": "integer", "minimum": 1}
_COUNT: Schema = {"type": "integer", "minimum": 0}
_SHARED_ERRORS = (errors.InvalidApiKey, errors.PermissionDenied, errors.RateLimitExceeded, errors.InternalError)

# (name, schema, description, the statuses that carry it, whether they always do); no statuses: every one.
_SHARED_HEADERS: tuple[tuple[str, Schema, str, tuple[str, ...], bool], ...] = (
    (
        "X-Request-Id",
        {"type": "string", "pattern": "^req_[0-9a-z]{26}$"},
        "Names this request; tell it to support.",
        (),
        True,
    ),
    ("WWW-Authenticate", {"type": "string", "enum": ["Bearer"]}, "The scheme to authenticate with.", ("401",), True),
    ("Retry-After", _SECONDS, "Seconds after which the next request may pass.", ("429",), True),
)
_LIMIT_HEADERS = (
    ("RateLimit-Limit", _SECONDS, "Requests of this kind that the key may send in a minute."),
    ("RateLimit-Remaining", _COUNT, "What is left of them."),
    ("RateLimit-Reset", _SECONDS, "Seconds until all of them are back."),
)
# Refused before anybody is counted.
_NOT_COUNTED = "401"


@extend_schema_field(
    {"type": "string", "format": "date-time", "pattern": r"^\d{4}-\d{2}-\d{2}T\d{2}:\d{2}:\d{2}\.\d{3}Z$"}
)
class MomentField(serializers.DateTimeField):
    """A time in UTC in a reply, always with three decimals."""


class ErrorDetailSerializer(serializers.Serializer[Any]):
    """What went wrong, for programs (`code`, `type`) and for people (`message`)."""

    code = serializers.CharField(help_text="What happened; stable.")
    message = serializers.CharField(help_text="What happened, in a sentence; may change.")
    type = serializers.CharField(help_text="The kind of error; stable.")


@extend_schema_serializer(many=False)
class ErrorSerializer(serializers.Serializer[Any]):
    """The body of every reply that is an error."""

    error = ErrorDetailSerializer()


class ApiKeyScheme(OpenApiAuthenticationExtension):  # type: ignore[no-untyped-call] # its registry is untyped
    """The API key, in either of its two headers."""

    target_class = "accounts.authentication.ApiKeyAuthentication"
    name = ["bearer", "apiKey"]

    def get_security_definition(self, auto_schema: openapi.AutoSchema) -> list[dict[str, str]]:
        """Describe both headers."""
        return [
            {"type": "http", "scheme": "bearer", "description": "`Authorization: Bearer sk_seedancee2_live_…`"},
            {"type": "apiKey", "in": "header", "name": "x-api-key", "description": "The same key, in a plain header."},
        ]

    def get_security_requirement(self, auto_schema: openapi.AutoSchema) -> list[dict[str, list[str]]]:
        """Either of them is enough."""
        return [{name: []} for name in self.name]


class AutoSchema(openapi.AutoSchema):
    """Adds what every operation has: JSON bodies, the errors that can always come, and the common headers."""

    def map_parsers(self) -> list[str]:
        """Name JSON as the one content type, although any name for it is understood."""
        return ["application/json"]

    def _get_response_bodies(self, direction: Direction = "response") -> dict[str, Any]:
        # `extend_schema` replaces the public hook for responses, so what all operations share is added here.
        bodies = super()._get_response_bodies(direction)
        for status, response in refusals(*_SHARED_ERRORS).items():
            bodies[str(status)] = self._get_response_for_code(  # type: ignore[no-untyped-call]
                response, str(status), None, direction
            )
        return {status: bodies[status] for status in sorted(bodies)}

    def _get_response_headers_for_code(self, status_code: str, direction: Direction = "response") -> Schema:
        headers: Schema = super()._get_response_headers_for_code(status_code, direction)
        for name, schema, description, statuses, is_required in _SHARED_HEADERS:
            if not statuses or status_code in statuses:
                headers[name] = {"schema": schema, "description": description, "required": is_required}
        if status_code != _NOT_COUNTED:
            for name, schema, description in _LIMIT_HEADERS:
                headers[name] = {"schema": schema, "description": description}
        return headers


def query_parameter(name: str, schema: Schema, description: str, **more: Any) -> OpenApiParameter:
    """Describe a query parameter."""
    return OpenApiParameter(name, schema, OpenApiParameter.QUERY, description=description, **more)


def request_header(name: str, schema: Schema, description: str) -> OpenApiParameter:
    """Describe an optional header of a request."""
    return OpenApiParameter(name, schema, OpenApiParameter.HEADER, description=description)


def reply_header(
    name: str, schema: Schema, description: str, *statuses: int, is_always: bool = False
) -> OpenApiParameter:
    """Describe a header of the replies with some statuses."""
    return OpenApiParameter(
        name,
        schema,
        OpenApiParameter.HEADER,
        description=description,
        required=is_always,
        response=[str(status) for status in statuses],
    )


def reply(serializer: Any, description: str, **examples: Any) -> OpenApiResponse:
    """Describe a successful reply, with example bodies by name."""
    return OpenApiResponse(
        serializer,
        description=description,
        examples=[OpenApiExample(name, value=value, response_only=True) for name, value in examples.items()],
    )


IF_NONE_MATCH = request_header("If-None-Match", {"type": "string"}, "The ETag of the reply that is known already.")
ETAG = reply_header(
    "ETag", {"type": "string", "pattern": '^"[0-9a-f]{32}"$'}, "Changes with the body.", 200, 304, is_always=True
)
LINK = reply_header("Link", {"type": "string"}, 'The next page, as `<…>; rel="next"`, if any.', 200, 304)
CREATED_AFTER = query_parameter(
    "created_after", MOMENT, "ISO 8601; only what was created at this time or later.", examples=EARLY
)
CREATED_BEFORE = query_parameter(
    "created_before", MOMENT, "ISO 8601; only what was created earlier than this time.", examples=LATE
)


def cursor_parameter(example: str) -> OpenApiParameter:
    """Describe the place at which a page begins."""
    return query_parameter(
        "cursor",
        {"type": "string", "pattern": cursors.PATTERN},
        "Where the next page begins; only as the Link header of a page has it.",
        examples=[OpenApiExample("next", value=example)],
    )


def not_modified() -> OpenApiResponse:
    """Describe the reply to a client that has the body already."""
    return OpenApiResponse(None, description="The body is the one whose ETag was sent in If-None-Match.")


def refusals(*refused: errors.PublicError | type[errors.PublicError]) -> dict[int, OpenApiResponse]:
    """Describe the replies for errors, those of one status together; an instance shows its own message."""
    by_status: dict[int, list[errors.PublicError]] = {}
    for one in refused:
        error = one() if isinstance(one, type) else one
        by_status.setdefault(error.status, []).append(error)
    return {
        status: OpenApiResponse(
            ErrorSerializer,
            description=" ".join(dict.fromkeys((type(error).__doc__ or "").partition("\n")[0] for error in same)),
            examples=list(_examples(same)),
        )
        for status, same in by_status.items()
    }


def _examples(same: list[errors.PublicError]) -> Iterator[OpenApiExample]:
    for number, error in enumerate(same, start=1):
        name = error.code if number == 1 or error.code != same[0].code else f"{error.code}_{number}"
        yield OpenApiExample(name, value=error.as_json(), response_only=True, status_codes=[str(error.status)])


def only_public_paths(endpoints: list[Endpoint], **_: Any) -> list[Endpoint]:
    """Leave every path out of the document that is not below `/v1`."""
    return [endpoint for endpoint in endpoints if endpoint[0].startswith("/v1/")]


_document: bytes | None = None
_drawing = threading.Lock()


def document() -> bytes:
    """Return the whole OpenAPI document as JSON, drawn once in each process, the same bytes in all of them."""
    global _document
    with _drawing:
        if _document is None:
            drawn = SchemaGenerator().get_schema(request=None, public=True)  # type: ignore[no-untyped-call]
            _document = json.dumps(drawn, ensure_ascii=False, separators=(",", ":")).encode()
    return _document


@require_safe
@conditional_page
def serve(request: HttpRequest) -> HttpResponse:
    """Serve the OpenAPI document."""
    response = HttpResponse(document(), content_type="application/json")
    response.headers["Cache-Control"] = "public, max-age=300"
    return response
