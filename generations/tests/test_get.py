"""GET /v1/videos/generations/{id}."""

import datetime as dt
import json
import threading
import time
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import pytest
import time_machine
from django.db import connection
from pytest_django import Settings

from generations import lifecycle, waiting
from generations.models import Generation, OutputAsset
from generations.tests.callers import TASKS, Caller, golden
from generations.tests.factories import create_generation, funded_organization
from seedancee2.lib import ids

if TYPE_CHECKING:
    from generations.tests.callers import Reply

PAGE_ID = "vid_01jz8b7q4x8k2p9w3m5c6n7r8s"
NOT_FOUND = {
    "error": {"code": "task_not_found", "message": "No video task has this ID.", "type": "invalid_request_error"}
}


@pytest.fixture
def page_clock() -> Iterator[time_machine.Traveller]:
    """The moment of the page's examples."""
    with time_machine.travel(dt.datetime(2026, 6, 29, 10, tzinfo=dt.UTC), tick=False) as traveller:
        yield traveller


@pytest.fixture
def page_task(customer: Caller, page_clock: None, settings: Settings, monkeypatch: pytest.MonkeyPatch) -> Generation:
    """The task of the page's examples, just created."""
    settings.MEDIA_BASE_URL = "https://media.seedancee2.ai"
    with monkeypatch.context() as patch:
        patch.setattr(ids, "new", lambda prefix: f"{prefix}_01jz8b7q4x8k2p9w3m5c6n7r8s")
        assert customer.create(golden("create_full_request")).status_code == 201
    return Generation.objects.get()


def stored_files(public_id: str) -> list[OutputAsset]:
    """Return the files of a completed task, not yet saved."""
    kinds = {
        OutputAsset.Kind.VIDEO: f"videos/2026/06/29/{public_id}.mp4",
        OutputAsset.Kind.THUMBNAIL: f"video-posters/2026/06/29/{public_id}.jpg",
        OutputAsset.Kind.LAST_FRAME: f"video-posters/2026/06/29/{public_id}_last.jpg",
    }
    return [
        OutputAsset(generation_id=public_id, kind=kind, path=path, size_bytes=1, sha256="0" * 64)
        for kind, path in kinds.items()
    ]


def assert_same(response: "Reply", example: Any) -> None:
    """Compare a whole reply: the same keys in the same order, the same values, metadata equal as JSON."""
    assert response.status_code == 200
    assert response.json() == example
    without_metadata = {key: value for key, value in example["data"].items() if key != "metadata"}
    assert response.content.decode().startswith(json.dumps({"data": without_metadata}, separators=(",", ":"))[:-2])


def test_pending_reads_like_processing_with_its_own_status(customer: Caller, page_task: Generation) -> None:
    response = customer.get(f"{TASKS}/{PAGE_ID}")

    example = golden("processing")
    assert_same(response, {"data": {**example["data"], "status": "pending"}})
    assert response.headers["Retry-After"] == "2"


def test_processing_is_answered_as_on_the_page(customer: Caller, page_task: Generation) -> None:
    lifecycle.start(public_ids=[PAGE_ID])

    response = customer.get(f"{TASKS}/{PAGE_ID}")

    assert_same(response, golden("processing"))
    assert int(response.headers["Retry-After"]) > 0


def test_completed_is_answered_as_on_the_page(
    customer: Caller, page_task: Generation, page_clock: time_machine.Traveller
) -> None:
    page_clock.shift(dt.timedelta(minutes=6, seconds=20))
    lifecycle.complete(public_id=PAGE_ID, assets=stored_files(PAGE_ID))

    response = customer.get(f"{TASKS}/{PAGE_ID}")

    assert_same(response, golden("completed"))
    assert "Retry-After" not in response.headers


def test_failed_is_answered_as_on_the_page(
    customer: Caller, page_task: Generation, page_clock: time_machine.Traveller
) -> None:
    page_clock.shift(dt.timedelta(minutes=1))
    lifecycle.fail(public_id=PAGE_ID, code=Generation.ErrorCode.GENERATION_FAILED)

    response = customer.get(f"{TASKS}/{PAGE_ID}")

    assert_same(response, golden("failed"))


def test_completed_task_refunded_later_shows_both_amounts(customer: Caller, page_task: Generation) -> None:
    lifecycle.complete(public_id=PAGE_ID, assets=stored_files(PAGE_ID))
    Generation.objects.update(credits_refunded=40)

    data = customer.get(f"{TASKS}/{PAGE_ID}").json()["data"]

    assert (data["status"], data["credits_charged"], data["credits_refunded"]) == ("completed", 100, 40)


@pytest.mark.parametrize(
    "task_id",
    [
        "vid_01jz8b7q4x8k2p9w3m5c6n7r8t",
        PAGE_ID.upper(),
        PAGE_ID[:-1],
        PAGE_ID + "0",
        "1",
        "%00",
        "%F0%9F%98%80",
        "vid_",
        "x" * 5000,
        "' OR 1=1 --",
        "null",
    ],
)
def test_unknown_and_malformed_ids_are_the_same_404(customer: Caller, page_task: Generation, task_id: str) -> None:
    response = customer.get(f"{TASKS}/{task_id}")

    assert response.status_code == 404
    assert response.json() == NOT_FOUND


def test_tasks_of_others_and_of_the_other_mode_are_the_same_404(
    customer: Caller, stranger: Caller, page_task: Generation
) -> None:
    own_test_key = Caller(customer.organization, "test")
    test_task = create_generation(customer.organization, is_test=True)

    for caller, public_id in [(stranger, PAGE_ID), (own_test_key, PAGE_ID), (customer, test_task.public_id)]:
        response = caller.get(f"{TASKS}/{public_id}")
        assert response.status_code == 404
        assert response.json() == NOT_FOUND
    assert own_test_key.get(f"{TASKS}/{test_task.public_id}").status_code == 200


def test_trailing_slash_is_served_like_none(customer: Caller, page_task: Generation) -> None:
    assert customer.get(f"{TASKS}/{PAGE_ID}/").content == customer.get(f"{TASKS}/{PAGE_ID}").content


def test_etag_saves_the_body_until_something_changes(customer: Caller, page_task: Generation) -> None:
    first = customer.get(f"{TASKS}/{PAGE_ID}")
    tag = first.headers["ETag"]

    for sent in (tag, f"W/{tag}", f'"other", {tag}', "*"):
        again = customer.get(f"{TASKS}/{PAGE_ID}", if_none_match=sent)
        assert (again.status_code, again.content, again.headers["ETag"]) == (304, b"", tag)
        assert "Content-Type" not in again.headers
    lifecycle.start(public_ids=[PAGE_ID])
    changed = customer.get(f"{TASKS}/{PAGE_ID}", if_none_match=tag)
    assert changed.status_code == 200
    assert changed.headers["ETag"] != tag


@pytest.mark.parametrize("wait", ["-1", "26", "1.5", "soon", ""])
def test_bad_wait_is_refused(customer: Caller, page_task: Generation, wait: str) -> None:
    response = customer.get(f"{TASKS}/{PAGE_ID}?wait={wait}")

    assert response.status_code == 400
    assert response.json()["error"]["message"] == "wait must be an integer between 0 and 25."


@pytest.mark.django_db(transaction=True)
def test_wait_answers_as_soon_as_the_status_moves(monkeypatch: pytest.MonkeyPatch) -> None:
    customer = Caller(funded_organization())
    task = create_generation(customer.organization)
    monkeypatch.setattr(waiting, "LOOK_EVERY", 0.05)

    release, waits = waiting._release_connection, threading.Event()

    def note() -> None:
        waits.set()
        release()

    def start_soon() -> None:
        assert waits.wait(30)
        lifecycle.start(public_ids=[task.public_id])
        connection.close()

    monkeypatch.setattr(waiting, "_release_connection", note)
    mover = threading.Thread(target=start_soon)
    mover.start()
    started = time.monotonic()
    response = customer.get(f"{TASKS}/{task.public_id}?wait=20")
    elapsed = time.monotonic() - started
    mover.join()

    assert response.json()["data"]["status"] == "processing"
    assert elapsed < 5


def test_wait_ends_after_its_time_and_never_waits_for_an_ended_task(
    customer: Caller, monkeypatch: pytest.MonkeyPatch
) -> None:
    task = create_generation(customer.organization)
    monkeypatch.setattr(waiting, "LOOK_EVERY", 0.2)

    started = time.monotonic()
    assert customer.get(f"{TASKS}/{task.public_id}?wait=1").json()["data"]["status"] == "pending"
    assert 0.9 < time.monotonic() - started < 5
    lifecycle.fail(public_id=task.public_id, code=Generation.ErrorCode.CANCELED)
    started = time.monotonic()
    assert customer.get(f"{TASKS}/{task.public_id}?wait=25").json()["data"]["status"] == "failed"
    assert time.monotonic() - started < 5


def test_only_a_few_requests_of_a_process_wait_at_once(customer: Caller, monkeypatch: pytest.MonkeyPatch) -> None:
    task = create_generation(customer.organization)
    monkeypatch.setattr(waiting, "_waiters", threading.BoundedSemaphore(1))
    waiting._waiters.acquire()

    started = time.monotonic()
    assert customer.get(f"{TASKS}/{task.public_id}?wait=25").status_code == 200
    assert time.monotonic() - started < 5
