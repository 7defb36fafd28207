"""The status page: how the service does, from its own rows; kept for half a minute in each process.

Nothing here needs Redis, except to tell whether the workers are alive. Ids of tasks and deliveries begin with the time,
so that the primary keys lead to the newest rows; no index leads to the time itself.
"""

import dataclasses
import datetime as dt
import functools
import time
from typing import Any

import redis
from django.db import DatabaseError, connection
from django.db.models import Aggregate, Count, DurationField, ExpressionWrapper, F, Q
from django.http import HttpRequest, HttpResponse
from django.shortcuts import render
from django.views.decorators.http import require_safe
from ulid import ULID

from generations.models import Generation
from seedancee2.console import pages
from seedancee2.console.alarms import PARTS
from seedancee2.lib import clock, heartbeats
from webhooks.models import Delivery

KEPT_SECONDS = 30
DAY, HOUR = dt.timedelta(days=1), dt.timedelta(hours=1)
# Failures that are the request's own, not the service's.
OF_THE_REQUEST = (
    Generation.ErrorCode.CONTENT_POLICY_VIOLATION,
    Generation.ErrorCode.INVALID_REFERENCE,
    Generation.ErrorCode.CANCELED,
)

Status = Generation.Status


@dataclasses.dataclass(frozen=True, slots=True)
class Figures:
    """What happened in a stretch of time; a share or a duration is None where there was nothing to measure."""

    title: str
    accepted: int
    ended: int
    completed: int
    success: float | None
    p50: float | None
    p95: float | None
    webhooks: int
    delivered: float | None


@dataclasses.dataclass(frozen=True, slots=True)
class Report:
    """The page's content; `figures` is empty where the database could not be asked."""

    at: dt.datetime
    parts: list[tuple[str, str, str]]
    figures: list[Figures]

    @property
    def is_good(self) -> bool:
        """Whether every part does its work."""
        return all(state == "good" for _, state, _ in self.parts)


class _Percentile(Aggregate):
    function = "percentile_cont"
    template = "%(function)s(%(fraction)s) WITHIN GROUP (ORDER BY %(expressions)s)"
    output_field = DurationField()


@require_safe
def page(request: HttpRequest) -> HttpResponse:
    """Show how the service does."""
    context = {"report": report(int(time.monotonic()) // KEPT_SECONDS), "incidents": pages.document("incidents.md")}
    return render(request, "status.html", context)


@functools.lru_cache(maxsize=1)
def report(_half_minute: int) -> Report:
    """Return what the page shows; counted once in KEPT_SECONDS."""
    now = clock.now()
    try:
        figures = [_figures("Last hour", now, HOUR), _figures("Last 24 hours", now, DAY)]
    except DatabaseError:  # away, or too busy to count; which of the two, the next question tells
        figures = []
    return Report(now, [_api(), *_workers()], figures)


def _api() -> tuple[str, str, str]:
    try:
        with connection.cursor() as cursor:
            cursor.execute("SELECT 1")
    except DatabaseError:
        return "API", "bad", "Requests cannot be answered right now."
    return "API", "good", "Requests are answered."


def _workers() -> list[tuple[str, str, str]]:
    try:
        ages = heartbeats.ages(PARTS)
    except redis.RedisError:
        text = "Works more slowly than usual at present; nothing is lost."
        return [("Video generation", "warn", text), ("Webhooks", "warn", text)]
    silent = {part for part, age in ages.items() if age is None or age > heartbeats.FRESH_SECONDS}
    return [
        _part("Video generation", not silent - {heartbeats.DELIVER}, "Tasks are worked on.", "Tasks wait at present."),
        _part("Webhooks", not silent & {heartbeats.DELIVER, heartbeats.BEAT}, "Webhooks go out.", "Webhooks wait."),
    ]


def _part(name: str, is_well: bool, well: str, ill: str) -> tuple[str, str, str]:
    return (
        name,
        "good" if is_well else "bad",
        well if is_well else f"{ill} Nothing is lost: it goes on from where it was.",
    )


def _figures(title: str, now: dt.datetime, span: dt.timedelta) -> Figures:
    since = now - span
    tasks = Generation.objects.filter(public_id__gte=_first_id("vid", since), is_test=False).order_by()
    took = ExpressionWrapper(F("finished_at") - F("created_at"), output_field=DurationField())
    done = Q(status=Status.COMPLETED)
    sums: dict[str, Any] = tasks.aggregate(
        accepted=Count("public_id"),
        ended=Count("public_id", filter=Q(finished_at__isnull=False)),
        completed=Count("public_id", filter=done),
        ours=Count("public_id", filter=Q(status=Status.FAILED) & ~Q(error_code__in=OF_THE_REQUEST)),
        p50=_Percentile(took, fraction=0.5, filter=done),
        p95=_Percentile(took, fraction=0.95, filter=done),
    )
    hooks: dict[str, int] = (
        Delivery.objects.filter(delivery_id__gte=_first_id("dlv", since), is_test=False)
        .order_by()
        .aggregate(
            written=Count("delivery_id"),
            delivered=Count("delivery_id", filter=Q(state=Delivery.State.DELIVERED)),
        )
    )
    return Figures(
        title=title,
        accepted=sums["accepted"],
        ended=sums["ended"],
        completed=sums["completed"],
        success=_share(sums["completed"], sums["completed"] + sums["ours"]),
        p50=_seconds(sums["p50"]),
        p95=_seconds(sums["p95"]),
        webhooks=hooks["written"],
        delivered=_share(hooks["delivered"], hooks["written"]),
    )


def _first_id(prefix: str, moment: dt.datetime) -> str:
    """Return what every id made at this moment or later is at least."""
    return f"{prefix}_{str(ULID.from_datetime(moment)).lower()[:10]}"


def _share(part: int, whole: int) -> float | None:
    """Return a percentage, rounded down: all but one in a million are not all."""
    return 1000 * part // whole / 10 if whole else None


def _seconds(duration: dt.timedelta | None) -> float | None:
    return round(duration.total_seconds(), 1) if duration is not None else None
