"""What schemathesis asks us while it runs: rules that no schema can say are held against our own validator."""

from collections.abc import Mapping
from typing import Any
from urllib.parse import parse_qsl, urlsplit

import django
import schemathesis
from django.conf import settings
from schemathesis.core.failures import Failure
from schemathesis.openapi.checks import RejectedPositiveData

django.setup()

from accounts.keys import Client  # noqa: E402 (Django must know its apps first)
from generations import idempotency, queries, requests  # noqa: E402
from generations.models import Generation  # noqa: E402
from seedancee2.api import errors, parsing  # noqa: E402
from seedancee2.api.query import Query  # noqa: E402
from seedancee2.lib import clock  # noqa: E402

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
    """Keep cases from standing in each other's way: no waiting for tasks that nobody works on, no key used twice."""
    match _operation(case):
        case "getVideoTask" if _is_positive_number((case.query or {}).get("wait")):
            if Generation.objects.filter(public_id=case.path_parameters.get("id"), status__in=_OPEN).exists():
                case.query["wait"] = 0
        case "createVideoTask" if isinstance(key := (case.headers or {}).get(idempotency.HEADER), str):
            if _bodies.setdefault(key, repr(case.body)) != repr(case.body):
                case.headers[idempotency.HEADER] = f"{key[:200]}-{len(_bodies)}"
                _bodies[case.headers[idempotency.HEADER]] = repr(case.body)


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
            return _body_problem(request.body)
        case "listVideoTasks":
            return _list_problem(_sent_query(request))
        case "getUsage":
            return _usage_problem(_sent_query(request))
    return None


def _operation(case: Any) -> str:
    return str(case.operation.definition.raw["operationId"])


def _body_problem(body: Any) -> str | None:
    # No body at all reads like an object without keys.
    raw = body if isinstance(body, bytes) else (body or "{}").encode()
    try:
        requests.read(parsing.loads(raw)).checked_spec()
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
    except queries.BadCursor:
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
