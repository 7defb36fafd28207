"""The endpoints below `/v1/webhooks`: what became of webhooks, and having them sent again."""

from collections.abc import Mapping
from typing import Any, cast

from django.http import HttpResponse
from drf_spectacular.utils import OpenApiExample, OpenApiParameter, extend_schema
from rest_framework.request import Request
from rest_framework.response import Response

from accounts.clients import Client
from accounts.models import ApiKey, Organization
from seedancee2.api import cursors, errors, naming, responses
from seedancee2.api.query import Query
from seedancee2.api.schema import (
    CREATED_AFTER,
    CREATED_BEFORE,
    ETAG,
    IF_NONE_MATCH,
    LINK,
    NO_NUL_PATTERN,
    cursor_parameter,
    not_modified,
    query_parameter,
    refusals,
    reply,
    reply_header,
)
from seedancee2.api.views import PublicViewSet
from webhooks import deliveries, openapi_examples, replies, requests, samples
from webhooks.models import Delivery

DEFAULT_PAGE, MAX_PAGE = 20, 100
IGNORED_FIELDS_HEADER = "X-Seedancee2-Ignored-Fields"

Scope = ApiKey.Scope

_TAGS = ["Webhooks"]
_ID = OpenApiParameter(
    "id",
    {"type": "string", "pattern": replies.ID_PATTERN},
    OpenApiParameter.PATH,
    description="The delivery's `id`.",
    examples=[OpenApiExample("delivery", value=openapi_examples.PENDING["id"])],
)
_IGNORED_FIELDS = reply_header(
    IGNORED_FIELDS_HEADER, {"type": "string"}, "Keys that mean nothing here, with commas between them.", 200, 400
)
_WRONG_STATE = errors.InvalidRequest("state must be one of pending, delivered, failed.")
_TOO_OLD = errors.InvalidRequest("The body of this webhook was deleted after 30 days, so that it cannot be sent again.")
_WRONG_URL = errors.InvalidRequest("url must not point to a private address.")
_WRONG_SINCE = errors.InvalidRequest("since must lie within the last 30 days.")


class DeliveryViewSet(PublicViewSet):
    """Webhooks on their way, arrived and failed."""

    scopes = dict.fromkeys(("list", "retrieve", "redeliver", "send_test", "recover"), Scope.WEBHOOKS)

    @extend_schema(
        operation_id="listWebhookDeliveries",
        tags=_TAGS,
        summary="List webhook deliveries",
        description="Shows deliveries, newest first. The `Link` header leads to the next page.",
        parameters=[
            query_parameter(
                "task", {"type": "string", "pattern": NO_NUL_PATTERN}, "Only those of the task of this id."
            ),
            query_parameter("event", {"type": "string", "enum": Delivery.Event.values}, "Only those of this event."),
            query_parameter("state", {"type": "string", "enum": replies.DELIVERY_STATES}, "Only those in this state."),
            query_parameter(
                "limit",
                {"type": "integer", "minimum": 1, "maximum": MAX_PAGE, "default": DEFAULT_PAGE},
                "Max results.",
            ),
            cursor_parameter("MTc4MjcyNzU4MDAwMC5kbHZfMDFqejhibTJjNHY2eDh6MGIyZDRmNmg4ams"),
            CREATED_AFTER,
            CREATED_BEFORE,
            IF_NONE_MATCH,
            ETAG,
            LINK,
        ],
        responses={
            200: reply(replies.WebhookDeliveryListReplySerializer, "One page.", deliveries=openapi_examples.LIST),
            304: not_modified(),
            **refusals(_WRONG_STATE),
        },
    )
    def list(self, request: Request) -> HttpResponse:
        """Show deliveries, newest first."""
        query = Query(request.query_params)
        wanted = deliveries.Page(
            task_id=query.text("task"),
            event=query.choice("event", Delivery.Event.values),
            state=replies.state_named(query.choice("state", replies.DELIVERY_STATES)),
            limit=query.integer("limit", minimum=1, maximum=MAX_PAGE, default=DEFAULT_PAGE),
            cursor=query.text("cursor"),
            created_after=query.moment("created_after"),
            created_before=query.moment("created_before"),
        )
        query.check()
        try:
            found, cursor = deliveries.page(**_scope(request), wanted=wanted)
        except cursors.BadCursor:
            raise errors.InvalidRequest("cursor is not valid; use the one in the Link header of a list.") from None
        shown = [replies.delivery(row) for row in found]
        return responses.tagged(request, shown, headers=responses.next_page(request, cursor))

    @extend_schema(
        operation_id="getWebhookDelivery",
        tags=_TAGS,
        summary="Get a webhook delivery",
        description=f"Shows a delivery with its attempts, the last {deliveries.ATTEMPTS_SHOWN} of them, and its body.",
        parameters=[_ID, IF_NONE_MATCH, ETAG],
        responses={
            200: reply(
                replies.WebhookDeliveryInFullReplySerializer, "The delivery.", delivery=openapi_examples.IN_FULL
            ),
            304: not_modified(),
            **refusals(errors.DeliveryNotFound),
        },
    )
    def retrieve(self, request: Request, id: str) -> HttpResponse:
        """Show one delivery with its attempts."""
        row = deliveries.get(**_scope(request), delivery_id=id)
        return responses.tagged(request, replies.delivery_in_full(row, deliveries.attempts(row)))

    @extend_schema(
        operation_id="redeliverWebhook",
        tags=_TAGS,
        summary="Send a webhook again",
        description=(
            "Sends the same bytes under the same `X-Seedancee2-Delivery` at once. A delivery that had ended begins a "
            "fresh schedule of 12 attempts, a pending one does not wait for its time, and one that is being sent at "
            "this moment is left alone."
        ),
        parameters=[_ID],
        request=None,
        responses={
            202: reply(
                replies.WebhookDeliveryReplySerializer, "It is due now.", redelivered=openapi_examples.REDELIVERED
            ),
            **refusals(_TOO_OLD, errors.DeliveryNotFound),
        },
    )
    def redeliver(self, request: Request, id: str) -> Response:
        """Have a delivery sent again at once."""
        row = deliveries.redeliver(**_scope(request), delivery_id=id, actor=_actor(request))
        return responses.data(replies.delivery(row), status=202)

    @extend_schema(
        operation_id="sendTestWebhook",
        tags=_TAGS,
        summary="Send a test webhook",
        description=(
            "Sends a sample of either event to a URL, signed and limited as a real webhook, waits for the reply, up to "
            "10 seconds, and answers with what happened. Nothing is kept or repeated; "
            f"{samples.MAX_AT_ONCE} can be under way at once."
        ),
        parameters=[_IGNORED_FIELDS],
        request=requests.SendTestWebhookRequestSerializer,
        examples=[OpenApiExample("completed", value=openapi_examples.SEND_SAMPLE, request_only=True)],
        responses={
            200: reply(replies.SampleReplySerializer, "What happened.", sample=openapi_examples.SAMPLE),
            **refusals(_WRONG_URL, errors.RequestTooLarge, errors.UnsupportedMediaType),
        },
    )
    def send_test(self, request: Request) -> Response:
        """Send a sample and tell what happened."""
        url, event, ignored = requests.read_sample(cast(Mapping[str, Any], request.data))
        self._name_ignored(ignored)
        organization = Organization.objects.get(pk=_scope(request)["organization_id"])
        return responses.data(replies.sample(samples.send(organization=organization, url=url, event=event)))

    @extend_schema(
        operation_id="recoverWebhooks",
        tags=_TAGS,
        summary="Send all failed webhooks again",
        description=(
            "Opens every delivery again that was given up at `since` or later, oldest first, each on a fresh schedule; "
            f"{deliveries.MAX_RECOVERED:,} at most by one call."
        ),
        parameters=[_IGNORED_FIELDS],
        request=requests.RecoverWebhooksRequestSerializer,
        examples=[OpenApiExample("since", value=openapi_examples.RECOVER, request_only=True)],
        responses={
            200: reply(replies.RecoveryReplySerializer, "How many there were.", recovered=openapi_examples.RECOVERED),
            **refusals(_WRONG_SINCE, errors.RequestTooLarge, errors.UnsupportedMediaType),
        },
    )
    def recover(self, request: Request) -> Response:
        """Open all again that failed since a time."""
        since, ignored = requests.read_recovery(cast(Mapping[str, Any], request.data))
        self._name_ignored(ignored)
        recovery = deliveries.recover(**_scope(request), since=since, actor=_actor(request))
        return responses.data({"recovered_count": recovery.count, "has_more": recovery.has_more})

    def _name_ignored(self, ignored: tuple[str, ...]) -> None:
        if ignored:
            self.headers[IGNORED_FIELDS_HEADER] = naming.header_value(ignored)


def _scope(request: Request) -> dict[str, Any]:
    client = cast(Client, request.user)
    return {"organization_id": client.organization_id, "is_test": client.is_test}


def _actor(request: Request) -> str:
    return f"api_key:{cast(Client, request.user).api_key_id}"
