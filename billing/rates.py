"""Rates: credits a second for a model and a resolution, versioned by date.

Every creation asks for one, so a process reads them at most once a second, those of later dates included: each takes
effect at its moment, and one that is entered with a moment past a second later.
"""

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


@functools.lru_cache(maxsize=1)
def _by_model(_second: int) -> dict[tuple[str, str], list[Rate]]:
    """Read all rates; those of one model and resolution with the latest first."""
    found = defaultdict(list)
    for rate in Rate.objects.order_by("-effective_at"):
        found[rate.model, rate.resolution].append(rate)
    return dict(found)
