"""What an organization used: jobs and credits by model and by day (public page, "Usage Summary")."""

import dataclasses
import datetime as dt
from collections.abc import Iterable
from typing import Any

from django.db.models import Count, Min, Q, QuerySet, Sum
from django.db.models.functions import TruncDate

from accounts.models import Organization
from generations.models import Generation
from seedancee2.lib import clock

Status = Generation.Status


class EmptyRange(Exception):
    """The range ends before it starts."""


@dataclasses.dataclass(slots=True)
class Sums:
    """Jobs by status, and credits of those that have ended.

    Charged is gross: what completed jobs cost and what failed ones held; refunded is all that was given back.
    """

    pending_jobs: int = 0
    processing_jobs: int = 0
    completed_jobs: int = 0
    failed_jobs: int = 0
    credits_charged: int = 0
    credits_refunded: int = 0

    def add(self, row: dict[str, Any]) -> None:
        """Add one group of jobs."""
        self.pending_jobs += row["pending_jobs"]
        self.processing_jobs += row["processing_jobs"]
        self.completed_jobs += row["completed_jobs"]
        self.failed_jobs += row["failed_jobs"]
        self.credits_charged += row["charged"]
        self.credits_refunded += row["refunded"]

    def as_json(self) -> dict[str, int]:
        """Return the page's keys in the page's order."""
        jobs = self.pending_jobs + self.processing_jobs + self.completed_jobs + self.failed_jobs
        return {
            "total_jobs": jobs,
            **dataclasses.asdict(self),
            "net_credits": self.credits_charged - self.credits_refunded,
        }


def summarize(
    *,
    organization_id: int,
    is_test: bool,
    start: dt.datetime | None,
    end: dt.datetime | None,
    limit: int,
) -> dict[str, Any]:
    """Sum the jobs created from `start` to `end`, both included; `timeline` holds the newest `limit` days with jobs.

    Without `start` the range begins with the first task, or with the organization where there is none; without `end`
    it ends now.

    Raises:
        EmptyRange: `start` lies after the end.
    """
    own = Generation.objects.filter(organization_id=organization_id, is_test=is_test)
    until = end or clock.now()
    if start is not None and start > until:
        raise EmptyRange
    since = start or min(_beginning(organization_id, own), until)
    rows = _rows(own.filter(created_at__gte=since, created_at__lte=until))
    days = _grouped(rows, "day")
    return {
        "range": {"start": clock.iso(since), "end": clock.iso(until)},
        "summary": _total(rows).as_json(),
        "by_model": [{"model": model, **sums.as_json()} for model, sums in _grouped(rows, "model")],
        "timeline": [{"date": day.isoformat(), **sums.as_json()} for day, sums in days[-limit:]],
    }


def _beginning(organization_id: int, own: QuerySet[Generation]) -> dt.datetime:
    first: dt.datetime | None = own.aggregate(first=Min("created_at"))["first"]
    return first or Organization.objects.values_list("created_at", flat=True).get(pk=organization_id)


def _rows(generations: QuerySet[Generation]) -> list[dict[str, Any]]:
    """Aggregate by day and model in one statement, so that all three views of the sums are of the same moment."""
    ended = Q(status__in=[Status.COMPLETED, Status.FAILED])
    groups: Iterable[Any] = (
        generations.order_by()
        .annotate(day=TruncDate("created_at", tzinfo=dt.UTC))
        .values("day", "model")
        .annotate(
            pending_jobs=Count("public_id", filter=Q(status=Status.PENDING)),
            processing_jobs=Count("public_id", filter=Q(status=Status.PROCESSING)),
            completed_jobs=Count("public_id", filter=Q(status=Status.COMPLETED)),
            failed_jobs=Count("public_id", filter=Q(status=Status.FAILED)),
            charged=Sum("credits", filter=ended, default=0),
            refunded=Sum("credits_refunded", filter=ended, default=0),
        )
    )
    return list(groups)


def _grouped(rows: Iterable[dict[str, Any]], name: str) -> list[tuple[Any, Sums]]:
    groups: dict[Any, Sums] = {}
    for row in rows:
        groups.setdefault(row[name], Sums()).add(row)
    return sorted(groups.items())


def _total(rows: Iterable[dict[str, Any]]) -> Sums:
    total = Sums()
    for row in rows:
        total.add(row)
    return total
