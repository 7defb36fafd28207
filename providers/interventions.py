"""What staff do by hand: ask for a job now, choose its channel while nothing of it was sent, take a channel out."""

import dataclasses
import datetime as dt

from django.db import transaction
from django.db.models import Q

from accounts import audit
from accounts.models import User
from providers import health, routing
from providers.models import Channel, Route, UpstreamJob
from seedancee2.lib import clock, wakeups

Status = UpstreamJob.Status


class TooLate(Exception):
    """Nobody can say any more that nothing was sent: another submission could be paid for twice."""


def hurry(*, reference: str) -> int:
    """Make a task's waiting jobs due now; return how many were. A job in somebody's hands is left alone."""
    now = clock.now()
    waiting = UpstreamJob.objects.filter(reference=reference, lease_token__isnull=True, due_at__gt=now)
    with transaction.atomic():
        count = waiting.update(due_at=now)
        for lane in ("submit", "poll", "settle"):
            wakeups.on_commit(f"generations.{lane}")
    return count


def destinations(job: UpstreamJob) -> list[Channel]:
    """Return the channels that staff may choose for a job now; none where it may no longer be moved."""
    is_untouched = job.status == Status.QUEUED and job.lease_token is None
    return routing.choices(job) if is_untouched else []


def move(*, job_id: int, channel: Channel | None) -> UpstreamJob:
    """Let a queued job go to this channel and no other; None gives it back to the routing.

    Raises:
        TooLate: it is being sent at this moment, was sent, or ended.
        ValueError: the channel cannot take it.
    """
    with transaction.atomic():
        # The lock keeps a worker from claiming it meanwhile; one that has is told by the lease.
        job = UpstreamJob.objects.select_for_update().get(pk=job_id)
        if job.status != Status.QUEUED or job.lease_token is not None:
            raise TooLate(f"{job} is {job.status} or in a worker's hands: it may have been sent.")
        if channel is not None and channel not in routing.choices(job):
            raise ValueError(f"{channel} has no active route that can do what this task asks for.")
        job.channel = channel
        job.due_at = clock.now()
        job.save(update_fields=["channel", "due_at"])
        wakeups.on_commit("generations.submit")
    return job


@dataclasses.dataclass(frozen=True, slots=True)
class Draining:
    """What comes of taking a channel out: its open jobs run out, and some models may have no other way."""

    open_count: int
    stranded: list[str]


def foresee_draining(channel: Channel) -> Draining:
    """Tell what taking a channel out of the routing would touch."""
    ways = Route.objects.filter(is_active=True)
    own = set(ways.filter(channel=channel).values_list("model", "traffic"))
    others = ways.filter(channel__state=Channel.State.ACTIVE).exclude(channel=channel)
    left = own - set(others.values_list("model", "traffic"))
    open_count = UpstreamJob.objects.filter(channel=channel, status__in=UpstreamJob.SENT).count()
    return Draining(open_count, [f"{model} ({traffic})" for model, traffic in sorted(left)])


def begin_trial(*, channel: Channel, seconds: float) -> dt.datetime | None:
    """Take a channel's one turn for a test call; return until when at most, or None where another call has it."""
    now = clock.now()
    until = now + dt.timedelta(seconds=seconds)
    free = Channel.objects.filter(Q(tried_until=None) | Q(tried_until__lt=now), pk=channel.pk)
    return until if free.update(tried_until=until) else None


def end_trial(*, channel: Channel, until: dt.datetime) -> None:
    """Give the turn back, unless it has passed to another call."""
    Channel.objects.filter(pk=channel.pk, tried_until=until).update(tried_until=None)


def set_state(*, channel: Channel, state: Channel.State, actor: User, reason: str) -> Channel:
    """Let a channel take jobs, only finish those that it has, or do neither."""
    if not reason.strip():
        raise ValueError("Say why.")
    with transaction.atomic():
        locked = Channel.objects.select_for_update().get(pk=channel.pk)
        before, locked.state = locked.state, state
        locked.save(update_fields=["state"])
        audit.note(
            organization_id=None,
            actor=actor,
            action="channel.state",
            target=str(channel),
            before={"state": before},
            after={"state": state},
            reason=reason.strip(),
        )
        wakeups.on_commit("generations.submit")
    return locked


def forget_failures(*, channel: Channel, actor: User, reason: str) -> int:
    """Close a channel's breakers by hand; return how many rows were against it."""
    if not reason.strip():
        raise ValueError("Say why.")
    with transaction.atomic():
        count = health.reset(channel)
        audit.note(
            organization_id=None,
            actor=actor,
            action="channel.failures_forgotten",
            target=str(channel),
            after={"rows": count},
            reason=reason.strip(),
        )
        wakeups.on_commit("generations.submit")
    return count
