"""Submissions: a job is sent to a provider once, and looked for where nobody knows whether it arrived."""

import datetime as dt
import hashlib
import secrets
import threading
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import structlog
from django.db import IntegrityError, OperationalError
from django.db.models import Q

from providers import channels, health, jobs, routing
from providers.adapters.base import (
    Accepted,
    Adapter,
    ErrorClass,
    JobRequest,
    LookFailed,
    Lost,
    Ref,
    Refused,
    Submission,
    Ticket,
    Unknown,
    Unreadable,
)
from providers.models import Channel, Route, UpstreamJob
from seedancee2.lib import clock, lanes

log = structlog.get_logger(__name__)

LOOKS = 3  # that must all find nothing before a lost submission is given up
GRACE = dt.timedelta(seconds=120)  # and how much time must have passed
AT_ONCE = 12  # submissions to one channel in one process: a slow one must leave threads to the others
_HERE_FULL_PAUSE = 1.0  # seconds
_TAKEN_PAUSE = 0.2  # seconds
_PLACE_PATIENCE = 2.0  # seconds
DATABASE_TRIES, DATABASE_PAUSE_SECONDS = 10, 1.0

_under_way: Counter[int] = Counter()
_lock = threading.Lock()


def submit(job: UpstreamJob) -> UpstreamJob:
    """Send a claimed, queued job to the best provider with room; what is not certain afterwards stays `submitting`.

    Raises:
        LeaseLost: another worker has the job.
    """
    if clock.now() >= job.deadline_at:
        return jobs.expired(job, "No route was free before the deadline.")
    pause = jobs.NO_ROUTE_PAUSE
    for route in routing.candidates(job):
        with _place(route.channel) as has_place:
            if not has_place:
                pause = _HERE_FULL_PAUSE
                continue
            # A channel whose credential does not open raises here, before anything is said to have been sent.
            credential = channels.newest_credential(route.channel)
            adapter = channels.open_adapter(route.channel, credential)
            token = secrets.token_urlsafe(32)
            try:
                jobs.begin(job, route, credential=credential, token_digest=digest_of(token))
            except jobs.NoRoom:
                pause = _TAKEN_PAUSE  # it is not claimed again before there is room, and keeps its turn until then
                continue
            return _send(job, route, adapter, token)
    return jobs.postpone(job, seconds=pause)


def recover(job: UpstreamJob) -> UpstreamJob:
    """Look for a claimed job whose submission was cut short; give it up only when it is certain or time is up.

    Raises:
        LeaseLost: another worker has the job.
    """
    now = clock.now()
    found: Accepted | None = None
    unheard_since: dt.datetime | None = None
    is_miss = can_look = False
    try:
        adapter = jobs.open_adapter(job)
        lanes.release_connections()
        found = _hinted(job, adapter)
        if found is None:
            candidates = adapter.recover(_lost(job))
            can_look = candidates is not None
            unclaimed = _unclaimed(job, candidates or ())
            is_miss = can_look and not unclaimed
            if len(unclaimed) == 1 and (unclaimed[0].is_certain or not _has_rivals(job)):
                found = unclaimed[0]
            elif unclaimed:
                log.error(
                    "lost_submission_ambiguous", job=str(job), upstream_ids=[one.upstream_id for one in unclaimed]
                )
        jobs.record_calls(job, adapter.exchanges, now)
    except LookFailed as error:
        log.warning("look_failed", job=str(job), detail=str(error))
        can_look, unheard_since = True, job.unheard_since or now
    except Exception:  # a look that broke told nothing: it is not a miss
        log.exception("recover_raised", job=str(job))
        can_look, unheard_since = True, job.unheard_since or now
    if found is not None:
        try:
            return jobs.accepted(job, found)
        except IntegrityError:  # a callback told an id that is another job's
            log.error("hint_belongs_to_another_job", job=str(job), upstream_id=found.upstream_id)
            return jobs.unresolved(job, due_at=clock.now() + GRACE / LOOKS, hinted_id="")
    return _still_lost(job, can_look=can_look, is_miss=is_miss, unheard_since=unheard_since)


def hint(*, job: UpstreamJob, upstream_id: str) -> None:
    """Take a callback as a hint: ask about the job now, under the id that it told where we know none."""
    now = clock.now()
    one = UpstreamJob.objects.filter(pk=job.pk)
    if upstream_id:
        one.filter(upstream_id="", hinted_id="").update(hinted_id=upstream_id[:200])
    # A job in work keeps its lease: whoever holds it asks anyway, or has just asked.
    one.filter(status__in=UpstreamJob.SENT, lease_token__isnull=True, due_at__gt=now).update(due_at=now)
    # A job that we gave up may have lived on; one that is watched already was given up for its silence.
    is_failed = Q(status=UpstreamJob.Status.FAILED)
    given_up = Q(status=UpstreamJob.Status.EXPIRED) | is_failed & (Q(upstream_id="") | Q(watch_at__isnull=False))
    one.filter(given_up, late_at__isnull=True).update(watch_at=now)


def find(*, channel_name: str, token: str) -> UpstreamJob | None:
    """Return the job that a callback's token belongs to, or None."""
    return (
        UpstreamJob.objects.select_related("channel", "credential")
        .filter(callback_token_digest=digest_of(token), channel__name=channel_name)
        .first()
    )


def digest_of(token: str) -> bytes:
    """Return what is stored of a callback token."""
    return hashlib.sha256(token.encode()).digest()


def _send(job: UpstreamJob, route: Route, adapter: Adapter, token: str) -> UpstreamJob:
    lanes.release_connections()
    started_at = clock.now()
    ticket = Ticket(token, channels.callback_url(route.channel, token), _tag(digest_of(token)))
    outcome: Submission
    try:
        outcome = adapter.submit(JobRequest.from_json(job.request), upstream_model=route.upstream_model, ticket=ticket)
    except Exception as error:  # whatever broke, bytes may have left: only "unknown" is safe to say
        log.exception("submit_raised", job=str(job), channel=route.channel.name)
        outcome = Unknown(f"The adapter raised {type(error).__name__}.")
    try:
        match outcome:
            case Accepted():
                return _note_accepted(job, outcome)
            case Refused():
                return jobs.refused(job, outcome)
        # Whoever answers nothing of use is avoided, or every task would follow this one into the same silence.
        health.note_failed(job, ErrorClass.TRANSIENT, outcome.detail, is_of_submit=True)
        log.warning("submit_outcome_unknown", job=str(job), channel=route.channel.name, detail=outcome.detail)
        return jobs.unresolved(job, due_at=clock.now() + GRACE / LOOKS, error_detail=outcome.detail)
    finally:
        # After the outcome: no trouble with the log may cost the id of a job that we pay for.
        jobs.record_calls(job, adapter.exchanges, started_at)


def _note_accepted(job: UpstreamJob, outcome: Accepted) -> UpstreamJob:
    """Write the id of a job down, whatever it takes: it is paid for, and some providers never tell it again."""
    for _ in range(DATABASE_TRIES):
        try:
            return jobs.accepted(job, outcome)
        except jobs.LeaseLost:
            hint(job=job, upstream_id=outcome.upstream_id)
            raise
        except OperationalError:
            log.exception("accepted_not_noted", job=str(job), upstream_id=outcome.upstream_id)
            time.sleep(DATABASE_PAUSE_SECONDS)
    return jobs.accepted(job, outcome)


def _hinted(job: UpstreamJob, adapter: Adapter) -> Accepted | None:
    """Return the job under the id that a callback told, once the provider itself confirms that there is one."""
    if not job.hinted_id:
        return None
    progress = adapter.fetch(Ref(job.hinted_id, job.upstream_model))
    return None if isinstance(progress, Unreadable) else Accepted(job.hinted_id)


def _has_rivals(job: UpstreamJob) -> bool:
    """Tell whether a job that is only like this one may be another of ours, whose id is not known yet."""
    others = UpstreamJob.objects.exclude(pk=job.pk).filter(channel=job.channel, upstream_model=job.upstream_model)
    return others.filter(upstream_id="", status=UpstreamJob.Status.SUBMITTING).exists()


def _unclaimed(job: UpstreamJob, found: Sequence[Accepted]) -> list[Accepted]:
    """Leave out what belongs to other jobs of ours."""
    known = set(
        UpstreamJob.objects.filter(channel=job.channel, upstream_id__in=[one.upstream_id for one in found]).values_list(
            "upstream_id", flat=True
        )
    )
    return [one for one in found if one.upstream_id not in known]


def _still_lost(job: UpstreamJob, *, can_look: bool, is_miss: bool, unheard_since: dt.datetime | None) -> UpstreamJob:
    now = clock.now()
    waited = now - (job.submit_started_at or now)
    misses = job.poll_count + is_miss
    if now >= job.deadline_at:
        return jobs.expired(job, "Nobody could tell before the deadline whether it was sent.")
    if misses >= LOOKS and waited >= GRACE:
        detail = "The submission was interrupted, and the provider does not know the job."
        return jobs.abandoned(job, detail, is_final=False)
    channel = job.channel
    if not can_look and channel is not None and waited >= dt.timedelta(seconds=channel.unknown_grace_seconds):
        detail = "Nobody could tell whether the submission arrived: the provider has no list, and did not call back."
        return jobs.abandoned(job, detail, is_final=channel.unknown_policy == Channel.UnknownPolicy.FAIL)
    if unheard_since is not None and jobs.may_move_on(job, silent_since=unheard_since):
        detail = "Nobody could tell whether the submission arrived: the provider's list could not be read."
        return jobs.abandoned(job, detail, is_final=False)
    return jobs.unresolved(job, due_at=now + GRACE / LOOKS, poll_count=misses, unheard_since=unheard_since)


def _lost(job: UpstreamJob) -> Lost:
    digest = bytes(job.callback_token_digest or b"")
    return Lost(
        request=JobRequest.from_json(job.request),
        upstream_model=job.upstream_model,
        tag=_tag(digest),
        token_digest=digest,
        started_at=job.submit_started_at or job.created_at,
    )


def _tag(digest: bytes) -> str:
    return digest.hex()[:32]


def _take_place(channel: Channel) -> bool:
    with _lock:
        has_place = _under_way[channel.pk] < AT_ONCE
        _under_way[channel.pk] += has_place
        return has_place


@contextmanager
def _place(channel: Channel) -> Iterator[bool]:
    # Others are mostly done within a moment; who is put off waits for the next sweep, or for ever without a beat.
    end = time.monotonic() + _PLACE_PATIENCE
    while not (has_place := _take_place(channel)) and time.monotonic() < end:
        time.sleep(0.05)
    try:
        yield has_place
    finally:
        if has_place:
            with _lock:
                _under_way[channel.pk] -= 1
