"""Routing: which channel takes a job."""

import random
from itertools import groupby

from providers.models import Channel, Route, UpstreamJob


def choose(job: UpstreamJob) -> Route | None:
    """Pick an active route of the best priority, by weight; None where no route is open now."""
    routes = (
        Route.objects.filter(model=job.model, traffic=job.traffic, is_active=True, channel__state=Channel.State.ACTIVE)
        .select_related("channel")
        .order_by("priority", "id")
    )
    for _, group in groupby(routes, key=lambda route: route.priority):
        best = list(group)
        return random.choices(best, weights=[route.weight for route in best])[0]  # noqa: S311 - load, not secrecy
    return None
