"""Pruning: after 30 days bodies, attempts, callbacks and calls are gone, and the facts of a delivery are not."""

import datetime as dt
from typing import Any

import pytest
from django.db import connection

from accounts.tests.factories import OrganizationFactory
from providers.models import UpstreamCall, UpstreamJob
from seedancee2.lib import clock, ids
from webhooks import pruning
from webhooks.models import Callback, Delivery, DeliveryAttempt
from webhooks.tests.factories import DeliveryFactory

pytestmark = pytest.mark.django_db

DAY = dt.timedelta(days=1)


def deliver(*, age: float, state: str = "delivered", attempts: int = 1, **fields: Any) -> Delivery:
    """Make a delivery that ended so many days ago, or is pending since then."""
    at = clock.now() - age * DAY
    given = {"due_at": at} if state == "pending" else {"due_at": None, "finished_at": at}
    row = DeliveryFactory.create(state=state, created_at=at, attempt_count=attempts, **given, **fields)
    DeliveryAttempt.objects.bulk_create(
        DeliveryAttempt(delivery=row, number=number + 1, started_at=at, duration_ms=7, status_code=200)
        for number in range(attempts)
    )
    return row


def job(*, status: str = "succeeded", age: float = 40) -> UpstreamJob:
    """Make a job that was created so many days ago."""
    at = clock.now() - age * DAY
    is_over = status in UpstreamJob.TERMINAL
    return UpstreamJob.objects.create(
        reference=ids.new("vid"),
        model="mini",
        traffic="live",
        request={},
        status=status,
        upstream_id="u-" + ids.new("x"),
        created_at=at,
        finished_at=at if is_over else None,
        deadline_at=at,
    )


def test_old_ended_deliveries_keep_their_facts_and_lose_the_rest() -> None:
    old, given_up = deliver(age=31), deliver(age=40, state="abandoned", attempts=12)
    young, pending = deliver(age=29), deliver(age=31, state="pending", attempts=2)

    assert pruning.prune() == 2 + 13

    for row in (old, given_up):
        before = {name: value for name, value in vars(row).items() if name not in ("_state", "body", "endpoint_id")}
        row.refresh_from_db()
        assert (bytes(row.body), row.attempts.count()) == (b"", 0)
        assert row.pruned_at is not None
        assert before | {"pruned_at": row.pruned_at} == {name: vars(row)[name] for name in before}
    for row, count in ((young, 1), (pending, 2)):
        row.refresh_from_db()
        assert (bytes(row.body), row.pruned_at, row.attempts.count()) == (b'{"data":{"id":"vid_1"}}', None, count)
    assert pruning.prune() == 0


def test_old_callbacks_and_calls_of_ended_jobs_are_deleted() -> None:
    ended, running = job(), job(status="running")
    for of in (ended, running):
        for age in (31, 29):
            at = clock.now() - age * DAY
            Callback.objects.create(
                job=of, received_at=at, body=b"{}", body_sha256=str(age).encode(), verdict=Callback.Verdict.HINT
            )
            UpstreamCall.objects.create(job=of, kind="poll", started_at=at)

    assert pruning.prune() == 2

    before = clock.now() - 30 * DAY
    assert [row.job_id for row in Callback.objects.filter(received_at__lt=before)] == [running.pk]
    assert [row.job_id for row in UpstreamCall.objects.filter(started_at__lt=before)] == [running.pk]
    assert (Callback.objects.count(), UpstreamCall.objects.count(), UpstreamJob.objects.count()) == (3, 3, 2)


@pytest.mark.django_db(transaction=True)
def test_transactions_are_small_and_all_is_reached(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pruning, "BATCH", 20)
    monkeypatch.setattr(pruning, "_DELIVERIES", 5)
    organization = OrganizationFactory.create()
    for _ in range(12):
        deliver(age=31, attempts=9, organization=organization)
    of = job()
    old = clock.now() - 31 * DAY
    UpstreamCall.objects.bulk_create(UpstreamCall(job=of, kind="poll", started_at=old) for _ in range(50))
    written: list[int] = []

    def note(execute: Any, sql: str, params: Any, many: bool, context: Any) -> Any:
        result = execute(sql, params, many, context)
        if sql.startswith(("UPDATE", "DELETE")):
            written[-1] += context["cursor"].rowcount
        elif sql == "BEGIN" or "SELECT" in sql:
            written.append(0)
        return result

    with connection.execute_wrapper(note):
        assert pruning.prune() == 12 * 10 + 50

    assert max(written) <= 20
    assert not Delivery.objects.filter(pruned_at=None).exists()
    assert (DeliveryAttempt.objects.count(), UpstreamCall.objects.count()) == (0, 0)


def test_one_run_ends_in_time_and_the_next_goes_on(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pruning, "_DELIVERIES", 1)
    deliver(age=31)

    assert pruning.prune(seconds=0) == 0
    assert pruning.prune() == 2
