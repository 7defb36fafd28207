"""What workers do with a claimed job: submit it, ask for it, bring it home. One call of a lane works on one row."""

import dataclasses
import datetime as dt
import random
import time

import structlog

from generations import failures, lifecycle, media
from generations.models import Generation
from providers import jobs, late, polls, routing, submissions
from providers.adapters.base import DownloadError, ErrorClass
from providers.claims import Batch
from providers.models import UpstreamJob
from seedancee2.lib import clock, wakeups

log = structlog.get_logger(__name__)

Status = UpstreamJob.Status

MAX_FAILURES = 4  # of providers, for one generation; what never was their work does not count
LOOKS_SECONDS = 20.0  # for the looks for lost jobs of one batch
RETRY_PAUSE = dt.timedelta(seconds=5)
DOWNLOAD_PAUSE_SECONDS = 5.0
OUTPUT_PATIENCE = dt.timedelta(seconds=60)  # with an output that is said to be gone
STORAGE_PAUSE_SECONDS = 5.0
OVERDUE_GRACE = dt.timedelta(seconds=60)  # jobs get their own last look at the deadline itself

# Nothing was begun, and the breaker or a pause keeps us from asking there again too soon.
_UNTAKEN = {ErrorClass.CAPACITY, ErrorClass.OUR_ACCOUNT}
# Our request, or words that we do not know: the same place would say the same again, another may not.
_ELSEWHERE = {ErrorClass.OUR_BUG, ErrorClass.UNKNOWN}


def submit(job: UpstreamJob) -> None:
    """Send a claimed job to a provider, unless its generation has ended meanwhile."""
    if not Generation.objects.filter(pk=job.reference, status__in=Generation.OPEN).exists():
        jobs.withdraw(job)
        return
    _next_step(_parked(job) or submissions.submit(job))


def poll(batch: Batch) -> None:
    """Ask what became of claimed jobs; one whose submission was cut short is looked for instead."""
    sound = []
    began = time.monotonic()
    for job in batch.jobs:
        if given_up := _parked(job):
            _next_step(given_up)
        elif job.status == Status.SUBMITTING:
            if time.monotonic() - began > LOOKS_SECONDS:
                # A provider that answers slowly must not keep this thread for a hundred looks.
                jobs.postpone(job, seconds=LOOKS_SECONDS)
            else:
                _next_step(submissions.recover(job))
        else:
            sound.append(job)
    if sound:
        _next_step(*polls.poll(dataclasses.replace(batch, jobs=tuple(sound))))


def settle(job: UpstreamJob) -> None:
    """Bring a finished job home: store its files and complete the generation, try again elsewhere, or fail it."""
    generation = Generation.objects.get(pk=job.reference)
    if not generation.is_open:
        _note_late_end(job, generation)
        if job.status == Status.EXPIRED:
            late.let_go(job)
            return
    elif jobs.is_poison(job):
        log.error("job_parked", task_id=job.reference, job=str(job), status=job.status)
        lifecycle.fail(public_id=job.reference, code=Generation.ErrorCode.GENERATION_FAILED)
    elif job.status == Status.SUCCEEDED:
        _complete(job, generation)
        return
    elif job.status == Status.EXPIRED:
        lifecycle.fail(public_id=job.reference, code=Generation.ErrorCode.GENERATION_TIMEOUT)
        late.let_go(job)
        return
    else:
        _after_failure(job)
        return
    jobs.settled(job)


def end_overdue(generation: Generation) -> None:
    """End a generation that its jobs have left open past the deadline; what they still bring is our cost."""
    log.error("generation_overdue", task_id=generation.public_id)
    lifecycle.fail(public_id=generation.public_id, code=Generation.ErrorCode.GENERATION_TIMEOUT)


def overdue(limit: int) -> list[Generation]:
    """Return open generations whose deadline passed so long ago that their jobs should have ended them."""
    rows = Generation.objects.filter(status__in=Generation.OPEN, deadline_at__lt=clock.now() - OVERDUE_GRACE)
    return list(rows.order_by("deadline_at")[:limit])


def _parked(job: UpstreamJob) -> UpstreamJob | None:
    """Give a poison job up, with an alarm; None where the job is sound."""
    if not jobs.is_poison(job):
        return None
    log.error("job_parked", task_id=job.reference, job=str(job), status=job.status)
    return jobs.give_up(job)


def _next_step(*changed: UpstreamJob) -> None:
    if begun := [job.reference for job in changed if job.status in (Status.RUNNING, Status.SUCCEEDED)]:
        lifecycle.start(public_ids=begun)
    if any(job.status in UpstreamJob.TERMINAL for job in changed):
        wakeups.wake("generations.settle")


def _complete(job: UpstreamJob, generation: Generation) -> None:
    try:
        lifecycle.complete(public_id=job.reference, assets=media.ingest(generation, job))
    except lifecycle.AlreadyEnded:
        _note_late_end(job, generation)
    except DownloadError as error:
        # Right after its end an output may not be everywhere yet.
        is_settled = clock.now() - (job.finished_at or job.created_at) >= OUTPUT_PATIENCE
        is_gone = (error.is_final and is_settled) or jobs.may_move_on(
            job, silent_since=job.finished_at or job.created_at
        )
        if not is_gone and clock.now() < job.deadline_at:
            log.warning("download_failed", task_id=job.reference, detail=str(error))
            jobs.postpone(job, seconds=DOWNLOAD_PAUSE_SECONDS)
            return
        log.error("output_lost", task_id=job.reference, detail=str(error))
        _after_failure(jobs.spoiled(job, str(error)))
        return
    except media.StorageUnavailable as error:
        # The video is there and the credits are held: nothing is lost by waiting until the storage is back.
        log.error("storage_unavailable", task_id=job.reference, detail=str(error))
        if clock.now() < job.deadline_at:
            jobs.postpone(job, seconds=STORAGE_PAUSE_SECONDS)
            return
        lifecycle.fail(public_id=job.reference, code=Generation.ErrorCode.GENERATION_TIMEOUT)
    except media.UnusableOutput as error:
        log.error("output_unusable", task_id=job.reference, detail=str(error))
        _after_failure(jobs.spoiled(job, str(error)))
        return
    jobs.settled(job)


def _after_failure(job: UpstreamJob) -> None:
    """Queue the next submission of a failed job where another may succeed, else fail the generation."""
    pause = None if job.is_final or clock.now() >= job.deadline_at else _pause_before_next(job)
    if pause is None:
        lifecycle.fail(public_id=job.reference, code=failures.code_for(job.error_class), reason=job.error_reason)
        jobs.settled(job)
        return
    jobs.open_next(job, delay=pause)
    if not pause:
        wakeups.wake("generations.submit")


def _pause_before_next(job: UpstreamJob) -> dt.timedelta | None:
    """Return how long the next submission has to wait; None where there must be none (the classes' table)."""
    if job.error_class in _UNTAKEN:
        return dt.timedelta()
    failed = UpstreamJob.objects.filter(reference=job.reference, status=Status.FAILED)
    failure_count = failed.exclude(error_class__in=_UNTAKEN).count()
    if failure_count >= MAX_FAILURES:
        return None
    if job.error_class in _ELSEWHERE:
        is_first = failed.filter(error_class__in=_ELSEWHERE).count() == 1
        return dt.timedelta() if is_first and routing.has_other(job) else None
    if job.error_class == ErrorClass.TRANSIENT:
        if routing.has_other(job):
            return dt.timedelta()
        steps = 2 ** (failure_count - 1) * random.uniform(1.0, 1.2)  # noqa: S311 - spreading load
        return RETRY_PAUSE * float(steps)
    return None


def _note_late_end(job: UpstreamJob, generation: Generation) -> None:
    if job.status == Status.SUCCEEDED and generation.status == Generation.Status.FAILED:
        # Our cost: the customer has their credits back and is never charged for it.
        log.error("late_success", task_id=job.reference, job=str(job))
