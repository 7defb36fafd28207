"""Reconciliation of the whole: do tasks, holds, ledger, files and webhooks tell the same story?"""

import datetime as dt

import structlog
from botocore.exceptions import ClientError
from django.core.files.storage import default_storage

from billing import reconciliation as ledger_reconciliation
from billing.models import Finding
from billing.reconciliation import BEGINNING, Discrepancy, find
from generations.models import OutputAsset, ReconciliationRun
from seedancee2.lib import clock

log = structlog.get_logger(__name__)

WINDOW = dt.timedelta(hours=24)  # what the frequent look goes back to
RUNS_KEPT = dt.timedelta(days=30)
MAX_FILES = 500  # stored files asked for in one look: the newest, unless all are wanted

_FILE_RULE = "file_is_stored_whole"
_CHECKS = {
    "hold_open_while_task_open": """
        SELECT 'task ' || public_id, format('is %%s, its hold is %%s', status, hold)
          FROM (SELECT public_id, status,
                       coalesce((SELECT state FROM billing_reservation WHERE reference = public_id), 'missing') AS hold
                  FROM generations_generation
                 WHERE NOT is_test
                   AND (public_id >= %(first_reference)s OR status IN ('pending', 'processing'))) g
         WHERE hold <> CASE status WHEN 'completed' THEN 'captured' WHEN 'failed' THEN 'released' ELSE 'held' END
    """,
    "hold_is_the_price": """
        SELECT 'task ' || g.public_id, format('costs %%s credits, its hold is %%s; %%s refunded, the hold says %%s',
               g.credits, r.amount, g.credits_refunded, r.refunded)
          FROM generations_generation g
          JOIN billing_reservation r ON r.reference = g.public_id
         WHERE r.reference >= %(first_reference)s
           AND (g.is_test OR g.credits <> r.amount OR g.organization_id <> r.account_id
                OR g.credits_refunded <> CASE g.status WHEN 'failed' THEN r.amount ELSE r.refunded END)
    """,
    "hold_has_a_task": """
        SELECT 'reservation ' || r.reference, 'holds credits for a task that does not exist'
          FROM billing_reservation r
          LEFT JOIN generations_generation g ON g.public_id = r.reference
         WHERE g.public_id IS NULL AND (r.reference >= %(first_reference)s OR r.state = 'held')
    """,
    "ended_task_told_its_callback": """
        SELECT 'task ' || g.public_id, format('is %%s, but no webhook was written', g.status)
          FROM generations_generation g
         WHERE g.callback_url <> '' AND g.status IN ('completed', 'failed') AND g.public_id >= %(first_reference)s
           AND NOT EXISTS (SELECT FROM webhooks_delivery d
                            WHERE d.reference = g.public_id AND d.event = 'video.generation.' || g.status)
    """,
    "completed_task_has_its_files": """
        SELECT 'task ' || g.public_id, 'is completed without a stored video and poster'
          FROM generations_generation g
         WHERE g.status = 'completed' AND g.public_id >= %(first_reference)s
           AND (SELECT count(*) FROM generations_outputasset a
                 WHERE a.generation_id = g.public_id AND a.kind IN ('video', 'thumbnail')) <> 2
    """,
    "open_task_within_deadline": """
        SELECT 'task ' || g.public_id, format('is still %%s past its deadline', g.status)
          FROM generations_generation g
         WHERE g.status IN ('pending', 'processing') AND g.deadline_at < now() - interval '2 minutes'
    """,
    # The sandbox's books are in this database. What a provider made without a job of ours was paid for nobody.
    "provider_run_has_its_job": """
        SELECT 'run ' || s.run_id, coalesce('belongs to job ' || j.reference || '#' || j.number || ', which is '
                                            || j.status || ' without it', 'belongs to no job of ours')
          FROM providers_sandboxrun s
          LEFT JOIN providers_upstreamjob j USING (callback_token_digest)
         WHERE s.created_at >= greatest(%(since)s, now() - interval '30 days')
           AND (j.id IS NULL OR j.status <> 'submitting' AND j.upstream_id <> s.run_id)
    """,
    "usage_equals_ledger": """
        SELECT 'organization ' || account_id,
               format('tasks sum to %%s charged and %%s given back, the ledger to %%s and %%s',
                      coalesce(u.charged, 0), coalesce(u.refunded, 0), coalesce(l.charged, 0), coalesce(l.refunded, 0))
          FROM (SELECT organization_id AS account_id, sum(credits) AS charged, sum(credits_refunded) AS refunded
                  FROM generations_generation
                 WHERE NOT is_test AND status IN ('completed', 'failed') AND public_id >= %(first_reference)s
                 GROUP BY organization_id) u
          FULL JOIN (SELECT account_id, sum(-reserved_change) FILTER (WHERE kind <> 'refund') AS charged,
                            sum(available_change) AS refunded
                       FROM (SELECT * FROM billing_ledgerentry
                              WHERE kind IN ('capture', 'release') AND reference >= %(first_reference)s
                             UNION ALL
                             SELECT * FROM billing_ledgerentry
                              WHERE kind = 'refund' AND reference >= %(first_reference)s) e
                      GROUP BY account_id) l USING (account_id)
         WHERE coalesce(u.charged, 0) <> coalesce(l.charged, 0) OR coalesce(u.refunded, 0) <> coalesce(l.refunded, 0)
    """,
    "counted_hours_equal_tasks": """
        SELECT 'organization ' || organization_id,
               format('%%s hour %%s of %%s says %%s jobs, %%s of them failed, %%s charged and %%s given back; its tasks'
                      ' say %%s, %%s, %%s and %%s', CASE WHEN is_test THEN 'test' ELSE 'live' END,
                      to_char(hour AT TIME ZONE 'UTC', 'YYYY-MM-DD HH24:MI'), model, coalesce(h.jobs, 0),
                      coalesce(h.failed, 0), coalesce(h.charged, 0), coalesce(h.refunded, 0), coalesce(t.jobs, 0),
                      coalesce(t.failed, 0), coalesce(t.charged, 0), coalesce(t.refunded, 0))
          FROM (SELECT organization_id, is_test, hour, model, completed_jobs + failed_jobs AS jobs,
                       failed_jobs AS failed, credits_charged AS charged, credits_refunded AS refunded
                  FROM generations_usagehour WHERE hour >= date_trunc('hour', %(since)s + interval '1 hour', 'UTC')) h
          FULL JOIN (SELECT organization_id, is_test, date_trunc('hour', created_at, 'UTC') AS hour, model,
                            count(*) AS jobs, count(*) FILTER (WHERE status = 'failed') AS failed,
                            sum(credits) AS charged, sum(credits_refunded) AS refunded
                       FROM generations_generation JOIN generations_usagemark ON created_at < counted_until
                      WHERE created_at >= date_trunc('hour', %(since)s + interval '1 hour', 'UTC')
                        AND public_id >= %(first_reference)s
                      GROUP BY 1, 2, 3, 4) t USING (organization_id, is_test, hour, model)
         WHERE (h.jobs, h.failed, h.charged, h.refunded) IS DISTINCT FROM (t.jobs, t.failed, t.charged, t.refunded)
    """,
}


def discrepancies(*, since: dt.datetime = BEGINNING, is_every_file: bool = False) -> list[Discrepancy]:
    """Return every row that breaks a rule; tasks and movements are checked from `since` on."""
    found = ledger_reconciliation.discrepancies(since=since)
    with ledger_reconciliation.looking() as cursor:
        for rule, sql in _CHECKS.items():
            found += find(cursor, rule, sql, since=since)
    return found + _missing_files(since, is_every_file=is_every_file)


def report(*, since: dt.datetime | None = None, is_every_file: bool = False) -> list[Discrepancy]:
    """Look for discrepancies, keep them as findings for the staff, and raise an alarm in the log for each.

    Without `since` the look goes back for a day; a finding that a look at everything no longer has is closed.
    """
    now = clock.now()
    since = since or now - WINDOW
    found = discrepancies(since=since, is_every_file=is_every_file)
    for item in found:
        log.error("discrepancy", rule=item.rule, subject=item.subject, detail=item.detail)
        Finding.objects.update_or_create(
            rule=item.rule,
            subject=item.subject,
            resolved_at=None,
            defaults={"detail": item.detail, "seen_at": now},
            create_defaults={"detail": item.detail, "seen_at": now, "found_at": now},
        )
    if since == BEGINNING:
        Finding.objects.filter(resolved_at=None, seen_at__lt=now).update(resolved_at=now)
    ReconciliationRun.objects.create(started_at=now, is_whole=since == BEGINNING, finding_count=len(found))
    ReconciliationRun.objects.filter(finished_at__lt=now - RUNS_KEPT).delete()
    return found


def _missing_files(since: dt.datetime, *, is_every_file: bool) -> list[Discrepancy]:
    """Ask the storage for the newest files and for those missed before, or for all of them."""
    kept = OutputAsset.objects.filter(deletion_asked_at__isnull=True)  # what a customer had deleted is no damage
    missed = Finding.objects.filter(rule=_FILE_RULE, resolved_at=None).values_list("subject", flat=True)
    paths = [subject.removeprefix("file ") for subject in missed]
    found = {item.subject: item for item in map(_file_discrepancy, kept.filter(path__in=paths)) if item}
    files = kept.order_by("-id")  # as they were stored: no index leads to the time of that
    page = list(files[:MAX_FILES])
    while page:
        young = [asset for asset in page if asset.stored_at >= since]
        found |= {item.subject: item for item in map(_file_discrepancy, young) if item}
        goes_on = is_every_file and len(young) == len(page)
        page = list(files.filter(pk__lt=page[-1].pk)[:MAX_FILES]) if goes_on else []
    return list(found.values())


def _file_discrepancy(asset: OutputAsset) -> Discrepancy | None:
    try:
        size = default_storage.size(asset.path)
    except (FileNotFoundError, ClientError):
        return Discrepancy(_FILE_RULE, f"file {asset.path}", "is not in the storage")
    if size == asset.size_bytes:
        return None
    detail = f"has {size} bytes in the storage, {asset.size_bytes} were stored"
    return Discrepancy(_FILE_RULE, f"file {asset.path}", detail)
