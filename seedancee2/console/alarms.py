"""What somebody should be called for, as figures for Prometheus; docs/runbook.md tells what to do about each.

They are counted in the rows when they are asked for: a counter inside a worker would die with it, and no row can.
"""

import datetime as dt
import math
from collections.abc import Iterator

import redis
from django.db import DatabaseError
from django.db.models import Count, Min
from prometheus_client.core import GaugeMetricFamily
from prometheus_client.registry import Collector

from billing.models import Finding
from generations import costs
from generations.models import Generation
from providers.claims import LANES
from providers.models import ChannelHealth, UpstreamJob
from seedancee2.lib import clock, heartbeats
from webhooks.models import Delivery, Endpoint

PARTS = [heartbeats.BEAT, heartbeats.WORKER, heartbeats.POLL, heartbeats.DELIVER, heartbeats.MEDIA]
RECENT = dt.timedelta(hours=1)
UNKNOWN_AFTER = dt.timedelta(seconds=150)  # no call to a provider takes that long
OFTEN = 5  # claims in a row without an end of the work
NEWEST_JOBS = 20_000  # looked at for what ended recently: no index leads to the time of an end

Status = UpstreamJob.Status


class Alarms(Collector):
    """Counts everything at each look; with the database or the broker away it says just that."""

    def collect(self) -> Iterator[GaugeMetricFamily]:
        """Give every figure."""
        try:
            yield from _rows()
            is_up = True
        except DatabaseError:
            is_up = False
        yield _gauge("database_up", "Whether PostgreSQL answers.", is_up)
        try:
            seen = GaugeMetricFamily(
                "seedancee2_part_seen_seconds", "Seconds since a part was last seen.", labels=["part"]
            )
            for part, age in heartbeats.ages(PARTS).items():
                seen.add_metric([part], math.inf if age is None else age)
            yield seen
            is_up = True
        except redis.RedisError:
            is_up = False
        yield _gauge("broker_up", "Whether Redis answers.", is_up)


def _rows() -> Iterator[GaugeMetricFamily]:
    now = clock.now()
    findings = GaugeMetricFamily("seedancee2_findings_open", "Open findings of reconciliation.", labels=["rule"])
    for rule, count in Finding.objects.filter(resolved_at=None).values_list("rule").annotate(Count("id")):
        findings.add_metric([rule], count)
    yield findings

    jobs = UpstreamJob.objects
    yield _gauge(
        "submissions_unknown",
        "Submissions of which nobody knows yet whether the provider has them.",
        jobs.filter(status=Status.SUBMITTING, submit_started_at__lt=now - UNKNOWN_AFTER).count(),
    )
    yield _gauge(
        "jobs_claimed_often",
        f"Jobs that were claimed more than {OFTEN} times without any work on them coming to an end.",
        jobs.filter(due_at__isnull=False, claim_count__gt=OFTEN).count(),
    )
    yield _gauge(
        "jobs_unheard",
        "Jobs that a provider took and of which nothing that can be read was heard for a minute and more.",
        jobs.filter(status__in=UpstreamJob.SENT, unheard_since__lt=now - UNKNOWN_AFTER).count(),
    )
    breakers = GaugeMetricFamily(
        "seedancee2_breakers_open", "Circuit breakers that are open or wait for a probe.", labels=["channel", "model"]
    )
    opened = ChannelHealth.objects.filter(open_until__isnull=False)
    for channel, model in opened.values_list("channel__name", "upstream_model"):
        breakers.add_metric([channel, model or "all"], 1)
    yield breakers
    newest = jobs.order_by("-id").values_list("id", flat=True).first() or 0
    recent = {"finished_at__gte": now - RECENT, "pk__gt": newest - NEWEST_JOBS}
    yield _gauge(
        "jobs_parked",
        "Jobs given up within the last hour since they kill whoever works on them.",
        jobs.filter(status=Status.FAILED, error_detail__startswith="Given up: claimed", **recent).count(),
    )
    uncharged = GaugeMetricFamily(
        "seedancee2_uncharged_successes",
        "Videos made within the last hour that nobody is charged for: too late, or lost on our side.",
        labels=["why"],
    )
    is_late = costs.uncharged(since=now - RECENT).filter(pk__gt=newest - NEWEST_JOBS).values_list("is_late", flat=True)
    counted = list(is_late)
    uncharged.add_metric(["late"], counted.count(True))
    uncharged.add_metric(["lost"], counted.count(False))
    yield uncharged
    yield _gauge(
        "tasks_overdue",
        "Tasks still open a minute and more past their deadline.",
        Generation.objects.filter(status__in=Generation.OPEN, deadline_at__lt=now - dt.timedelta(seconds=60)).count(),
    )
    finished = jobs.filter(status__in=UpstreamJob.TERMINAL, due_at__isnull=False)
    yield _gauge(
        "outputs_waiting_seconds",
        "How long the output that waits longest has not been brought home.",
        _age(now, finished.aggregate(since=Min("finished_at"))["since"]),
    )
    paused = Endpoint.objects.filter(failing_since__isnull=False, paused_until__isnull=False)
    yield _gauge("endpoints_paused", "Customers' endpoints that fail and are sent to in turns only.", paused.count())
    abandoned = Delivery.objects.filter(
        state=Delivery.State.ABANDONED, finished_at__gte=now - RECENT, pruned_at__isnull=True
    )
    yield _gauge("deliveries_abandoned", "Webhooks given up within the last hour.", abandoned.count())
    yield _lateness(now)


def _lateness(now: dt.datetime) -> GaugeMetricFamily:
    late = GaugeMetricFamily(
        "seedancee2_lane_late_seconds", "How long the row that waits longest has been due.", labels=["lane"]
    )
    for lane, statuses in LANES.items():
        first = UpstreamJob.objects.filter(status__in=statuses, due_at__isnull=False).aggregate(at=Min("due_at"))
        late.add_metric([lane], _age(now, first["at"]))
    # Those that fail aside: they have but a share of the places, and their pauses are meant.
    served = Endpoint.objects.filter(standing__in=(Endpoint.Standing.GOOD, Endpoint.Standing.UNSURE))
    first = served.filter(due_at__isnull=False).aggregate(at=Min("due_at"))
    late.add_metric(["deliver"], _age(now, first["at"]))
    return late


def _age(now: dt.datetime, since: dt.datetime | None) -> float:
    return max(0.0, (now - since).total_seconds()) if since else 0.0


def _gauge(name: str, help_text: str, value: float) -> GaugeMetricFamily:
    return GaugeMetricFamily(f"seedancee2_{name}", help_text, value=float(value))
