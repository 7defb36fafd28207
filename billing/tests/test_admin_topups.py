"""The staff's page of requests for credits: one click and a reason, and two people above the limit."""

import pytest
from django.test import Client
from django.urls import reverse

from accounts.models import User
from accounts.tests.factories import OrganizationFactory, UserFactory
from billing import ledger, topups
from billing.models import Adjustment, TopUpRequest

pytestmark = pytest.mark.django_db


@pytest.fixture
def request_(settings) -> TopUpRequest:
    settings.ADJUSTMENT_LIMIT = 100
    return topups.ask(
        organization_id=OrganizationFactory.create(name="Northwind").pk,
        amount=80,
        note="<script>alert(1)</script>",
        asked_by=UserFactory.create(),
    )


def signed_in(user: User | None = None) -> Client:
    client = Client()
    client.force_login(user or UserFactory.create(is_staff=True, is_superuser=True))
    return client


def address(request: TopUpRequest, page: str) -> str:
    return reverse(f"admin:billing_topuprequest_{page}", args=[request.pk])


def test_granting_is_one_form_that_is_filled_in_already(request_):
    client = signed_in()
    form = client.get(address(request_, "grant")).content.decode()
    assert 'value="80"' in form
    assert "<script>alert" not in form
    assert client.get(address(request_, "change")).status_code == 200

    for _ in range(2):
        client.post(address(request_, "grant"), {"amount": "80", "reason": "Invoice 7"})

    request_.refresh_from_db()
    assert (request_.state, ledger.balance(organization_id=request_.account_id)) == ("granted", (80, 0))


def test_above_the_limit_it_leads_to_the_adjustment_that_waits(request_):
    first, second = signed_in(), signed_in()

    reply = first.post(address(request_, "grant"), {"amount": "101", "reason": "Invoice 7"})

    assert reply["Location"] == reverse("admin:billing_adjustment_change", args=[request_.pk])
    first.post(reverse("admin:billing_adjustment_approve", args=[request_.pk]))
    assert ledger.balance(organization_id=request_.account_id) == (0, 0)
    second.post(reverse("admin:billing_adjustment_approve", args=[request_.pk]))
    request_.refresh_from_db()
    assert (request_.state, ledger.balance(organization_id=request_.account_id)) == ("granted", (101, 0))


def test_declining_needs_a_reason(request_):
    client = signed_in()
    assert client.get(address(request_, "decline")).status_code == 200
    assert client.post(address(request_, "decline"), {"reason": ""}).status_code == 200
    request_.refresh_from_db()
    assert request_.state == "open"

    client.post(address(request_, "decline"), {"reason": "No order"})
    client.post(address(request_, "grant"), {"amount": "80", "reason": "x"})

    request_.refresh_from_db()
    assert (request_.state, request_.reply, Adjustment.objects.count()) == ("declined", "No order", 0)


def test_staff_without_the_permission_decide_nothing(request_):
    client = signed_in(UserFactory.create(is_staff=True))
    for page in ("grant", "decline"):
        assert client.post(address(request_, page), {"amount": "80", "reason": "x"}).status_code == 403
    assert signed_in(UserFactory.create()).get(address(request_, "grant")).status_code == 302
    request_.refresh_from_db()
    assert (request_.state, Adjustment.objects.count()) == ("open", 0)


def test_the_list_opens(request_):
    assert b"Northwind" in signed_in().get(reverse("admin:billing_topuprequest_changelist") + "?q=north").content
