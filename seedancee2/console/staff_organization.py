"""All that the staff need of one organization on its page: four bounded reads, whatever its size.

Counts stop at MOST. What was spent this month is read off the balance: what there was at its start and was added since,
less what there is now; so no month of a million tasks is summed.
"""

import dataclasses
import datetime as dt
from collections.abc import Sequence
from typing import Any

from django.contrib import admin
from django.db import connection
from django.db.models import F, Model
from django.urls import reverse
from django.utils.http import urlencode

from accounts.models import ApiKey, AuditEntry, Organization
from billing.models import Adjustment, LedgerEntry, TopUpRequest
from generations.models import Generation
from seedancee2.lib import clock
from webhooks.models import Delivery, Endpoint

MOST = 10_000
ROWS = 8  # of each list

_FACTS = """
    SELECT coalesce(account.available, 0) AS available, coalesce(account.reserved, 0) AS held,
           coalesce((SELECT available_after + reserved_after FROM billing_ledgerentry
                      WHERE account_id = %(id)s AND created_at < %(month)s
                      ORDER BY created_at DESC, sequence DESC LIMIT 1), 0)
             + coalesce((SELECT sum(available_change) FILTER (WHERE kind <> 'refund') FROM billing_ledgerentry
                          WHERE account_id = %(id)s AND kind IN ('grant', 'adjust', 'refund')
                            AND created_at >= %(month)s), 0)::bigint
             - coalesce(account.available + account.reserved, 0) AS spent,
           (SELECT count(*) FROM (SELECT FROM accounts_apikey WHERE organization_id = %(id)s AND revoked_at IS NULL
                AND (expires_at IS NULL OR expires_at > %(now)s) LIMIT %(most)s) counted) AS key_count,
           (SELECT count(*) FROM (SELECT FROM generations_generation WHERE organization_id = %(id)s
                AND is_test IN (false, true) AND status IN ('pending', 'processing')
                LIMIT %(most)s) counted) AS open_count,
           (SELECT count(*) FROM (SELECT FROM webhooks_delivery WHERE organization_id = %(id)s AND is_test = false
                AND event IN ('video.generation.completed', 'video.generation.failed') AND state = 'pending'
                LIMIT %(most)s) counted) AS pending_count,
           (SELECT count(*) FROM billing_adjustment WHERE account_id = %(id)s
                AND moved_at IS NULL AND declined_at IS NULL) AS waiting_count,
           (SELECT json_build_object('pk', request_id, 'amount', amount, 'note', note)
              FROM billing_topuprequest WHERE account_id = %(id)s AND state = 'open') AS top_up,
           (SELECT json_agg(one) FROM (SELECT origin, standing, failure_count, last_error,
                   failing_since IS NOT NULL AS is_bad, paused_until > %(now)s AS is_paused
              FROM webhooks_endpoint WHERE organization_id = %(id)s
             ORDER BY failing_since NULLS LAST, origin LIMIT %(rows)s) one) AS endpoints,
           (SELECT json_agg(one) FROM (SELECT author_name AS author, text, created_at AS at FROM accounts_staffnote
             WHERE organization_id = %(id)s ORDER BY id DESC LIMIT %(rows)s) one) AS notes
      FROM (SELECT) nothing LEFT JOIN billing_creditaccount account ON account.organization_id = %(id)s
"""
_TOUCHED = """
    SELECT one.id,
           (SELECT count(*) FROM (SELECT FROM accounts_apikey WHERE organization_id = one.id AND revoked_at IS NULL
                AND (expires_at IS NULL OR expires_at > %(now)s) LIMIT %(most)s) counted),
           (SELECT count(*) FROM (SELECT FROM generations_generation WHERE organization_id = one.id
                AND is_test IN (false, true) AND status IN ('pending', 'processing') LIMIT %(most)s) counted)
      FROM unnest(%(ids)s::bigint[]) AS one (id)
"""


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Overview:
    """An organization as it stands; `links` lead to the whole lists, by name."""

    facts: dict[str, Any]
    month: str
    entries: list[LedgerEntry]
    keys: list[ApiKey]
    tasks: list[Generation]
    links: dict[str, str]


def compile(organization: Organization) -> Overview:
    """Read how an organization stands."""
    entries = LedgerEntry.objects.filter(account_id=organization.pk).order_by("-sequence")
    keys = ApiKey.objects.filter(organization=organization)
    # Each half is the head of an index; together they are sorted here.
    live, test = (
        Generation.objects.filter(organization=organization, is_test=is_test).order_by("-created_at", "-public_id")
        for is_test in (False, True)
    )
    tasks = sorted(live[:ROWS].union(test[:ROWS], all=True), key=lambda task: task.created_at, reverse=True)
    return Overview(
        facts=_facts(organization.pk),
        month=f"{clock.now():%B}",
        entries=list(entries[:ROWS]),
        keys=list(keys.order_by(F("revoked_at").desc(nulls_first=True), "-pk")[:ROWS]),
        tasks=tasks[:ROWS],
        links=_links(organization.pk),
    )


def touched(organizations: Sequence[Organization]) -> list[str]:
    """Say what the suspension of each touches, in one statement for all of them."""
    values: dict[str, Any] = {"ids": [row.pk for row in organizations], "now": clock.now(), "most": MOST}
    with connection.cursor() as cursor:
        cursor.execute(_TOUCHED, values)
        counts = {pk: (_many(keys), _many(tasks)) for pk, keys, tasks in cursor.fetchall()}
    return [f"{row}: keys that work: {counts[row.pk][0]}; open tasks: {counts[row.pk][1]}" for row in organizations]


def _facts(organization_id: int) -> dict[str, Any]:
    now = clock.now()
    start = now.replace(day=1, hour=0, minute=0, second=0, microsecond=0)
    values: dict[str, int | dt.datetime] = {
        "id": organization_id,
        "now": now,
        "month": start,
        "most": MOST,
        "rows": ROWS,
    }
    with connection.cursor() as cursor:
        cursor.execute(_FACTS, values)
        facts = dict(zip([column.name for column in cursor.description], cursor.fetchone(), strict=True))
    for row in facts["notes"] or ():
        row["at"] = dt.datetime.fromisoformat(row["at"])
    for row in facts["endpoints"] or ():
        row["standing"] = Endpoint.Standing(row["standing"]).label
    return facts


def _links(organization_id: int) -> dict[str, str]:
    # The order that an index has, so that a long list is as quick as a short one.
    return {
        "entries": _list(LedgerEntry, account__exact=organization_id, order="sequence"),
        "keys": _list(ApiKey, organization__id__exact=organization_id),
        "tasks": _list(Generation, organization__id__exact=organization_id, is_test__exact=0, order="created_at"),
        "open": _list(
            Generation, organization__id__exact=organization_id, status__in="pending,processing", order="created_at"
        ),
        "deliveries": _list(Delivery, organization__id__exact=organization_id, state__exact="pending"),
        "adjustments": _list(Adjustment, account__exact=organization_id, moved_at__isempty=1, declined_at__isempty=1),
        "top_ups": _list(TopUpRequest, account__exact=organization_id),
        "audit": _list(AuditEntry, organization__id__exact=organization_id),
    }


def _list(model: type[Model], *, order: str = "", **filters: str | int) -> str:
    page = admin.site.get_model_admin(model)
    if order and order in page.list_display:
        filters["o"] = f"-{list(page.list_display).index(order)}"
    return f"{reverse(f'admin:{model._meta.app_label}_{model._meta.model_name}_changelist')}?{urlencode(filters)}"


def _many(count: int) -> str:
    return f"{count:,} or more" if count >= MOST else f"{count:,}"
