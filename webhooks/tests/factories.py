"""Deliveries for tests."""

# mypy: disable-error-code="attr-defined,no-untyped-call"

import factory
from factory.django import DjangoModelFactory

from accounts.tests.factories import OrganizationFactory
from seedancee2.lib import clock, destinations, ids
from webhooks.models import Delivery


class DeliveryFactory(DjangoModelFactory[Delivery]):
    """A delivery due now; give `url` to say where to."""

    class Meta:
        model = Delivery

    delivery_id = factory.LazyFunction(lambda: ids.new("dlv"))
    organization = factory.SubFactory(OrganizationFactory)
    reference = factory.LazyFunction(lambda: ids.new("vid"))
    event = Delivery.Event.COMPLETED
    url = "https://customer.example/hook"
    host = factory.LazyAttribute(lambda delivery: destinations.parse(delivery.url).origin)
    body = b'{"data":{"id":"vid_1"}}'
    due_at = factory.LazyFunction(clock.now)
