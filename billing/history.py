"""What happened to an organization's credits: the ledger in pages, the open holds and the sums of a month."""

import dataclasses
import datetime as dt
from collections.abc import Iterator

from django.db.models import Count, F, Min, Q, QuerySet, Sum

from billing.models import CreditAccount, LedgerEntry, Reservation
from seedancee2.lib import clock, ids

Kind = LedgerEntry.Kind

# What customers call a movement. An adjustment is told by its direction, see `label`.
LABELS = {
    Kind.GRANT: "Credits added",
    Kind.ADJUST: "Adjustment",
    Kind.RESERVE: "Held for a task",
    Kind.CAPTURE: "Charged",
    Kind.RELEASE: "Hold given back",
    Kind.REFUND: "Refunded",
}
_BATCH = 2_000


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Wanted:
    """Which movements are shown: `start` is included, `end` is not; `before` and `after` are places in the ledger."""

    kind: str = ""
    start: dt.datetime | None = None
    end: dt.datetime | None = None
    before: int | None = None
    after: int | None = None


@dataclasses.dataclass(frozen=True, slots=True)
class Line:
    """One movement as its owner reads it; who of the staff made it, and for a task its reason, stay with us."""

    entry: LedgerEntry
    label: str
    task_id: str
    reason: str


@dataclasses.dataclass(frozen=True, slots=True)
class Page:
    """Some movements, newest first, and where the next and the previous page begin."""

    lines: list[Line]
    older: int | None
    newer: int | None


@dataclasses.dataclass(frozen=True, slots=True)
class Holds:
    """The open holds: how many there are, their sum, and the oldest of them."""

    count: int
    total: int
    oldest: list[Reservation]


@dataclasses.dataclass(frozen=True, slots=True)
class Month:
    """The sums of one month (UTC). Holds cancel out: `opening + added - taken - charged + refunded == closing`."""

    first: dt.date
    through: int
    opening: int
    added: int
    taken: int
    charged: int
    charged_count: int
    refunded: int
    closing: int
    closing_held: int


def page(*, organization_id: int, wanted: Wanted, limit: int) -> Page:
    """Return one page of the ledger, newest first. The place is the last row shown: later movements move nothing."""
    rows = _rows(organization_id, wanted)
    if wanted.after is not None:
        found = list(rows.filter(sequence__gt=wanted.after).order_by("sequence")[: limit + 1])
        is_more, found = len(found) > limit, found[:limit][::-1]
        older = found[-1].sequence if found else None
        newer = found[0].sequence if is_more else None
        return Page([_line(entry) for entry in found], older, newer)
    if wanted.before is not None:
        rows = rows.filter(sequence__lt=wanted.before)
    found = list(rows.order_by("-sequence")[: limit + 1])
    is_more, found = len(found) > limit, found[:limit]
    older = found[-1].sequence if is_more else None
    newer = found[0].sequence if found and wanted.before is not None else None
    return Page([_line(entry) for entry in found], older, newer)


def lines(*, organization_id: int, wanted: Wanted) -> Iterator[Line]:
    """Give every movement that is wanted, oldest first, with few of them in memory."""
    rows = _rows(organization_id, wanted).order_by("sequence")
    place = 0
    while batch := list(rows.filter(sequence__gt=place)[:_BATCH]):
        yield from map(_line, batch)
        place = batch[-1].sequence


def open_holds(*, organization_id: int, limit: int) -> Holds:
    """Return what is held for tasks that have not ended."""
    rows = Reservation.objects.filter(account_id=organization_id, state=Reservation.State.HELD)
    sums = rows.aggregate(count=Count("reference"), total=Sum("amount", default=0))
    return Holds(sums["count"], sums["total"], list(rows.order_by("created_at", "reference")[:limit]))


def months(*, organization_id: int) -> list[dt.date]:
    """List the months with a statement, the newest first: from the first movement to now."""
    first = LedgerEntry.objects.filter(account_id=organization_id).aggregate(at=Min("created_at"))["at"]
    if first is None:
        return []
    month, found = clock.now().date().replace(day=1), []
    while month >= first.date().replace(day=1):
        found.append(month)
        month = (month - dt.timedelta(days=1)).replace(day=1)
    return found


def bounds(first: dt.date) -> tuple[dt.datetime, dt.datetime]:
    """Return the start of a month and of the next one."""
    start = dt.datetime(first.year, first.month, 1, tzinfo=dt.UTC)
    return start, (start + dt.timedelta(days=32)).replace(day=1)


def month(*, organization_id: int, first: dt.date) -> Month:
    """Sum the movements of a month up to now; all its sums are of the same moment, which `through` names."""
    start, _ = bounds(first)
    # What is committed up to this place in the ledger is whole and stays as it is, whatever moves meanwhile.
    account = CreditAccount.objects.filter(pk=organization_id).values_list("sequence", flat=True).first()
    through = account or 0
    hand = Q(kind__in=[Kind.GRANT, Kind.ADJUST])
    sums = in_month(organization_id=organization_id, first=first, through=through).aggregate(
        added=Sum("available_change", filter=hand & Q(available_change__gt=0), default=0),
        taken=Sum("available_change", filter=hand & Q(available_change__lt=0), default=0),
        charged=Sum("reserved_change", filter=Q(kind=Kind.CAPTURE), default=0),
        charged_count=Count("id", filter=Q(kind=Kind.CAPTURE)),
        refunded=Sum("available_change", filter=Q(kind=Kind.REFUND), default=0),
        change=Sum(F("available_change") + F("reserved_change"), default=0),
        held=Sum("reserved_change", default=0),
    )
    before = (
        LedgerEntry.objects.filter(account_id=organization_id, created_at__lt=start, sequence__lte=through)
        .order_by("-created_at", "-sequence")
        .values_list("available_after", "reserved_after")
        .first()
    )
    available, held = before or (0, 0)
    return Month(
        first=start.date(),
        through=through,
        opening=available + held,
        added=sums["added"],
        taken=-sums["taken"],
        charged=-sums["charged"],
        charged_count=sums["charged_count"],
        refunded=sums["refunded"],
        closing=available + held + sums["change"],
        closing_held=held + sums["held"],
    )


def in_month(*, organization_id: int, first: dt.date, through: int) -> QuerySet[LedgerEntry]:
    """Select an organization's movements of a month up to a place in the ledger."""
    start, end = bounds(first)
    return LedgerEntry.objects.filter(
        account_id=organization_id, created_at__gte=start, created_at__lt=end, sequence__lte=through
    )


def label(entry: LedgerEntry) -> str:
    """Name a movement as customers do."""
    if entry.kind == Kind.ADJUST:
        return "Credits added" if entry.available_change > 0 else "Credits taken back"
    return LABELS[Kind(entry.kind)]


def _rows(organization_id: int, wanted: Wanted) -> QuerySet[LedgerEntry]:
    rows = LedgerEntry.objects.filter(account_id=organization_id)
    if wanted.kind:
        rows = rows.filter(kind=wanted.kind)
    if wanted.start is not None:
        rows = rows.filter(created_at__gte=wanted.start)
    if wanted.end is not None:
        rows = rows.filter(created_at__lt=wanted.end)
    return rows


def _line(entry: LedgerEntry) -> Line:
    reference = entry.reference.partition("/")[0]
    task_id = reference if ids.is_valid(reference, "vid") else ""
    is_by_hand = entry.kind in (Kind.GRANT, Kind.ADJUST, Kind.REFUND)
    return Line(entry, label(entry), task_id, entry.reason if is_by_hand else "")
