"""The staff's one search box: an exact term, looked up by index in everything it could be, as far as one may see that.

An API key is found by all of itself, anywhere in what was pasted, or by its last four characters: nothing else of it is
kept. It is shown nowhere again, and the form sends it past the address, which browsers and proxies keep.

Customers' metadata is found by a value at its top level, such as a `customer_job_id`
(`generations/migrations/0005_staff_console.py`).
"""

import dataclasses
import re
from collections.abc import Callable, Iterator, Sequence
from typing import Any

from django.contrib import admin
from django.db.models import Model, QuerySet, Value
from django.db.models.functions import Lower
from django.http import HttpRequest, HttpResponse, HttpResponseBase
from django.shortcuts import render
from django.urls import reverse
from django.utils.http import urlencode

from accounts import leaks
from accounts.models import ApiKey, Organization, User
from billing.models import Adjustment, TopUpRequest
from generations.models import Generation
from providers.lookups import of_upstream_id
from providers.models import UpstreamJob
from seedancee2.lib import ids
from webhooks.lookups import of_address
from webhooks.models import Delivery, Endpoint

MAX_LENGTH = 500
MOST = 20  # rows of a group that are shown
_LAST_FOUR = re.compile(r"(?:sk_seedancee2_(?:live|test)_)?[.…]*([!-~]{4})")

_BY_METADATA = """
    SELECT public_id FROM (
        SELECT public_id, metadata FROM generations_generation
         WHERE metadata::text <> '{}' AND generations_metadata_hashes(metadata) @> ARRAY[hashtextextended(%s, 0)]
         LIMIT 1000) found
     WHERE EXISTS (SELECT FROM json_each_text(found.metadata) WHERE value = %s)
     ORDER BY public_id DESC LIMIT %s
"""


@dataclasses.dataclass(frozen=True, slots=True)
class Result:
    """A row that was found."""

    title: str
    detail: str
    url: str


@dataclasses.dataclass(frozen=True, slots=True)
class Group:
    """What was found in one table; `is_cut` if there is more of it."""

    name: str
    results: list[Result]
    is_cut: bool


def page(request: HttpRequest) -> HttpResponseBase:
    """Show what a term is; with `s`, the theme's own look through the names of pages."""
    if "s" in request.GET:
        look: HttpResponseBase = admin.site.search(request)  # type: ignore[attr-defined] # the theme's site has it
        return look
    sent = request.POST if request.method == "POST" else request.GET
    found = leaks.read(sent.get("q", "").replace("\x00", "").strip()[:MAX_LENGTH])
    is_key = found.is_secret or found.is_part
    term = "" if is_key else found.text
    context: dict[str, Any] = admin.site.each_context(request) | {
        "title": "Search",
        "term": term,
        "leak": found if is_key else None,
        "is_request_id": ids.is_valid(term, "req"),
        "groups": list(find(term=term, keys=found.keys, may=request.user.has_perm)) if term or found.keys else [],
    }
    if request.user.has_perm("accounts.view_organization"):
        context["by_name"] = f"{reverse('admin:accounts_organization_changelist')}?{urlencode({'q': term})}"
    response: HttpResponse = render(request, "admin/staff/search.html", context)
    return response


def find(*, term: str, keys: Sequence[ApiKey] = (), may: Callable[[str], bool]) -> Iterator[Group]:
    """Yield what a term may be, group by group, of the tables that one may see; `keys` are those it was already."""
    for name, permission, look, describe in _LOOKS:
        if may(permission):
            rows = list(look(term)[: MOST + 1]) if term else list(keys) if look is _keys else []
            if rows:
                yield Group(name, [_result(row, describe(row)) for row in rows[:MOST]], len(rows) > MOST)


def _tasks(term: str) -> QuerySet[Generation]:
    if not ids.is_valid(term.lower(), "vid"):
        return Generation.objects.none()
    return Generation.objects.filter(pk=term.lower()).select_related("organization")


def _by_metadata(term: str) -> QuerySet[Generation]:
    found = [row.pk for row in Generation.objects.raw(_BY_METADATA, [term, term, MOST + 1])]
    return Generation.objects.filter(pk__in=found).select_related("organization").order_by("-pk")


def _jobs(term: str) -> QuerySet[UpstreamJob]:
    return UpstreamJob.objects.filter(of_upstream_id(term)).select_related("channel").order_by("-pk")


def _deliveries(term: str) -> QuerySet[Delivery]:
    if not ids.is_valid(term.lower(), "dlv"):
        return Delivery.objects.none()
    return Delivery.objects.filter(pk=term.lower()).select_related("organization").defer("body")


def _adjustments(term: str) -> QuerySet[Adjustment]:
    return Adjustment.objects.filter(pk=term).select_related("account__organization")


def _top_ups(term: str) -> QuerySet[TopUpRequest]:
    if not ids.is_valid(term.lower(), "top"):
        return TopUpRequest.objects.none()
    return TopUpRequest.objects.filter(pk=term.lower()).select_related("account__organization")


def _endpoints(term: str) -> QuerySet[Endpoint]:
    # They are few beside what goes there, and have no index for this.
    found = of_address(term)
    if found is None:
        return Endpoint.objects.none()
    return Endpoint.objects.filter(found).select_related("organization").order_by("-pk")


def _people(term: str) -> QuerySet[User]:
    return User.objects.filter(email=term.lower()) if "@" in term else User.objects.none()


def _organizations(term: str) -> QuerySet[Organization]:
    # `iexact` compares in upper case, and the index is of the lower.
    return Organization.objects.alias(low=Lower("name")).filter(low=Lower(Value(term)))


def _keys(term: str) -> QuerySet[ApiKey]:
    match = _LAST_FOUR.fullmatch(term)
    if match is None:
        return ApiKey.objects.none()
    return ApiKey.objects.filter(last_four=match[1]).select_related("organization").order_by("-pk")


# What it is called, who may see it, how it is looked up, and what is said of a row.
_LOOKS: tuple[tuple[str, str, Callable[[str], QuerySet[Any]], Callable[[Any], str]], ...] = (
    ("Tasks", "generations.view_generation", _tasks, lambda row: f"{row.status}, {row.organization}"),
    ("Tasks by metadata", "generations.view_generation", _by_metadata, lambda row: f"{row.status}, {row.organization}"),
    (
        "Jobs at providers",
        "providers.view_upstreamjob",
        _jobs,
        lambda row: f"{row.status} at {row.channel}, {row.upstream_id}",
    ),
    ("Webhook deliveries", "webhooks.view_delivery", _deliveries, lambda row: f"{row.state}, {row.organization}"),
    (
        "Endpoints",
        "webhooks.view_endpoint",
        _endpoints,
        lambda row: f"{row.get_standing_display()}, {row.organization}",
    ),
    ("Adjustments", "billing.view_adjustment", _adjustments, lambda row: f"{row.account.organization}: {row.reason}"),
    (
        "Requests for credits",
        "billing.view_topuprequest",
        _top_ups,
        lambda row: f"{row.state}, {row.account.organization}",
    ),
    ("People", "accounts.view_user", _people, lambda row: row.name),
    ("Organizations", "accounts.view_organization", _organizations, lambda row: ""),
    ("API keys", "accounts.view_apikey", _keys, lambda row: f"{row.masked}, {row.state}, {row.organization}"),
)


def _result(row: Model, detail: str) -> Result:
    name = f"admin:{row._meta.app_label}_{row._meta.model_name}_change"
    return Result(str(row), detail, reverse(name, args=[row.pk]))
