"""The figures of the staff's front page: eight statements, each bounded, so that no backlog makes the page slow.

Counts stop at MOST; what is too much to count is shown as "MOST or more".
"""

import dataclasses
import datetime as dt
import decimal
from collections.abc import Iterable
from typing import Any

import redis
import structlog
from django.conf import settings
from django.core.cache import cache
from django.db import connection
from django.db.models import Count, OuterRef, Q, Subquery, Sum, Value

from generations import costs
from generations.models import Generation
from providers.claims import LANES
from providers.models import UpstreamJob
from seedancee2.console.alarms import NEWEST_JOBS, PARTS, UNKNOWN_AFTER
from seedancee2.lib import clock, heartbeats

log = structlog.get_logger(__name__)

MOST = 10_000
NEWEST_PAID = 20_000  # jobs whose cost is summed
DAYS = 30
DAYS_AT_ONCE = 4  # summed for one look: on a first one, or after a loss of Redis, the rest comes with the next looks
KEPT_SECONDS = 10  # so that many people looking cost as much as one
_DAY_KEPT_SECONDS = 40 * 86_400
_SETTLED_AFTER = dt.timedelta(hours=1)  # a day's sums are kept once no transaction can still write into it

_STATUSES = {status.value: lane for lane, statuses in LANES.items() for status in statuses}

_JOBS = """
    SELECT one.status,
           (SELECT count(*) FROM (SELECT FROM providers_upstreamjob job WHERE job.status = one.status
                                     AND job.due_at IS NOT NULL LIMIT %(most)s) counted),
           (SELECT count(*) FROM (SELECT FROM providers_upstreamjob job WHERE job.status = one.status
                                     AND job.due_at <= %(now)s LIMIT %(most)s) counted),
           (SELECT min(job.due_at) FROM providers_upstreamjob job WHERE job.status = one.status
                                     AND job.due_at IS NOT NULL),
           (SELECT count(*) FROM (SELECT FROM providers_upstreamjob job WHERE job.status = one.status
                                     AND one.status = 'submitting' AND job.due_at IS NOT NULL
                                     AND job.submit_started_at < %(unknown)s LIMIT %(most)s) counted)
      FROM unnest(%(statuses)s::text[]) AS one (status)
"""
# The first condition on the deadline is always true; it leads to the index of open tasks.
_TASKS = """
    SELECT status, count(*), count(*) FILTER (WHERE created_at <= %(now)s - interval '5 minutes'),
           count(*) FILTER (WHERE created_at <= %(now)s - interval '15 minutes'),
           count(*) FILTER (WHERE created_at <= %(now)s - interval '1 hour'),
           count(*) FILTER (WHERE deadline_at < %(now)s), min(created_at)
      FROM (SELECT status, created_at, deadline_at FROM generations_generation
             WHERE status IN ('pending', 'processing') AND deadline_at > '2000-01-01' LIMIT %(most)s) opened
     GROUP BY status
"""
_LAGS = """
    SELECT (SELECT percentile_cont(0.5) WITHIN GROUP (ORDER BY extract(epoch FROM task.finished_at - job.finished_at))
              FROM (SELECT reference, status, finished_at FROM providers_upstreamjob ORDER BY id DESC LIMIT 1000) job
              JOIN generations_generation task ON task.public_id = job.reference AND task.status = 'completed'
             WHERE job.status = 'succeeded'),
           (SELECT percentile_cont(0.5) WITHIN GROUP
                       (ORDER BY greatest(0, extract(epoch FROM job.finished_at - told.received_at)))
              FROM (SELECT job_id, received_at FROM webhooks_callback ORDER BY id DESC LIMIT 500) told
              JOIN providers_upstreamjob job ON job.id = told.job_id AND job.finished_at IS NOT NULL)
"""
_WEBHOOKS = """
    SELECT count(*), count(*) FILTER (WHERE attempt_count > 0), count(*) FILTER (WHERE due_at <= %(now)s),
           min(due_at), count(DISTINCT host) FILTER (WHERE attempt_count > 0)
      FROM (SELECT attempt_count, due_at, host FROM webhooks_delivery WHERE due_at IS NOT NULL LIMIT %(most)s) pending
"""
_CHANNELS = """
    WITH newest AS (
        SELECT channel_id, count(*) FILTER (WHERE status IN ('succeeded', 'failed', 'expired')) AS ended,
               count(*) FILTER (WHERE status = 'succeeded') AS succeeded,
               percentile_cont(0.5) WITHIN GROUP (ORDER BY extract(epoch FROM finished_at - submitted_at))
                   FILTER (WHERE status = 'succeeded') AS seconds
          FROM (SELECT channel_id, status, submitted_at, finished_at FROM providers_upstreamjob
                 ORDER BY id DESC LIMIT 5000) job
         WHERE finished_at >= %(now)s - interval '1 hour' GROUP BY channel_id
    ), ill AS (
        SELECT channel_id, bool_or(open_until > %(now)s) AS is_open, bool_or(open_until IS NOT NULL) AS is_tripped,
               bool_or(paused_until > %(now)s) AS is_paused, max(reason) AS reason
          FROM providers_channelhealth GROUP BY channel_id
    ), paid AS (
        SELECT job.channel_id, sum((request->>'duration')::int) AS made,
               sum((request->>'duration')::int) FILTER (WHERE cost_per_second IS NULL) AS unpriced,
               sum((request->>'duration')::int * cost_per_second) AS cents,
               sum(credits - credits_refunded) FILTER (WHERE job.status = 'succeeded' AND task.status = 'completed')
                   AS charged
          FROM (SELECT channel_id, reference, model, traffic, upstream_model, status, finished_at, late_at,
                       request, result IS NOT NULL AS is_made
                  FROM providers_upstreamjob ORDER BY id DESC LIMIT %(newest)s) job
          JOIN generations_generation task ON task.public_id = job.reference
          LEFT JOIN providers_route route
            ON (route.channel_id, route.model, route.traffic, route.upstream_model)
               = (job.channel_id, job.model, job.traffic, job.upstream_model)
         WHERE job.traffic = 'live' AND (late_at >= %(now)s - interval '1 day'
            OR job.finished_at >= %(now)s - interval '1 day' AND (job.status = 'succeeded' OR is_made))
         GROUP BY job.channel_id
    )
    SELECT channel.id, channel.name, channel.state,
           (SELECT count(*) FROM (SELECT FROM providers_upstreamjob job WHERE job.channel_id = channel.id
               AND job.status IN ('submitting', 'submitted', 'running') LIMIT %(most)s) counted),
           CASE WHEN is_open THEN 'open' WHEN is_tripped THEN 'half-open' WHEN is_paused THEN 'paused'
                ELSE 'closed' END,
           coalesce(ill.reason, ''), coalesce(ended, 0), coalesce(succeeded, 0), seconds,
           coalesce(made, 0), coalesce(unpriced, 0), coalesce(cents, 0), coalesce(charged, 0)
      FROM providers_channel channel
      LEFT JOIN newest ON newest.channel_id = channel.id LEFT JOIN ill ON ill.channel_id = channel.id
      LEFT JOIN paid ON paid.channel_id = channel.id
     ORDER BY channel.name LIMIT 50
"""
_MONEY = """
    SELECT held.*, (SELECT count(*) FROM billing_finding WHERE resolved_at IS NULL),
           (SELECT count(*) FROM billing_adjustment WHERE moved_at IS NULL AND declined_at IS NULL),
           run.finished_at, run.finding_count, run.is_whole
      FROM (SELECT count(*), coalesce(sum(amount), 0), count(*) FILTER (WHERE created_at < %(old)s),
                   coalesce(sum(amount) FILTER (WHERE created_at < %(old)s), 0), min(created_at)
              FROM (SELECT amount, created_at FROM billing_reservation WHERE state = 'held' LIMIT %(most)s) open) held
      LEFT JOIN (SELECT finished_at, finding_count, is_whole FROM generations_reconciliationrun
                  ORDER BY finished_at DESC LIMIT 1) run ON true
"""
# Day by day, so that the index by time leads to each.
_DAYS = """
    SELECT one.day, moved.* FROM unnest(%(dates)s::date[]) AS one (day) CROSS JOIN LATERAL (
        SELECT coalesce(sum(available_change) FILTER (WHERE kind IN ('grant', 'adjust')), 0)::bigint,
               coalesce(sum(reserved_change) FILTER (WHERE kind = 'reserve'), 0)::bigint,
               coalesce(sum(-reserved_change) FILTER (WHERE kind = 'capture'), 0)::bigint,
               coalesce(sum(available_change) FILTER (WHERE kind IN ('release', 'refund')), 0)::bigint
          FROM billing_ledgerentry
         WHERE created_at >= one.day::timestamp AT TIME ZONE 'UTC'
           AND created_at < (one.day + 1)::timestamp AT TIME ZONE 'UTC') moved
"""


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Tasks:
    """Open tasks of one status, by age."""

    status: str
    count: int = 0
    five_minutes: int = 0
    quarter: int = 0
    hour: int = 0
    overdue: int = 0
    since: dt.datetime | None = None


@dataclasses.dataclass(frozen=True, slots=True)
class Lane:
    """Rows that wait, those of them that are due, and the seconds for which the one due the longest has been."""

    name: str
    waiting: int
    due: int
    late_seconds: float


@dataclasses.dataclass(frozen=True, slots=True)
class ChannelState:
    """A channel, its breaker, and what ended there within the hour, of the newest 5,000 jobs.

    What it made of live tasks within a day, of the newest NEWEST_PAID jobs: the seconds of video, those of them whose
    price no route tells, US cents for the others, and the credits that customers were charged and not given back.
    """

    pk: int
    name: str
    state: str
    open_count: int
    breaker: str
    reason: str
    ended_count: int
    succeeded_count: int
    seconds: float | None
    made_seconds: int
    unpriced_seconds: int
    cents: decimal.Decimal
    charged: int

    @property
    def cost(self) -> decimal.Decimal:
        """Return what the provider takes, in US dollars."""
        return self.cents / 100

    @property
    def cents_per_credit(self) -> decimal.Decimal | None:
        """Return the cost of what a customer pays one credit for; None while a price is missing or nobody paid."""
        return self.cents / self.charged if self.charged and not self.unpriced_seconds else None


@dataclasses.dataclass(frozen=True, slots=True)
class Day:
    """Credits that a day moved: sold by grants and adjustments, held, earned by captures, given back."""

    date: dt.date
    sold: int = 0
    held: int = 0
    earned: int = 0
    returned: int = 0

    @property
    def next(self) -> dt.date:
        """Return the day after."""
        return self.date + dt.timedelta(days=1)


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Figures:
    """All of the front page, as of a moment."""

    at: dt.datetime
    tasks: list[Tasks]
    lanes: list[Lane]
    unknown_count: int
    settle_seconds: float | None
    callback_seconds: float | None
    webhooks: dict[str, Any]
    channels: list[ChannelState]
    parts: dict[str, float | None] | None
    money: dict[str, Any]
    uncharged: dict[str, int]
    days: list[Day]


def current() -> Figures:
    """Return the figures, at most ten seconds old; without Redis they are counted anew for each look."""
    try:
        known: Figures | None = cache.get("staff:figures")
        if known is None:
            known = count()
            cache.set("staff:figures", known, KEPT_SECONDS)
        return known
    except redis.RedisError as error:
        log.warning("figures_not_kept", error=type(error).__name__)
        return count()


def count() -> Figures:
    """Count everything now."""
    now = clock.now()
    values = {
        "now": now,
        "most": MOST,
        "newest": NEWEST_PAID,
        "unknown": now - UNKNOWN_AFTER,
        "old": now - dt.timedelta(seconds=settings.TASK_DEADLINE_SECONDS),
        "statuses": list(_STATUSES),
    }
    jobs = _rows(_JOBS, values)
    tasks = {row[0]: row[1:] for row in _rows(_TASKS, values)}
    ((settle, callback),) = _rows(_LAGS, values)
    names = [field.name for field in dataclasses.fields(Tasks)][1:]
    (pending,) = _rows(_WEBHOOKS, values)
    (money,) = _rows(_MONEY, values)
    return Figures(
        at=now,
        tasks=[Tasks(status=one, **dict(zip(names, tasks.get(one, ()), strict=False))) for one in Generation.OPEN],
        lanes=[
            *(_lane(name, now, [row for row in jobs if _STATUSES[row[0]] == name]) for name in LANES),
            Lane("deliver", pending[0], pending[2], _age(now, pending[3])),
        ],
        unknown_count=sum(row[4] for row in jobs),
        settle_seconds=settle,
        callback_seconds=callback,
        webhooks={"pending": pending[0], "failing": pending[1], "hosts": pending[4]},
        channels=[ChannelState(*row) for row in _rows(_CHANNELS, values)],
        parts=_parts(),
        money=dict(
            zip(
                ("hold_count", "held", "old_count", "old", "since", "findings", "waiting", "at", "found", "is_whole"),
                money,
                strict=True,
            )
        ),
        uncharged=_uncharged(now),
        days=_days(now),
    )


def _lane(name: str, now: dt.datetime, rows: list[Any]) -> Lane:
    since = min((row[3] for row in rows if row[3]), default=None)
    return Lane(name, sum(row[1] for row in rows), sum(row[2] for row in rows), _age(now, since))


def _parts() -> dict[str, float | None] | None:
    try:
        return heartbeats.ages(PARTS)
    except redis.RedisError:
        return None


def _uncharged(now: dt.datetime) -> dict[str, int]:
    """Count what providers made within a day and nobody was charged for, and what it would have cost customers."""
    newest = Subquery(UpstreamJob.objects.order_by("-pk").values("pk")[:1])
    price = Generation.objects.filter(public_id=OuterRef("reference")).values("credits")
    made = costs.uncharged(since=now - dt.timedelta(days=1)).filter(pk__gt=newest - Value(NEWEST_JOBS), traffic="live")
    counted = made.annotate(price=Subquery(price)).aggregate(
        late=Count("pk", filter=Q(is_late=True)), lost=Count("pk", filter=Q(is_late=False)), credits=Sum("price")
    )
    return {name: value or 0 for name, value in counted.items()}


def _days(now: dt.datetime) -> list[Day]:
    """Return the days whose sums are known, the oldest first.

    Days that are over are kept, since no entry of theirs can change or come; of those that are not, a few are summed.
    """
    dates = [now.date() - dt.timedelta(days=age) for age in reversed(range(DAYS))]
    kept = _kept(dates)
    missing = [date for date in dates if date not in kept][-DAYS_AT_ONCE:]
    found = kept | {row[0]: Day(*row) for row in _rows(_DAYS, {"dates": missing})}
    over = [date for date in missing if now - _day_end(date) > _SETTLED_AFTER]
    try:
        cache.set_many({f"staff:day:{date}": found[date] for date in over}, _DAY_KEPT_SECONDS)
    except redis.RedisError as error:
        log.warning("figures_not_kept", error=type(error).__name__)
    return [found[date] for date in dates if date in found]


def _kept(dates: Iterable[dt.date]) -> dict[dt.date, Day]:
    try:
        known = cache.get_many([f"staff:day:{date}" for date in dates])
    except redis.RedisError:
        return {}
    return {day.date: day for day in known.values()}


def _day_end(date: dt.date) -> dt.datetime:
    return dt.datetime.combine(date + dt.timedelta(days=1), dt.time.min, dt.UTC)


def _rows(statement: str, values: dict[str, Any]) -> list[Any]:
    with connection.cursor() as cursor:
        cursor.execute(statement, values)
        return list(cursor.fetchall())


def _age(now: dt.datetime, since: dt.datetime | None) -> float:
    return max(0.0, (now - since).total_seconds()) if since else 0.0
