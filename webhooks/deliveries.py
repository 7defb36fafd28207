"""What customers see of their webhooks, and what they may do: look, have one sent again, recover all that failed.

Each look-up is scoped by organization and by live or test in the query itself. What is sent again keeps its id, its
bytes and its place in the list: `delivery` sends it and counts its attempts on.
"""

import datetime as dt
import itertools
import re
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import Any, Final

from django.db import transaction
from django.db.models import Case, DateTimeField, F, Min, Q, QuerySet, Value, When, prefetch_related_objects

from accounts import audit, policies
from accounts.models import Organization, User
from seedancee2.api import cursors
from seedancee2.api.errors import DeliveryNotFound, InvalidRequest
from seedancee2.lib import clock, ids, wakeups
from webhooks import endpoints
from webhooks.models import Delivery, DeliveryAttempt, Endpoint

KEPT_FOR: Final = dt.timedelta(days=30)  # bodies and attempts; what is older can be neither sent again nor recovered
MAX_ATTEMPTS: Final = 500  # of one delivery, over all its schedules
MAX_RECOVERED: Final = 10_000  # by one call
ATTEMPTS_SHOWN: Final = 100
_BATCH: Final = 500
# Between recovered ones, so that what is new finds its place among them.
_PACE: Final = dt.timedelta(milliseconds=50)
_LENIENCY: Final = dt.timedelta(hours=1)  # for who counts thirty days back from a clock of their own

_State = Delivery.State


@dataclass(frozen=True, slots=True, kw_only=True)
class Page:
    """Which deliveries a list shows: `created_after` is included, `created_before` is not."""

    limit: int = 20
    task_id: str | None = None
    event: str | None = None
    state: str | None = None
    created_after: dt.datetime | None = None
    created_before: dt.datetime | None = None
    cursor: str | None = None


@dataclass(frozen=True, slots=True)
class Recovery:
    """How many deliveries were opened again, and whether more are left for another call."""

    count: int
    has_more: bool

    @property
    def sentence(self) -> str:
        """Say it to a person."""
        if self.count == 0:
            return "Nothing had failed since then, so nothing is sent again."
        noun = "webhook is" if self.count == 1 else "webhooks are"
        more = " There are more: recover again for the next ones." if self.has_more else ""
        return f"{self.count:,} failed {noun} being sent again.{more}"


def page(*, organization_id: int, is_test: bool, wanted: Page) -> tuple[list[Delivery], str | None]:
    """Return one page of deliveries without their bodies, newest first, and the cursor of the next page if any.

    Raises:
        BadCursor: the cursor cannot be read.
    """
    rows = _of(organization_id, is_test)
    if wanted.created_after is not None:
        rows = rows.filter(created_at__gte=wanted.created_after)
    if wanted.created_before is not None:
        rows = rows.filter(created_at__lt=wanted.created_before)
    if wanted.cursor is not None:
        rows = cursors.after(rows, wanted.cursor, id_field="delivery_id", prefix="dlv")
    events = Delivery.Event.values if wanted.event is None else [wanted.event]
    states = _State.values if wanted.state is None else [wanted.state]
    if wanted.task_id is not None:
        # Two rows at most, which the index of (reference, event) finds.
        rows = rows.filter(reference=wanted.task_id, event__in=events, state__in=states)
        newest = _newest(rows)
    else:
        # Each pair of event and state is a range of one index, in order: so every filter reads a page and no more.
        ranges = [
            _newest(rows.filter(event=event, state=state))[: wanted.limit + 1]
            for event, state in itertools.product(events, states)
        ]
        newest = ranges[0]
        if len(ranges) > 1:
            newest = newest.union(*ranges[1:], all=True).order_by("-created_at", "-delivery_id")
    found = [delivery_id for delivery_id, _ in newest[: wanted.limit + 1]]
    shown = Delivery.objects.defer("body").in_bulk(found[: wanted.limit])
    deliveries = [shown[delivery_id] for delivery_id in found[: wanted.limit]]
    # A pause of the endpoint matters to those that wait, which are few.
    prefetch_related_objects([row for row in deliveries if row.due_at is not None], "endpoint")
    if len(found) <= wanted.limit:
        return deliveries, None
    return deliveries, cursors.encode(deliveries[-1].created_at, deliveries[-1].delivery_id)


def get(*, organization_id: int, is_test: bool, delivery_id: str) -> Delivery:
    """Return one delivery.

    Raises:
        DeliveryNotFound: malformed, unknown, or another's; the answer is the same.
    """
    return _find(_of(organization_id, is_test), delivery_id)


def attempts(delivery: Delivery) -> list[DeliveryAttempt]:
    """Return a delivery's attempts in order, the last ATTEMPTS_SHOWN of them."""
    return list(delivery.attempts.order_by("-number")[:ATTEMPTS_SHOWN])[::-1]


def redeliver(
    *, organization_id: int, is_test: bool, delivery_id: str, actor: User | str, reason: str = ""
) -> Delivery:
    """Have a delivery sent again at once, on a fresh schedule where it had ended; return it as it is then.

    One that waits for its next attempt becomes due now; one that is being sent at this moment is left alone.

    Raises:
        DeliveryNotFound: malformed, unknown, or another's.
        InvalidRequest: its body is no longer kept, it was sent too often already, or its host is no longer listed.
    """
    hosts = Organization.objects.values_list("callback_hosts", flat=True).get(pk=organization_id)
    with transaction.atomic():
        row = _find(_of(organization_id, is_test).select_for_update(no_key=True), delivery_id)
        now = clock.now()
        if row.leased_until is not None and row.leased_until > now:
            return row
        if not row.body:
            raise InvalidRequest(
                f"The body of this webhook was deleted after {KEPT_FOR.days} days, so that it cannot be sent again. "
                f"GET /v1/videos/generations/{row.reference} still shows the task."
            )
        if row.attempt_count >= MAX_ATTEMPTS:
            raise InvalidRequest(f"This webhook was sent {row.attempt_count} times; it cannot be sent again.")
        if problem := policies.host_problem(hosts, row.url):
            raise InvalidRequest(f"The URL of this webhook {problem}")
        if row.state != _State.PENDING:
            row.first_delivered_at = row.delivered_at
            row.state, row.finished_at = _State.PENDING, None
        # By hand, it takes nothing from the schedule of one that waits either: that begins anew.
        row.schedule_base = row.attempt_count
        row.due_at = _before_all_others(row.endpoint_id, now)
        row.save(update_fields=["first_delivered_at", "schedule_base", "state", "due_at", "finished_at"])
        endpoints.probe_soon(row.endpoint)
        wakeups.on_commit("webhooks.deliver")
        after = {"attempt_count": row.attempt_count}
        _note(organization_id, actor, "webhook.redelivered", target=row.pk, after=after, reason=reason)
    return row


def recover(
    *, organization_id: int, is_test: bool, since: dt.datetime, actor: User | str, reason: str = ""
) -> Recovery:
    """Open again what was given up at `since` or later, oldest first, MAX_RECOVERED at most; each begins anew.

    What goes to a host that the organization does not list any more is left out.

    Raises:
        InvalidRequest: `since` lies in the future, or further back than bodies are kept.
    """
    now = clock.now()
    if since > now:
        raise InvalidRequest("since must not lie in the future.")
    if since < now - KEPT_FOR - _LENIENCY:
        raise InvalidRequest(f"since must lie within the last {KEPT_FOR.days} days.")
    hosts = Organization.objects.values_list("callback_hosts", flat=True).get(pk=organization_id)
    # What fails again while this runs waits for the next call.
    failed = _of(organization_id, is_test).filter(
        ~Q(body=b""), state=_State.ABANDONED, finished_at__range=(since, now), attempt_count__lt=MAX_ATTEMPTS
    )
    if hosts:
        failed = failed.filter(host__regex=_origins(hosts))
    count = 0
    while count < MAX_RECOVERED:
        with transaction.atomic():
            batch = _reopen(failed, min(_BATCH, MAX_RECOVERED - count), first_at=now + count * _PACE)
            if batch or not count:
                after = {"is_test": is_test, "since": clock.iso(since), "count": batch}
                _note(organization_id, actor, "webhooks.recovered", target="webhooks", after=after, reason=reason)
        if not batch:
            break
        count += batch
    return Recovery(count, has_more=count == MAX_RECOVERED and failed.exists())


def _before_all_others(endpoint_id: int, now: dt.datetime) -> dt.datetime:
    """Return when one that somebody waits for is due: at once, and before whatever waits at the endpoint."""
    oldest = Delivery.objects.filter(endpoint=endpoint_id, due_at__lte=now).aggregate(at=Min("due_at"))["at"]
    return now if oldest is None else oldest - dt.timedelta(milliseconds=1)


def _origins(hosts: Collection[str]) -> str:
    """Return a regular expression of the origins that a list of hosts allows, as `destinations.is_listed` reads it."""
    names = [f".*{re.escape(host[1:])}" if host.startswith("*.") else re.escape(host) for host in hosts]
    return rf"^https?://(\[?({'|'.join(names)})\]?):[0-9]+$"


def _reopen(failed: QuerySet[Delivery], limit: int, *, first_at: dt.datetime) -> int:
    """Open some again in the caller's transaction, one of many, so that no attempt waits long for their locks."""
    # Whoever holds the lock of one is opening it already.
    rows = failed.order_by("finished_at").select_for_update(skip_locked=True, no_key=True)
    chosen = list(rows.values_list("pk", flat=True)[:limit])
    if chosen:
        # In one order, since the trigger of Delivery locks them as the rows come.
        reached = (
            Endpoint.objects.filter(deliveries__pk__in=chosen)
            .order_by("pk")
            .select_for_update(of=("self",), no_key=True)
        )
        for endpoint in {one.pk: one for one in reached}.values():
            endpoints.probe_soon(endpoint)
        wakeups.on_commit("webhooks.deliver")
    turns = [When(pk=pk, then=Value(first_at + nth * _PACE)) for nth, pk in enumerate(chosen)]
    return Delivery.objects.filter(pk__in=chosen).update(
        state=_State.PENDING,
        due_at=Case(*turns, output_field=DateTimeField()),
        finished_at=None,
        schedule_base=F("attempt_count"),
    )


def _note(
    organization_id: int, actor: User | str, action: str, *, target: str, after: Mapping[str, Any], reason: str
) -> None:
    """Write it down; who is no person is named."""
    person, name = (actor, "") if isinstance(actor, User) else (None, actor)
    audit.note(
        organization_id=organization_id,
        actor=person,
        actor_name=name,
        action=action,
        target=target,
        after=after,
        reason=reason,
    )


def _find(rows: QuerySet[Delivery], delivery_id: str) -> Delivery:
    found = rows.filter(pk=delivery_id).first() if ids.is_valid(delivery_id, "dlv") else None
    if found is None:
        raise DeliveryNotFound
    return found


def _of(organization_id: int, is_test: bool) -> QuerySet[Delivery]:
    return Delivery.objects.filter(organization_id=organization_id, is_test=is_test)


def _newest(rows: QuerySet[Delivery]) -> QuerySet[Delivery, tuple[str, dt.datetime]]:
    return rows.order_by("-created_at", "-delivery_id").values_list("delivery_id", "created_at")
