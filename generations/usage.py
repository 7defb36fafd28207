"""What an organization used: jobs and credits by model and by day (public page, "Usage Summary")."""

import dataclasses
import datetime as dt
import enum
from collections.abc import Iterable
from typing import Any, Final

from django.db.models import Case, Count, F, Func, Min, Q, QuerySet, Sum, TextField, Value, When
from django.db.models.functions import Cast, TruncDate

from accounts.models import Organization
from generations import usage_hours
from generations.models import Generation
from seedancee2.lib import clock

Status = Generation.Status

MAX_GROUPS: Final = 50  # values of metadata told apart
NEWEST: Final = 500  # jobs whose metadata is looked at for its keys


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

    def merge(self, other: "Sums") -> None:
        """Add the sums of other jobs."""
        for field in dataclasses.fields(self):
            setattr(self, field.name, getattr(self, field.name) + getattr(other, field.name))

    @property
    def jobs(self) -> int:
        """All jobs."""
        return self.pending_jobs + self.processing_jobs + self.completed_jobs + self.failed_jobs

    @property
    def open_jobs(self) -> int:
        """Those that have not ended."""
        return self.pending_jobs + self.processing_jobs

    @property
    def net_credits(self) -> int:
        """What was paid."""
        return self.credits_charged - self.credits_refunded

    def as_json(self) -> dict[str, int]:
        """Return the page's keys in the page's order."""
        return {"total_jobs": self.jobs, **dataclasses.asdict(self), "net_credits": self.net_credits}


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
    until = end or clock.now()
    if start is not None and start > until:
        raise EmptyRange
    since = start or min(_beginning(organization_id, is_test), until)
    rows = usage_hours.sums(organization_id=organization_id, is_test=is_test, since=since, until=until)
    days = _grouped(rows, "day")
    return {
        "range": {"start": clock.iso(since), "end": clock.iso(until)},
        "summary": _total(rows).as_json(),
        "by_model": [{"model": model, **sums.as_json()} for model, sums in _grouped(rows, "group")],
        "timeline": [{"date": day.isoformat(), **sums.as_json()} for day, sums in days[-limit:]],
    }


class By(enum.StrEnum):
    """What usage can be split by."""

    MODEL = "model"
    KEY = "key"
    STATUS = "status"
    METADATA = "metadata"


# Stands for the groups beyond the largest; no group has this name, which is not a text.
REST: Final = object()


@dataclasses.dataclass(frozen=True, slots=True)
class Breakdown:
    """The sums of a range in all, by group with the largest first, and for each day with jobs by group.

    A group is a model, a status, the id of a key, or a value of metadata; None is that of jobs without it.
    """

    total: Sums
    groups: list[tuple[Any, Sums]]
    days: dict[dt.date, dict[Any, Sums]]


def break_down(
    *, organization_id: int, is_test: bool, start: dt.datetime, end: dt.datetime, by: By, metadata_key: str = ""
) -> Breakdown:
    """Split the same sums as `summarize` gives, of the jobs created from `start` to `end`, both included.

    Of metadata, whose values may be as many as the jobs, the MAX_GROUPS most frequent are told apart.
    """
    if by is By.MODEL:
        rows = usage_hours.sums(organization_id=organization_id, is_test=is_test, since=start, until=end)
    else:
        own = Generation.objects.filter(
            organization_id=organization_id, is_test=is_test, created_at__gte=start, created_at__lte=end
        )
        rows = _split(own, by, metadata_key)
    days: dict[dt.date, dict[Any, Sums]] = {}
    groups: dict[Any, Sums] = {}
    for row in rows:
        days.setdefault(row["day"], {}).setdefault(row["group"], Sums()).add(row)
        groups.setdefault(row["group"], Sums()).add(row)
    largest = sorted(groups.items(), key=lambda item: (item[0] is REST, -item[1].net_credits, -item[1].jobs))
    return Breakdown(_total(rows), largest, days)


def metadata_keys(*, organization_id: int, is_test: bool) -> list[str]:
    """List the keys that the metadata of the newest jobs has, for somebody to choose from."""
    own = Generation.objects.filter(organization_id=organization_id, is_test=is_test)
    newest = own.order_by("-created_at", "-public_id").values_list("metadata", flat=True)[:NEWEST]
    return sorted({key for metadata in newest for key in metadata})[:MAX_GROUPS]


def _metadata(key: str) -> Func:
    return Func(
        F("metadata"),
        Cast(Value(key), TextField()),
        template="(%(expressions)s)",
        arg_joiner=" ->> ",
        output_field=TextField(),
    )


def _beginning(organization_id: int, is_test: bool) -> dt.datetime:
    own = Generation.objects.filter(organization_id=organization_id, is_test=is_test)
    first: dt.datetime | None = own.aggregate(first=Min("created_at"))["first"]
    return first or Organization.objects.values_list("created_at", flat=True).get(pk=organization_id)


def _split(own: QuerySet[Any], by: By, metadata_key: str) -> list[dict[str, Any]]:
    """Aggregate by day and group in one statement, so that all views of the sums are of the same moment."""
    group: Any = F("api_key_id") if by is By.KEY else F("status")
    is_rest: Any = Value(False)
    if by is By.METADATA:
        value = _metadata(metadata_key)
        found = own.order_by().values(value=value).filter(value__isnull=False).annotate(jobs=Count("public_id"))
        frequent = list(found.order_by("-jobs", "value").values_list("value", flat=True)[:MAX_GROUPS])
        own = own.annotate(value=value)
        is_rest = Case(When(value__isnull=True, then=False), When(value__in=frequent, then=False), default=True)
        group = Case(When(value__in=frequent, then=F("value")), default=None, output_field=TextField())
    ended = Q(status__in=[Status.COMPLETED, Status.FAILED])
    rows = (
        own.order_by()
        .annotate(day=TruncDate("created_at", tzinfo=dt.UTC), group=group, is_rest=is_rest)
        .values("day", "group", "is_rest")
        .annotate(
            pending_jobs=Count("public_id", filter=Q(status=Status.PENDING)),
            processing_jobs=Count("public_id", filter=Q(status=Status.PROCESSING)),
            completed_jobs=Count("public_id", filter=Q(status=Status.COMPLETED)),
            failed_jobs=Count("public_id", filter=Q(status=Status.FAILED)),
            charged=Sum("credits", filter=ended, default=0),
            refunded=Sum("credits_refunded", filter=ended, default=0),
        )
    )
    return [{**row, "group": REST if row["is_rest"] else row["group"]} for row in rows]


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
