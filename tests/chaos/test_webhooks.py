"""The short form of `tests.chaos.webhooks`: the same on forked deliverers with short leases."""

import random

import psutil
import pytest

from tests import deliverers
from tests.chaos.run import seed_of_run
from tests.chaos.webhooks import table, trial

pytestmark = [pytest.mark.chaos, pytest.mark.django_db(transaction=True)]


def test_every_event_arrives_although_deliverers_are_killed_all_the_time():
    dice = random.Random(f"webhooks/{seed_of_run()}")
    haste = {"deadline": 5.0, "lease": 8.0, "least_lease": 5.5, "retry": 0.2, "shortest_pause": 0.2}
    with deliverers.running(2, **haste) as parent:

        def kill(_: int) -> bool:
            try:
                dice.choice(deliverers.children(parent.pid)).kill()
            except (IndexError, psutil.NoSuchProcess):  # not there yet, or just gone
                return False
            return True

        found = trial(count=60, kills=10, per_second=15.0, kill=kill, dice=dice)
    print(table(found))
    assert found.wrong == []
    assert (found.event_count, found.kill_count) == (60, 10)
