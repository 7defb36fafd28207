"""Usage counted in advance: sums of each past hour, so that a summary costs no more for a long history (ADR 0008).

A task counts in the hour of its creation. An hour is counted once it is past and every task up to its end has ended;
from then on only a refund changes it, and that is added here in the refund's own transaction. What is not counted yet
is summed from the tasks, so a counter that stands still makes summaries slower, never wrong.
"""

import datetime as dt
from typing import Any

from django.db import connection, transaction

from generations.models import Generation, UsageHour, UsageMark
from seedancee2.lib import clock
from seedancee2.lib.database import patience

HOUR = dt.timedelta(hours=1)
_MILLISECOND = dt.timedelta(milliseconds=1)
LAG = dt.timedelta(minutes=10)  # longer than a creation can take from its time to its commit
PATIENCE = 60.0  # seconds that one hour may take

# Held by the counter alone, and by refunds together: a refund is either read by the counter or finds its row.
_COUNTER, _REFUND = "SELECT pg_advisory_xact_lock(%s)", "SELECT pg_advisory_xact_lock_shared(%s)"
_LOCK = int.from_bytes(b"usagehrs", signed=True)

# Organization by organization, since the index generations_list begins with it.
_FIRST = """
    SELECT min(one.created_at) FROM accounts_organization o
     CROSS JOIN (VALUES (false), (true)) AS mode (is_test)
     CROSS JOIN LATERAL (SELECT g.created_at FROM generations_generation g
                          WHERE g.organization_id = o.id AND g.is_test = mode.is_test
                          ORDER BY g.created_at LIMIT 1) one
"""
_COUNT = """
    INSERT INTO generations_usagehour
           (organization_id, is_test, hour, model, completed_jobs, failed_jobs, credits_charged, credits_refunded)
    SELECT o.id, mode.is_test, %(hour)s, ended.* FROM accounts_organization o
     CROSS JOIN (VALUES (false), (true)) AS mode (is_test)
     CROSS JOIN LATERAL (SELECT g.model, count(*) FILTER (WHERE g.status = 'completed'),
                                count(*) FILTER (WHERE g.status = 'failed'), sum(g.credits), sum(g.credits_refunded)
                           FROM generations_generation g
                          WHERE g.organization_id = o.id AND g.is_test = mode.is_test
                            AND g.created_at >= %(hour)s AND g.created_at < %(end)s
                          GROUP BY g.model) ended
"""
_TASKS = """
    SELECT (created_at AT TIME ZONE 'UTC')::date AS day, model AS "group",
           count(*) FILTER (WHERE status = 'pending') AS pending_jobs,
           count(*) FILTER (WHERE status = 'processing') AS processing_jobs,
           count(*) FILTER (WHERE status = 'completed') AS completed_jobs,
           count(*) FILTER (WHERE status = 'failed') AS failed_jobs,
           coalesce(sum(credits) FILTER (WHERE status IN ('completed', 'failed')), 0) AS charged,
           coalesce(sum(credits_refunded) FILTER (WHERE status IN ('completed', 'failed')), 0) AS refunded
      FROM generations_generation
     WHERE organization_id = %(organization)s AND is_test = %(is_test)s AND {range}
     GROUP BY day, model
"""
# The hours that are counted, and the tasks before and after them.
_SUMS = f"""
    SELECT day, "group", sum(pending_jobs)::bigint AS pending_jobs, sum(processing_jobs)::bigint AS processing_jobs,
           sum(completed_jobs)::bigint AS completed_jobs, sum(failed_jobs)::bigint AS failed_jobs,
           sum(charged)::bigint AS charged, sum(refunded)::bigint AS refunded
      FROM (
        {_TASKS.format(range="created_at >= %(since)s AND created_at < %(counted_since)s")}
         UNION ALL
        SELECT (hour AT TIME ZONE 'UTC')::date, model, 0, 0, completed_jobs, failed_jobs, credits_charged,
               credits_refunded
          FROM generations_usagehour
         WHERE organization_id = %(organization)s AND is_test = %(is_test)s AND hour >= %(counted_since)s
           AND hour < %(counted_until)s
         UNION ALL
        {_TASKS.format(range="created_at >= %(counted_until)s AND created_at <= %(until)s")}
      ) part
     GROUP BY day, "group"
"""  # noqa: S608 - made of constants only


def counted_until() -> dt.datetime | None:
    """Return the end of the last counted hour; None where none is."""
    return UsageMark.objects.values_list("counted_until", flat=True).first()


def sums(*, organization_id: int, is_test: bool, since: dt.datetime, until: dt.datetime) -> list[dict[str, Any]]:
    """Sum the tasks created from `since` to `until`, both included, by day and by model, which is the `group`.

    One statement, so that all views of the sums are of the same moment.
    """
    first, last = _counted(since, until)
    values: dict[str, Any] = {
        "organization": organization_id,
        "is_test": is_test,
        "since": since,
        "counted_since": first,
        "counted_until": last,
        "until": until,
    }
    with connection.cursor() as cursor:
        cursor.execute(_SUMS, values)
        names = [column.name for column in cursor.description]
        return [dict(zip(names, row, strict=True)) for row in cursor.fetchall()]


def count_next() -> bool:
    """Count the next hour, if it is past and all its tasks have ended; tell whether it was."""
    with patience(seconds=PATIENCE), transaction.atomic(), connection.cursor() as cursor:
        cursor.execute(_COUNTER, [_LOCK])
        hour = counted_until()
        if hour is None:
            cursor.execute(_FIRST)
            first = cursor.fetchone()[0]
            if first is None:
                return False
            hour = floor(first)
        end = hour + HOUR
        is_open = Generation.objects.filter(status__in=Generation.OPEN, created_at__lt=end)
        if end > clock.now() - LAG or is_open.exists():
            return False
        cursor.execute(_COUNT, {"hour": hour, "end": end})
        UsageMark.objects.update_or_create(pk=1, defaults={"counted_until": end})
    return True


def add_refund(generation: Generation, amount: int) -> None:
    """Add a refund to the hour of its task, if that is counted; in the transaction that changes the task, before it."""
    with connection.cursor() as cursor:
        cursor.execute(_REFUND, [_LOCK])
        cursor.execute(
            "UPDATE generations_usagehour SET credits_refunded = credits_refunded + %s"
            " WHERE organization_id = %s AND is_test = %s AND hour = %s AND model = %s",
            [amount, generation.organization_id, generation.is_test, floor(generation.created_at), generation.model],
        )


def forget(*, since: dt.datetime) -> None:
    """Throw away what is counted from an hour on; it will be counted anew."""
    hour = floor(since)
    with transaction.atomic(), connection.cursor() as cursor:
        cursor.execute(_COUNTER, [_LOCK])
        UsageHour.objects.filter(hour__gte=hour).delete()
        UsageMark.objects.filter(counted_until__gt=hour).update(counted_until=hour)


def floor(moment: dt.datetime) -> dt.datetime:
    """Return the beginning of a moment's hour, in UTC."""
    return moment.astimezone(dt.UTC).replace(minute=0, second=0, microsecond=0)


def ceil(moment: dt.datetime) -> dt.datetime:
    """Return a moment that begins an hour as it is, else the beginning of the next one, in UTC."""
    hour = floor(moment)
    return hour if hour == moment else hour + HOUR


def _counted(since: dt.datetime, until: dt.datetime) -> tuple[dt.datetime, dt.datetime]:
    """Return where the counted whole hours of a range begin and end; `since` twice where there are none.

    More may be counted before they are read, which does no harm: what is counted stays, and no other hours are read.
    """
    mark = counted_until()
    if mark is None or since >= mark:
        return since, since
    first = ceil(since)
    last = floor(min(until, mark) + _MILLISECOND)  # times have no parts of a millisecond
    return (first, last) if first < last else (since, since)
