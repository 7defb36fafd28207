"""What requests about webhooks may hold, with every problem of one told at once."""

import datetime as dt
from collections.abc import Mapping
from typing import Any

from drf_spectacular.utils import extend_schema_field
from rest_framework.exceptions import ValidationError

from seedancee2.api import naming
from seedancee2.api.errors import InvalidRequest
from seedancee2.api.fields import PublicURL, StrictChar, StrictChoice, StrictObject, sentences
from seedancee2.api.query import NOT_A_MOMENT, parse_moment
from seedancee2.api.schema import MOMENT, URL_PATTERN
from seedancee2.lib import destinations
from webhooks.models import Delivery


@extend_schema_field({"type": "string", "pattern": URL_PATTERN, "maxLength": destinations.MAX_URL_LENGTH})
class _Receiver(PublicURL):
    """The URL of a receiver."""


@extend_schema_field(MOMENT)
class _Moment(StrictChar):
    """An ISO 8601 time, read as in a query."""

    def to_internal_value(self, data: Any) -> Any:
        """Return the time."""
        moment = parse_moment(data)
        if moment is None:
            raise ValidationError(NOT_A_MOMENT)
        return moment


class SendTestWebhookRequestSerializer(StrictObject):
    """Where to send a sample, and of which event."""

    url = _Receiver(help_text="The receiver to try, public as a `callback_url` must be.")
    event = StrictChoice(
        Delivery.Event.values,
        default=Delivery.Event.COMPLETED.value,
        allow_null=True,
        help_text="The event to send a sample of.",
    )


class RecoverWebhooksRequestSerializer(StrictObject):
    """From when on."""

    since = _Moment(
        help_text="ISO 8601, within the last 30 days; deliveries that were given up at this time or later.",
    )


def read_sample(body: Mapping[str, Any]) -> tuple[str, str, tuple[str, ...]]:
    """Return the URL and the event, and the keys that mean nothing here.

    Raises:
        InvalidRequest: the message names every problem.
    """
    values, ignored = _read(SendTestWebhookRequestSerializer(), body)
    return values["url"], values["event"], ignored


def read_recovery(body: Mapping[str, Any]) -> tuple[dt.datetime, tuple[str, ...]]:
    """Return the time from which on to recover, and the keys that mean nothing here.

    Raises:
        InvalidRequest: the message names every problem.
    """
    values, ignored = _read(RecoverWebhooksRequestSerializer(), body)
    return values["since"], ignored


def _read(serializer: StrictObject, body: Mapping[str, Any]) -> tuple[dict[str, Any], tuple[str, ...]]:
    names = tuple(serializer.fields)
    unknown = [key for key in body if key not in names]
    # Every key costs a comparison with each name, and nobody mistypes this many.
    meant = {key: naming.near_miss(key, names) for key in unknown[:50]}
    problems = [f"{key} is not a field; did you mean {name}?" for key, name in meant.items() if name]
    values: dict[str, Any] = {}
    try:
        values = serializer.run_validation(body)
    except ValidationError as error:
        mistyped = set(meant.values())
        found = sentences(error.detail)
        problems += [text for path, text in found if not (path in mistyped and text.endswith("is required."))]
    if problems:
        raise InvalidRequest(" ".join(problems))
    return values, tuple(key for key in unknown if not meant.get(key))
