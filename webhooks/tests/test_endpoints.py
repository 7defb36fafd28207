"""Endpoints: the breaker in virtual time, the shares of places, and that no delivery is ever overlooked."""

import datetime as dt
import itertools
import threading
import time
from collections import Counter, defaultdict
from collections.abc import Iterator
from typing import Any

import pytest
import time_machine
from django.db import connections, transaction

from accounts.tests.factories import OrganizationFactory
from seedancee2.lib import clock
from tests.receivers import Answer, Receiver
from webhooks import claims, endpoints, outbox
from webhooks import deliveries as recovery
from webhooks import delivery as deliveries
from webhooks.delivery import SCHEDULE
from webhooks.models import LONGEST_PAUSE, Delivery, DeliveryAttempt, Endpoint
from webhooks.tests.factories import DeliveryFactory

pytestmark = pytest.mark.django_db

Standing = Endpoint.Standing
MINUTE = dt.timedelta(minutes=1)


@pytest.fixture
def receiver(settings: Any) -> Iterator[Receiver]:
    settings.OUTBOUND_ALLOWED_HOSTS = ["127.0.0.1", "localhost"]
    with Receiver() as running:
        yield running


@pytest.fixture
def turned() -> Iterator[time_machine.Traveller]:
    """A clock that stands still until the test moves it."""
    with time_machine.travel("2026-06-29T10:00:00Z", tick=False) as traveller:
        yield traveller


def attempt_due() -> int:
    """Attempt whatever can be claimed now, one after the other; return how many attempts that were."""
    count = 0
    while claimed := deliveries.claim_due(1):
        deliveries.attempt(claimed[0])
        count += 1
    return count


def test_five_failures_in_a_row_pause_an_endpoint_and_a_failed_probe_doubles_the_pause(
    receiver: Receiver, turned: time_machine.Traveller, caplog: pytest.LogCaptureFixture
) -> None:
    receiver.plan("/hook", Answer(500))
    DeliveryFactory.create_batch(20, url=receiver.url("/hook"), organization=OrganizationFactory.create())

    assert attempt_due() == 5

    row = Endpoint.objects.get()
    assert (row.failure_count, row.failing_since, row.paused_until) == (5, clock.now(), clock.now() + MINUTE)
    assert (row.standing, row.last_error) == (Standing.FAILING, "The answer was 500.")
    assert "'event': 'endpoint_paused'" in caplog.text
    for minutes in (1, 2, 4, 8):
        turned.shift(minutes * MINUTE - dt.timedelta(milliseconds=1))
        assert attempt_due() == 0
        turned.shift(dt.timedelta(milliseconds=1))
        assert attempt_due() == 1  # the probe
    row.refresh_from_db()
    assert (row.trip_count, row.paused_until) == (5, clock.now() + 16 * MINUTE)
    # What was held is no attempt: it lost nothing of its schedule.
    assert set(Delivery.objects.values_list("state", "attempt_count")) == {("pending", 0), ("pending", 1)}
    assert len(receiver.requests) == DeliveryAttempt.objects.count() == 9


def test_only_one_probe_is_under_way_however_many_claim(receiver: Receiver, turned: time_machine.Traveller) -> None:
    receiver.plan("/hook", Answer(500))
    DeliveryFactory.create_batch(10, url=receiver.url("/hook"), organization=OrganizationFactory.create())
    attempt_due()
    turned.shift(MINUTE)

    assert [len(deliveries.claim_due(16)) for _ in range(3)] == [1, 0, 0]

    # A probe that died with its worker makes room for the next when its lease ends.
    turned.shift(deliveries.LEASE)
    assert len(deliveries.claim_due(16)) == 1


def test_the_first_success_ends_the_pause(
    receiver: Receiver, turned: time_machine.Traveller, caplog: pytest.LogCaptureFixture
) -> None:
    receiver.plan("/hook", *[Answer(500)] * 5, Answer(200))
    DeliveryFactory.create_batch(9, url=receiver.url("/hook"), organization=OrganizationFactory.create())
    attempt_due()
    turned.shift(MINUTE)

    assert attempt_due() == 9

    row = Endpoint.objects.get()
    assert (row.failure_count, row.trip_count, row.failing_since, row.paused_until) == (0, 0, None, None)
    assert (row.standing, row.last_error) == (Standing.GOOD, "")
    assert "'event': 'endpoint_resumed'" in caplog.text
    assert set(Delivery.objects.values_list("state", flat=True)) == {"delivered"}


def test_a_failure_that_was_under_way_when_the_breaker_opened_does_not_lengthen_the_pause(
    receiver: Receiver, turned: time_machine.Traveller
) -> None:
    receiver.plan("/hook", Answer(500))
    DeliveryFactory.create_batch(6, url=receiver.url("/hook"), organization=OrganizationFactory.create())
    for _ in range(4):
        deliveries.attempt(deliveries.claim_due(1)[0])
    fifth, sixth = deliveries.claim_due(2)

    deliveries.attempt(fifth)
    turned.shift(1)
    deliveries.attempt(sixth)

    row = Endpoint.objects.get()
    assert (row.failure_count, row.trip_count, row.paused_until) == (6, 1, clock.now() + dt.timedelta(seconds=59))


def test_a_pause_is_nobody_elses(receiver: Receiver, turned: time_machine.Traveller) -> None:
    receiver.plan("/bad", Answer(500))
    mine, others = OrganizationFactory.create_batch(2)
    DeliveryFactory.create_batch(9, url=receiver.url("/bad"), organization=mine)
    attempt_due()

    DeliveryFactory.create(url=receiver.url("/good"), organization=others)
    DeliveryFactory.create(url=receiver.url("/good", host="localhost"), organization=mine)
    held = DeliveryFactory.create(url=receiver.url("/good"), organization=mine)

    assert attempt_due() == 2
    assert len(receiver.received("/good")) == 2
    held.refresh_from_db()
    assert (held.state, held.attempt_count) == ("pending", 0)


def test_no_attempt_is_held_for_longer_than_the_longest_pause(
    receiver: Receiver, turned: time_machine.Traveller
) -> None:
    receiver.plan("/hook", Answer(500))
    DeliveryFactory.create_batch(200, url=receiver.url("/hook"), organization=OrganizationFactory.create())
    made_at = clock.now()
    attempt_due()

    longest = made_at + LONGEST_PAUSE
    while (due_at := Endpoint.objects.get().due_at) and due_at < longest:
        turned.move_to(due_at)
        assert attempt_due() <= 1
    assert due_at == longest
    assert Delivery.objects.filter(attempt_count=0).count() > 150
    turned.move_to(longest)
    attempt_due()

    assert not Delivery.objects.filter(attempt_count=0).exists()


@pytest.mark.parametrize("count", [1, 3, 12])
def test_every_attempt_comes_when_it_is_due_and_no_later_than_a_pause_until_the_last(
    receiver: Receiver, turned: time_machine.Traveller, count: int
) -> None:
    receiver.plan("/hook", Answer(500))
    organization = OrganizationFactory.create()
    for _ in range(count):
        DeliveryFactory.create(url=receiver.url("/hook"), organization=organization)
        turned.shift(7)
    began = clock.now()

    while due_at := Endpoint.objects.get().due_at:
        turned.move_to(max(due_at, clock.now()))
        attempt_due()

    assert set(Delivery.objects.values_list("state", "attempt_count")) == {("abandoned", 12)}
    starts: defaultdict[str, list[dt.datetime]] = defaultdict(list)
    for attempt in DeliveryAttempt.objects.order_by("number"):
        starts[attempt.delivery_id].append(attempt.started_at)
    for times in starts.values():
        gaps = [later - earlier for earlier, later in itertools.pairwise(times)]
        for gap, base in zip(gaps, SCHEDULE[1:], strict=True):
            longest = dt.timedelta(seconds=base * 1.2 + 0.001) + LONGEST_PAUSE
            assert dt.timedelta(seconds=base) <= gap <= longest
        assert dt.timedelta(hours=72) <= times[-1] - times[0]
    assert clock.now() - began < dt.timedelta(hours=91 + 6)


def test_a_slow_success_and_an_unknown_endpoint_are_unsure(receiver: Receiver, monkeypatch: Any) -> None:
    receiver.plan("/hook", Answer(), Answer())
    DeliveryFactory.create_batch(2, url=receiver.url("/hook"), organization=OrganizationFactory.create())
    standings = [Endpoint.objects.get().standing]

    for quick_ms in (-1, 60_000):
        monkeypatch.setattr(endpoints, "QUICK_MS", quick_ms)
        deliveries.attempt(deliveries.claim_due(1)[0])
        standings.append(Endpoint.objects.get().standing)

    assert standings == [Standing.UNSURE, Standing.UNSURE, Standing.GOOD]


# --- Shares of places. ---


def make_endpoints(organization: Any, name: str, count: int, standing: Standing, *, due_in: float = 0) -> None:
    """Make endpoints of an organization, each with three deliveries due."""
    due_at = clock.now() + dt.timedelta(seconds=due_in)
    for number in range(count):
        url = f"https://{name}{number}.example/"
        DeliveryFactory.create_batch(3, url=url, due_at=due_at, organization=organization)
    Endpoint.objects.filter(origin__startswith=f"https://{name}").update(standing=standing)


def claimed_by(desk: claims.Desk, limit: int) -> Counter[tuple[int, int]]:
    """Claim until nothing more is given; count by organization and standing."""
    found: Counter[tuple[int, int]] = Counter()
    while rows := desk.claim(limit - found.total()):
        found.update((row.organization_id, row.standing) for row in rows)  # type: ignore[attr-defined] # of a claim
    return found


def test_what_fails_or_is_new_has_a_third_of_the_places_and_no_organization_half_of_that() -> None:
    first, second = OrganizationFactory.create_batch(2)
    make_endpoints(first, "bad", 20, Standing.FAILING, due_in=-60)
    make_endpoints(second, "worse", 3, Standing.FAILING, due_in=-30)
    make_endpoints(first, "new", 20, Standing.UNSURE, due_in=-60)
    make_endpoints(first, "good", 8, Standing.GOOD)
    desk = claims.Desk(deliveries.claim_due, threads=24)

    found = claimed_by(desk, 24)

    assert found == {
        (first.pk, Standing.FAILING): 4,  # of 8
        (second.pk, Standing.FAILING): 4,
        (first.pk, Standing.UNSURE): 4,
        (first.pk, Standing.GOOD): 12,
    }


def test_an_organization_of_very_many_endpoints_leaves_places_to_the_others() -> None:
    many, few = OrganizationFactory.create_batch(2)
    make_endpoints(many, "many", 4 * claims.SPARE, Standing.GOOD, due_in=-60)
    make_endpoints(few, "few", 1, Standing.GOOD)
    desk = claims.Desk(deliveries.claim_due, threads=12)

    found = claimed_by(desk, 12)

    # Two at a time of one endpoint.
    assert found == {(many.pk, Standing.GOOD): 6, (few.pk, Standing.GOOD): 2}


def test_one_failure_leaves_an_endpoint_among_those_that_are_slow_at_worst() -> None:
    delivery = DeliveryFactory.create(url="https://once.example/")
    endpoint = Endpoint.objects.get()
    standings = []
    for _ in range(endpoints.TRIPPING_FAILURES):
        with transaction.atomic():
            endpoints.note_failure(endpoint, error="The answer was 500.")
        standings.append(Endpoint.objects.get(deliveries=delivery).standing)

    assert standings == [Standing.UNSURE] * 4 + [Standing.FAILING]


def test_a_place_that_was_given_back_is_given_again() -> None:
    organization = OrganizationFactory.create()
    make_endpoints(organization, "bad", 20, Standing.FAILING)
    desk = claims.Desk(deliveries.claim_due, threads=12)
    rows = desk.claim(12)
    assert len(rows) == 2
    assert desk.claim(12) == []

    desk.served(lambda row: None)(rows[0])

    assert len(desk.claim(12)) == 1


def test_a_lane_that_comes_to_its_end_serves_only_the_good() -> None:
    organization = OrganizationFactory.create()
    make_endpoints(organization, "bad", 1, Standing.FAILING)
    make_endpoints(organization, "new", 1, Standing.UNSURE)
    make_endpoints(organization, "good", 1, Standing.GOOD)
    desk = claims.Desk(deliveries.claim_due, threads=12, patience=0.0)
    time.sleep(0.01)

    assert {row.host for row in desk.claim(12)} == {"https://good0.example:443"}


# --- Races. ---


@pytest.mark.race
@pytest.mark.django_db(transaction=True)
def test_a_delivery_that_is_not_committed_yet_is_not_overlooked_by_a_look_meanwhile(receiver: Receiver) -> None:
    organization = OrganizationFactory.create()
    DeliveryFactory.create(url=receiver.url("/hook"), organization=organization)
    deliveries.attempt(deliveries.claim_due(1)[0])
    is_written, may_commit = threading.Event(), threading.Event()
    assert Endpoint.objects.get().due_at is not None  # a place became free: it needs a look

    def write() -> None:
        with transaction.atomic():
            DeliveryFactory.create(url=receiver.url("/hook"), organization=organization)
            is_written.set()
            may_commit.wait(10)
        connections.close_all()

    writer = threading.Thread(target=write)
    writer.start()
    assert is_written.wait(10)
    assert deliveries.claim_due(1) == []
    may_commit.set()
    writer.join()

    assert len(deliveries.claim_due(1)) == 1


@pytest.mark.race
@pytest.mark.django_db(transaction=True)
def test_nothing_is_overlooked_that_is_written_while_others_claim_and_record(receiver: Receiver) -> None:
    organizations = OrganizationFactory.create_batch(2)
    writers, each = 6, 20
    is_over = threading.Event()

    def write(number: int) -> None:
        try:
            for event in range(each):
                with transaction.atomic():
                    outbox.enqueue(
                        organization_id=organizations[number % 2].pk,
                        is_test=False,
                        reference=f"vid_{number}_{event}",
                        event=Delivery.Event.COMPLETED,
                        url=receiver.url(f"/{number}"),
                        body=b"{}",
                    )
                    time.sleep(0.002)  # as long as a task's transaction stays open after it
        finally:
            connections.close_all()

    def work() -> None:
        try:
            while not is_over.is_set():
                for row in deliveries.claim_due(5):
                    deliveries.attempt(row)
                time.sleep(0.001)
        finally:
            connections.close_all()

    writing = [threading.Thread(target=write, args=(number,)) for number in range(writers)]
    working = [threading.Thread(target=work) for _ in range(3)]
    for thread in writing + working:
        thread.start()
    for thread in writing:
        thread.join()
    end = time.monotonic() + 30
    # Nobody writes any more: whatever was overlooked stays so.
    while Delivery.objects.filter(state="pending").exists() and time.monotonic() < end:
        time.sleep(0.05)
    is_over.set()
    for thread in working:
        thread.join()

    assert set(Delivery.objects.values_list("state", "attempt_count")) == {("delivered", 1)}
    assert len(receiver.requests) == Delivery.objects.count() == writers * each
    assert Endpoint.objects.count() == 2


def test_what_fails_in_test_mode_holds_up_nothing_live(receiver: Receiver, turned: time_machine.Traveller) -> None:
    organization = OrganizationFactory.create()
    receiver.plan("/test", Answer(500))
    DeliveryFactory.create_batch(6, url=receiver.url("/test"), organization=organization, is_test=True)
    assert attempt_due() == 5
    live = DeliveryFactory.create(url=receiver.url("/live"), organization=organization)

    assert attempt_due() == 1

    live.refresh_from_db()
    paused = dict(Endpoint.objects.values_list("is_test", "paused_until"))
    assert (live.state, paused) == ("delivered", {True: clock.now() + MINUTE, False: None})


def test_what_is_due_for_a_day_where_all_fails_is_given_up_and_can_be_recovered(
    receiver: Receiver, turned: time_machine.Traveller
) -> None:
    receiver.plan("/hook", Answer(500))
    organization = OrganizationFactory.create()
    failing = {"url": receiver.url("/hook"), "organization": organization}
    DeliveryFactory.create_batch(5, **failing)
    assert attempt_due() == 5
    stuck = DeliveryFactory.create_batch(3, **failing)
    elsewhere = DeliveryFactory.create(url="https://customer.example/")  # waits for us, not for its endpoint
    turned.shift(endpoints.LONGEST_WAIT)
    young = DeliveryFactory.create(**failing)
    assert endpoints.give_up_everywhere() == 0
    turned.shift(dt.timedelta(milliseconds=1))

    assert endpoints.give_up_everywhere() == 3

    states = dict(Delivery.objects.values_list("pk", "state"))
    assert {states[row.pk] for row in stuck} == {"abandoned"}
    assert (states[young.pk], states[elsewhere.pk]) == ("pending", "pending")
    again = recovery.recover(organization_id=organization.pk, is_test=False, since=clock.now(), actor="system:test")
    assert again.count == 3
