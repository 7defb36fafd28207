"""Late ends: jobs that we gave up may live on at the provider. What they bring is our cost and never charged."""

import datetime as dt

import structlog
from django.db import connection

from providers import jobs
from providers.adapters.base import Failed, Pending, Ref, Succeeded
from providers.models import UpstreamJob
from seedancee2.lib import clock, lanes

log = structlog.get_logger(__name__)

FIRST_LOOK = dt.timedelta(minutes=5)
NEXT_LOOK = dt.timedelta(minutes=30)
LAST_LOOK = dt.timedelta(hours=24)  # after the deadline; providers forget jobs and outputs at about that time


def let_go(job: UpstreamJob) -> None:
    """Settle a job that was given up: ask its provider to stop it, and look later whether it did."""
    if not job.upstream_id:
        jobs.settled(job)
        return
    try:
        adapter = jobs.open_adapter(job)
        lanes.release_connections()
        started_at = clock.now()
        adapter.cancel(jobs.ref(job))
        jobs.record_calls(job, adapter.exchanges, started_at)
    except Exception:  # a wish only; the job is looked at later whatever came of it
        log.exception("cancel_raised", job=str(job))
    jobs.settled(job, watch_at=clock.now() + FIRST_LOOK)


def claim_due(limit: int) -> list[UpstreamJob]:
    """Take jobs that are due for a look; a look that dies is made again half an hour later."""
    now = clock.now()
    with connection.cursor() as cursor:
        # Relies on the index providers_job_watch.
        cursor.execute(
            """
            WITH chosen AS MATERIALIZED (
                SELECT id FROM providers_upstreamjob WHERE watch_at <= %s
                 ORDER BY watch_at LIMIT %s FOR UPDATE SKIP LOCKED
            )
            UPDATE providers_upstreamjob SET watch_at = %s WHERE id IN (SELECT id FROM chosen) RETURNING id
            """,
            [now, limit, now + NEXT_LOOK],
        )
        ids = [row[0] for row in cursor.fetchall()]
    return list(UpstreamJob.objects.filter(pk__in=ids).select_related("channel", "credential"))


def look(job: UpstreamJob) -> None:
    """Ask once more what became of a job that was given up, and note a success as ours to pay."""
    now = clock.now()
    if now >= job.deadline_at + LAST_LOOK:
        UpstreamJob.objects.filter(pk=job.pk).update(watch_at=None)  # first, for a look that breaks is the last too
    adapter = jobs.open_adapter(job)
    lanes.release_connections()
    ref = jobs.ref(job) if job.upstream_id else Ref(job.hinted_id, job.upstream_model)
    progress = adapter.fetch(ref)
    one = UpstreamJob.objects.filter(pk=job.pk, late_at__isnull=True)
    if isinstance(progress, Succeeded):
        # The id is kept where only a callback had told it: the provider's bill names it.
        upstream_id = job.upstream_id or job.hinted_id
        if one.update(late_at=now, watch_at=None, upstream_id=upstream_id):
            jobs.record_calls(job, adapter.exchanges, now)
            log.error("late_success", task_id=job.reference, job=str(job), upstream_id=upstream_id)
    elif isinstance(progress, Failed):
        one.update(watch_at=None)
    elif isinstance(progress, Pending):
        adapter.cancel(ref)  # one that fell silent could not be stopped when it was given up
