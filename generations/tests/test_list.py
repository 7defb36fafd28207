"""GET /v1/videos/generations."""

import datetime as dt
import re
from typing import TYPE_CHECKING

import pytest
import time_machine
from pytest_django import DjangoAssertNumQueries

from generations import lifecycle
from generations.models import Generation, ModelAlias
from generations.tests.callers import TASKS, Caller
from generations.tests.factories import create_generation

if TYPE_CHECKING:
    from generations.tests.callers import Reply

NOON = dt.datetime(2026, 7, 1, 12, tzinfo=dt.UTC)


def make_tasks(caller: Caller, count: int, **spec: object) -> list[str]:
    """Make tasks a second apart and return their ids, newest first."""
    made = []
    for second in range(count):
        with time_machine.travel(NOON + dt.timedelta(seconds=second), tick=False):
            made.append(create_generation(caller.organization, **spec).public_id)  # type: ignore[arg-type]
    return made[::-1]


def shown(response: "Reply") -> list[str]:
    """Return the ids of a list reply."""
    return [task["id"] for task in response.json()["data"]]


def next_page(response: "Reply") -> str | None:
    """Return the path of the next page, from the Link header."""
    match = re.fullmatch(r'<http://testserver(/[^>]+)>; rel="next"', response.headers.get("Link", ""))
    return match[1] if match else None


def test_list_without_tasks_is_an_empty_list(customer: Caller) -> None:
    response = customer.get(TASKS)

    assert response.content == b'{"data":[]}'
    assert "Link" not in response.headers


def test_list_shows_the_newest_20_each_as_in_get(customer: Caller, stranger: Caller) -> None:
    make_tasks(stranger, 2)
    made = make_tasks(customer, 21)

    response = customer.get(TASKS)

    assert shown(response) == made[:20]
    assert response.json()["data"][0] == customer.get(f"{TASKS}/{made[0]}").json()["data"]
    assert shown(customer.get(f"{TASKS}/?limit=100")) == made


def test_list_is_of_the_keys_own_mode(customer: Caller) -> None:
    live = make_tasks(customer, 1)
    test = make_tasks(customer, 1, is_test=True)

    assert shown(customer.get(TASKS)) == live
    assert shown(Caller(customer.organization, "test").get(TASKS)) == test


def test_status_filters(customer: Caller) -> None:
    failed, processing, pending = make_tasks(customer, 3)
    lifecycle.start(public_ids=[processing])
    lifecycle.fail(public_id=failed, code=Generation.ErrorCode.GENERATION_FAILED)

    assert shown(customer.get(f"{TASKS}?status=failed&limit=10")) == [failed]
    assert shown(customer.get(f"{TASKS}?status=processing")) == [processing]
    assert shown(customer.get(f"{TASKS}?status=pending")) == [pending]
    assert shown(customer.get(f"{TASKS}?status=completed")) == []


@pytest.mark.parametrize("limit", ["0", "101", "-1", "ten", "1.0", "", "٣", "9" * 50])
def test_bad_limit_is_refused(customer: Caller, limit: str) -> None:
    response = customer.get(f"{TASKS}?limit={limit}")

    assert response.status_code == 400
    assert response.json()["error"]["message"] == "limit must be an integer between 1 and 100."


def test_every_bad_parameter_is_named(customer: Caller) -> None:
    response = customer.get(f"{TASKS}?status=done&limit=0&created_after=yesterday&model=%00")

    assert response.status_code == 400
    assert response.json()["error"]["message"] == (
        "status must be one of pending, processing, completed, failed. limit must be an integer between 1 and 100."
        " model must not contain NUL characters."
        " created_after must be an ISO 8601 date or datetime, such as 2026-07-01T00:00:00.000Z."
    )


def test_pages_follow_each_other_whatever_is_created_meanwhile(customer: Caller, stranger: Caller) -> None:
    with time_machine.travel(NOON, tick=False):
        tied = sorted((create_generation(customer.organization).public_id for _ in range(3)), reverse=True)
    made = [*make_tasks(customer, 4)[:3], *[]]
    # The first of the four was created in the same millisecond as the tied ones.
    everything = [row.public_id for row in Generation.objects.order_by("-created_at", "-public_id")]
    assert set(tied) < set(everything)
    assert made == everything[:3]

    seen: list[str] = []
    path: str | None = f"{TASKS}?limit=2&status=pending"
    while path:
        response = customer.get(path)
        seen += shown(response)
        path = next_page(response)
        assert path is None or "limit=2" in path
        create_generation(customer.organization)
        make_tasks(stranger, 1)

    assert seen == everything


@pytest.mark.parametrize(
    "cursor", ["", "x", "%00", "bm90IG91cnM", "OTk5OTk5OTk5OTk5OTk5LnZpZF8wMWp6OGI3cTR4OGsycDl3M201YzZuN3I4cw", "=" * 9]
)
def test_bad_cursor_is_refused(customer: Caller, cursor: str) -> None:
    response = customer.get(f"{TASKS}?cursor={cursor}")

    assert response.status_code == 400
    assert "cursor" in response.json()["error"]["message"]


def test_model_filters_by_public_and_by_old_name(customer: Caller) -> None:
    ModelAlias.objects.create(alias="seedance-lite", model_id="mini")
    mini = make_tasks(customer, 1)
    fast = make_tasks(customer, 1, model="fast")

    assert shown(customer.get(f"{TASKS}?model=mini")) == mini
    assert shown(customer.get(f"{TASKS}?model=seedance-lite")) == mini
    assert shown(customer.get(f"{TASKS}?model=fast")) == fast
    assert shown(customer.get(f"{TASKS}?model=nano")) == []


def test_pages_of_an_old_name_have_the_tasks_of_both_names_in_order(customer: Caller, stranger: Caller) -> None:
    """A task keeps the name that its model had when it was made."""
    ModelAlias.objects.create(alias="seedance-lite", model_id="mini")
    made = make_tasks(customer, 5)
    Generation.objects.filter(pk__in=made[1::2]).update(model="seedance-lite")
    make_tasks(customer, 2, model="fast")
    make_tasks(stranger, 2)

    walked = []
    path: str | None = f"{TASKS}?model=seedance-lite&limit=2"
    while path is not None:
        page = customer.get(path)
        walked.append(shown(page))
        path = next_page(page)

    assert walked == [made[:2], made[2:4], made[4:]]
    assert shown(customer.get(f"{TASKS}?model=mini")) == made[::2]


def test_created_filters_are_from_included_to_excluded(customer: Caller) -> None:
    made = make_tasks(customer, 3)

    assert shown(customer.get(f"{TASKS}?created_after=2026-07-01T12:00:01.000Z")) == made[:2]
    assert shown(customer.get(f"{TASKS}?created_before=2026-07-01T12:00:01Z")) == made[2:]
    assert shown(customer.get(f"{TASKS}?created_after=2026-07-01&created_before=2026-07-02")) == made
    assert shown(customer.get(f"{TASKS}?created_after=2026-07-01T14:00:02+02:00")) == made[:1]


def test_etag_and_link_hold_for_lists(customer: Caller) -> None:
    make_tasks(customer, 2)
    first = customer.get(f"{TASKS}?limit=1")

    again = customer.get(f"{TASKS}?limit=1", if_none_match=first.headers["ETag"])

    assert (again.status_code, again.content) == (304, b"")
    assert again.headers["Link"] == first.headers["Link"]


def test_list_takes_the_same_queries_for_one_task_as_for_many(
    customer: Caller, django_assert_num_queries: DjangoAssertNumQueries
) -> None:
    make_tasks(customer, 30)
    customer.get(TASKS)

    with django_assert_num_queries(3):  # the key, the tasks, their files
        customer.get(f"{TASKS}?limit=30")
