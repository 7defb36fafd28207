"""Polls in a channel's rate, and a lane's threads shared between channels."""

import datetime as dt
import time

import pytest
import time_machine

from generations.tests import emulated
from generations.tests.factories import create_generation, funded_organization
from generations.tests.pipeline import run
from providers import claims, polls
from providers.models import Channel, Meter, UpstreamJob
from seedancee2.lib import clock, lanes

pytestmark = pytest.mark.django_db

RATE = 20


@pytest.fixture(autouse=True)
def loopback(settings) -> None:
    """Loopback may be called."""
    settings.OUTBOUND_ALLOWED_HOSTS = ["127.0.0.1"]


@pytest.fixture
def kie(db):
    """An emulated provider that cannot tell of several tasks at once, and whose tasks never end."""
    with emulated.provider("kie") as (emulator, channel):
        emulator.knobs["status"] = "stuck"
        yield emulator, channel


def send_jobs(count: int) -> None:
    """Send jobs and let them all be due."""
    customer = funded_organization(10_000)
    for _ in range(count):
        create_generation(customer)
    while run("submit"):
        pass
    let_all_be_due()


def let_all_be_due() -> None:
    UpstreamJob.objects.update(due_at=clock.now(), lease_token=None)


def test_polls_are_spread_evenly_over_a_channels_rate(kie):
    emulator, _ = kie
    send_jobs(20)
    Channel.objects.update(max_polls_per_second=RATE)
    emulator.requests.clear()

    with time_machine.travel(clock.now(), tick=False):
        batches = [*claims.claim_polls(5), *claims.claim_polls(5)]
    assert [len(batch.jobs) for batch in batches] == [claims.BATCH, claims.BATCH]
    first, second = (batch.turns_at for batch in batches)
    assert second - first == dt.timedelta(seconds=claims.BATCH / RATE)
    for batch in batches:
        polls.poll(batch)

    ahead = max(time.time() - time.monotonic() for _ in range(10))  # a stall between the two makes it smaller
    came_at = [moment + ahead for moment, _, _ in emulator.requests]
    assert len(came_at) == 20
    for number, moment in enumerate(came_at):
        assert moment >= first.timestamp() + number / RATE - 0.005


def test_a_channel_whose_turns_are_taken_is_not_claimed_until_they_come(kie):
    _, channel = kie
    send_jobs(3)
    Channel.objects.update(max_polls_per_second=RATE)
    meter = Meter.objects.create(channel=channel, kind=Meter.Kind.POLL, next_at=clock.now() + claims.AHEAD * 30)
    assert claims.claim_polls(5) == []
    assert UpstreamJob.objects.filter(lease_token__isnull=False).count() == 0

    meter.next_at = clock.now() + claims.AHEAD / 2
    meter.save()
    (batch,) = claims.claim_polls(5)
    assert batch.turns_at == Meter.objects.get().next_at - dt.timedelta(seconds=3 / RATE)


def test_of_a_slow_rate_only_a_seconds_worth_is_claimed(kie):
    send_jobs(5)
    Channel.objects.update(max_polls_per_second=2)

    (batch,) = claims.claim_polls(5)

    assert len(batch.jobs) == 2


def test_one_channel_gets_a_third_of_the_threads(kie):
    send_jobs(45)
    desk = claims.Desk(threads=9)

    claimed = desk.claim(9)

    assert [len(batch.jobs) for batch in claimed] == [claims.BATCH] * 3
    assert desk.claim(6) == []
    desk.served(lambda batch: None)(claimed[0])
    assert len(desk.claim(6)) == 1


def test_a_desk_that_closes_claims_nothing_more_of_slow_channels(kie, monkeypatch):
    send_jobs(25)
    desk = claims.Desk(threads=9, patience=0.0)
    assert len(desk.claim(1)) == 1
    assert len(desk.claim(1)) == 1

    monkeypatch.setattr(lanes, "SLOW", -1.0)

    assert desk.claim(1) == []
    assert len(claims.Desk(threads=9).claim(1)) == 1
