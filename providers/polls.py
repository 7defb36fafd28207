"""Polls: asking providers what became of the jobs they have, many at once where they can answer so."""

import datetime as dt
import threading
import time
from collections.abc import Mapping, Sequence

import structlog

from providers import adapters, health, jobs, late
from providers.adapters.base import ErrorClass, Exchange, Failed, Progress, Running, Succeeded, Unreadable
from providers.claims import Batch
from providers.models import Channel, UpstreamCall, UpstreamJob
from seedancee2.lib import clock, lanes

log = structlog.get_logger(__name__)

Status = UpstreamJob.Status

ODD_ANSWERS = 5  # of a job said to have succeeded without anything to fetch, after which it counts as failed
BATCH_SECONDS = 15.0  # after which the rest of a batch has to wait: a provider that hangs must not keep leases
_COUNT_SECONDS = 5.0  # for which a count of a channel's jobs is good enough

_UNASKED = Unreadable("It was not asked about: the batch took too long.")

_counts: dict[int, tuple[float, int]] = {}
_counts_lock = threading.Lock()


def poll(batch: Batch) -> list[UpstreamJob]:
    """Ask about claimed jobs of one channel and return those of which something new was heard.

    Past its deadline a job is asked about for the last time. One whose lease was lost meanwhile is left alone.
    """
    told = _ask(batch)
    # What there was no time to ask about is unheard of too, unless the provider did tell about others.
    unasked = _UNASKED if all(map(_is_silence, told.values())) else None
    least = _least_pause(batch.channel)
    changed: list[UpstreamJob] = []
    waiting: list[jobs.Asked] = []
    unheard_count = 0
    for job in batch.jobs:
        now = clock.now()
        progress = told.get(job.upstream_id, unasked)
        unheard_since = (job.unheard_since or now) if _is_silence(progress) else None
        unheard_count += unheard_since is not None
        try:
            ended = _ended(job, progress, unheard_since)
        except jobs.LeaseLost:
            log.warning("poll_lease_lost", job=str(job))
            continue
        if ended is not None:
            changed.append(ended)
            continue
        pause = jobs.poll_pause(now - (job.submitted_at or now), least=least)
        waiting.append(
            jobs.Asked(
                job=job,
                due_at=min(now + pause, job.deadline_at),
                unheard_since=unheard_since,
                is_running=isinstance(progress, Running),
                is_odd=isinstance(progress, Unreadable) and progress.is_done,
            )
        )
    for job in {job.upstream_model: job for job in changed if job.status == Status.SUCCEEDED}.values():
        health.note_succeeded(job)
    _tell_silence(batch, told, unheard_count)
    return changed + jobs.still_open(waiting)


def _ended(job: UpstreamJob, progress: Progress | None, unheard_since: dt.datetime | None) -> UpstreamJob | None:
    """Write a job's end; None where it has not come."""
    now = clock.now()
    if isinstance(progress, Unreadable) and (progress.is_new or progress.is_done):
        if progress.is_new:
            log.error("provider_words_unknown", job=str(job), channel=str(job.channel), detail=progress.detail)
        if progress.is_done and job.odd_count + 1 >= ODD_ANSWERS:
            progress = Failed(ErrorClass.TRANSIENT, f"{ODD_ANSWERS} answers in a row: {progress.detail}")
    if isinstance(progress, Succeeded):
        return jobs.succeeded(job, progress)
    if isinstance(progress, Failed):
        return jobs.failed(job, progress)
    if now >= job.deadline_at:
        return jobs.expired(job, "The provider had not finished at the deadline.")
    if unheard_since is not None and jobs.may_move_on(job, silent_since=unheard_since):
        detail = "The provider took it, and nothing was heard of it any more."
        return jobs.abandoned(job, detail, is_final=False, watch_at=now + late.FIRST_LOOK)
    return None


def _is_silence(progress: Progress | None) -> bool:
    # Unknown words, and a success with nothing to fetch, do show that the provider knows the job.
    return isinstance(progress, Unreadable) and not (progress.is_new or progress.is_done)


def _tell_silence(batch: Batch, told: Mapping[str, Progress], count: int) -> None:
    # One line for all of them: an outage of a provider must not bury everything else in the log.
    if count:
        detail = next((one.detail for one in told.values() if isinstance(one, Unreadable)), _UNASKED.detail)
        log.warning("jobs_unheard", channel=batch.channel.name, count=count, detail=detail)


def _ask(batch: Batch) -> Mapping[str, Progress]:
    """Return what the provider says of each job, by upstream id; the calls that told something new are kept."""
    started_at, began = clock.now(), time.monotonic()
    told: dict[str, Progress] = {}
    calls: list[UpstreamCall] = []
    try:
        adapter = jobs.open_adapter(batch.jobs[0])
        lanes.release_connections()
        size = adapter.bulk_limit
        for number, start in enumerate(range(0, len(batch.jobs), size)):
            if number and time.monotonic() - began > BATCH_SECONDS:
                break
            _await_turn(batch, number)
            part = batch.jobs[start : start + size]
            answers = adapter.fetch_many([jobs.ref(job) for job in part])
            told |= answers
            for job in part:
                if _is_news(job, answers.get(job.upstream_id)):
                    calls += jobs.calls(job, _about(job, adapter.exchanges, alone=len(part) == 1), started_at)
            adapter.exchanges.clear()
        jobs.keep_calls(calls)
    except Exception as error:  # one broken answer must not stop the polling of these jobs
        log.exception("fetch_raised", batch=str(batch))
        broken = Unreadable(f"Asking raised {type(error).__name__}.")
        told = {job.upstream_id: told.get(job.upstream_id, broken) for job in batch.jobs}
    return told


def _await_turn(batch: Batch, number: int) -> None:
    rate = batch.channel.max_polls_per_second
    if batch.turns_at is not None and rate:
        seconds = (batch.turns_at - clock.now()).total_seconds() + number / rate
        time.sleep(max(0.0, min(seconds, BATCH_SECONDS)))


def _about(job: UpstreamJob, exchanges: Sequence[Exchange], *, alone: bool) -> list[Exchange]:
    """Leave out what was said of other jobs only."""
    return [one for one in exchanges if alone or job.upstream_id in one.items or job.upstream_id in one.request]


def _is_news(job: UpstreamJob, progress: Progress | None) -> bool:
    # An answer that changes nothing comes every few seconds for every job: keeping them all would bury the others.
    if isinstance(progress, Unreadable):
        return progress.is_new or progress.is_done or job.unheard_since is None
    return isinstance(progress, Succeeded | Failed) or (isinstance(progress, Running) and job.status != Status.RUNNING)


def _least_pause(channel: Channel) -> float:
    """Return the seconds between two polls of one job that the channel's rate allows, given all the jobs it has."""
    rate = channel.max_polls_per_second
    if not rate:
        return 0.0
    bulk_limit = adapters.find(channel.adapter).bulk_limit
    return _open_count(channel) / (rate * bulk_limit)


def _open_count(channel: Channel) -> int:
    now = time.monotonic()
    with _counts_lock:
        counted_at, count = _counts.get(channel.pk, (-_COUNT_SECONDS, 0))
    if now - counted_at >= _COUNT_SECONDS:
        count = UpstreamJob.objects.filter(channel=channel, status__in=UpstreamJob.SENT).count()
        with _counts_lock:
            _counts[channel.pk] = (now, count)
    return count
