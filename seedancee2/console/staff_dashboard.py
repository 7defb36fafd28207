"""The staff's front page: figures that somebody acts on, each a link to the rows behind it."""

import dataclasses
import datetime as dt
from typing import Any

from django.http import HttpRequest
from django.urls import reverse
from django.utils.http import urlencode
from django.utils.timesince import timesince

from seedancee2.console import staff_figures
from seedancee2.console.staff_figures import MOST, Day, Figures
from seedancee2.lib import charts, heartbeats

LATE_SECONDS = 60  # as the alarm of the runbook has it
RECONCILED_WITHIN = dt.timedelta(minutes=20)  # it looks every five


@dataclasses.dataclass(frozen=True, slots=True)
class Tile:
    """One figure; `url` is empty where the person may not see the rows."""

    name: str
    value: str
    url: str = ""
    note: str = ""
    is_bad: bool = False


def fill(request: HttpRequest, context: dict[str, Any]) -> dict[str, Any]:
    """Add the front page's sections to its context, those that the person may see rows of."""
    figures = staff_figures.current()
    user = request.user
    sections: list[tuple[str, list[Tile]]] = []
    if user.has_perm("generations.view_generation"):
        sections.append(("Open tasks", _tasks(figures)))
    if user.has_perm("providers.view_upstreamjob"):
        # Those who see the money see it there.
        cost = [] if user.has_perm("billing.view_ledgerentry") else [_made_for_nobody(request, figures)]
        sections.append(("Work that waits", _lanes(request, figures) + cost))
        sections.append(("Processes", _parts(figures)))
    if user.has_perm("billing.view_ledgerentry"):
        sections.append(("Money at risk", _money(request, figures)))
    context |= {"title": "Overview", "figures": figures, "sections": sections}
    if user.has_perm("providers.view_channel"):
        context["channels"] = figures.channels
    if user.has_perm("billing.add_rate"):  # who sets the prices sees what they bring
        context["costs"] = [channel for channel in figures.channels if channel.made_seconds]
        context["costs_newest"] = staff_figures.NEWEST_PAID
    if user.has_perm("billing.view_ledgerentry"):
        context["days"] = list(reversed(figures.days))
        context["days_left"] = staff_figures.DAYS - len(figures.days)
        context["charts"] = [_chart(figures.days, name) for name in ("sold", "held", "earned")]
    return context


def _tasks(figures: Figures) -> list[Tile]:
    ages = {
        "5 minutes and more": ("five_minutes", "5"),
        "15 minutes and more": ("quarter", "15"),
        "an hour and more": ("hour", "60"),
        "past the deadline": ("overdue", "late"),
    }
    tiles = [
        Tile(
            one.status,
            _many(one.count),
            _list("generations_generation", status__exact=one.status),
            _since(figures, one.since),
        )
        for one in figures.tasks
    ]
    for name, (attribute, value) in ages.items():
        count = sum(getattr(one, attribute) for one in figures.tasks)
        is_bad = bool(count) and value in ("60", "late")
        tiles.append(Tile(name, _many(count), _list("generations_generation", open_for=value), "", is_bad))
    return tiles


def _lanes(request: HttpRequest, figures: Figures) -> list[Tile]:
    lists = {
        "submit": _list("providers_upstreamjob", status__exact="queued"),
        "poll": _list("providers_upstreamjob", status__in="submitted,running"),
        "settle": _list("providers_upstreamjob", status__in="succeeded,failed,expired"),
        "deliver": _if(request, "webhooks.view_delivery", _list("webhooks_delivery", state__exact="pending")),
    }
    tiles = [
        Tile(
            f"lane {lane.name}",
            _many(lane.waiting),
            lists[lane.name],
            f"{_many(lane.due)} due, the first for {_seconds(lane.late_seconds)}" if lane.due else "none due",
            lane.late_seconds > LATE_SECONDS,
        )
        for lane in figures.lanes
    ]
    failing = figures.webhooks["failing"]
    url, note = lists["deliver"], f"hosts: {figures.webhooks['hosts']}"
    tiles.append(Tile("webhooks tried in vain", _many(failing), url, note, False))
    tiles.append(
        Tile(
            "unknown submissions",
            _many(figures.unknown_count),
            _list("providers_upstreamjob", status__exact="submitting"),
            "looked for, never sent again blindly",
            figures.unknown_count > 0,
        )
    )
    polls = figures.lanes[1]
    tiles.append(
        Tile(
            "detection lag",
            _seconds(figures.callback_seconds),
            lists["poll"],
            f"half the jobs, after the provider's callback; polls are late by {_seconds(polls.late_seconds)} at most",
        )
    )
    done = _list("generations_generation", status__exact="completed")
    tiles.append(Tile("seen done → delivered", _seconds(figures.settle_seconds), done, "half of the newest tasks"))
    return tiles


def _parts(figures: Figures) -> list[Tile]:
    if figures.parts is None:
        return [
            Tile(
                "Redis", "no answer", "", "Signs of life are kept there; work goes on by itself when it is back.", True
            )
        ]
    return [
        Tile(
            part,
            "never seen" if age is None else f"{age:.0f} s ago",
            reverse("readyz"),
            "",
            age is None or age > heartbeats.FRESH_SECONDS,
        )
        for part, age in figures.parts.items()
    ]


def _money(request: HttpRequest, figures: Figures) -> list[Tile]:
    money = figures.money
    holds = _if(request, "billing.view_reservation", _list("billing_reservation", state__exact="held"))
    findings = _if(request, "billing.view_finding", _list("billing_finding", resolved_at__isempty=1))
    waiting = _if(
        request, "billing.view_adjustment", _list("billing_adjustment", moved_at__isempty=1, declined_at__isempty=1)
    )
    runs = _if(request, "generations.view_reconciliationrun", _list("generations_reconciliationrun"))
    at = money["at"]
    is_stale = at is None or figures.at - at > RECONCILED_WITHIN
    result = "never" if at is None else f"{money['found']} found"
    return [
        Tile(
            "credits held",
            f"{money['held']:,}",
            holds,
            f"holds: {_many(money['hold_count'])}, {_since(figures, money['since'])}" if money["hold_count"] else "",
        ),
        Tile(
            "held past every deadline",
            f"{money['old']:,}",
            holds,
            f"holds: {_many(money['old_count'])}",
            money["old_count"] > 0,
        ),
        _made_for_nobody(request, figures),
        Tile("open findings", str(money["findings"]), findings, "", money["findings"] > 0),
        Tile("adjustments to approve", str(money["waiting"]), waiting),
        Tile(
            "last reconciliation",
            result,
            runs,
            "beat and a worker make one every five minutes" if at is None else f"{timesince(at, figures.at)} ago",
            is_stale or bool(money["found"]),
        ),
    ]


def _made_for_nobody(request: HttpRequest, figures: Figures) -> Tile:
    lost = figures.uncharged
    jobs = _if(request, "providers.view_upstreamjob", _list("providers_upstreamjob", late_at__isempty=0))
    note = f"{lost['late']} too late, {lost['lost']} lost; {lost['credits']:,} credits not charged"
    return Tile("made for nobody, 24 h", str(lost["late"] + lost["lost"]), jobs, note, lost["lost"] > 0)


def _chart(days: list[Day], name: str) -> dict[str, Any]:
    columns = [charts.Column(f"{day.date}", f"{day.date:%d %b}", [max(0, getattr(day, name))]) for day in days]
    total = sum(getattr(day, name) for day in days)
    series = [charts.Series(name, "k0")]
    return {"total": f"{total:,}", "chart": charts.stacked(title=name, unit="credits", series=series, columns=columns)}


def _list(name: str, **filters: Any) -> str:
    address = reverse(f"admin:{name}_changelist")
    return f"{address}?{urlencode(filters)}" if filters else address


def _if(request: HttpRequest, permission: str, url: str) -> str:
    return url if request.user.has_perm(permission) else ""


def _many(count: int) -> str:
    return f"{count:,} or more" if count >= MOST else f"{count:,}"


def _seconds(value: float | None) -> str:
    if value is None:
        return "not seen"
    return f"{value:.1f} s" if value < 120 else f"{value / 60:,.0f} min"


def _since(figures: Figures, moment: dt.datetime | None) -> str:
    return f"the oldest {timesince(moment, figures.at)}" if moment else ""
