"""The Idempotency-Key of POST /v1/videos/generations."""

import contextlib
import datetime as dt
import threading
import time
from collections.abc import Iterator
from typing import Any

import pytest
import time_machine
from django.db import connection, connections, transaction
from django.db.backends.utils import CursorWrapper

from accounts.clients import Client
from billing import ledger
from generations import idempotency
from generations.models import Generation, IdempotencyRecord
from generations.tests.callers import Caller, minimal
from generations.tests.factories import funded_organization
from seedancee2.lib import database


def test_same_key_and_body_give_the_first_answer_again(customer: Caller) -> None:
    body = {**minimal(foo=1), "metadata": {"a": 1, "b": 2}}
    first = customer.create(body, idempotency_key="job-1")
    reordered = {"metadata": {"b": 2, "a": 1}, "input": body["input"], "model": "mini"}

    again = customer.create(reordered, idempotency_key="job-1")

    assert (first.status_code, again.status_code) == (201, 201)
    assert again.content == first.content
    assert again.headers["Location"] == first.headers["Location"]
    assert again.headers["X-Seedancee2-Ignored-Fields"] == "input.foo"
    assert again.headers["Idempotent-Replayed"] == "true"
    assert "Idempotent-Replayed" not in first.headers
    assert Generation.objects.count() == 1
    assert ledger.balance(organization_id=customer.organization.pk) == (980, 20)


def test_same_key_with_another_body_is_refused(customer: Caller) -> None:
    customer.create(minimal(), idempotency_key="job-1")
    before = customer.holdings()

    response = customer.create(minimal(duration=5), idempotency_key="job-1")

    assert response.status_code == 422
    assert response.json()["error"]["code"] == "idempotency_key_reused"
    assert customer.holdings() == before


def test_refused_requests_do_not_use_a_key_up(db: None) -> None:
    poor = Caller(funded_organization(20))
    assert poor.create(minimal(duration=99), idempotency_key="k").status_code == 400
    assert poor.create({**minimal(), "model": "nano"}, idempotency_key="k").status_code == 404
    assert poor.create(minimal(duration=5), idempotency_key="k").status_code == 402

    assert poor.create(minimal(), idempotency_key="k").status_code == 201


def test_keys_belong_to_an_organization_and_a_mode_and_survive_rotation(customer: Caller, stranger: Caller) -> None:
    test_caller = Caller(customer.organization, "test")
    rotated = Caller(customer.organization)
    first = customer.create(minimal(), idempotency_key="k").json()["data"]["id"]

    ids = {caller.create(minimal(), idempotency_key="k").json()["data"]["id"] for caller in (stranger, test_caller)}

    assert first not in ids
    assert len(ids) == 2
    assert rotated.create(minimal(), idempotency_key="k").json()["data"]["id"] == first


def test_keys_are_kept_for_24_hours(customer: Caller) -> None:
    start = dt.datetime(2026, 7, 1, tzinfo=dt.UTC)
    with time_machine.travel(start, tick=False):
        first = customer.create(minimal(), idempotency_key="k").content
    with time_machine.travel(start + dt.timedelta(hours=23, minutes=59), tick=False):
        assert customer.create(minimal(), idempotency_key="k").content == first
        assert idempotency.purge() == 0
    with time_machine.travel(start + dt.timedelta(hours=24), tick=False):
        assert customer.create(minimal(), idempotency_key="k").content != first
        assert idempotency.purge() == 0
    with time_machine.travel(start + dt.timedelta(hours=48), tick=False):
        assert idempotency.purge() == 1


@pytest.mark.django_db(transaction=True)
def test_a_key_that_is_used_anew_while_old_ones_are_purged_is_kept() -> None:
    customer = Caller(funded_organization())
    start = dt.datetime(2026, 7, 1, tzinfo=dt.UTC)
    with time_machine.travel(start, tick=False):
        customer.create(minimal(), idempotency_key="k")
    made: list[bytes] = []

    def use_it_first(execute: Any, sql: str, params: Any, many: bool, context: Any) -> Any:
        if sql.startswith("DELETE") and not made:
            made.append(b"")
            made[0] = customer.create(minimal(), idempotency_key="k").content
        return execute(sql, params, many, context)

    with time_machine.travel(start + dt.timedelta(hours=24, seconds=1), tick=False):
        with connection.execute_wrapper(use_it_first):
            assert idempotency.purge() == 0
        assert customer.create(minimal(), idempotency_key="k").content == made[0]


@pytest.mark.django_db(transaction=True)
def test_the_look_for_an_answer_comes_after_the_try_for_the_lock() -> None:
    """A statement sees what was committed before it began, and the first request may end just then."""
    customer = Caller(funded_organization())
    has_locked = threading.Event()

    def answer() -> None:
        with connection.cursor() as cursor:
            cursor.execute("SELECT pg_advisory_lock(77)")
            has_locked.set()
            while not waits(cursor):
                time.sleep(0.02)
            customer.create(minimal(), idempotency_key="k")
            cursor.execute("SELECT pg_advisory_unlock(77)")
        connections.close_all()

    def waits(cursor: CursorWrapper) -> bool:
        cursor.execute("SELECT count(*) FROM pg_locks WHERE locktype = 'advisory' AND objid = 77 AND NOT granted")
        return bool(cursor.fetchone()[0])

    first = threading.Thread(target=answer)
    first.start()
    assert has_locked.wait(30)
    with database.patience(seconds=60, is_for_locks=True), transaction.atomic(), connection.cursor() as cursor:
        cursor.execute(
            "SELECT (generations_claim_key(1, %s, false, 'k', now() - interval '1 day')).reference"
            " FROM (SELECT pg_advisory_xact_lock(77) OFFSET 0) AS meanwhile",
            [customer.organization.pk],
        )
        found = cursor.fetchone()
    first.join()
    assert found == (Generation.objects.get().pk,)


@pytest.mark.parametrize("key", ["", "a b", "x" * 256, "ключ", "a\tb"])
def test_malformed_keys_are_refused(customer: Caller, key: str) -> None:
    message = customer.refused(minimal(), idempotency_key=key)

    assert message == "The Idempotency-Key header must be 1 to 255 visible ASCII characters."


@pytest.mark.django_db(transaction=True)
def test_a_second_request_while_the_first_is_under_way_is_told_so() -> None:
    customer = Caller(funded_organization())

    with locked_elsewhere(customer, "k"):
        response = customer.create(minimal(), idempotency_key="k")

    assert response.status_code == 409
    assert response.json()["error"]["code"] == "idempotency_key_in_use"
    assert response.headers["Retry-After"] == "1"
    assert (Generation.objects.count(), IdempotencyRecord.objects.count()) == (0, 0)
    assert customer.create(minimal(), idempotency_key="k").status_code == 201


@pytest.mark.django_db(transaction=True)
def test_replays_do_not_wait_for_one_another() -> None:
    customer = Caller(funded_organization())
    first = customer.create(minimal(), idempotency_key="k")

    with locked_elsewhere(customer, "k"):
        again = customer.create(minimal(), idempotency_key="k")

    assert (again.status_code, again.content) == (201, first.content)


@contextlib.contextmanager
def locked_elsewhere(customer: Caller, key: str) -> Iterator[None]:
    """Let another connection be at work on a key."""
    client = Client(
        organization_id=customer.organization.pk,
        api_key_id=0,
        is_test=False,
        create_rate_limit=None,
        request_rate_limit=None,
    )
    number = lock_number(client, key)
    other = connection.copy()
    try:
        other.set_autocommit(False)
        with other.cursor() as cursor:
            cursor.execute("SELECT pg_advisory_xact_lock(%s)", [number])
        yield
    finally:
        other.rollback()
        other.close()


def lock_number(client: Client, key: str) -> int:
    """Find out which advisory lock a key takes, from PostgreSQL's own list."""
    with transaction.atomic():
        is_first, _ = idempotency._claim(client, key, idempotency._digest(minimal()))
        assert is_first
        with connection.cursor() as cursor:
            cursor.execute(
                "SELECT (classid::bigint << 32) | objid::bigint FROM pg_locks"
                " WHERE locktype = 'advisory' AND pid = pg_backend_pid()"
            )
            return int(cursor.fetchone()[0])
