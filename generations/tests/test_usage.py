"""GET /v1/usage."""

import datetime as dt
import itertools
import json
from typing import Any

import pytest
import time_machine

from accounts.models import Organization
from generations.models import Generation, OutputAsset
from generations.tests.callers import TASKS, Caller, golden
from generations.tests.factories import create_generation
from seedancee2.lib import clock, ids

FIRST = dt.datetime(2026, 7, 1, tzinfo=dt.UTC)


def add_job(
    organization: Organization,
    created_at: dt.datetime,
    status: str = "completed",
    credits: int = 20,
    refunded: int = 0,
    **values: Any,
) -> None:
    """Put a job into the table as it stands in the end."""
    is_open = status in Generation.OPEN
    job = Generation.objects.create(
        public_id=ids.new("vid"),
        organization=organization,
        status=status,
        credits=credits,
        credits_refunded=credits if status == "failed" else refunded,
        error_code="generation_failed" if status == "failed" else "",
        created_at=created_at,
        finished_at=None if is_open else created_at + dt.timedelta(minutes=5),
        deadline_at=created_at + dt.timedelta(hours=1),
        **{"model": "mini", "input": {}, "rate": 5, **values},
    )
    if status == "completed":
        OutputAsset.objects.bulk_create(
            OutputAsset(generation=job, kind=kind, path=f"{kind}/{job.pk}", size_bytes=1, sha256="0" * 64)
            for kind in (OutputAsset.Kind.VIDEO, OutputAsset.Kind.THUMBNAIL)
        )


def test_usage_is_answered_as_on_the_page(customer: Caller, stranger: Caller) -> None:
    own = customer.organization
    second = FIRST + dt.timedelta(days=1)
    last = FIRST + dt.timedelta(days=1, hours=23, minutes=59, seconds=59, milliseconds=999)
    add_job(own, FIRST, credits=40, model="pro")
    add_job(own, FIRST, credits=40, model="pro")
    add_job(own, FIRST)
    add_job(own, FIRST, "processing", credits=999, model="pro")
    for _ in range(4):
        add_job(own, last)
    add_job(own, second, "failed")
    add_job(own, second, "processing")
    add_job(own, second, "pending", model="pro")
    add_job(own, second, credits=80, refunded=20, model="pro")
    add_job(own, FIRST - dt.timedelta(milliseconds=1))
    add_job(own, FIRST + dt.timedelta(days=31))
    add_job(own, second, is_test=True)
    add_job(stranger.organization, second, credits=500)

    response = customer.get("/v1/usage?start=2026-07-01T00:00:00.000Z&end=2026-07-31T23:59:59.999Z&limit=7")

    assert response.status_code == 200
    assert response.content.decode() == json.dumps(golden("usage"), separators=(",", ":"))


def test_timeline_holds_the_newest_days_ascending_while_the_sums_hold_all(customer: Caller) -> None:
    for day in range(5):
        add_job(customer.organization, FIRST + dt.timedelta(days=day))

    data = customer.get("/v1/usage?limit=2&start=2026-07-01&end=2026-07-31").json()["data"]

    assert [row["date"] for row in data["timeline"]] == ["2026-07-04", "2026-07-05"]
    assert data["summary"]["total_jobs"] == data["by_model"][0]["total_jobs"] == 5


def test_both_ends_are_included_and_a_bare_date_is_the_whole_day(customer: Caller) -> None:
    add_job(customer.organization, FIRST)
    add_job(customer.organization, FIRST + dt.timedelta(days=1) - dt.timedelta(milliseconds=1))
    add_job(customer.organization, FIRST + dt.timedelta(days=1))

    data = customer.get("/v1/usage?start=2026-07-01&end=2026-07-01").json()["data"]

    assert data["range"] == {"start": "2026-07-01T00:00:00.000Z", "end": "2026-07-01T23:59:59.999Z"}
    assert data["summary"]["total_jobs"] == 2
    moment = "2026-07-02T00:00:00.000Z"
    exact = customer.get(f"/v1/usage?start={moment}&end={moment}").json()["data"]
    assert exact["summary"]["total_jobs"] == 1


@pytest.mark.parametrize(
    ("sent", "understood"),
    [
        ("2026-07-01T02:00:00%2B02:00", "2026-07-01T00:00:00.000Z"),
        ("2026-07-01T02:00:00+02:00", "2026-07-01T00:00:00.000Z"),
        ("2026-07-01T02:00:00.500+0200", "2026-07-01T00:00:00.500Z"),
        ("2026-06-30T19:00:00-05:00", "2026-07-01T00:00:00.000Z"),
        ("2026-07-01T00:00:00", "2026-07-01T00:00:00.000Z"),
        ("2026-07-01%2000:00", "2026-07-01T00:00:00.000Z"),
        ("2026-07-01t00:00:00.1234567z", "2026-07-01T00:00:00.123Z"),
    ],
)
def test_times_are_understood_in_their_usual_forms(customer: Caller, sent: str, understood: str) -> None:
    data = customer.get(f"/v1/usage?start={sent}&end=2026-08-01").json()["data"]

    assert data["range"]["start"] == understood


@pytest.mark.parametrize(
    "query",
    [
        "start=yesterday",
        "start=",
        "end=2026-02-30",
        "end=2026-07-01T25:00:00Z",
        "start=2026-W27-3",
        "start=0001-01-01T00:00:00%2B14:00",
        "start=1782864000",
        "start=%00",
        "start=2026-07-02&end=2026-07-01",
        "start=2999-01-01",
        "limit=0",
        "limit=366",
        "limit=x",
    ],
)
def test_bad_parameters_are_refused(customer: Caller, query: str) -> None:
    response = customer.get(f"/v1/usage?{query}")

    assert response.status_code == 400
    error = response.json()["error"]
    assert error["code"] == "invalid_request"
    assert error["message"].startswith(query.partition("=")[0])


def test_without_start_the_range_begins_with_the_first_task_and_without_end_it_ends_now(customer: Caller) -> None:
    now = dt.datetime(2026, 7, 10, 9, 8, 7, 654321, tzinfo=dt.UTC)
    add_job(customer.organization, FIRST + dt.timedelta(milliseconds=7))

    with time_machine.travel(now, tick=False):
        data = customer.get("/v1/usage").json()["data"]

    assert data["range"] == {"start": "2026-07-01T00:00:00.007Z", "end": "2026-07-10T09:08:07.654Z"}
    early = customer.get("/v1/usage?end=2026-06-01").json()["data"]
    assert early["range"] == {"start": "2026-06-01T23:59:59.999Z", "end": "2026-06-01T23:59:59.999Z"}
    assert early["summary"]["total_jobs"] == 0


def test_without_tasks_the_range_begins_with_the_organization(customer: Caller) -> None:
    data = customer.get("/v1/usage").json()["data"]

    assert data["range"]["start"] == clock.iso(customer.organization.created_at)
    assert (data["by_model"], data["timeline"]) == ([], [])
    assert set(data["summary"].values()) == {0}


def test_test_keys_sum_the_test_tasks(customer: Caller) -> None:
    create_generation(customer.organization)
    create_generation(customer.organization, is_test=True)
    create_generation(customer.organization, is_test=True)

    assert Caller(customer.organization, "test").get("/v1/usage").json()["data"]["summary"]["total_jobs"] == 2
    assert customer.get("/v1/usage").json()["data"]["summary"]["total_jobs"] == 1


def test_sums_equal_what_a_customer_adds_up_from_the_tasks(customer: Caller) -> None:
    statuses = ["pending", "processing", "completed", "failed"]
    for number, (status, model) in enumerate(itertools.product(statuses, ["pro", "fast", "mini"])):
        for copy in range(number % 3 + 1):
            refunded = 3 if copy == 1 and status == "completed" else 0
            add_job(
                customer.organization,
                FIRST + dt.timedelta(hours=9 * number),
                status,
                20 + number,
                refunded,
                model=model,
            )
    tasks = customer.get(f"{TASKS}?limit=100").json()["data"]
    refunded = sum(task.get("credits_refunded", 0) for task in tasks)
    charged = sum(task.get("credits_charged", 0) for task in tasks)
    released = sum(task["credits_refunded"] for task in tasks if task["status"] == "failed")

    data = customer.get("/v1/usage?limit=365").json()["data"]

    assert data["summary"]["total_jobs"] == len(tasks)
    assert data["summary"]["credits_charged"] == charged + released
    assert data["summary"]["credits_refunded"] == refunded
    assert data["summary"]["net_credits"] == charged + released - refunded
    for rows in (data["by_model"], data["timeline"]):
        for key, total in data["summary"].items():
            assert sum(row[key] for row in rows) == total
    assert [row["model"] for row in data["by_model"]] == ["fast", "mini", "pro"]
