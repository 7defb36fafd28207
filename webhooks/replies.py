"""The bodies of replies about webhooks: the functions that make them, and their shapes for the OpenAPI document."""

import json
from collections.abc import Iterable
from typing import Any, Final

from drf_spectacular.utils import extend_schema_field, extend_schema_serializer
from rest_framework import serializers

from seedancee2.api.schema import MomentField
from seedancee2.lib import clock
from webhooks.models import Delivery, DeliveryAttempt
from webhooks.samples import Sample

ID_PATTERN: Final = "^dlv_[0-7][0-9a-hjkmnp-tv-z]{25}$"

# Customers read "failed" where we say that a delivery was abandoned.
_STATES: Final = {
    "pending": Delivery.State.PENDING,
    "delivered": Delivery.State.DELIVERED,
    "failed": Delivery.State.ABANDONED,
}
DELIVERY_STATES: Final = list(_STATES)
_WORDS: Final = {state: word for word, state in _STATES.items()}


def state_named(word: str | None) -> str | None:
    """Return our own word for a customer's."""
    return _STATES[word].value if word is not None else None


def delivery(row: Delivery) -> dict[str, Any]:
    """Return a delivery as a list shows it."""
    return {
        "id": row.delivery_id,
        "task_id": row.reference,
        "event": row.event,
        "url": row.url,
        "state": _WORDS[Delivery.State(row.state)],
        "attempt_count": row.attempt_count,
        "next_attempt_at": clock.iso(row.next_attempt_at) if row.next_attempt_at else None,
        "created_at": clock.iso(row.created_at),
        "delivered_at": clock.iso(row.delivered_at) if row.delivered_at else None,
    }


def delivery_in_full(row: Delivery, attempts: Iterable[DeliveryAttempt]) -> dict[str, Any]:
    """Return a delivery with its attempts and what they sent; a body that is no longer kept is null."""
    return {
        **delivery(row),
        "attempts": [
            {
                "number": one.number,
                "started_at": clock.iso(one.started_at),
                "duration_ms": one.duration_ms,
                "status_code": one.status_code,
                "response_excerpt": one.response_excerpt,
                "error": problem(one.status_code, one.error),
            }
            for one in attempts
        ],
        "body": json.loads(bytes(row.body)) if row.body else None,
    }


def sample(sent: Sample) -> dict[str, Any]:
    """Return what a sample carried and what came of it."""
    return {
        "is_delivered": sent.outcome.is_success,
        "status_code": sent.outcome.status_code,
        "duration_ms": sent.outcome.duration_ms,
        "response_excerpt": sent.outcome.response_excerpt,
        "error": problem(sent.outcome.status_code, sent.outcome.error),
        "request": {"url": sent.url, "headers": sent.headers, "body": sent.body.decode()},
    }


def problem(status_code: int | None, error: str) -> str | None:
    """Say in a sentence why an attempt failed; None where it did not."""
    if status_code is None or 200 <= status_code < 300:
        return error or None
    return f"The server answered {status_code} instead of a 2xx status.{f' {error}' if error else ''}"


@extend_schema_field({"type": "string", "pattern": ID_PATTERN})
class DeliveryIdField(serializers.CharField):
    """The id of a delivery."""


class WebhookDeliverySerializer(serializers.Serializer[Any]):
    """An event on its way to a URL."""

    id = DeliveryIdField(help_text="The `X-Seedancee2-Delivery` of every attempt.")
    task_id = serializers.CharField(help_text="The task that the event tells of.")
    event = serializers.ChoiceField(Delivery.Event.values)
    url = serializers.CharField(help_text="The task's `callback_url`.")
    state = serializers.ChoiceField(DELIVERY_STATES)
    attempt_count = serializers.IntegerField(min_value=0, help_text="Attempts so far, redeliveries included.")
    next_attempt_at = MomentField(allow_null=True, help_text="Only while it is pending; not earlier than this.")
    created_at = MomentField()
    delivered_at = MomentField(allow_null=True, help_text="When it first arrived; a redelivery does not change it.")


class WebhookAttemptSerializer(serializers.Serializer[Any]):
    """One POST, and what came of it."""

    number = serializers.IntegerField(min_value=1)
    started_at = MomentField()
    duration_ms = serializers.IntegerField(min_value=0)
    status_code = serializers.IntegerField(allow_null=True, help_text="null where no reply came.")
    response_excerpt = serializers.CharField(allow_blank=True, help_text="How the reply's body begins.")
    error = serializers.CharField(allow_null=True, help_text="Why the attempt failed, in a sentence.")


@extend_schema_field({"type": ["object", "null"], "additionalProperties": True})
class PayloadField(serializers.Field[Any, Any, Any, Any]):
    """What every attempt sends, as JSON; null once it is no longer kept."""


class WebhookDeliveryInFullSerializer(WebhookDeliverySerializer):
    """A delivery with its attempts, and what they send."""

    attempts = WebhookAttemptSerializer(many=True)
    body = PayloadField(help_text="What every attempt sends, as JSON; null once it is no longer kept.")


@extend_schema_field({"type": "object", "additionalProperties": {"type": "string"}})
class HeadersField(serializers.DictField):
    """Headers of a request."""


class SampleRequestSerializer(serializers.Serializer[Any]):
    """What was sent."""

    url = serializers.CharField()
    headers = HeadersField()
    body = serializers.CharField(help_text="The very text that was signed.")


class SampleSerializer(serializers.Serializer[Any]):
    """What came of a test webhook."""

    is_delivered = serializers.BooleanField(help_text="Whether a real webhook would count as delivered.")
    status_code = serializers.IntegerField(allow_null=True, help_text="null where no reply came.")
    duration_ms = serializers.IntegerField(min_value=0)
    response_excerpt = serializers.CharField(allow_blank=True, help_text="How the reply's body begins.")
    error = serializers.CharField(allow_null=True, help_text="What was wrong, in a sentence.")
    request = SampleRequestSerializer()


class RecoverySerializer(serializers.Serializer[Any]):
    """How many deliveries were opened again."""

    recovered_count = serializers.IntegerField(min_value=0)
    has_more = serializers.BooleanField(help_text="Whether another call with the same `since` would find more.")


@extend_schema_serializer(many=False)
class WebhookDeliveryReplySerializer(serializers.Serializer[Any]):
    """One delivery."""

    data = WebhookDeliverySerializer()  # type: ignore[assignment] # the page's key is also the name of a property of DRF's


@extend_schema_serializer(many=False)
class WebhookDeliveryInFullReplySerializer(serializers.Serializer[Any]):
    """One delivery with its attempts."""

    data = WebhookDeliveryInFullSerializer()  # type: ignore[assignment]


@extend_schema_serializer(many=False)
class WebhookDeliveryListReplySerializer(serializers.Serializer[Any]):
    """Deliveries, newest first."""

    data = WebhookDeliverySerializer(many=True)  # type: ignore[assignment]


@extend_schema_serializer(many=False)
class SampleReplySerializer(serializers.Serializer[Any]):
    """What came of a test webhook."""

    data = SampleSerializer()  # type: ignore[assignment]


@extend_schema_serializer(many=False)
class RecoveryReplySerializer(serializers.Serializer[Any]):
    """How many deliveries were opened again."""

    data = RecoverySerializer()  # type: ignore[assignment]
