"""Rates: credits a second for a model and a resolution, versioned by date."""

import datetime as dt

from billing.models import Rate


class NoRate(Exception):
    """No rate is in effect for this model and resolution."""


def in_effect(*, model: str, resolution: str, at: dt.datetime) -> int:
    """Return the credits a second in effect at a moment.

    Raises:
        NoRate: there is none.
    """
    rate = (
        Rate.objects.filter(model=model, resolution=resolution, effective_at__lte=at)
        .order_by("-effective_at")
        .values_list("credits_per_second", flat=True)
        .first()
    )
    if rate is None:
        raise NoRate(f"No rate is in effect for {model} at {resolution}.")
    return rate
