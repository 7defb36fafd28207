"""What schemathesis asks us while it runs: rules that no schema can say are held against our own validator."""

import datetime as dt
import os
import re
from collections.abc import Callable, Mapping
from typing import Any
from urllib.parse import parse_qsl, urlsplit

import django
import schemathesis
from django.conf import settings
from schemathesis.core.failures import Failure
from schemathesis.openapi.checks import RejectedPositiveData

django.setup()

from accounts.clients import Client  # noqa: E402 (Django must know its apps first)
from generations import idempotency, queries, requests  # noqa: E402
from generations.models import Generation  # noqa: E402
from seedancee2.api import cursors, errors, parsing  # noqa: E402
from seedancee2.api.query import Query  # noqa: E402
from seedancee2.api.schema import MOMENT_PATTERN  # noqa: E402
from seedancee2.lib import clock  # noqa: E402
from webhooks import deliveries  # noqa: E402
from webhooks import requests as webhook_requests  # noqa: E402

REQUEST_LINE_LIMIT = 4094 - len("GET  HTTP/1.1\r\n")

_NOBODY = Client(organization_id=0, api_key_id=0, is_test=False, create_rate_limit=None, request_rate_limit=None)
_OPEN = (Generation.Status.PENDING, Generation.Status.PROCESSING)

# What was sent with each Idempotency-Key.
_bodies: dict[str, str] = {}


class DisagreesWithOurValidator(AssertionError):
    """The reply to a create request is not what our validator says of its body."""


@schemathesis.hook
def filter_failure(context: Any, failure: Failure, case: Any, response: Any) -> bool:
    """Drop the refusal of data that satisfy the schema where our own validator refuses them with just these words."""
    request = response.request
    if response.status_code == 414:
        # gunicorn's own, in HTML: the application never sees such a request.
        return len(request.path_url) < REQUEST_LINE_LIMIT
    if not isinstance(failure, RejectedPositiveData):
        return True
    if response.status_code == 413:
        return len(request.body) <= settings.API_MAX_BODY_BYTES
    return response.status_code != 400 or _message(response) != _problem(case, request)


@schemathesis.hook
def before_call(context: Any, case: Any, kwargs: Mapping[str, Any]) -> None:
    """Keep cases from standing in each other's way: no waiting for tasks that nobody works on, no key used twice.

    What samples are sent to, and since when webhooks are recovered, are values of which few would do.
    """
    match _operation(case):
        case "getVideoTask" if _is_positive_number((case.query or {}).get("wait")):
            if Generation.objects.filter(public_id=case.path_parameters.get("id"), status__in=_OPEN).exists():
                case.query["wait"] = 0
        case "createVideoTask" if isinstance(key := (case.headers or {}).get(idempotency.HEADER), str):
            if _bodies.setdefault(key, repr(case.body)) != repr(case.body):
                case.headers[idempotency.HEADER] = f"{key[:200]}-{len(_bodies)}"
                _bodies[case.headers[idempotency.HEADER]] = repr(case.body)
        case "sendTestWebhook" if _body_problem(webhook_requests.read_sample, case.body) is None:
            # Samples go to the test's own receiver, and to nobody else.
            case.body["url"] = os.environ["SCHEMATHESIS_RECEIVER"]
        case "recoverWebhooks" if isinstance(case.body, dict) and isinstance(since := case.body.get("since"), str):
            # Of all times hardly one lies within the last 30 days, so most are replaced.
            if sum(map(ord, since)) % 8 and re.fullmatch(MOMENT_PATTERN, since):
                case.body["since"] = clock.iso(clock.now() - dt.timedelta(days=1))


@schemathesis.check
def our_validator_agrees(ctx: Any, response: Any, case: Any) -> None:
    """A create request is accepted where our validator finds nothing, else refused in its words."""
    request = response.request
    if (request.method, request.path_url) != ("POST", "/v1/videos/generations"):
        return
    if response.status_code not in (201, 400):
        return
    problem = _problem(case, request)
    told = _message(response) if response.status_code == 400 else None
    if told != problem and not (told or "").startswith(f"The {idempotency.HEADER} header"):
        raise DisagreesWithOurValidator(f"Replied: {told}\nOur validator: {problem}")


def _problem(case: Any, request: Any) -> str | None:
    """Return what is wrong with a request in our own words, or None."""
    match _operation(case):
        case "createVideoTask":
            return _sent_body_problem(_created, request)
        case "listVideoTasks":
            return _list_problem(_sent_query(request))
        case "getUsage":
            return _usage_problem(_sent_query(request))
        case "listWebhookDeliveries":
            return _deliveries_problem(_sent_query(request))
        case "sendTestWebhook":
            return _sent_body_problem(webhook_requests.read_sample, request)
        case "recoverWebhooks":
            return _sent_body_problem(_recovered, request)
    return None


def _operation(case: Any) -> str:
    return str(case.operation.definition.raw["operationId"])


def _created(body: Mapping[str, Any]) -> None:
    requests.read(body).checked_spec()


def _recovered(body: Mapping[str, Any]) -> None:
    since, _ = webhook_requests.read_recovery(body)
    deliveries.recover(organization_id=0, is_test=False, since=since, actor="nobody")


def _sent_body_problem(read: Callable[[Any], Any], request: Any) -> str | None:
    # No body at all reads like an object without keys.
    raw = request.body if isinstance(request.body, bytes) else (request.body or "{}").encode()
    try:
        read(parsing.loads(raw))
    except errors.InvalidRequest as error:
        return error.message
    return None


def _body_problem(read: Callable[[Any], Any], body: Any) -> str | None:
    if not isinstance(body, dict):
        return "not an object"
    try:
        read(body)
    except errors.InvalidRequest as error:
        return error.message
    return None


def _list_problem(params: Mapping[str, str]) -> str | None:
    query = Query(params)
    query.moment("created_after")
    query.moment("created_before")
    try:
        query.check()
        queries.page(client=_NOBODY, wanted=queries.Page(cursor=params.get("cursor")))
    except errors.InvalidRequest as error:
        return error.message
    except cursors.BadCursor:
        return "cursor is not valid; use the one in the Link header of a list."
    return None


def _deliveries_problem(params: Mapping[str, str]) -> str | None:
    query = Query(params)
    query.moment("created_after")
    query.moment("created_before")
    try:
        query.check()
        deliveries.page(organization_id=0, is_test=False, wanted=deliveries.Page(cursor=params.get("cursor")))
    except errors.InvalidRequest as error:
        return error.message
    except cursors.BadCursor:
        return "cursor is not valid; use the one in the Link header of a list."
    return None


def _usage_problem(params: Mapping[str, str]) -> str | None:
    query = Query(params)
    start, end = query.moment("start"), query.moment("end", is_end=True)
    try:
        query.check()
    except errors.InvalidRequest as error:
        return error.message
    if start is not None and start > (end or clock.now()):
        return "start must not be after end, which is now unless it is given."
    return None


def _message(response: Any) -> str:
    return str(response.json()["error"]["message"])


def _sent_query(request: Any) -> Mapping[str, str]:
    return dict(parse_qsl(urlsplit(request.url).query, keep_blank_values=True))


def _is_positive_number(value: Any) -> bool:
    return str(value).isdecimal() and int(str(value)) > 0
