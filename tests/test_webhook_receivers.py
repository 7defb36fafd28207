"""Several deliverers against receivers that do whatever receivers do: every event arrives, no attempt is made twice."""

import hashlib
import itertools
import time
from collections import Counter, defaultdict
from collections.abc import Iterator

import pytest
import stripe

from accounts.tests.factories import OrganizationFactory
from tests import deliverers
from tests.faulty_receivers import FaultyReceivers
from tests.receivers import Received, Receiver
from webhooks import secrets
from webhooks.models import Delivery, DeliveryAttempt, Endpoint
from webhooks.tests.factories import DeliveryFactory

pytestmark = [pytest.mark.race, pytest.mark.django_db(transaction=True)]

EVENTS = 5  # for each receiver


@pytest.fixture
def faulty() -> Iterator[FaultyReceivers]:
    """A process with a receiver for each fault."""
    with FaultyReceivers() as receivers:
        yield receivers


def await_end(seconds: float = 120) -> None:
    """Wait until no delivery is pending any more."""
    end = time.monotonic() + seconds
    while Delivery.objects.filter(state="pending").exists():
        assert time.monotonic() < end, list(Delivery.objects.filter(state="pending").values("host", "attempt_count"))
        time.sleep(0.1)


def test_every_event_arrives_whatever_receivers_do_and_no_attempt_is_made_twice(faulty: FaultyReceivers) -> None:
    urls = faulty.urls
    organization = OrganizationFactory.create()
    bodies = {}
    for name, number in itertools.product(urls, range(EVENTS)):
        row = DeliveryFactory.create(url=urls[name], body=f"{name} {number} ü🎬".encode(), organization=organization)
        bodies[row.pk] = hashlib.sha256(row.body).hexdigest()

    haste = {"retry": 0.2, "deadline": 1.5, "shortest_pause": 0.2, "longest_pause": 0.4}
    with deliverers.running(4, **haste):
        await_end()

    came: defaultdict[str, list[int]] = defaultdict(list)
    for request in faulty.requests():
        assert request["path"] == "/hook"  # no redirect was followed
        assert request["sha256"] == bodies[request["x-seedancee2-delivery"]]
        came[request["x-seedancee2-delivery"]].append(int(request["x-seedancee2-attempt"]))
    assert came.keys() == bodies.keys()
    for row in Delivery.objects.all():
        numbers = sorted(came[row.pk])
        assert len(set(numbers)) == len(numbers), (row.host, numbers)
        recorded = list(row.attempts.order_by("number").values_list("number", flat=True))
        assert recorded == list(range(1, row.attempt_count + 1))
        # A busy machine may give up before it has sent anything; nothing is ever sent that is not recorded.
        assert set(numbers) <= set(recorded)
        assert row.state == "delivered"
    words = Counter(DeliveryAttempt.objects.exclude(error="").values_list("error", flat=True))
    assert set(words) >= {
        "Redirects are not followed.",
        "The connection was closed before the whole reply had come.",
        "The reply was not valid HTTP.",
        "No reply came within 10 seconds.",
        "The reply had not ended after 10 seconds.",
    }
    assert set(Endpoint.objects.values_list("failure_count", "paused_until")) == {(0, None)}


def test_nothing_is_refused_by_a_receiver_that_changes_its_secret_within_the_overlap() -> None:
    organization = OrganizationFactory.create()
    first = secrets.current(organization_id=organization.pk)
    with Receiver() as receiver, deliverers.running(2):
        for number in range(100):
            DeliveryFactory.create(url=receiver.url("/hook"), organization=organization)
            if number == 30:
                second = secrets.rotate(organization_id=organization.pk, overlap_seconds=3600)
            time.sleep(0.05)
        await_end()
        requests = receiver.requests

    order = list(Delivery.objects.order_by("delivery_id").values_list("delivery_id", flat=True))
    accepted = [
        _accepts(request, first if order.index(request.headers["x-seedancee2-delivery"]) < 60 else second)
        for request in requests
    ]
    assert len(requests) == 100
    assert all(accepted)
    signatures = Counter(request.headers["x-seedancee2-signature"].count("v1=") for request in requests)
    assert signatures[1] + signatures[2] == 100
    assert signatures[2] >= 69


def _accepts(request: Received, secret: str) -> bool:
    try:
        stripe.WebhookSignature.verify_header(
            request.body.decode(), request.headers["x-seedancee2-signature"], secret, tolerance=300
        )
    except stripe.SignatureVerificationError:
        return False
    return True
