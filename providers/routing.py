"""Routing: which channels may take a job, the best first, and whether one of them has room for it now."""

import datetime as dt
import random
from collections import Counter
from collections.abc import Iterable, Sequence
from itertools import groupby

from django.db import connection
from django.db.models import QuerySet

from providers import adapters, health
from providers.adapters.base import ErrorClass, JobRequest
from providers.models import Channel, Meter, Route, UpstreamJob
from seedancee2.lib import clock

# Failures that another try in the same place would meet again.
_NEVER_THERE_AGAIN = (ErrorClass.OUR_BUG, ErrorClass.UNKNOWN)


def candidates(job: UpstreamJob) -> list[Route]:
    """Return the routes that could take a job now, the best first.

    What the request needs comes first, then what happened to it before, then priority, and weight among equals. A
    queued job has a channel only where staff chose one: it goes there or nowhere.
    """
    earlier = _earlier(job)
    barred = {channel_id for channel_id, error_class in earlier if error_class in _NEVER_THERE_AGAIN}
    tried = Counter(channel_id for channel_id, _ in earlier)
    capable = [
        route
        for route in _capable(job)
        if route.channel_id not in barred and job.channel_id in (None, route.channel_id)
    ]
    known = health.rows(route.channel_id for route in capable)
    now = clock.now()
    open_now = [
        route
        for route in capable
        if health.may_send(known, channel_id=route.channel_id, upstream_model=route.upstream_model, now=now)
    ]
    # A place where this very request failed is tried again only where no other is open.
    open_now.sort(key=lambda route: (tried[route.channel_id], route.priority))
    ordered: list[Route] = []
    for _, group in groupby(open_now, key=lambda route: (tried[route.channel_id], route.priority)):
        ordered += _shuffled(list(group))
    return ordered


def choices(job: UpstreamJob) -> list[Channel]:
    """Return the channels that know all that a job needs, whether or not they have room at this moment."""
    return list({route.channel_id: route.channel for route in _capable(job)}.values())


def has_other(job: UpstreamJob) -> bool:
    """Tell whether a channel is left that could take this request and has not failed at it."""
    tried = {channel_id for channel_id, _ in _earlier(job)} | {job.channel_id}
    return any(route.channel_id not in tried for route in _capable(job))


def servable() -> set[tuple[str, str]]:
    """Return the pairs of traffic and public model of which some route has room now: only their jobs are claimed."""
    routes = list(_active().select_related("channel"))
    now = clock.now()
    known = health.rows({route.channel_id for route in routes})
    full = _full(routes)
    waiting = set(
        Meter.objects.filter(kind=Meter.Kind.SUBMIT, next_at__gt=now + _BURST).values_list("channel_id", flat=True)
    )
    return {
        (route.traffic, route.model)
        for route in routes
        if route.channel_id not in waiting
        and (route.channel_id, route.upstream_model) not in full
        and health.may_send(known, channel_id=route.channel_id, upstream_model=route.upstream_model, now=now)
    }


def free_places() -> int | None:
    """Return how many more jobs all active channels together may have open; None where one has no limit."""
    routes = list(_active().select_related("channel"))
    if any(route.channel.max_open is None for route in routes):
        return None
    limits = {(route.channel_id, route.upstream_model): route.channel.max_open or 0 for route in routes}
    counts = _open_counts(limits)
    return sum(max(0, limit - counts.get(key, 0)) for key, limit in limits.items())


def admit(route: Route) -> bool:
    """Take a place for one job on a route, in the transaction that notes its submission as begun."""
    channel = route.channel
    if channel.max_open is not None:
        with connection.cursor() as cursor:
            # Counting and taking must not interleave with another worker's; held until the commit.
            cursor.execute("SELECT pg_advisory_xact_lock(%s, %s)", [_LOCK_SPACE, channel.pk])
        if _full([route]):
            return False
    if not health.admit(channel_id=channel.pk, upstream_model=route.upstream_model):
        return False
    limit = channel.max_submits_per_minute
    return limit is None or take(channel, Meter.Kind.SUBMIT, dt.timedelta(minutes=1) / limit)


def take(channel: Channel, kind: Meter.Kind, spacing: dt.timedelta) -> bool:
    """Take the right to make one of the calls that are on average `spacing` apart, across all workers."""
    now = clock.now()
    with connection.cursor() as cursor:
        # One statement, so that no two workers can take the same place.
        cursor.execute(
            """
            INSERT INTO providers_meter AS meter (channel_id, kind, next_at) VALUES (%(channel)s, %(kind)s, %(next)s)
            ON CONFLICT (channel_id, kind) DO UPDATE
               SET next_at = greatest(meter.next_at, %(now)s) + make_interval(secs => %(seconds)s)
             WHERE meter.next_at <= %(latest)s
            """,
            {
                "channel": channel.pk,
                "kind": kind.value,
                "now": now,
                "next": now + spacing,
                "seconds": spacing.total_seconds(),
                "latest": now + _BURST,
            },
        )
        return bool(cursor.rowcount)


_LOCK_SPACE = 0x726F7574  # any number that nothing else locks by
_BURST = dt.timedelta(seconds=1)  # how far ahead of the even pace calls may run


def _active() -> QuerySet[Route]:
    return Route.objects.filter(is_active=True, channel__state=Channel.State.ACTIVE)


def _capable(job: UpstreamJob) -> list[Route]:
    request = JobRequest.from_json(job.request)
    routes = _active().filter(model=job.model, traffic=job.traffic).select_related("channel").order_by("priority", "id")
    return [
        route
        for route in routes
        if not adapters.find(route.channel.adapter).capabilities.lacks(request, resolutions=route.resolutions)
    ]


def _earlier(job: UpstreamJob) -> list[tuple[int | None, str]]:
    if job.number == 1:
        return []
    found = UpstreamJob.objects.filter(reference=job.reference, number__lt=job.number, channel__isnull=False)
    return list(found.values_list("channel_id", "error_class"))


def _full(routes: Iterable[Route]) -> set[tuple[int, str]]:
    """Return the pairs of channel and upstream model that have as many jobs open as the channel may have."""
    limits = {
        (route.channel_id, route.upstream_model): route.channel.max_open
        for route in routes
        if route.channel.max_open is not None
    }
    counts = _open_counts(limits) if limits else {}
    return {key for key, limit in limits.items() if counts.get(key, 0) >= limit}


def _open_counts(keys: Iterable[tuple[int, str]]) -> dict[tuple[int, str], int]:
    with connection.cursor() as cursor:
        # Relies on the index providers_job_poll.
        cursor.execute(
            "SELECT channel_id, upstream_model, count(*) FROM providers_upstreamjob"
            " WHERE channel_id = ANY(%s) AND status IN ('submitting', 'submitted', 'running') GROUP BY 1, 2",
            [list({channel_id for channel_id, _ in keys})],
        )
        return {(channel_id, model): count for channel_id, model, count in cursor.fetchall()}


def _shuffled(routes: Sequence[Route]) -> list[Route]:
    """Order routes at random, the heavier the likelier first."""
    keyed = [(random.random() ** (1 / route.weight), route) for route in routes]  # noqa: S311 - load, not secrecy
    return [route for _, route in sorted(keyed, key=lambda pair: -pair[0])]
