"""The purge: what is no longer kept goes, in the one task that beat sends every hour."""

import datetime as dt

import pytest

from generations import tasks
from seedancee2.lib import clock
from webhooks.models import Delivery
from webhooks.tests.factories import DeliveryFactory

pytestmark = pytest.mark.django_db


def test_the_purge_empties_deliveries_that_ended_a_month_ago():
    at = clock.now() - dt.timedelta(days=31)
    DeliveryFactory.create(state="delivered", due_at=None, finished_at=at)

    assert [tasks.purge(), tasks.purge()] == [1, 0]
    assert Delivery.objects.get().pruned_at is not None
