"""Upstream jobs: the only writer of their status.

Every claim leases a row by moving `due_at` ahead and handing out a fencing token; every later write carries that token,
so a worker that lost its lease changes nothing. The lane renews leases while their worker lives; the write that ends a
piece of work gives the lease up. The intent to call is committed before the call.
"""

import datetime as dt
import hashlib
import random
import secrets
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import structlog
from django.db import connection

from providers import channels, routing
from providers.adapters.base import (
    Accepted,
    Adapter,
    ErrorClass,
    Failed,
    JobRequest,
    Progress,
    Refused,
    Running,
    Submission,
    Succeeded,
    Unknown,
    Unreadable,
)
from providers.models import Channel, UpstreamCall, UpstreamJob
from seedancee2.lib import clock, lanes

log = structlog.get_logger(__name__)

Status = UpstreamJob.Status

LEASE = dt.timedelta(seconds=20)  # renewed every few seconds, so this bounds what a killed worker delays
MAX_CLAIMS = 20  # claims in a row after which a job counts as poison, even if it kills every worker
RECOVERY_MISSES = 3  # looks that must all find nothing before a lost submission is given up
RECOVERY_GRACE = dt.timedelta(seconds=120)
NO_ROUTE_PAUSE = dt.timedelta(seconds=5)

LANES = {
    "submit": [Status.QUEUED],
    "poll": [Status.SUBMITTING, Status.SUBMITTED, Status.RUNNING],
    "settle": [Status.SUCCEEDED, Status.FAILED, Status.EXPIRED],
}


class LeaseLost(Exception):
    """Another worker holds this job now; what was learned is dropped and will be learned again."""


def open(
    *,
    reference: str,
    request: JobRequest,
    traffic: str,
    deadline_at: dt.datetime,
    number: int = 1,
    delay: dt.timedelta = dt.timedelta(),
) -> UpstreamJob:
    """Write a queued job, due after `delay`, in the caller's transaction."""
    return UpstreamJob.objects.create(
        reference=reference,
        number=number,
        model=request.model,
        traffic=traffic,
        request=request.as_json(),
        deadline_at=deadline_at,
        due_at=clock.now() + delay,
    )


def claim_due(lane: str, limit: int) -> list[UpstreamJob]:
    """Lease up to `limit` due jobs of a lane (submit, poll or settle) to the caller, oldest first."""
    now = clock.now()
    with connection.cursor() as cursor:
        # Relies on the index providers_job_due, read in its order for each status: for `status = ANY` PostgreSQL would
        # sort all that is due at every claim. SKIP LOCKED keeps workers from waiting for each other.
        cursor.execute(
            """
            UPDATE providers_upstreamjob
               SET due_at = %(lease_end)s, lease_token = gen_random_uuid(), claim_count = claim_count + 1
             WHERE id = ANY(ARRAY(
                   SELECT due.id
                     FROM unnest(%(statuses)s::text[]) AS lane(status)
                    CROSS JOIN LATERAL (SELECT id, due_at FROM providers_upstreamjob
                                         WHERE status = lane.status AND due_at <= %(now)s
                                         ORDER BY due_at LIMIT %(limit)s FOR UPDATE SKIP LOCKED) due
                    ORDER BY due.due_at LIMIT %(limit)s))
         RETURNING id
            """,
            {
                "lease_end": now + LEASE,
                "statuses": [status.value for status in LANES[lane]],
                "now": now,
                "limit": limit,
            },
        )
        ids = [row[0] for row in cursor.fetchall()]
    return list(UpstreamJob.objects.filter(pk__in=ids).select_related("channel").order_by("id")) if ids else []


def renew(claimed: Sequence[UpstreamJob]) -> None:
    """Prolong the leases of jobs that are still being worked on; one given up or lost meanwhile is left alone."""
    tokens = [job.lease_token for job in claimed if job.lease_token]
    UpstreamJob.objects.filter(lease_token__in=tokens).update(due_at=clock.now() + LEASE)


def submit(job: UpstreamJob) -> UpstreamJob:
    """Send a claimed, queued job to a provider; what is not certain afterwards stays `submitting`.

    Raises:
        LeaseLost: another worker has the job.
    """
    now = clock.now()
    if now >= job.deadline_at:
        return _finish(job, Status.EXPIRED, error_detail="No route was free before the deadline.")
    route = routing.choose(job)
    if route is None:
        return _release(job, due_at=now + NO_ROUTE_PAUSE)

    # A channel whose credential does not open raises here, before anything is said to have been sent.
    adapter = channels.open_adapter(route.channel)
    token = secrets.token_urlsafe(32)
    _write(
        job,
        status=Status.SUBMITTING,
        channel=route.channel,
        upstream_model=route.upstream_model,
        callback_token_digest=hashlib.sha256(token.encode()).digest(),
        submit_started_at=now,
        due_at=now + LEASE,
    )
    lanes.release_connections()
    started_at = clock.now()
    outcome: Submission
    try:
        outcome = adapter.submit(
            JobRequest.from_json(job.request), upstream_model=route.upstream_model, callback_token=token
        )
    except Exception as error:  # whatever broke, bytes may have left: only "unknown" is safe to say
        log.exception("submit_raised", job=str(job), channel=route.channel.name)
        outcome = Unknown(f"The adapter raised {type(error).__name__}.")
    _record_calls(job, adapter, started_at)
    return _after_submission(job, outcome)


def recover(job: UpstreamJob) -> UpstreamJob:
    """Look for a job whose submission was cut short; give it up only after several looks found nothing.

    Raises:
        LeaseLost: another worker has the job.
    """
    found: Accepted | None = None
    started_at = clock.now()
    try:
        adapter = _adapter(job)
        lanes.release_connections()
        found = adapter.recover(callback_token_digest=bytes(job.callback_token_digest or b""))
        is_answered = True
        _record_calls(job, adapter, started_at)
    except Exception:  # a look that broke told nothing: it is not a miss
        log.exception("recover_raised", job=str(job))
        is_answered = False
    if found is not None:
        return _after_submission(job, found)
    now = clock.now()
    if now >= job.deadline_at:
        return _finish(job, Status.EXPIRED, error_detail="Nobody could tell before the deadline whether it was sent.")
    misses = job.poll_count + is_answered
    if misses >= RECOVERY_MISSES and now - (job.submit_started_at or now) >= RECOVERY_GRACE:
        return _finish(
            job,
            Status.FAILED,
            error_class=ErrorClass.TRANSIENT,
            error_detail="The submission was interrupted, and the provider does not know the job.",
        )
    return _release(job, poll_count=misses, due_at=now + RECOVERY_GRACE / RECOVERY_MISSES)


def poll(job: UpstreamJob) -> UpstreamJob:
    """Ask the provider what became of a claimed job; past its deadline this is the last time.

    Raises:
        LeaseLost: another worker has the job.
    """
    started_at = clock.now()
    progress: Progress
    try:
        adapter = _adapter(job)
        lanes.release_connections()
        progress = adapter.fetch(job.upstream_id)
        _record_calls(job, adapter, started_at)
    except Exception as error:  # one broken answer must not stop the polling of this job
        log.exception("fetch_raised", job=str(job))
        progress = Unreadable(f"Asking raised {type(error).__name__}.")

    if isinstance(progress, Succeeded):
        result = {
            "video_url": progress.video_url,
            "last_frame_url": progress.last_frame_url,
            "meta": dict(progress.meta),
        }
        return _finish(job, Status.SUCCEEDED, result=result)
    if isinstance(progress, Failed):
        return _finish(
            job,
            Status.FAILED,
            error_class=progress.error_class,
            error_reason=progress.reason or "",
            error_detail=progress.detail,
        )
    now = clock.now()
    if now >= job.deadline_at:
        return _finish(job, Status.EXPIRED, error_detail="The provider had not finished at the deadline.")
    if isinstance(progress, Unreadable):
        log.warning("poll_unreadable", job=str(job), detail=progress.detail)
    status = Status.RUNNING if isinstance(progress, Running) else job.status
    due_at = min(now + _poll_pause(now - (job.submitted_at or now)), job.deadline_at)
    return _release(job, status=status, poll_count=job.poll_count + 1, due_at=due_at)


def download(job: UpstreamJob, *, url: str, destination: Path, max_bytes: int) -> None:
    """Fetch an output of a finished job through its own channel.

    Raises:
        DownloadError: it could not be fetched.
    """
    adapter = _adapter(job)
    lanes.release_connections()
    adapter.download(url, destination, max_bytes=max_bytes)


def is_poison(job: UpstreamJob) -> bool:
    """Tell whether a claimed job was claimed too often without any work on it coming to an end."""
    return job.claim_count > MAX_CLAIMS


def give_up(job: UpstreamJob) -> UpstreamJob:
    """End a claimed job that nobody can work on, so that its generation can end."""
    return _finish(
        job,
        Status.FAILED,
        error_class=ErrorClass.OUR_BUG,
        error_detail=f"Given up: claimed {job.claim_count} times without any work on it coming to an end.",
    )


def withdraw(job: UpstreamJob) -> UpstreamJob:
    """End a claimed job that nobody waits for any more; nothing was sent for it."""
    return _release(
        job,
        status=Status.FAILED,
        finished_at=clock.now(),
        due_at=None,
        error_detail="Withdrawn: its generation had ended before it was sent.",
    )


def settled(job: UpstreamJob) -> UpstreamJob:
    """Note that a finished job was brought home: it needs no work any more."""
    return _release(job, due_at=None)


def postpone(job: UpstreamJob, *, seconds: float) -> UpstreamJob:
    """Let a claimed job rest for some seconds."""
    return _release(job, due_at=clock.now() + dt.timedelta(seconds=seconds))


def _after_submission(job: UpstreamJob, outcome: Submission) -> UpstreamJob:
    now = clock.now()
    if isinstance(outcome, Accepted):
        return _release(
            job,
            status=Status.SUBMITTED,
            upstream_id=outcome.upstream_id,
            submitted_at=now,
            poll_count=0,
            due_at=now + _poll_pause(dt.timedelta()),
        )
    if isinstance(outcome, Refused):
        return _finish(
            job,
            Status.FAILED,
            error_class=outcome.error_class,
            error_reason=outcome.reason or "",
            error_detail=outcome.detail,
        )
    log.warning("submit_outcome_unknown", job=str(job), detail=outcome.detail)
    return _release(job, error_detail=outcome.detail, due_at=now + RECOVERY_GRACE / RECOVERY_MISSES)


def _finish(job: UpstreamJob, status: UpstreamJob.Status, **fields: Any) -> UpstreamJob:
    now = clock.now()
    return _release(job, status=status, finished_at=now, due_at=now, **fields)


def _release(job: UpstreamJob, *, due_at: dt.datetime | None, **fields: Any) -> UpstreamJob:
    return _write(job, due_at=due_at, lease_token=None, claim_count=0, **fields)


def _write(job: UpstreamJob, **fields: Any) -> UpstreamJob:
    if job.lease_token is None:
        raise LeaseLost(f"{job} was given up by this worker already.")
    is_mine = UpstreamJob.objects.filter(pk=job.pk, lease_token=job.lease_token, status=job.status)
    if not is_mine.update(**fields):
        raise LeaseLost(f"{job} is no longer leased to this worker.")
    for name, value in fields.items():
        setattr(job, name, value)
    return job


def _adapter(job: UpstreamJob) -> Adapter:
    channel = job.channel
    assert isinstance(channel, Channel), f"{job} was sent without a channel"
    return channels.open_adapter(channel)


def _poll_pause(age: dt.timedelta) -> dt.timedelta:
    # A second at first, then a fifth of the age up to ten seconds; jitter spreads jobs that started together.
    seconds = min(10.0, max(1.0, age.total_seconds() / 5))
    return dt.timedelta(seconds=seconds * random.uniform(0.8, 1.2))  # noqa: S311 - spreading, not secrecy


def _record_calls(job: UpstreamJob, adapter: Adapter, started_at: dt.datetime) -> None:
    UpstreamCall.objects.bulk_create(
        UpstreamCall(
            job=job,
            kind=exchange.kind,
            started_at=started_at,
            duration_ms=exchange.duration_ms,
            status_code=exchange.status_code,
            request=exchange.request,
            response=exchange.response,
        )
        for exchange in adapter.exchanges
    )
    adapter.exchanges.clear()
