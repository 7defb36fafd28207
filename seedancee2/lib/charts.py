"""Charts as geometry: where each bar of a stacked bar chart lies, for `console/chart.html` to draw as SVG.

Colours come by class, so that the strict policy of the pages holds and light and dark need no second drawing; texts
stand beside the drawing as HTML, so that it can be stretched to any width.
"""

import dataclasses
from collections.abc import Sequence

WIDTH, HEIGHT = 1000, 200  # units of the drawing, not pixels
LINES = 4
LABELS = 5  # at most so many below the bars
_LEAST = 2  # so high is the smallest bar that is not zero, beside however large a one
_MOST_GAP = 0.3  # of a bar's place
_WIDEST = 12  # so many of the widest bars would fill the drawing


@dataclasses.dataclass(frozen=True, slots=True)
class Series:
    """One colour of the stack: its name and its class."""

    name: str
    style: str


@dataclasses.dataclass(frozen=True, slots=True)
class Column:
    """What a bar shows: its full and its short name, and a value for each series in their order."""

    name: str
    short_name: str
    values: Sequence[int]


@dataclasses.dataclass(frozen=True, slots=True)
class Segment:
    """A rectangle of a bar."""

    y: float
    height: float
    style: str


@dataclasses.dataclass(frozen=True, slots=True)
class Bar:
    """A column of the chart, with the text that tells its figures."""

    x: float
    width: float
    title: str
    segments: list[Segment]


@dataclasses.dataclass(frozen=True, slots=True)
class Chart:
    """A drawing: bars from left to right, the axis from top to bottom, a few labels below."""

    title: str
    series: list[Series]
    bars: list[Bar]
    ticks: list[int]
    labels: list[str]
    is_empty: bool
    width: int = WIDTH
    height: int = HEIGHT

    @property
    def lines(self) -> list[float]:
        """Where the lines of the axis lie."""
        return [round(HEIGHT * number / LINES, 2) for number in range(LINES + 1)]


def stacked(*, title: str, unit: str, series: Sequence[Series], columns: Sequence[Column]) -> Chart:
    """Lay out a bar for each column, whose values are never negative."""
    highest = max((sum(column.values) for column in columns), default=0)
    top = _axis(highest)
    place = WIDTH / max(len(columns), 1)
    gap = place * min(_MOST_GAP, len(columns) / 100)
    width = min(place - gap, WIDTH / _WIDEST)
    bars = [
        Bar(
            x=round(number * place + (place - width) / 2, 2),
            width=round(width, 2),
            title=_title(column, series, unit),
            segments=_segments(column.values, series, top),
        )
        for number, column in enumerate(columns)
    ]
    return Chart(
        title=title,
        series=list(series),
        bars=bars,
        ticks=[top * (LINES - number) // LINES for number in range(LINES + 1)],
        labels=_labels([column.short_name for column in columns]),
        is_empty=highest == 0,
    )


def share(value: int, largest: int) -> float:
    """Return how long a bar beside a figure is, of 100."""
    return round(max(100 * value / largest, 1), 1) if value > 0 and largest > 0 else 0.0


def _axis(highest: int) -> int:
    """Return the round number that the axis ends at; its quarters are whole."""
    unit = 1
    while True:
        for step in (1, 2, 5):
            if step * unit * LINES >= highest:
                return step * unit * LINES
        unit *= 10


def _segments(values: Sequence[int], series: Sequence[Series], top: int) -> list[Segment]:
    total = sum(values)
    if total == 0:
        return []
    height = max(HEIGHT * total / top, _LEAST)
    found, y = [], float(HEIGHT)
    for value, one in zip(values, series, strict=True):
        if value:
            part = height * value / total
            y -= part
            found.append(Segment(round(y, 2), round(part, 2), one.style))
    return found


def _title(column: Column, series: Sequence[Series], unit: str) -> str:
    parts = [f"{one.name} {value:,}" for value, one in zip(column.values, series, strict=True) if value]
    detail = f" ({', '.join(parts)})" if len(series) > 1 and parts else ""
    return f"{column.name}: {sum(column.values):,} {unit}{detail}"


def _labels(labels: Sequence[str]) -> list[str]:
    """Choose a few labels at equal distances, to within a bar, the first and the last among them."""
    if len(labels) <= LABELS:
        return list(labels)
    return [labels[round(number * (len(labels) - 1) / (LABELS - 1))] for number in range(LABELS)]
