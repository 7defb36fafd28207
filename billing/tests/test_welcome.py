"""What a newcomer's organization gets."""

import pytest
from django.conf import LazySettings
from django.test import Client

from accounts import organizations
from accounts.models import AuditEntry, Membership, Organization, User
from accounts.tests.factories import PASSWORD, UserFactory
from billing import ledger
from billing.models import CreditAccount, LedgerEntry

pytestmark = pytest.mark.django_db

NEWCOMER = {"name": "Ada", "email": "ada@example.com", "password1": PASSWORD}


def test_signing_up_grants_what_the_setting_says_once(settings: LazySettings) -> None:
    settings.SIGNUP_OPEN, settings.SIGNUP_CREDITS = True, 250
    Client().post("/accounts/signup/", NEWCOMER)
    organization = Organization.objects.get()
    assert ledger.balance(organization_id=organization.pk) == (250, 0)
    entry = LedgerEntry.objects.get()
    assert (entry.kind, entry.available_change, entry.actor, entry.reference) == (
        "grant",
        250,
        "system:sign-up",
        f"sign-up:{organization.pk}",
    )


def test_without_a_gift_there_is_an_account_and_no_entry(settings: LazySettings) -> None:
    settings.SIGNUP_CREDITS = 0
    organization = organizations.sign_up(owner=UserFactory.create())
    assert CreditAccount.objects.get().organization_id == organization.pk
    assert not LedgerEntry.objects.exists()


@pytest.mark.django_db(transaction=True)
def test_a_gift_that_cannot_be_granted_leaves_nothing_of_the_sign_up(settings: LazySettings) -> None:
    settings.SIGNUP_OPEN, settings.SIGNUP_CREDITS = True, -1
    reply = Client(raise_request_exception=False).post("/accounts/signup/", NEWCOMER)
    assert reply.status_code == 500
    for model in (User, Organization, Membership, AuditEntry, CreditAccount, LedgerEntry):
        assert not model.objects.exists()
