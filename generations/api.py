"""The endpoints below `/v1` (public page, from "Create Video Task" to "Usage Summary")."""

import datetime as dt
from typing import Any, cast

from django.http import HttpResponse
from drf_spectacular.utils import OpenApiExample, OpenApiParameter, extend_schema
from rest_framework.request import Request
from rest_framework.response import Response

from accounts.clients import Client
from accounts.models import ApiKey
from billing.allowances import Allowance
from generations import (
    catalog,
    idempotency,
    lifecycle,
    openapi_examples,
    payloads,
    queries,
    replies,
    requests,
    usage,
    waiting,
)
from generations.models import Generation
from generations.serializers import CreateSerializer
from seedancee2.api import cursors, errors, naming, rendering, responses
from seedancee2.api.query import Query
from seedancee2.api.schema import (
    CREATED_AFTER,
    CREATED_BEFORE,
    EARLY,
    ETAG,
    IF_NONE_MATCH,
    LATE,
    LINK,
    MOMENT,
    NO_NUL_PATTERN,
    cursor_parameter,
    not_modified,
    query_parameter,
    refusals,
    reply,
    reply_header,
    request_header,
)
from seedancee2.api.views import PublicViewSet
from seedancee2.lib import clock

Scope = ApiKey.Scope

IGNORED_FIELDS_HEADER = "X-Seedancee2-Ignored-Fields"
DEFAULT_PAGE, MAX_PAGE = 20, 100
DEFAULT_DAYS, MAX_DAYS = 30, 365

_ID = OpenApiParameter(
    "id",
    {"type": "string", "pattern": replies.ID_PATTERN},
    OpenApiParameter.PATH,
    description="The task's `id`.",
    examples=[OpenApiExample("task", value=openapi_examples.CREATED["data"]["id"])],
)
_WRONG_INPUT = errors.InvalidRequest("input.duration must be between 4 and 15.")
_WRONG_LIMIT = errors.InvalidRequest("limit must be an integer between 1 and 100.")
_WRONG_WAIT = errors.InvalidRequest("wait must be an integer between 0 and 25.")
_WRONG_RANGE = errors.InvalidRequest("start must not be after end, which is now unless it is given.")


class TaskViewSet(PublicViewSet):
    """Video tasks."""

    scopes = {"create": Scope.GENERATE, "retrieve": Scope.READ, "list": Scope.READ}

    @extend_schema(
        operation_id="createVideoTask",
        tags=["Video tasks"],
        summary="Create a video task",
        request=CreateSerializer,
        description=(
            "Checks the request, holds its credits and answers at once; the video follows. Poll the task, or give a "
            "`callback_url`. Unknown keys are ignored and named in `X-Seedancee2-Ignored-Fields`; a near miss of a "
            "real one is refused, and so are private hosts in URLs."
        ),
        examples=[
            OpenApiExample("minimal", value=openapi_examples.CREATE_MINIMAL, request_only=True),
            OpenApiExample("references_and_webhook", value=openapi_examples.CREATE_FULL, request_only=True),
            OpenApiExample("first_and_last_frames", value=openapi_examples.CREATE_FRAMES, request_only=True),
        ],
        parameters=[
            request_header(
                idempotency.HEADER,
                {"type": "string", "minLength": 1, "maxLength": 255, "pattern": "^[!-~]+$"},
                "Makes a retry safe: within 24 hours the same key and body give the first answer again.",
            ),
            reply_header(
                "Location",
                {"type": "string", "pattern": f"^/v1/videos/generations/{replies.ID_PATTERN.lstrip('^')}"},
                "The path of the new task.",
                201,
                is_always=True,
            ),
            reply_header(
                IGNORED_FIELDS_HEADER,
                {"type": "string"},
                "The paths of keys that mean nothing here, with commas between them.",
                *(201, 400, 402, 404),
            ),
            reply_header(
                idempotency.REPLAYED_HEADER,
                {"type": "string", "enum": ["true"]},
                "Only where this is the first answer again.",
                201,
            ),
            reply_header("Retry-After", {"type": "integer", "minimum": 1}, "Seconds to wait.", 409, is_always=True),
        ],
        responses={
            201: reply(replies.CreatedTaskReplySerializer, "The task was accepted.", created=openapi_examples.CREATED),
            **refusals(
                _WRONG_INPUT,
                errors.InsufficientCredits,
                errors.ModelNotFound,
                errors.IdempotencyKeyInUse,
                errors.RequestTooLarge,
                errors.UnsupportedMediaType,
                errors.IdempotencyKeyReused,
            ),
        },
    )
    def create(self, request: Request) -> HttpResponse | Response:
        """Accept a request and hold its credits; the video follows."""
        body = cast(dict[str, Any], request.data)
        client = _client(request)

        def accept() -> idempotency.Answer:
            checked = requests.read(body, callback_hosts=client.callback_hosts)
            if checked.ignored:
                self.headers[IGNORED_FIELDS_HEADER] = naming.header_value(checked.ignored)
            generation = lifecycle.create(
                organization_id=client.organization_id,
                api_key_id=client.api_key_id,
                is_test=client.is_test,
                spec=checked.checked_spec(),
                allowed_models=client.allowed_models,
                allowance=Allowance(api_key_id=client.allowance_id, monthly_cap=client.monthly_credit_cap),
            )
            return idempotency.Answer(
                reference=generation.public_id,
                body=rendering.encode({"data": payloads.created(generation)}).decode(),
                ignored_fields=self.headers.get(IGNORED_FIELDS_HEADER, ""),
            )

        answer = idempotency.once(client=client, key=request.META.get(idempotency.META_NAME), body=body, make=accept)
        response = HttpResponse(answer.body, status=201, content_type="application/json")
        response.headers["Location"] = f"/v1/videos/generations/{answer.reference}"
        if answer.ignored_fields:
            self.headers[IGNORED_FIELDS_HEADER] = answer.ignored_fields
        if answer.is_replayed:
            response.headers[idempotency.REPLAYED_HEADER] = "true"
        return response

    @extend_schema(
        operation_id="getVideoTask",
        tags=["Video tasks"],
        summary="Get a video task",
        description=(
            "Shows the task in its present state; `status` tells which keys it has. Poll after `Retry-After` seconds, "
            "or let `wait` hold the reply."
        ),
        parameters=[
            _ID,
            query_parameter(
                "wait",
                {"type": "integer", "minimum": 0, "maximum": waiting.MAX_WAIT, "default": 0},
                "Seconds to hold the reply while the status stays as it is; it may come earlier.",
            ),
            IF_NONE_MATCH,
            ETAG,
            reply_header(
                "Retry-After",
                {"type": "integer", "minimum": 1},
                "Seconds until it is worth asking again; only while the task is open.",
                *(200, 304),
            ),
        ],
        responses={
            200: reply(
                replies.TaskReplySerializer,
                "The task.",
                pending=openapi_examples.PENDING,
                processing=openapi_examples.PROCESSING,
                completed=openapi_examples.COMPLETED,
                failed=openapi_examples.FAILED,
            ),
            304: not_modified(),
            **refusals(_WRONG_WAIT, errors.TaskNotFound),
        },
    )
    def retrieve(self, request: Request, id: str) -> HttpResponse:
        """Show one task in its present state."""
        query = Query(request.query_params)
        seconds = query.integer("wait", minimum=0, maximum=waiting.MAX_WAIT, default=0)
        query.check()
        generation, files = queries.get(client=_client(request), public_id=id)
        if waiting.until_changed(generation, seconds=seconds):
            generation, files = queries.get(client=_client(request), public_id=id)
        headers = {"Retry-After": str(_worth_asking_in(generation))} if generation.is_open else {}
        return responses.tagged(request, payloads.task(generation, files), headers=headers)

    @extend_schema(
        operation_id="listVideoTasks",
        tags=["Video tasks"],
        summary="List video tasks",
        description="Shows tasks, newest first, each as by itself. The `Link` header leads to the next page.",
        parameters=[
            query_parameter(
                "status", {"type": "string", "enum": Generation.Status.values}, "Only tasks of this status."
            ),
            query_parameter(
                "limit",
                {"type": "integer", "minimum": 1, "maximum": MAX_PAGE, "default": DEFAULT_PAGE},
                "Max results.",
            ),
            cursor_parameter("MTc4MjcyNzIwMDAwMC52aWRfMDFqejhiN3E0eDhrMnA5dzNtNWM2bjdyOHM"),
            query_parameter("model", {"type": "string", "pattern": NO_NUL_PATTERN}, "Only tasks of this model."),
            CREATED_AFTER,
            CREATED_BEFORE,
            IF_NONE_MATCH,
            ETAG,
            LINK,
        ],
        responses={
            200: reply(replies.TaskListReplySerializer, "One page of tasks.", completed=openapi_examples.LIST),
            304: not_modified(),
            **refusals(_WRONG_LIMIT),
        },
    )
    def list(self, request: Request) -> HttpResponse:
        """Show tasks, newest first."""
        query = Query(request.query_params)
        wanted = queries.Page(
            status=query.choice("status", Generation.Status.values),
            limit=query.integer("limit", minimum=1, maximum=MAX_PAGE, default=DEFAULT_PAGE),
            cursor=query.text("cursor"),
            model=query.text("model"),
            created_after=query.moment("created_after"),
            created_before=query.moment("created_before"),
        )
        query.check()
        try:
            found, cursor = queries.page(client=_client(request), wanted=wanted)
        except cursors.BadCursor:
            raise errors.InvalidRequest("cursor is not valid; use the one in the Link header of a list.") from None
        headers = responses.next_page(request, cursor)
        tasks = [payloads.task(generation, generation.assets.all()) for generation in found]
        return responses.tagged(request, tasks, headers=headers)


class ModelViewSet(PublicViewSet):
    """Public models."""

    scopes = {"list": Scope.READ}

    @extend_schema(
        operation_id="listModels",
        tags=["Models"],
        summary="List models",
        description="Shows the models that can be named in a request.",
        parameters=[IF_NONE_MATCH, ETAG],
        responses={
            200: reply(replies.ModelListReplySerializer, "The active models.", models=openapi_examples.MODELS),
            304: not_modified(),
        },
    )
    def list(self, request: Request) -> HttpResponse:
        """Show the models that can be named in a request."""
        rows = [
            {
                "id": model.name,
                "status": "active",
                "resolutions": model.resolutions,
                "duration": {"min": model.min_duration, "max": model.max_duration},
            }
            for model in catalog.active_models()
        ]
        return responses.tagged(request, rows)


class UsageViewSet(PublicViewSet):
    """Usage."""

    scopes = {"retrieve": Scope.USAGE}

    @extend_schema(
        operation_id="getUsage",
        tags=["Usage"],
        summary="Get a usage summary",
        description=(
            "Sums jobs and credits over a range, by model, and by day (UTC). A job counts in the day of its creation; "
            "`net_credits` is what you paid."
        ),
        parameters=[
            query_parameter(
                "start", MOMENT, "ISO 8601, included; without it, the time of the first task.", examples=EARLY
            ),
            query_parameter("end", MOMENT, "ISO 8601, included; without it, now.", examples=LATE),
            query_parameter(
                "limit",
                {"type": "integer", "minimum": 1, "maximum": MAX_DAYS, "default": DEFAULT_DAYS},
                "Max daily timeline rows to return, the newest ones.",
            ),
        ],
        responses={
            200: reply(replies.UsageReplySerializer, "The sums.", usage=openapi_examples.USAGE),
            **refusals(_WRONG_RANGE),
        },
    )
    def retrieve(self, request: Request) -> Response:
        """Sum jobs and credits over a range."""
        query = Query(request.query_params)
        start = query.moment("start")
        end = query.moment("end", is_end=True)
        limit = query.integer("limit", minimum=1, maximum=MAX_DAYS, default=DEFAULT_DAYS)
        query.check()
        client = _client(request)
        try:
            summary = usage.summarize(
                organization_id=client.organization_id,
                is_test=client.is_test,
                start=start,
                end=end,
                limit=limit,
            )
        except usage.EmptyRange:
            raise errors.InvalidRequest("start must not be after end, which is now unless it is given.") from None
        return responses.data(summary)


def _client(request: Request) -> Client:
    return cast(Client, request.user)


def _worth_asking_in(generation: Generation) -> int:
    age = clock.now() - generation.created_at
    if age < dt.timedelta(seconds=15):
        return 2
    return 5 if age < dt.timedelta(minutes=5) else 15
