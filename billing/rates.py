"""Rates: credits a second for a model and a resolution, versioned by date.

Every creation asks for one, so a process reads them at most once a second, those of later dates included: each takes
effect at its moment, and one that is entered with a moment past a second later.
"""

import dataclasses
import datetime as dt
import functools
import time
from collections import defaultdict

from billing.models import Rate


class NoRate(Exception):
    """No rate is in effect for this model and resolution."""


def in_effect(*, model: str, resolution: str, at: dt.datetime) -> int:
    """Return the credits a second in effect at a moment.

    Raises:
        NoRate: there is none.
    """
    for rate in _by_model(int(time.monotonic())).get((model, resolution), []):
        if rate.effective_at <= at:
            return rate.credits_per_second
    raise NoRate(f"No rate is in effect for {model} at {resolution}.")


@dataclasses.dataclass(frozen=True, slots=True)
class Price:
    """What a second costs for one model and resolution, if anything yet, and the changes that are entered already."""

    model: str
    resolution: str
    credits_per_second: int | None
    announced: list[Rate]


def table(*, at: dt.datetime) -> dict[tuple[str, str], Price]:
    """Return every price at a moment, by model and resolution, with later changes in the order of their dates."""
    found = {}
    for (model, resolution), rates in _by_model(int(time.monotonic())).items():
        current = next((rate.credits_per_second for rate in rates if rate.effective_at <= at), None)
        announced = [rate for rate in reversed(rates) if rate.effective_at > at]
        found[model, resolution] = Price(model, resolution, current, announced)
    return found


@functools.lru_cache(maxsize=1)
def _by_model(_second: int) -> dict[tuple[str, str], list[Rate]]:
    """Read all rates; those of one model and resolution with the latest first."""
    found = defaultdict(list)
    for rate in Rate.objects.order_by("-effective_at"):
        found[rate.model, rate.resolution].append(rate)
    return dict(found)
