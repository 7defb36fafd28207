"""Celery tasks of the pipeline: each drains a lane of due rows and carries nothing itself."""

from typing import Any

import structlog
from celery import shared_task

from billing.reconciliation import BEGINNING
from generations import idempotency, reconciliation, runner
from providers import jobs
from seedancee2.lib import heartbeats, lanes

log = structlog.get_logger(__name__)


@shared_task(name="generations.submit")
def submit(**_: Any) -> int:
    """Send queued jobs to providers."""
    heartbeats.note(heartbeats.WORKER)
    return lanes.drain(
        "submit", claim=lambda n: jobs.claim_due("submit", n), work=runner.submit, renew=jobs.renew, concurrency=4
    )


@shared_task(name="generations.poll")
def poll(**_: Any) -> int:
    """Ask providers what became of the jobs they have."""
    return lanes.drain(
        "poll", claim=lambda n: jobs.claim_due("poll", n), work=runner.poll, renew=jobs.renew, concurrency=8
    )


@shared_task(name="generations.settle")
def settle(**_: Any) -> int:
    """Bring finished jobs home."""
    heartbeats.note(heartbeats.MEDIA)
    return lanes.drain(
        "settle", claim=lambda n: jobs.claim_due("settle", n), work=runner.settle, renew=jobs.renew, concurrency=1
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
    """Forget Idempotency-Keys whose day is over."""
    return idempotency.purge()
