"""Statements: what a month cost, by model, between an opening and a closing balance."""

import dataclasses
import datetime as dt

from django.db.models import Count, OuterRef, Subquery, Sum

from billing import history
from billing.models import LedgerEntry
from generations.models import Generation


@dataclasses.dataclass(frozen=True, slots=True)
class Charge:
    """What the completed tasks of one model cost in a month."""

    model: str
    count: int
    credits: int


@dataclasses.dataclass(frozen=True, slots=True)
class Statement:
    """A month of the ledger with its charges by model."""

    month: history.Month
    charges: list[Charge]

    @property
    def lines(self) -> list[tuple[str, int]]:
        """The statement line by line: the opening balance, what changed it, and the closing balance, their sum."""
        month = self.month
        return [
            ("Opening balance", month.opening),
            ("Credits added", month.added),
            ("Credits taken back", -month.taken),
            *((f"Charged: {charge.model} ({_tasks(charge.count)})", -charge.credits) for charge in self.charges),
            ("Refunded", month.refunded),
            ("Closing balance", month.closing),
        ]


def of_month(*, organization_id: int, first: dt.date) -> Statement:
    """Return an organization's statement of a month, whose sums are all of one moment."""
    month = history.month(organization_id=organization_id, first=first)
    return Statement(month, _charges(organization_id, month))


def _charges(organization_id: int, month: history.Month) -> list[Charge]:
    model = Generation.objects.filter(public_id=OuterRef("reference")).values("model")[:1]
    rows = (
        history.in_month(organization_id=organization_id, first=month.first, through=month.through)
        .filter(kind=LedgerEntry.Kind.CAPTURE)
        .order_by()
        .annotate(model=Subquery(model))
        .values("model")
        .annotate(count=Count("id"), credits=Sum("reserved_change"))
        .order_by("model")
    )
    return [Charge(row["model"] or "other", row["count"], -row["credits"]) for row in rows]


def _tasks(count: int) -> str:
    return f"{count:,} task" if count == 1 else f"{count:,} tasks"
