"""Health of channels: a circuit breaker for each upstream model of a channel, and one for the whole channel.

Failures in a row open it; while it is open nothing is sent, then one job at a time as a probe until one is taken (or,
where jobs died after they were taken, until one succeeds). A provider without capacity is only paused.
"""

import datetime as dt
import random
from collections.abc import Iterable, Mapping

import structlog
from django.db.models import F, Q, QuerySet

from providers.adapters.base import ErrorClass
from providers.models import Channel, ChannelHealth, UpstreamJob
from seedancee2.lib import clock

log = structlog.get_logger(__name__)

TRIPPING_FAILURES = 5  # in a row
SHORTEST_OPEN = dt.timedelta(seconds=30)
LONGEST_OPEN = dt.timedelta(minutes=15)
# A fault of our account mends only when somebody sees to it; each try costs a customer's task some seconds.
ACCOUNT_OPEN = dt.timedelta(minutes=2)
PROBE = dt.timedelta(seconds=60)  # after which a probe that told nothing makes room for the next
SHORTEST_PAUSE = 5.0  # seconds
LONGEST_PAUSE = 60.0

# What the provider, or our account there, is to blame for; what a request did says nothing about health.
_FAULTS = (ErrorClass.TRANSIENT, ErrorClass.OUR_ACCOUNT, ErrorClass.CAPACITY)

Rows = Mapping[tuple[int, str], ChannelHealth]


def rows(channel_ids: Iterable[int]) -> Rows:
    """Return the rows of some channels by channel and upstream model."""
    found = ChannelHealth.objects.filter(channel_id__in=list(channel_ids))
    return {(row.channel_id, row.upstream_model): row for row in found}


def may_send(known: Rows, *, channel_id: int, upstream_model: str, now: dt.datetime) -> bool:
    """Tell whether a job may go there now, be it as a probe."""
    for key in ((channel_id, ""), (channel_id, upstream_model)):
        row = known.get(key)
        if row is None:
            continue
        is_paused = row.paused_until is not None and row.paused_until > now
        is_open = row.open_until is not None and (
            row.open_until > now or (row.probe_until is not None and row.probe_until > now)
        )
        if is_paused or is_open:
            return False
    return True


def admit(*, channel_id: int, upstream_model: str) -> bool:
    """Let one job through; where the breaker waits for a probe, this job is the only one. Part of a transaction."""
    now = clock.now()
    waiting = ChannelHealth.objects.filter(
        channel_id=channel_id, upstream_model__in=["", upstream_model], open_until__isnull=False
    )
    for row in waiting:
        # The guard is in the statement: of two workers one gets the probe.
        is_mine = (
            ChannelHealth.objects.filter(pk=row.pk, open_until__lte=now)
            .filter(Q(probe_until__isnull=True) | Q(probe_until__lte=now))
            .update(probe_until=now + PROBE)
        )
        is_closed = not ChannelHealth.objects.filter(pk=row.pk, open_until__isnull=False).exists()
        if not is_mine and not is_closed:
            return False
    return True


def note_taken(job: UpstreamJob) -> None:
    """Note that a provider took a job: whatever kept it from taking some is over."""
    _close(_since_sent(job).filter(is_of_submit=True))


def note_succeeded(job: UpstreamJob) -> None:
    """Note that a job succeeded: everything is well there."""
    _close(_since_sent(job))


def note_failed(
    job: UpstreamJob,
    error_class: ErrorClass,
    detail: str,
    *,
    is_of_submit: bool,
    is_model_only: bool = False,
    retry_after: float | None = None,
) -> None:
    """Note a failure of the provider or of our account there; `retry_after` is in seconds."""
    if job.channel_id is None or error_class not in _FAULTS:
        return
    is_of_all = error_class in (ErrorClass.OUR_ACCOUNT, ErrorClass.CAPACITY) and not is_model_only
    model = "" if is_of_all else job.upstream_model
    if error_class == ErrorClass.CAPACITY:
        _pause(job.channel_id, model, retry_after)
        return
    row = _counted(job.channel_id, model, error_class, detail, is_of_submit)
    is_account = error_class == ErrorClass.OUR_ACCOUNT
    # One failed probe opens it again, at once.
    if is_account or row.trip_count or row.failure_count >= TRIPPING_FAILURES:
        _open(row, ACCOUNT_OPEN if is_account else SHORTEST_OPEN)


def reset(channel: Channel) -> int:
    """Forget all that is held against a channel, as staff may once they mended it; return how many rows that were."""
    return _close(ChannelHealth.objects.filter(channel=channel))


def _of(job: UpstreamJob) -> QuerySet[ChannelHealth]:
    return ChannelHealth.objects.filter(channel=job.channel, upstream_model__in=["", job.upstream_model])


def _since_sent(job: UpstreamJob) -> QuerySet[ChannelHealth]:
    # A job that was sent before the last failure says nothing of how things are since.
    return _of(job).filter(changed_at__lte=job.submit_started_at or job.created_at)


def _close(found: QuerySet[ChannelHealth]) -> int:
    # Healthy rows, which is nearly all of them always, are not written to: they would be everybody's hot row.
    ill = found.filter(Q(failure_count__gt=0) | Q(open_until__isnull=False) | Q(pause_count__gt=0))
    found_ill = list(ill.values_list("channel__name", "upstream_model", "open_until"))
    if not found_ill:
        return 0
    count = ill.update(
        failure_count=0,
        trip_count=0,
        open_until=None,
        probe_until=None,
        pause_count=0,
        paused_until=None,
        changed_at=clock.now(),
    )
    for name, model, open_until in found_ill:
        if open_until is not None:
            log.warning("breaker_closed", channel=name, upstream_model=model)
    return count


def _counted(channel_id: int, model: str, error_class: ErrorClass, detail: str, is_of_submit: bool) -> ChannelHealth:
    row, _ = ChannelHealth.objects.get_or_create(channel_id=channel_id, upstream_model=model)
    ChannelHealth.objects.filter(pk=row.pk).update(
        failure_count=F("failure_count") + 1,
        is_of_submit=is_of_submit,
        reason=error_class,
        detail=detail[:500],
        changed_at=clock.now(),
    )
    row.refresh_from_db()
    return row


def _open(row: ChannelHealth, shortest: dt.timedelta) -> None:
    now = clock.now()
    if row.open_until is not None and row.open_until > now:
        return  # what was under way when it opened says nothing new
    length = min(LONGEST_OPEN, shortest * 2 ** min(row.trip_count, 10))
    is_opened = ChannelHealth.objects.filter(pk=row.pk, trip_count=row.trip_count).update(
        trip_count=F("trip_count") + 1, open_until=now + length, probe_until=None, changed_at=now
    )
    if is_opened:
        log.error(
            "breaker_opened",
            channel=row.channel.name,
            upstream_model=row.upstream_model,
            reason=row.reason,
            seconds=length.total_seconds(),
        )


def _pause(channel_id: int, model: str, retry_after: float | None) -> None:
    row, _ = ChannelHealth.objects.get_or_create(channel_id=channel_id, upstream_model=model)
    seconds = max(retry_after or 0.0, min(LONGEST_PAUSE, SHORTEST_PAUSE * 2 ** min(row.pause_count, 10)))
    seconds = min(seconds, 600.0) * random.uniform(1.0, 1.2)  # noqa: S311 - spreading, not secrecy
    now = clock.now()
    # Many workers may be refused in the same moment: that is one pause, and one step of its growth.
    ChannelHealth.objects.filter(pk=row.pk).filter(Q(paused_until__isnull=True) | Q(paused_until__lte=now)).update(
        pause_count=F("pause_count") + 1, paused_until=now + dt.timedelta(seconds=seconds), changed_at=now
    )
