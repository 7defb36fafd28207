"""Claiming: oldest first, never twice, few of one endpoint."""

import datetime as dt
import re
import threading
import time
from collections import Counter
from collections.abc import Iterator
from typing import Any

import pytest
import time_machine
from django.db import connection, transaction

from accounts.tests.factories import OrganizationFactory
from seedancee2.lib import clock, lanes
from tests.receivers import Answer, Receiver, black_hole
from webhooks import claims, tasks
from webhooks import delivery as deliveries
from webhooks.models import Delivery, Endpoint
from webhooks.tests.factories import DeliveryFactory


def make(host: str, count: int = 1, *, due_in: float = 0, **fields: Any) -> list[Delivery]:
    """Make deliveries to a host, due in so many seconds."""
    due = clock.now() + dt.timedelta(seconds=due_in)
    return DeliveryFactory.create_batch(count, url=f"https://{host}/hook", due_at=due, **fields)


@pytest.mark.django_db
def test_only_what_is_due_and_free_is_claimed_oldest_first() -> None:
    make("c.example", due_in=-1)
    make("a.example", due_in=-3)
    make("b.example", due_in=-2)
    make("d.example", due_in=60)
    make("e.example", leased_until=clock.now() + dt.timedelta(seconds=30))
    make("f.example", due_in=-4, leased_until=clock.now() - dt.timedelta(seconds=1))
    Delivery.objects.create(
        delivery_id="dlv_done",
        organization=OrganizationFactory.create(),
        reference="vid_done",
        event="video.generation.failed",
        url="https://g.example/",
        host="https://g.example:443",
        body=b"{}",
        state="delivered",
        finished_at=clock.now(),
    )

    claimed = deliveries.claim_due(3)

    assert [delivery.host for delivery in claimed] == [f"https://{name}.example:443" for name in "fab"]
    for delivery in claimed:
        assert delivery.lease_token is not None
        assert delivery.leased_until is not None
        assert delivery.leased_until > clock.now() + dt.timedelta(seconds=55)
    assert [delivery.host for delivery in deliveries.claim_due(3)] == ["https://c.example:443"]


@pytest.mark.django_db
def test_an_endpoint_has_at_most_two_leases_and_others_pass_its_backlog() -> None:
    organization = OrganizationFactory.create()
    with time_machine.travel(clock.now(), tick=False) as traveller:
        make("slow.example", 30, due_in=-100, organization=organization)
        make("good.example", 3, due_in=-1, organization=organization)

        first = Counter(delivery.host for delivery in deliveries.claim_due(16))
        second = deliveries.claim_due(16)

        assert first == {"https://slow.example:443": 2, "https://good.example:443": 2}
        assert second == []

        traveller.shift(deliveries.LEASE)
        assert Counter(delivery.host for delivery in deliveries.claim_due(16)) == first


@pytest.mark.django_db
def test_two_organizations_with_one_host_have_their_leases_each() -> None:
    mine, others = OrganizationFactory.create_batch(2)
    make("shared.example", 5, due_in=-5, organization=mine)
    make("shared.example", 5, due_in=-1, organization=others)

    claimed = Counter(delivery.organization_id for delivery in deliveries.claim_due(16))

    assert claimed == {mine.pk: 2, others.pk: 2}


@pytest.mark.django_db
def test_whoever_writes_a_delivery_wakes_its_endpoint() -> None:
    ended = DeliveryFactory.create(state="delivered", due_at=None, finished_at=clock.now())
    assert deliveries.claim_due(16) == []

    Delivery.objects.filter(pk=ended.pk).update(state="pending", finished_at=None, due_at=clock.now())

    assert [delivery.pk for delivery in deliveries.claim_due(16)] == [ended.pk]
    assert Endpoint.objects.get().due_at == Delivery.objects.get().leased_until


@pytest.mark.django_db
def test_a_claim_reads_as_much_as_it_takes_however_many_endpoints_have_a_backlog() -> None:
    organization = OrganizationFactory.create()
    with connection.cursor() as cursor:
        cursor.execute(
            """
            INSERT INTO webhooks_delivery (delivery_id, organization_id, is_test, reference, event, url, host, body,
                                           state, attempt_count, created_at, due_at)
            SELECT 'dlv_' || n, %s, false, 'vid_' || n, 'video.generation.completed', '', 'https://h' || mod(n, 2000),
                   '', 'pending', 0, now(), now() - n * interval '1 second' FROM generate_series(1, 4000) n
            """,
            [organization.pk],
        )
        cursor.execute("ANALYZE webhooks_delivery, webhooks_endpoint")
    plans: list[str] = []

    def explain(execute: Any, sql: str, params: Any, many: bool, context: Any) -> Any:
        if params:
            with transaction.atomic():  # what is explained is done, too
                execute("EXPLAIN (ANALYZE, TIMING OFF, BUFFERS OFF) " + sql, params, many, context)
                plans.append("\n".join(row[0] for row in context["cursor"].fetchall()))
                transaction.set_rollback(True)
        return execute(sql, params, many, context)

    with transaction.atomic(), connection.execute_wrapper(explain):
        claimed = deliveries.claim_due(20)

    assert len(claimed) == 20
    taken, *_, rescheduled = plans
    assert "webhooks_endpoint_due" in taken
    most = max(int(rows) for plan in plans for rows in re.findall(r"actual rows=(\d+)", plan))
    assert most <= 2 * (20 + claims.SPARE), "\n".join(plans)
    assert "Seq Scan on webhooks_delivery" not in rescheduled


@pytest.mark.race
@pytest.mark.django_db(transaction=True)
def test_claims_at_once_never_share_a_row_nor_crowd_a_host() -> None:
    organization = OrganizationFactory.create()
    for host in range(20):
        make(f"h{host}.example", 10, organization=organization)
    claimed: list[str] = []
    crowded: list[int] = []
    lock = threading.Lock()
    start = threading.Barrier(8)

    def work() -> None:
        start.wait()
        try:
            idle_count = 0
            while idle_count < 20:
                rows = deliveries.claim_due(5)
                idle_count = 0 if rows else idle_count + 1
                with lock:
                    claimed.extend(row.pk for row in rows)
                for row in rows:
                    held = Delivery.objects.filter(host=row.host, leased_until__isnull=False).count()
                    if held > claims.MAX_IN_FLIGHT:
                        crowded.append(held)
                for row in rows:
                    Delivery.objects.filter(pk=row.pk, lease_token=row.lease_token).update(
                        state="delivered", finished_at=clock.now(), due_at=None, lease_token=None, leased_until=None
                    )
                time.sleep(0.002)
        finally:
            connection.close()

    workers = [threading.Thread(target=work) for _ in range(8)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()

    assert len(claimed) == len(set(claimed)) == 200
    assert crowded == []


@pytest.fixture
def receiver(settings: Any) -> Iterator[Receiver]:
    settings.OUTBOUND_ALLOWED_HOSTS = ["127.0.0.1", "localhost"]
    with Receiver() as running:
        yield running


@pytest.mark.race
@pytest.mark.django_db(transaction=True)
def test_the_task_delivers_everything_once_with_more_threads_than_pooled_connections(receiver: Receiver) -> None:
    organization = OrganizationFactory.create()
    receiver.plan("/hook", Answer(delay=0.05))
    with Receiver() as second:
        for number in range(40):
            target = (receiver, second)[number % 2]
            DeliveryFactory.create(url=target.url("/hook"), organization=organization)

        threads = [threading.Thread(target=tasks.deliver) for _ in range(3)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()

        ids = [request.headers["x-seedancee2-delivery"] for request in receiver.requests + second.requests]
    assert len(ids) == len(set(ids)) == 40
    assert set(Delivery.objects.values_list("state", "attempt_count")) == {("delivered", 1)}


@pytest.mark.race
@pytest.mark.django_db(transaction=True)
def test_a_hanging_host_does_not_hold_up_what_becomes_due_meanwhile(
    receiver: Receiver, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(deliveries, "DEADLINE_SECONDS", 3.0)
    organization = OrganizationFactory.create()
    with black_hole() as port:
        DeliveryFactory.create_batch(5, url=f"http://127.0.0.1:{port}/", organization=organization)
        drain = threading.Thread(
            target=lanes.drain,
            args=("deliver",),
            kwargs={
                "claim": deliveries.claim_due,
                "work": deliveries.attempt,
                "concurrency": 4,
                "budget": 1.5,
                "longest": 1.5,
            },
        )
        drain.start()
        time.sleep(0.5)
        made_at = time.monotonic()
        DeliveryFactory.create(url=receiver.url("/hook", host="localhost"), organization=organization)
        while not receiver.requests and time.monotonic() < made_at + 5:
            time.sleep(0.01)
        waited = time.monotonic() - made_at
        drain.join()

    assert waited < 0.8
    assert Delivery.objects.filter(attempt_count=1).count() == 3
