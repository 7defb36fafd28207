"""Rates: the latest whose moment has come, to the moment, though they are read once a second only."""

import datetime as dt
import time

import pytest

from billing import rates
from billing.models import Rate

pytestmark = pytest.mark.django_db

NOON = dt.datetime(2026, 7, 1, 12, tzinfo=dt.UTC)
MOMENT = dt.timedelta(milliseconds=1)


def _enter(credits: int, at: dt.datetime) -> None:
    Rate.objects.create(model="mini", resolution="480p", credits_per_second=credits, effective_at=at)


def _at(moment: dt.datetime) -> int:
    return rates.in_effect(model="mini", resolution="480p", at=moment)


def test_a_rate_takes_effect_at_its_moment_without_being_read_again(django_assert_num_queries, monkeypatch):
    monkeypatch.setattr(time, "monotonic", lambda: 1000.0)
    _enter(7, NOON)
    _enter(9, NOON + dt.timedelta(days=1))

    with django_assert_num_queries(1):
        found = [_at(NOON - MOMENT), _at(NOON), _at(NOON + dt.timedelta(days=1) - MOMENT), _at(NOON + dt.timedelta(1))]

    assert found == [5, 7, 7, 9]


def test_a_rate_that_is_entered_late_counts_a_second_later(monkeypatch):
    monkeypatch.setattr(time, "monotonic", lambda: 1000.0)
    assert _at(NOON) == 5
    _enter(7, NOON)

    monkeypatch.setattr(time, "monotonic", lambda: 1001.0)
    assert _at(NOON) == 7


@pytest.mark.parametrize(
    ("model", "resolution", "at"),
    [
        ("nano", "480p", NOON),
        ("mini", "1080p", NOON),
        ("mini", "480p", dt.datetime(2025, 12, 31, tzinfo=dt.UTC)),
    ],
)
def test_what_has_no_rate_is_not_sold(model, resolution, at):
    with pytest.raises(rates.NoRate):
        rates.in_effect(model=model, resolution=resolution, at=at)
