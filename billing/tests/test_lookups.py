"""The ledger is searched by what an index leads to, and finds every entry of a reference."""

import pytest
from django.db import transaction
from django.test import Client

from accounts.tests.factories import OrganizationFactory, UserFactory
from billing import ledger
from billing.models import LedgerEntry

pytestmark = pytest.mark.django_db


def test_the_staff_find_every_entry_of_a_reference_and_no_other(django_assert_max_num_queries):
    client = Client()
    client.force_login(UserFactory.create(is_staff=True, is_superuser=True))
    client.get("/admin/search/")  # once a minute a session is noted as seen
    for name in ("mine", "other"):
        organization = OrganizationFactory.create()
        common = {"actor": "t", "reason": "r"}
        with transaction.atomic():
            ledger.grant(organization_id=organization.pk, amount=100, reference=f"grt_{name}", **common)
            ledger.reserve(organization_id=organization.pk, amount=20, reference=f"vid_{name}", actor="t")
            ledger.capture(reference=f"vid_{name}", actor="t")
            ledger.refund(reference=f"vid_{name}", amount=5, **common)
            ledger.refund(reference=f"vid_{name}", amount=5, **common)

    def found(term: str) -> list[str]:
        with django_assert_max_num_queries(12):
            rows = client.get("/admin/billing/ledgerentry/", {"q": term}).context["cl"].result_list
        return [f"{row.kind} {row.reference}" for row in rows]

    assert found("vid_mine") == [
        "refund vid_mine/10",
        "refund vid_mine/5",
        "capture vid_mine",
        "reserve vid_mine",
    ]
    assert found(" grt_other ") == ["grant grt_other"]
    assert found("vid_") == []
    assert len(found("")) == LedgerEntry.objects.count() == 10
