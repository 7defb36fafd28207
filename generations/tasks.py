"""Celery tasks of the pipeline: each drains a lane of due rows and carries nothing itself."""

import time
from functools import partial
from typing import Any

import structlog
from celery import shared_task

from billing.reconciliation import BEGINNING
from generations import deletion, idempotency, reconciliation, retention, runner, usage_hours
from providers import claims, late
from seedancee2.lib import heartbeats, lanes
from webhooks import pruning

log = structlog.get_logger(__name__)

COUNT_SECONDS = 20.0
POLL_THREADS = 32  # which mostly wait: for a turn in a channel's rate, or for an answer


@shared_task(name="generations.submit")
def submit(**_: Any) -> int:
    """Send queued jobs to providers."""
    pulse = partial(heartbeats.note, heartbeats.WORKER)
    pulse()
    return lanes.drain(
        "submit", claim=claims.claim_queued, work=runner.submit, renew=claims.renew, concurrency=16, pulse=pulse
    )


@shared_task(name="generations.poll")
def poll(**_: Any) -> int:
    """Ask providers what became of the jobs they have."""
    pulse = partial(heartbeats.note, heartbeats.POLL)
    pulse()
    desk = claims.Desk(threads=POLL_THREADS)
    return lanes.drain(
        "poll",
        claim=desk.claim,
        work=desk.served(runner.poll),
        renew=claims.renew,
        concurrency=POLL_THREADS,
        pulse=pulse,
    )


@shared_task(name="generations.late")
def look_late(**_: Any) -> int:
    """Look whether jobs that were given up succeeded after all."""
    return lanes.drain("late", claim=late.claim_due, work=late.look, concurrency=2)


@shared_task(name="generations.settle")
def settle(**_: Any) -> int:
    """Bring finished jobs home."""
    pulse = partial(heartbeats.note, heartbeats.MEDIA)
    pulse()
    return lanes.drain(
        "settle", claim=claims.claim_finished, work=runner.settle, renew=claims.renew, concurrency=2, pulse=pulse
    )


@shared_task(name="generations.deadlines")
def deadlines(**_: Any) -> int:
    """End generations that were left open past their deadline."""
    rows = runner.overdue(100)
    for generation in rows:
        try:
            runner.end_overdue(generation)
        except Exception:  # one row that cannot be ended must not keep the others open
            log.exception("overdue_not_ended", task_id=generation.public_id)
    return len(rows)


@shared_task(name="generations.reconcile")
def reconcile(*, is_whole: bool = False, **_: Any) -> int:
    """Check that every credit is explained: what moved in the last day, or everything there is."""
    return len(reconciliation.report(since=BEGINNING if is_whole else None))


@shared_task(name="generations.purge")
def purge(**_: Any) -> int:
    """Forget Idempotency-Keys whose day is over, what was said a month ago, and what organizations do not want kept."""
    return idempotency.purge() + pruning.prune() + retention.enforce()


@shared_task(name="generations.delete_files")
def delete_files(**_: Any) -> int:
    """Delete the files of media that were given up."""
    return deletion.sweep()


@shared_task(name="generations.count_usage")
def count_usage(**_: Any) -> int:
    """Count the hours that are past and not counted yet, those of a long history in several goes."""
    end = time.monotonic() + COUNT_SECONDS
    count = 0
    while time.monotonic() < end and usage_hours.count_next():
        count += 1
    return count
