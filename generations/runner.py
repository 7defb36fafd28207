"""What workers do with a claimed job: submit it, ask for it, bring it home. One call of a lane works on one job."""

import datetime as dt

import structlog
from django.db import transaction

from generations import failures, lifecycle, media
from generations.models import Generation
from providers import jobs
from providers.adapters.base import DownloadError, ErrorClass, JobRequest
from providers.models import UpstreamJob
from seedancee2.lib import clock, wakeups

log = structlog.get_logger(__name__)

Status = UpstreamJob.Status

MAX_JOBS = 4  # submissions for one generation, the first included
RETRY_PAUSE = dt.timedelta(seconds=5)
DOWNLOAD_PAUSE_SECONDS = 5.0
STORAGE_PAUSE_SECONDS = 5.0
OVERDUE_GRACE = dt.timedelta(seconds=60)  # jobs get their own last look at the deadline itself
# Faults of the provider or of our account there: another submission may succeed, and the first certainly ended.
RETRIED = {ErrorClass.TRANSIENT, ErrorClass.CAPACITY, ErrorClass.OUR_ACCOUNT}


def submit(job: UpstreamJob) -> None:
    """Send a claimed job to a provider, unless its generation has ended meanwhile."""
    if not Generation.objects.filter(pk=job.reference, status__in=Generation.OPEN).exists():
        jobs.withdraw(job)
        return
    _next_step(_parked(job) or jobs.submit(job))


def poll(job: UpstreamJob) -> None:
    """Ask what became of a claimed job; one whose submission was cut short is looked for instead."""
    is_lost = job.status == Status.SUBMITTING
    _next_step(_parked(job) or (jobs.recover(job) if is_lost else jobs.poll(job)))


def settle(job: UpstreamJob) -> None:
    """Bring a finished job home: store its files and complete the generation, try again elsewhere, or fail it."""
    generation = Generation.objects.get(pk=job.reference)
    if not generation.is_open:
        _note_late_end(job, generation)
    elif jobs.is_poison(job):
        log.error("job_parked", task_id=job.reference, job=str(job), status=job.status)
        lifecycle.fail(public_id=job.reference, code=Generation.ErrorCode.GENERATION_FAILED)
    elif job.status == Status.SUCCEEDED:
        if not _complete(job, generation):
            return
    elif job.status == Status.EXPIRED:
        lifecycle.fail(public_id=job.reference, code=Generation.ErrorCode.GENERATION_TIMEOUT)
    elif job.error_class in RETRIED and job.number < MAX_JOBS and clock.now() < job.deadline_at:
        _open_next(job)
        return
    else:
        lifecycle.fail(public_id=job.reference, code=failures.code_for(job.error_class), reason=job.error_reason)
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


def _next_step(job: UpstreamJob) -> None:
    if job.status in (Status.RUNNING, Status.SUCCEEDED):
        lifecycle.start(public_id=job.reference)
    if job.status in UpstreamJob.TERMINAL:
        wakeups.wake("generations.settle")


def _complete(job: UpstreamJob, generation: Generation) -> bool:
    try:
        lifecycle.complete(public_id=job.reference, assets=media.ingest(generation, job))
    except lifecycle.AlreadyEnded:
        _note_late_end(job, generation)
    except DownloadError as error:
        if not error.is_final and clock.now() < job.deadline_at:
            log.warning("download_failed", task_id=job.reference, detail=str(error))
            jobs.postpone(job, seconds=DOWNLOAD_PAUSE_SECONDS)
            return False
        log.error("output_lost", task_id=job.reference, detail=str(error))
        lifecycle.fail(public_id=job.reference, code=Generation.ErrorCode.GENERATION_FAILED)
    except media.StorageUnavailable as error:
        # The video is there and the credits are held: nothing is lost by waiting until the storage is back.
        log.error("storage_unavailable", task_id=job.reference, detail=str(error))
        if clock.now() < job.deadline_at:
            jobs.postpone(job, seconds=STORAGE_PAUSE_SECONDS)
            return False
        lifecycle.fail(public_id=job.reference, code=Generation.ErrorCode.GENERATION_TIMEOUT)
    except media.UnusableOutput as error:
        log.error("output_unusable", task_id=job.reference, detail=str(error))
        lifecycle.fail(public_id=job.reference, code=Generation.ErrorCode.GENERATION_FAILED)
    return True


def _open_next(job: UpstreamJob) -> None:
    # Together, so that a crash between the two can neither lose nor double the next submission.
    with transaction.atomic():
        jobs.settled(job)
        jobs.open(
            reference=job.reference,
            number=job.number + 1,
            request=JobRequest.from_json(job.request),
            traffic=job.traffic,
            deadline_at=job.deadline_at,
            delay=RETRY_PAUSE * 2 ** (job.number - 1),
        )


def _note_late_end(job: UpstreamJob, generation: Generation) -> None:
    if job.status == Status.SUCCEEDED and generation.status == Generation.Status.FAILED:
        # Our cost: the customer has their credits back and is never charged for it.
        log.warning("late_success", task_id=job.reference, job=str(job))
