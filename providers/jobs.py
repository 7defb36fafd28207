"""Upstream jobs: the only writer of their status. Each function here is one write, fenced by the lease's token.

`claims` hands jobs out, `submissions` and `polls` speak to the providers, and say here what came of it.
"""

import dataclasses
import datetime as dt
import random
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import structlog
from django.db import connection, transaction
from django.db.models import Case, JSONField, Q, Value, When

from providers import channels, erasure, health, routing
from providers.adapters.base import (
    Accepted,
    Adapter,
    ErrorClass,
    Exchange,
    Failed,
    JobRequest,
    Ref,
    Refused,
    Succeeded,
)
from providers.claims import LEASE
from providers.models import Channel, Credential, Route, UpstreamCall, UpstreamJob
from seedancee2.lib import clock, lanes, statements

log = structlog.get_logger(__name__)

Status = UpstreamJob.Status

MAX_CLAIMS = 20  # claims in a row after which a job counts as poison, even if it kills every worker
NO_ROUTE_PAUSE = 5.0  # seconds
_MODERATION = re.compile(r"sensitive|risk|moderat|content.?policy|violat", re.IGNORECASE)
SOONEST_POLL, LATEST_POLL = 1.0, 10.0  # seconds between two polls, unless the channel's rate demands more


class LeaseLost(Exception):
    """Another worker holds this job now; what was learned is dropped and will be learned again."""


class NoRoom(Exception):
    """A route that had room for a job has none any more."""


def open(
    *,
    reference: str,
    request: JobRequest,
    traffic: str,
    deadline_at: dt.datetime,
    owner: str = "",
    number: int = 1,
    delay: dt.timedelta = dt.timedelta(),
) -> UpstreamJob:
    """Write a queued job, due after `delay`, in the caller's transaction; `owner` is whose turn it uses up."""
    job = UpstreamJob(
        owner=owner,
        reference=reference,
        number=number,
        model=request.model,
        traffic=traffic,
        request=request.as_json(),
        deadline_at=deadline_at,
        due_at=clock.now() + delay,
    )
    statements.insert(job)
    return job


def open_next(job: UpstreamJob, *, delay: dt.timedelta) -> UpstreamJob:
    """Settle a failed job and queue the next submission of the same request."""
    # Together, so that a crash between the two can neither lose nor double the next submission.
    with transaction.atomic():
        settled(job)
        return open(
            owner=job.owner,
            reference=job.reference,
            number=job.number + 1,
            request=JobRequest.from_json(job.request),
            traffic=job.traffic,
            deadline_at=job.deadline_at,
            delay=delay,
        )


def begin(job: UpstreamJob, route: Route, *, credential: Credential | None, token_digest: bytes) -> UpstreamJob:
    """Note that a job is about to be sent: from here on nobody can say that it was not.

    Raises:
        NoRoom: the route took its last place in the meantime.
        LeaseLost: another worker has the job.
    """
    now = clock.now()
    with transaction.atomic():
        if not routing.admit(route):
            raise NoRoom(str(route))
        return _write(
            job,
            status=Status.SUBMITTING,
            channel=route.channel,
            credential=credential,
            upstream_model=route.upstream_model,
            callback_token_digest=token_digest,
            submit_started_at=now,
            due_at=now + LEASE,
        )


def accepted(job: UpstreamJob, outcome: Accepted) -> UpstreamJob:
    """Note the provider's id of a job that it took."""
    now = clock.now()
    health.note_taken(job)
    return _release(
        job,
        status=Status.SUBMITTED,
        upstream_id=outcome.upstream_id,
        upstream_urls=dict(outcome.urls),
        submitted_at=now,
        poll_count=0,
        unheard_since=None,
        due_at=now + poll_pause(dt.timedelta()),
    )


def refused(job: UpstreamJob, outcome: Refused) -> UpstreamJob:
    """Note that a provider certainly did not take a job."""
    health.note_failed(
        job,
        outcome.error_class,
        outcome.detail,
        is_of_submit=True,
        is_model_only=outcome.is_model_only,
        retry_after=outcome.retry_after,
    )
    return _failed(job, _understood(job, outcome), outcome.detail, error_reason=outcome.reason or "")


def abandoned(job: UpstreamJob, detail: str, *, is_final: bool, watch_at: dt.datetime | None = None) -> UpstreamJob:
    """Give up finding out what became of a job; `is_final` forbids another submission, `watch_at` is as in settled."""
    log.error("submission_abandoned", job=str(job), channel=_channel_name(job), is_final=is_final)
    return _failed(job, ErrorClass.TRANSIENT, detail, is_final=is_final, watch_at=watch_at)


def may_move_on(job: UpstreamJob, *, silent_since: dt.datetime) -> bool:
    """Tell whether a job of which nothing came since then may be sent again, although its provider may be paid too."""
    channel = job.channel
    return (
        channel is not None
        and channel.unknown_policy == Channel.UnknownPolicy.RETRY
        and clock.now() >= silent_since + dt.timedelta(seconds=channel.unknown_grace_seconds)
    )


def unresolved(job: UpstreamJob, *, due_at: dt.datetime, **fields: Any) -> UpstreamJob:
    """Let a submission of which nobody knows whether it arrived wait for the next look."""
    return _release(job, due_at=due_at, **fields)


def succeeded(job: UpstreamJob, outcome: Succeeded) -> UpstreamJob:
    """Note where a finished job's outputs are; that all is well there is for the caller to note, once for many."""
    result = {
        "video_url": outcome.video_url,
        "last_frame_url": outcome.last_frame_url,
        "meta": dict(outcome.meta),
    }
    return _finish(job, Status.SUCCEEDED, result=result, unheard_since=None)


def failed(job: UpstreamJob, outcome: Failed) -> UpstreamJob:
    """Note that a job that the provider took ended without an output."""
    health.note_failed(
        job, outcome.error_class, outcome.detail, is_of_submit=False, is_model_only=outcome.is_model_only
    )
    return _failed(
        job, _understood(job, outcome), outcome.detail, error_reason=outcome.reason or "", unheard_since=None
    )


def _understood(job: UpstreamJob, outcome: Refused | Failed) -> ErrorClass:
    """Return the class of a failure; words that nobody knows raise an alarm."""
    if outcome.error_class != ErrorClass.UNKNOWN:
        return outcome.error_class
    log.error("provider_words_unknown", job=str(job), channel=_channel_name(job), detail=outcome.detail)
    # New words for a refusal of the content must not send it to somebody who may be laxer.
    return ErrorClass.CUSTOMER_MODERATION if _MODERATION.search(outcome.detail) else ErrorClass.UNKNOWN


def spoiled(job: UpstreamJob, detail: str) -> UpstreamJob:
    """Turn a success into a failure of the provider: what it delivered is gone, or is not what was asked for."""
    health.note_failed(job, ErrorClass.TRANSIENT, detail, is_of_submit=False)
    return _write(job, status=Status.FAILED, error_class=ErrorClass.TRANSIENT, error_detail=detail)


def expired(job: UpstreamJob, detail: str) -> UpstreamJob:
    """End a job at its deadline."""
    return _finish(job, Status.EXPIRED, error_detail=detail)


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Asked:
    """A job that was asked about and has not ended; `is_odd` if it is said to have, with nothing to fetch."""

    job: UpstreamJob
    due_at: dt.datetime
    unheard_since: dt.datetime | None = None
    is_running: bool = False
    is_odd: bool = False


def still_open(asked: Sequence[Asked]) -> list[UpstreamJob]:
    """Let jobs wait for their next poll, all in one statement, and return those that are seen to run only now."""
    if not asked:
        return []
    with connection.cursor() as cursor:
        cursor.execute(
            """
            UPDATE providers_upstreamjob job
               SET due_at = told.due_at, lease_token = NULL, claim_count = 0, poll_count = job.poll_count + 1,
                   status = CASE WHEN told.is_running THEN 'running' ELSE job.status END,
                   odd_count = CASE WHEN told.is_odd THEN job.odd_count + 1 ELSE 0 END,
                   unheard_since = told.unheard_since
              FROM unnest(%s::bigint[], %s::uuid[], %s::timestamptz[], %s::timestamptz[], %s::boolean[], %s::boolean[])
                   AS told (id, lease_token, due_at, unheard_since, is_running, is_odd)
             WHERE job.id = told.id AND job.lease_token = told.lease_token
            """,
            [
                [one.job.pk for one in asked],
                [one.job.lease_token for one in asked],
                [one.due_at for one in asked],
                [one.unheard_since for one in asked],
                [one.is_running for one in asked],
                [one.is_odd for one in asked],
            ],
        )
    begun = [one.job for one in asked if one.is_running and one.job.status != Status.RUNNING]
    for job in begun:
        job.status = Status.RUNNING
    return begun


def is_poison(job: UpstreamJob) -> bool:
    """Tell whether a claimed job was claimed too often without any work on it coming to an end."""
    return job.claim_count > MAX_CLAIMS


def give_up(job: UpstreamJob) -> UpstreamJob:
    """End a claimed job that nobody can work on, so that its generation can end."""
    detail = f"Given up: claimed {job.claim_count} times without any work on it coming to an end."
    return _failed(job, ErrorClass.OUR_BUG, detail, is_final=True)


def withdraw(job: UpstreamJob) -> UpstreamJob:
    """End a claimed job that nobody waits for any more; nothing was sent for it."""
    return _release(
        job,
        status=Status.FAILED,
        finished_at=clock.now(),
        due_at=None,
        error_detail="Withdrawn: its generation had ended before it was sent.",
    )


def settled(job: UpstreamJob, *, watch_at: dt.datetime | None = None) -> UpstreamJob:
    """Note that a finished job was brought home; `watch_at` is when to look whether it succeeded after all."""
    return _release(job, due_at=None, watch_at=watch_at or job.watch_at)


def postpone(job: UpstreamJob, *, seconds: float) -> UpstreamJob:
    """Let a claimed job rest for some seconds, give or take a fifth."""
    spread = random.uniform(0.8, 1.2)  # noqa: S311 - spreading, not secrecy
    return _release(job, due_at=clock.now() + dt.timedelta(seconds=seconds * spread))


def download(job: UpstreamJob, *, url: str, destination: Path, max_bytes: int) -> None:
    """Fetch an output of a finished job through its own channel.

    Raises:
        DownloadError: it could not be fetched.
    """
    adapter = open_adapter(job)
    lanes.release_connections()
    started_at = clock.now()
    try:
        adapter.download(url, destination, max_bytes=max_bytes)
    finally:
        record_calls(job, adapter.exchanges, started_at)


def makes_watermarks(job: UpstreamJob) -> bool:
    """Tell whether the job's provider puts a watermark into the video itself."""
    return open_adapter(job).capabilities.has_watermark


def open_adapter(job: UpstreamJob) -> Adapter:
    """Return the adapter of a job's own channel, with the credential that it was sent with."""
    assert job.channel is not None, f"{job} was sent without a channel"
    return channels.open_adapter(job.channel, job.credential)


def ref(job: UpstreamJob) -> Ref:
    """Return what its provider knows a job by."""
    return Ref(job.upstream_id, job.upstream_model, job.upstream_urls)


def poll_pause(age: dt.timedelta, *, least: float = 0.0) -> dt.timedelta:
    """Return how long to wait for the next poll: a fifth of the job's age within bounds, at least `least` seconds."""
    seconds = max(least, min(LATEST_POLL, max(SOONEST_POLL, age.total_seconds() / 5)))
    # Jitter spreads jobs that started together.
    return dt.timedelta(seconds=seconds * random.uniform(0.8, 1.2))  # noqa: S311 - spreading, not secrecy


def record_calls(job: UpstreamJob, exchanges: Sequence[Exchange], started_at: dt.datetime) -> None:
    """Keep what was said to a provider and what it answered, for the staff."""
    keep_calls(calls(job, exchanges, started_at))


def keep_calls(rows: Sequence[UpstreamCall]) -> None:
    """Write rows of calls; of a job that was erased only that there were some, and when."""
    if not rows:
        return
    with transaction.atomic():
        erased = erasure.among({row.job_id for row in rows})
        for row in rows:
            if row.job_id in erased:
                row.request = row.response = ""
        UpstreamCall.objects.bulk_create(rows)


def calls(job: UpstreamJob, exchanges: Sequence[Exchange], started_at: dt.datetime) -> list[UpstreamCall]:
    """Return the rows of what was said about a job, unsaved."""
    return [UpstreamCall(job=job, started_at=started_at, **_columns(exchange, job)) for exchange in exchanges]


def _columns(exchange: Exchange, job: UpstreamJob) -> dict[str, Any]:
    columns = dataclasses.asdict(exchange)
    items = columns.pop("items")
    # Of an answer about many jobs each keeps its own part.
    columns["response"] = items.get(job.upstream_id, columns["response"])
    return columns


def _failed(job: UpstreamJob, error_class: ErrorClass, detail: str, **fields: Any) -> UpstreamJob:
    return _finish(job, Status.FAILED, error_class=error_class, error_detail=detail, **fields)


def _finish(job: UpstreamJob, status: UpstreamJob.Status, **fields: Any) -> UpstreamJob:
    now = clock.now()
    return _release(job, status=status, finished_at=now, due_at=now, **fields)


def _release(job: UpstreamJob, *, due_at: dt.datetime | None, **fields: Any) -> UpstreamJob:
    return _write(job, due_at=due_at, lease_token=None, claim_count=0, **fields)


def _write(job: UpstreamJob, **fields: Any) -> UpstreamJob:
    if job.lease_token is None:
        raise LeaseLost(f"{job} was given up by this worker already.")
    is_mine = UpstreamJob.objects.filter(pk=job.pk, lease_token=job.lease_token, status=job.status)
    if not is_mine.update(**_without_words_of_erased(fields)):
        raise LeaseLost(f"{job} is no longer leased to this worker.")
    for name, value in fields.items():
        setattr(job, name, value)
    return job


def _without_words_of_erased(fields: dict[str, Any]) -> dict[str, Any]:
    """Let what a provider says of a job that was erased not be written, as the row is at that moment."""
    is_erased = Q(request__prompt="")
    kept = dict(fields)
    if kept.get("error_detail"):
        kept["error_detail"] = Case(When(is_erased, then=Value("")), default=Value(kept["error_detail"]))
    if kept.get("result"):
        nothing, told = Value({}, JSONField()), Value(kept["result"], JSONField())
        kept["result"] = Case(When(is_erased, then=nothing), default=told)
    return kept


def _channel_name(job: UpstreamJob) -> str:
    return job.channel.name if job.channel else ""
