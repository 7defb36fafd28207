"""The console's usage page: the sums of `GET /v1/usage`, drawn by day and split by what one likes."""

import datetime as dt
from collections.abc import Callable, Iterator
from typing import Any, ClassVar, Final
from urllib.parse import urlencode

from django.db import OperationalError
from django.http import Http404, HttpRequest
from django.http.response import HttpResponseBase

from accounts.console import ConsoleView
from accounts.models import ApiKey
from accounts.roles import visible_keys
from generations import usage
from generations.usage_forms import DEFAULT_RANGE, RANGES, UsageForm
from seedancee2.lib import charts, database, spreadsheets

COLOURS: Final = 6  # groups that have one of their own; the others share one
COLUMNS: Final = (
    "total_jobs",
    "pending_jobs",
    "processing_jobs",
    "completed_jobs",
    "failed_jobs",
    "credits_charged",
    "credits_refunded",
    "net_credits",
)
_NAMES: Final = {"organization", "range", "start", "end", "mode", "by", "key", "show"}


class UsageView(ConsoleView):
    """Tasks and credits of a range of days."""

    section: ClassVar[str] = "usage"

    def get(self, request: HttpRequest) -> HttpResponseBase:
        """Show the charts and their figures."""
        form = UsageForm(request.GET)
        try:
            found = self.break_down(form)
        except OperationalError as error:
            if not database.took_too_long(error):
                raise
            return self.page("console/usage_too_much.html")
        measure: Callable[[usage.Sums], int]
        if form.value("show", "credits") == "jobs":
            measure, unit = _jobs, "tasks"
        else:
            measure, unit = _credits, "credits"
        name = self.namer(form, found)
        largest = max((measure(sums) for _, sums in found.groups), default=0)
        styles = _styles(form, found, measure)
        start, end = form.days
        return self.page(
            "console/usage.html",
            form=UsageForm({**request.GET.dict(), "start": start, "end": end}) if form.is_valid() else form,
            start=start,
            end=end,
            mode=form.value("mode", "live"),
            by=form.by_what.value,
            unit=unit,
            total=found.total,
            chart=_chart(start, end, found, name, styles, measure, unit),
            groups=[
                (name(group), styles.get(group, "rest"), sums, measure(sums), charts.share(measure(sums), largest))
                for group, sums in sorted(found.groups, key=lambda item: (item[0] is usage.REST, -measure(item[1])))
            ],
            days=[(day, sums) for day, sums in _days(start, end, found)][::-1],
            ranges=self.ranges(form),
            modes=[
                (value, title, self.address(form, mode=value)) for value, title in (("live", "Live"), ("test", "Test"))
            ],
            query=urlencode(self.query(form)),
            metadata_keys=usage.metadata_keys(
                organization_id=self.membership.organization_id, is_test=form.value("mode", "live") == "test"
            ),
        )

    def break_down(self, form: UsageForm) -> usage.Breakdown:
        """Sum what the form asks for."""
        start, end = form.moments
        return usage.break_down(
            organization_id=self.membership.organization_id,
            is_test=form.value("mode", "live") == "test",
            start=start,
            end=end,
            by=form.by_what,
            metadata_key=form.value("key", ""),
        )

    def namer(self, form: UsageForm, found: usage.Breakdown) -> Callable[[Any], str]:
        """Return what names a group to this member: of keys that are not theirs to see, the last four only."""
        if form.by_what != usage.By.KEY:
            nothing = f"without {form.value('key', '')}" if form.by_what == usage.By.METADATA else "none"
            return lambda group: "all others" if group is usage.REST else nothing if group is None else str(group)
        ids = [group for group, _ in found.groups]
        keys = ApiKey.objects.filter(organization=self.membership.organization_id, pk__in=[key for key in ids if key])
        theirs = set(visible_keys(self.membership).filter(pk__in=keys).values_list("pk", flat=True))
        names = {key.pk: f"{key.name} (…{key.last_four})" if key.pk in theirs else key.masked for key in keys}
        return lambda group: names.get(group, "made in the console")

    def query(self, form: UsageForm, **changed: str) -> dict[str, str]:
        """Return what the address says, with something changed."""
        known = {
            name: value
            for name, value in self.request.GET.items()
            if name in _NAMES and isinstance(value, str) and value
        }
        return {**known, "organization": str(self.membership.organization_id), **changed}

    def address(self, form: UsageForm, **changed: str) -> str:
        """Return a link to this page with something changed."""
        return f"?{urlencode(self.query(form, **changed))}"

    def ranges(self, form: UsageForm) -> list[tuple[str, str, bool]]:
        """Return the ranges to choose from: title, address, and which one is shown."""
        chosen = form.value("range", DEFAULT_RANGE)
        rest = {name: value for name, value in self.query(form).items() if name not in ("range", "start", "end")}
        return [(title, f"?{urlencode({**rest, 'range': value})}", value == chosen) for value, title in RANGES]


class UsageFileView(UsageView):
    """The same sums as a file."""

    def get(self, request: HttpRequest) -> HttpResponseBase:
        """Send a line for each day and group that has tasks."""
        form = UsageForm(request.GET)
        if not form.is_valid():
            raise Http404
        found = self.break_down(form)
        name = self.namer(form, found)
        head = ["date", form.by_what.value, *COLUMNS]

        def lines() -> Iterator[list[object]]:
            for day in sorted(found.days):
                for group, sums in found.days[day].items():
                    figures = sums.as_json()
                    yield [day.isoformat(), name(group), *(figures[column] for column in COLUMNS)]

        return spreadsheets.reply(f"seedancee2-usage-{'-to-'.join(map(str, form.days))}", head, lines())


def _credits(sums: usage.Sums) -> int:
    return sums.net_credits


def _jobs(sums: usage.Sums) -> int:
    return sums.jobs


def _styles(form: UsageForm, found: usage.Breakdown, measure: Callable[[usage.Sums], int]) -> dict[Any, str]:
    """Give the largest groups a colour each; statuses have theirs."""
    if form.by_what == usage.By.STATUS:
        return {group: f"status-{group}" for group, _ in found.groups}
    named = [group for group, _ in sorted(found.groups, key=lambda item: -measure(item[1])) if group is not usage.REST]
    # By name, so that a group mostly keeps its colour when the days change.
    coloured = sorted(named[:COLOURS], key=str)
    return {group: f"colour-{number}" for number, group in enumerate(coloured, start=1)}


def _chart(
    start: dt.date,
    end: dt.date,
    found: usage.Breakdown,
    name: Callable[[Any], str],
    styles: dict[Any, str],
    measure: Callable[[usage.Sums], int],
    unit: str,
) -> charts.Chart:
    series = [charts.Series(name(group), style) for group, style in styles.items()]
    others = [group for group, _ in found.groups if group not in styles]
    if others:
        series.append(charts.Series("all others", "rest"))
    columns = []
    for day in _range(start, end):
        sums = found.days.get(day, {})
        values = [measure(sums[group]) if group in sums else 0 for group in styles]
        if others:
            values.append(sum(measure(sums[group]) for group in others if group in sums))
        columns.append(charts.Column(f"{day.day} {day:%b %Y}", f"{day.day} {day:%b}", values))
    title = f"{unit.capitalize()} by day from {start.day} {start:%B %Y} through {end.day} {end:%B %Y}"
    return charts.stacked(title=title, unit=unit, series=series, columns=columns)


def _days(start: dt.date, end: dt.date, found: usage.Breakdown) -> Iterator[tuple[dt.date, usage.Sums]]:
    for day in _range(start, end):
        total = usage.Sums()
        for sums in found.days.get(day, {}).values():
            total.merge(sums)
        yield day, total


def _range(start: dt.date, end: dt.date) -> Iterator[dt.date]:
    for number in range((end - start).days + 1):
        yield start + dt.timedelta(days=number)
