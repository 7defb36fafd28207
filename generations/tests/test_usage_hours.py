"""Usage counted in advance equals the plain sum of the tasks, after any history and over any range."""

import datetime as dt
import threading

import pytest
import time_machine
from django.db import connection, transaction
from hypothesis import given, settings
from hypothesis import strategies as st

from accounts.models import Organization
from generations import deletion, lifecycle, reconciliation, tasks, usage, usage_hours
from generations.models import Generation, UsageHour, UsageMark
from generations.tests.callers import Caller
from generations.tests.factories import create_generation, funded_organization

START = dt.datetime(2026, 7, 1, 9, 40, tzinfo=dt.UTC)
HOUR = dt.timedelta(hours=1)
RULE = "counted_hours_equal_tasks"
CODE = Generation.ErrorCode.GENERATION_FAILED


def count_all() -> int:
    count = 0
    while usage_hours.count_next():
        count += 1
    return count


def plainly(organization: Organization, is_test: bool, since: dt.datetime, until: dt.datetime) -> dict:
    """Add the same sums up from the rows."""
    rows = Generation.objects.filter(
        organization=organization, is_test=is_test, created_at__gte=since, created_at__lte=until
    )
    ended = [row for row in rows if not row.is_open]
    jobs = {f"{status}_jobs": sum(row.status == status for row in rows) for status in Generation.Status.values}
    charged, refunded = sum(row.credits for row in ended), sum(row.credits_refunded for row in ended)
    return {
        "total_jobs": len(rows),
        **jobs,
        "credits_charged": charged,
        "credits_refunded": refunded,
        "net_credits": charged - refunded,
    }


def summary(organization: Organization, is_test: bool, since: dt.datetime, until: dt.datetime) -> dict:
    """Return what `/v1/usage` says, which the console says too, whatever it is split by."""
    found = usage.summarize(organization_id=organization.pk, is_test=is_test, start=since, end=until, limit=365)
    for by in (usage.By.MODEL, usage.By.KEY, usage.By.STATUS):
        split = usage.break_down(organization_id=organization.pk, is_test=is_test, start=since, end=until, by=by)
        assert split.total.as_json() == found["summary"]
        assert {day.isoformat(): merged(groups) for day, groups in split.days.items()} == {
            row.pop("date"): row for row in [dict(row) for row in found["timeline"]]
        }
        if by is usage.By.MODEL:
            assert {model: sums.as_json() for model, sums in split.groups} == {
                row.pop("model"): row for row in [dict(row) for row in found["by_model"]]
            }
    for parts in (found["by_model"], found["timeline"]):
        for name, total in found["summary"].items():
            assert sum(part[name] for part in parts) == total
    return found["summary"]


def merged(groups: dict) -> dict:
    sums = usage.Sums()
    for one in groups.values():
        sums.merge(one)
    return sums.as_json()


STEPS = st.lists(
    st.tuples(
        st.sampled_from(
            [
                "create",
                "create",
                "create",
                "start",
                "complete",
                "complete",
                "fail",
                "refund",
                "refund",
                "erase",
                "count",
            ]
        ),
        st.integers(0, 9),
        st.sampled_from([0, 1, 59_999, 60_000, 1_199_999, 1_200_000, 3_600_000, 40_000_000]),
    ),
    min_size=8,
    max_size=40,
)
# Milliseconds from the start, beside hours and their last and first milliseconds.
MOMENTS = st.one_of(
    st.integers(0, 200 * 3_600_000),
    st.builds(lambda hour, off: hour * 3_600_000 - 2_400_000 + off, st.integers(1, 200), st.sampled_from([-1, 0, 1])),
)


@pytest.mark.django_db
@settings(max_examples=25, deadline=None)
@given(steps=STEPS, ranges=st.lists(st.tuples(MOMENTS, MOMENTS), min_size=4, max_size=4))
def test_summaries_equal_the_plain_sum_after_any_history(steps, ranges):
    with transaction.atomic(), time_machine.travel(START, tick=False) as turned:
        own, stranger = funded_organization(10**6), funded_organization(10**6)
        for step, number, milliseconds in steps:
            turned.shift(dt.timedelta(milliseconds=milliseconds))
            _take(step, number, own, stranger)
        turned.shift(2 * HOUR)
        for task in list(Generation.objects.filter(status__in=Generation.OPEN))[1:]:
            lifecycle.complete(public_id=task.pk, assets=[])
        for _ in range(2):  # as far as it is counted now, then with all of it counted
            for organization in (own, stranger):
                for is_test in (False, True):
                    for one, other in ranges:
                        since, until = (START + dt.timedelta(milliseconds=at) for at in sorted((one, other)))
                        assert summary(organization, is_test, since, until) == plainly(
                            organization, is_test, since, until
                        )
            for task in Generation.objects.filter(status__in=Generation.OPEN):
                lifecycle.fail(public_id=task.pk, code=CODE)
            count_all()
            assert [item for item in reconciliation.discrepancies() if item.rule == RULE] == []
        transaction.set_rollback(True)


def _take(step: str, number: int, own: Organization, stranger: Organization) -> None:
    if step == "create":
        model, resolution = (("mini", "480p"), ("fast", "480p"), ("pro", "720p"))[number % 3]
        organization = stranger if number == 9 else own
        create_generation(organization, is_test=number == 8, model=model, resolution=resolution)
    elif step == "count":
        usage_hours.count_next() and count_all()
    elif step == "start":
        pending = Generation.objects.filter(status="pending").order_by("public_id")
        lifecycle.start(public_ids=[task.pk for task in pending[number : number + 3]])
    elif step == "erase":
        ended = Generation.objects.filter(finished_at__isnull=False).order_by("public_id")
        deletion.erase_prompts([task.pk for task in ended[number : number + 3]])
        deletion.hide_files([task.pk for task in ended[number : number + 3]])
    elif step == "refund":
        charged = [
            task
            for task in Generation.objects.filter(status="completed", is_test=False).order_by("public_id")
            if task.credits_refunded < task.credits
        ]
        if charged:
            task = charged[number % len(charged)]
            amount = min(number + 1, task.credits - task.credits_refunded)
            lifecycle.refund(public_id=task.pk, amount=amount, actor="t", reason="t")
    else:
        open_tasks = Generation.objects.filter(status__in=Generation.OPEN).order_by("public_id")
        for task in open_tasks[: 1 + number % 3]:
            if step == "complete":
                lifecycle.complete(public_id=task.pk, assets=[])
            else:
                lifecycle.fail(public_id=task.pk, code=CODE)


@pytest.mark.django_db
def test_an_hour_is_counted_once_it_is_past_and_all_its_tasks_have_ended():
    organization = funded_organization()
    with time_machine.travel(START, tick=False) as turned:
        assert not usage_hours.count_next()
        task = create_generation(organization)
        turned.move_to(START + HOUR)
        assert not usage_hours.count_next()
        lifecycle.start(public_ids=[task.pk])
        assert not usage_hours.count_next()
        lifecycle.complete(public_id=task.pk, assets=[])
        turned.move_to(dt.datetime(2026, 7, 1, 10, 9, 59, 999_000, tzinfo=dt.UTC))
        assert not usage_hours.count_next()
        assert UsageMark.objects.count() == UsageHour.objects.count() == 0

        turned.move_to(dt.datetime(2026, 7, 1, 10, 10, tzinfo=dt.UTC))
        assert usage_hours.count_next()
        assert not usage_hours.count_next()

    row = UsageHour.objects.values_list(
        "organization_id", "is_test", "hour", "model", "completed_jobs", "failed_jobs", "credits_charged"
    ).get()
    assert row == (organization.pk, False, dt.datetime(2026, 7, 1, 9, tzinfo=dt.UTC), "mini", 1, 0, 20)
    assert usage_hours.counted_until() == dt.datetime(2026, 7, 1, 10, tzinfo=dt.UTC)


@pytest.mark.django_db
def test_the_task_counts_everything_that_is_past_and_what_is_forgotten_again():
    organization = funded_organization()
    with time_machine.travel(START, tick=False) as turned:
        for _ in range(3):
            lifecycle.fail(public_id=create_generation(organization).pk, code=CODE)
            turned.shift(HOUR)
        turned.shift(HOUR)

        assert tasks.count_usage() == 4
        assert tasks.count_usage() == 0
        before = list(UsageHour.objects.order_by("hour").values_list("hour", "failed_jobs", "credits_refunded"))
        usage_hours.forget(since=START + HOUR)
        assert UsageHour.objects.count() == 1
        assert tasks.count_usage() == 3
        assert list(UsageHour.objects.order_by("hour").values_list("hour", "failed_jobs", "credits_refunded")) == before

    assert [row[1:] for row in before] == [(1, 20)] * 3


@pytest.mark.parametrize(
    ("sql", "said"),
    [
        (
            "UPDATE generations_usagehour SET credits_refunded = 19 WHERE NOT is_test",
            "1 jobs, 1 of them failed, 20 charged and 19",
        ),
        (
            "UPDATE generations_usagehour SET failed_jobs = 0, completed_jobs = 1 WHERE NOT is_test",
            "1 jobs, 0 of them failed, 20 charged and 20",
        ),
        ("DELETE FROM generations_usagehour WHERE NOT is_test", "0 jobs, 0 of them failed, 0 charged and 0"),
    ],
)
@pytest.mark.django_db
def test_reconciliation_finds_hours_that_are_not_what_their_tasks_are(sql, said):
    organization = funded_organization()
    with time_machine.travel(START, tick=False) as turned:
        lifecycle.fail(public_id=create_generation(organization).pk, code=CODE)
        lifecycle.fail(public_id=create_generation(organization, is_test=True).pk, code=CODE)
        turned.shift(2 * HOUR)
        assert count_all() == 2
        assert reconciliation.discrepancies() == reconciliation.discrepancies(since=START) == []

        with connection.cursor() as cursor:
            cursor.execute(sql)
        found = [str(item) for item in reconciliation.discrepancies()]
        assert found == [str(item) for item in reconciliation.discrepancies(since=START)]
        usage_hours.forget(since=START)
        count_all()

        assert found == [
            f"{RULE}: organization {organization.pk}: live hour 2026-07-01 09:00 of mini says {said} "
            "given back; its tasks say 1, 1, 20 and 20"
        ]
        assert reconciliation.discrepancies() == []


@pytest.mark.django_db
def test_ranges_at_the_ends_of_time_are_answered(customer: Caller):
    with time_machine.travel(START, tick=False) as turned:
        lifecycle.fail(public_id=create_generation(customer.organization).pk, code=CODE)
        turned.shift(2 * HOUR)
        assert count_all() == 2

        for query in ("start=0001-01-01&end=9999-12-31", "start=0001-01-01", "end=9999-12-31"):
            reply = customer.get(f"/v1/usage?{query}")
            assert reply.status_code == 200
            assert reply.json()["data"]["summary"]["failed_jobs"] == 1
        for query in ("start=9999-12-31&end=9999-12-31", "start=0001-01-01&end=0001-01-01"):
            assert customer.get(f"/v1/usage?{query}").json()["data"]["summary"]["total_jobs"] == 0


@pytest.mark.django_db(transaction=True)
def test_a_refund_under_way_while_its_hour_is_counted_is_counted_once():
    """The counter waits for refunds under way, and they for it: whichever comes first, none is lost or doubled."""
    organization = funded_organization()
    with time_machine.travel(START, tick=False):
        task = create_generation(organization)
        lifecycle.complete(public_id=task.pk, assets=[])
    counted: list[bool] = []

    def count() -> None:
        counted.append(usage_hours.count_next())
        connection.close()

    counter = threading.Thread(target=count)
    with transaction.atomic():
        lifecycle.refund(public_id=task.pk, amount=7, actor="t", reason="t")
        counter.start()
        _await_a_waiting_counter()
        assert UsageHour.objects.count() == 0
    counter.join(10)

    assert counted == [True]
    assert UsageHour.objects.get().credits_refunded == 7
    lifecycle.refund(public_id=task.pk, amount=5, actor="t", reason="t")
    assert UsageHour.objects.get().credits_refunded == 12
    with pytest.raises(ValueError, match="cannot be refunded"):
        lifecycle.refund(public_id=task.pk, amount=9, actor="t", reason="t")
    assert UsageHour.objects.get().credits_refunded == 12


def _await_a_waiting_counter() -> None:
    deadline = dt.datetime.now(dt.UTC) + dt.timedelta(seconds=10)
    while dt.datetime.now(dt.UTC) < deadline:
        with connection.cursor() as cursor:
            cursor.execute("SELECT count(*) FROM pg_locks WHERE locktype = 'advisory' AND NOT granted")
            if cursor.fetchone()[0] == 1:
                return
    raise AssertionError("The counter does not wait.")
