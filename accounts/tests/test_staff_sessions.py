"""Sessions of the staff are short; those of customers are not."""

import datetime as dt

import pytest
import time_machine
from django.conf import LazySettings
from django.test import Client

from accounts.models import Organization, User
from accounts.tests.factories import MembershipFactory, UserFactory
from seedancee2.lib import clock

pytestmark = pytest.mark.django_db


def signed_in(user: User) -> Client:
    client = Client()
    client.force_login(user)
    return client


def is_in(client: Client, address: str = "/admin/", **headers: str) -> bool:
    return client.get(address, headers=headers).status_code == 200


def test_a_session_of_the_staff_ends_after_an_hour_without_use_and_after_twelve_whatever_is_done() -> None:
    user = UserFactory.create(is_staff=True, is_superuser=True)
    with time_machine.travel(clock.now(), tick=False) as traveller:
        client = signed_in(user)
        for _ in range(13):
            traveller.shift(dt.timedelta(minutes=55))
            assert is_in(client)
        traveller.shift(dt.timedelta(minutes=5))  # now twelve hours are over
        reply = client.get("/admin/accounts/organization/", follow=True)
        assert reply.redirect_chain[-1][0].startswith("/accounts/login/")
        assert "Sessions of the staff end after 12 hours, or 60 minutes without use." in reply.content.decode()
        assert "_auth_user_id" not in client.session

        client = signed_in(user)
        traveller.shift(dt.timedelta(minutes=40))
        # A page that fetches a part of itself is nobody's use.
        assert client.get("/console/", headers={"hx-request": "true"}).status_code == 200
        traveller.shift(dt.timedelta(minutes=20))
        target = Organization.objects.create(name="Loom")
        reply = client.post(f"/admin/accounts/organization/{target.pk}/suspend/", {"reason": "x"})
        assert (reply.status_code, reply["Location"].partition("?")[0]) == (302, "/admin/login/")
        target.refresh_from_db()
        assert not target.is_suspended


def test_a_customers_session_lasts_and_is_none_of_the_staffs_once_they_join(settings: LazySettings) -> None:
    customer = MembershipFactory.create().user
    with time_machine.travel(clock.now(), tick=False) as traveller:
        client = signed_in(customer)
        traveller.shift(dt.timedelta(days=13))
        assert is_in(client, "/console/")
        # Whoever joins the staff signs in anew.
        User.objects.filter(pk=customer.pk).update(is_staff=True, is_superuser=True)
        assert not is_in(client)
        assert "_auth_user_id" not in client.session
        settings.STAFF_IDLE_MINUTES = 5
        client = signed_in(User.objects.get(pk=customer.pk))
        traveller.shift(dt.timedelta(minutes=4))
        assert is_in(client)
        traveller.shift(dt.timedelta(minutes=5))
        assert not is_in(client)
