"""Where the bars of a chart lie: inside the drawing, in proportion, and never lost beside a large one."""

import pytest

from seedancee2.lib import charts
from seedancee2.lib.charts import HEIGHT, WIDTH, Column, Series

SERIES = [Series("pro", "a"), Series("mini", "b")]


def draw(values: list[tuple[int, int]]) -> charts.Chart:
    columns = [Column(f"day {number}", str(number), value) for number, value in enumerate(values)]
    return charts.stacked(title="t", unit="credits", series=SERIES, columns=columns)


@pytest.mark.parametrize("count", [0, 1, 2, 7, 31, 366])
def test_any_number_of_bars_fits_side_by_side(count):
    chart = draw([(number, 2 * number) for number in range(count)])

    assert len(chart.bars) == count
    right = 0.0
    for bar in chart.bars:
        assert bar.width > 0
        assert bar.x >= right - 0.011
        right = bar.x + bar.width
        assert sum(segment.height for segment in bar.segments) <= HEIGHT
        assert all(segment.y >= -0.01 and segment.y + segment.height <= HEIGHT + 0.01 for segment in bar.segments)
    assert right <= WIDTH + 0.01
    assert len(chart.labels) == min(count, charts.LABELS)
    if count:
        assert (chart.labels[0], chart.labels[-1]) == ("0", str(count - 1))


def test_heights_are_in_proportion_from_the_ground_up():
    chart = draw([(40, 0), (10, 30), (0, 0)])

    assert chart.ticks == [40, 30, 20, 10, 0]
    assert [(s.y, s.height, s.style) for s in chart.bars[0].segments] == [(0, HEIGHT, "a")]
    assert [(s.y, s.height, s.style) for s in chart.bars[1].segments] == [(150, 50, "a"), (0, 150, "b")]
    assert chart.bars[2].segments == []
    assert chart.bars[1].title == "day 1: 40 credits (pro 10, mini 30)"


def test_a_small_bar_is_seen_beside_a_huge_one():
    chart = draw([(1, 0), (10**12, 0)])

    assert sum(segment.height for segment in chart.bars[0].segments) == 2
    assert chart.bars[0].title == "day 0: 1 credits (pro 1)"


@pytest.mark.parametrize("highest", [1, 3, 4, 5, 39, 41, 999, 1_001, 10**9, 10**12 + 1, 7 * 10**15])
def test_the_axis_ends_at_a_round_number_with_whole_quarters(highest):
    chart = draw([(highest, 0)])

    top = chart.ticks[0]
    assert highest <= top <= max(4, highest * 2.5)
    assert chart.ticks == [top, top * 3 // 4, top // 2, top // 4, 0]
    assert top % 4 == 0


def test_nothing_at_all_is_an_empty_chart():
    chart = draw([(0, 0)] * 30)
    assert chart.is_empty
    assert not draw([(0, 1)]).is_empty
    assert all(not bar.segments for bar in chart.bars)


def test_a_share_is_never_invisible_and_never_more_than_all():
    assert [charts.share(value, 10**9) for value in (0, 1, 5 * 10**8, 10**9)] == [0, 1, 50, 100]
    assert charts.share(0, 0) == 0
