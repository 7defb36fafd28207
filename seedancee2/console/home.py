"""The console's first page: how an organization stands, in a few queries over indexes."""

import datetime as dt
from collections.abc import Callable
from typing import Any, ClassVar, NamedTuple, TypeVar

from django.conf import settings
from django.db import OperationalError
from django.db.models import Aggregate, Count, DurationField, F, Q
from django.http import HttpRequest, HttpResponse

from accounts import keys, roles
from accounts.console import ConsoleView
from accounts.models import ApiKey
from accounts.roles import visible_keys
from billing import ledger
from generations import snippets, usage
from generations.models import Generation
from seedancee2.lib import clock, database
from webhooks.models import Delivery

Figure = TypeVar("Figure")
Status = Generation.Status
State = Delivery.State

LAST_DAY = dt.timedelta(hours=24)
KEYS_SHOWN = 5

_FIRST_TASK = {
    "model": "mini",
    "input": {"prompt": "Waves breaking against black volcanic rocks", "duration": 5, "resolution": "480p"},
}


class LastDay(NamedTuple):
    """Live tasks of the last 24 hours; the times are those from acceptance to the finished video."""

    completed: int
    failed: int
    p50: dt.timedelta | None
    p95: dt.timedelta | None

    @property
    def success_percent(self) -> float | None:
        """How many of a hundred that ended were completed; None where none ended."""
        ended = self.completed + self.failed
        return 100 * self.completed / ended if ended else None


class _Percentile(Aggregate):
    """A percentile within the group (PostgreSQL's ordered-set aggregate)."""

    function = "percentile_cont"
    output_field = DurationField()

    def __init__(self, expression: Any, fraction: float, **extra: Any) -> None:
        super().__init__(expression, **extra)
        self.template = f"percentile_cont({fraction}) WITHIN GROUP (ORDER BY %(expressions)s)"


class HomeView(ConsoleView):
    """How the organization stands."""

    section: ClassVar[str] = "home"

    def get(self, request: HttpRequest) -> HttpResponse:
        """Show credits, tasks, webhooks and keys, and what to do first where nothing was done yet."""
        organization_id = self.membership.organization_id
        now = clock.now()
        may_see_billing = self.may(roles.Permission.VIEW_BILLING)
        available, held = ledger.balance(organization_id=organization_id) if may_see_billing else (0, 0)
        open_tasks = _open_tasks(organization_id)
        month = _unless_it_takes_too_long(_this_month, organization_id, now)
        last_day = _unless_it_takes_too_long(_last_day, organization_id, now)
        has_tasks = any(open_tasks.values()) or _has_tasks(organization_id)
        curl, *_ = snippets.create(_FIRST_TASK, base_url=settings.PUBLIC_BASE_URL, is_test=True)
        return self.page(
            "console/home.html",
            available=available,
            held=held,
            month=month,
            month_name=f"{now:%B}",
            open_tasks=open_tasks,
            last_day=last_day,
            webhooks=_unless_it_takes_too_long(_webhooks, organization_id, now),
            expiring_keys=_expiring_keys(self, now),
            has_tasks=has_tasks,
            first_task=curl.text,
        )


def _unless_it_takes_too_long(
    find: Callable[[int, dt.datetime], Figure], organization_id: int, now: dt.datetime
) -> Figure | None:
    """Return a figure, or nothing where the database gave it up: the rest of the page is no less true."""
    try:
        return find(organization_id, now)
    except OperationalError as error:
        if not database.took_too_long(error):
            raise
        return None


def _this_month(organization_id: int, now: dt.datetime) -> dict[str, int]:
    """Sum the month as the usage page and `/v1/usage` do, so that the numbers are the same."""
    start = now.replace(day=1, hour=0, minute=0, second=0, microsecond=0)
    found = usage.summarize(organization_id=organization_id, is_test=False, start=start, end=now, limit=31)
    summary: dict[str, int] = found["summary"]
    return summary


def _open_tasks(organization_id: int) -> dict[str, int]:
    rows = Generation.objects.filter(organization_id=organization_id, is_test=False, status__in=Generation.OPEN)
    counts = dict(rows.values_list("status").annotate(count=Count("pk")).order_by())
    return {status.value: counts.get(status.value, 0) for status in Generation.OPEN}


def _last_day(organization_id: int, now: dt.datetime) -> LastDay:
    took = F("finished_at") - F("created_at")
    completed, failed = Q(status=Status.COMPLETED), Q(status=Status.FAILED)
    rows = Generation.objects.filter(organization_id=organization_id, is_test=False, created_at__gte=now - LAST_DAY)
    return LastDay(
        **rows.aggregate(
            completed=Count("pk", filter=completed),
            failed=Count("pk", filter=failed),
            p50=_Percentile(took, 0.5, filter=completed),
            p95=_Percentile(took, 0.95, filter=completed),
        )
    )


def _webhooks(organization_id: int, now: dt.datetime) -> dict[str, int]:
    # Each pair of event and state is a range of the index webhooks_delivery_list, by time.
    rows = Delivery.objects.filter(
        organization_id=organization_id,
        is_test=False,
        event__in=Delivery.Event.values,
        state__in=State.values,
        created_at__gte=now - LAST_DAY,
    )
    counts = dict(rows.values_list("state").annotate(count=Count("pk")).order_by())
    return {state.value: counts.get(state.value, 0) for state in State}


def _has_tasks(organization_id: int) -> bool:
    return Generation.objects.filter(organization_id=organization_id).exists()


def _expiring_keys(view: ConsoleView, now: dt.datetime) -> list[ApiKey]:
    """List the keys that end soon, of those that the person may see."""
    soon = visible_keys(view.membership).filter(
        revoked_at__isnull=True, expires_at__gt=now, expires_at__lte=now + keys.EXPIRES_SOON
    )
    return list(soon.order_by("expires_at")[:KEYS_SHOWN])
