"""The staff's pages of tasks, jobs and money: seen, never edited."""

import pytest
from django.contrib.auth.models import Permission
from django.urls import reverse

from accounts.models import AuditEntry, User
from accounts.tests.factories import UserFactory
from billing import adjustments, ledger
from billing.models import Adjustment
from generations.models import PublicModel
from generations.tests.factories import create_generation, funded_organization
from providers.models import UpstreamJob

pytestmark = pytest.mark.django_db

READ_ONLY = [
    "generations_generation",
    "providers_upstreamjob",
    "providers_upstreamcall",
    "webhooks_delivery",
    "billing_ledgerentry",
    "billing_reservation",
    "billing_creditaccount",
    "billing_adjustment",
    "billing_topuprequest",
    "billing_balancealert",
    "billing_finding",
]


@pytest.fixture
def staff(client) -> User:
    """A superuser, signed in."""
    user: User = UserFactory.create(is_staff=True, is_superuser=True)
    client.force_login(user)
    return user


@pytest.mark.parametrize("name", READ_ONLY)
def test_nobody_adds_changes_or_deletes_what_the_system_writes(client, staff, name):
    create_generation(funded_organization(), callback_url="https://example.com/")

    assert client.get(reverse(f"admin:{name}_changelist")).status_code == 200
    assert client.get(reverse(f"admin:{name}_add")).status_code == 403


def test_a_task_shows_what_was_asked_and_all_that_is_known_of_it(client, staff):
    generation = create_generation(funded_organization(), metadata={"job": "<script>alert(1)</script>"})

    page = client.get(reverse("admin:generations_generation_change", args=[generation.pk])).content.decode()

    assert "<script>alert(1)</script>" not in page
    assert "&lt;script&gt;alert(1)&lt;/script&gt;" in page
    assert f"/admin/providers/upstreamjob/{UpstreamJob.objects.get().pk}/change/" in page
    jobs = client.get(f"/admin/providers/upstreamjob/?q={generation.pk}").content.decode()
    assert f"{generation.pk}#1" in jobs


def test_a_model_that_was_sold_cannot_be_deleted(client, staff):
    reply = client.post(reverse("admin:generations_publicmodel_delete", args=["mini"]), {"post": "yes"})

    assert reply.status_code == 403
    assert PublicModel.objects.filter(pk="mini").exists()


def test_a_model_is_changed_only_after_it_was_seen_what_customers_notice(client, staff):
    url = reverse("admin:generations_publicmodel_change", args=["mini"])
    asked = {"position": "3", "is_active": "on", "resolutions": "480p,1080p", "min_duration": "4", "max_duration": "9"}
    before = PublicModel.objects.filter(pk="mini").values().get()

    assert "This field is required" in client.post(url, asked).content.decode()
    preview = client.post(url, asked | {"reason": "the provider dropped it"})
    effects = preview.context["items"]
    other = client.post(url, asked | {"reason": "x", "seen": "|".join(effects), "max_duration": "10"})

    assert effects == [
        "Requests for mini at 1080p are taken, but have no rate yet: add one first.",
        "Requests for mini at 720p are refused.",
        f"A video may last 4 to 9 seconds instead of {before['min_duration']} to {before['max_duration']}.",
    ]
    assert "4 to 10 seconds" in other.context["items"][2]
    assert (PublicModel.objects.filter(pk="mini").values().get(), AuditEntry.objects.count()) == (before, 0)

    assert client.post(url, dict(preview.context["hidden"])).status_code == 302

    model, entry = PublicModel.objects.get(pk="mini"), AuditEntry.objects.get()
    assert (model.resolutions, model.max_duration, model.position) == (["480p", "1080p"], 9, 3)
    assert (entry.action, entry.reason) == ("publicmodel.changed", "the provider dropped it")
    assert sorted(entry.after) == ["max_duration", "resolutions"]
    looker = UserFactory.create(is_staff=True)
    looker.user_permissions.set(Permission.objects.filter(codename="view_publicmodel"))
    client.force_login(looker)
    page = client.get(url)
    assert (page.status_code, b"Kept in the audit log" in page.content) == (200, False)
    assert client.post(url, dict(preview.context["hidden"])).status_code == 403


def test_credits_are_adjusted_with_a_reason_and_a_large_amount_needs_two(client, staff, settings):
    settings.ADJUSTMENT_LIMIT = 100
    organization, stranger = funded_organization(10), funded_organization(10)
    url = reverse("admin:billing_creditaccount_adjust", args=[organization.pk])

    small = {"amount": "50", "kind": "Goodwill", "reason": "slow week", "reference": "adj_1"}
    large = {"amount": "500", "kind": "Purchase", "reason": "invoice 7", "reference": "adj_2"}

    preview = client.post(url, small).content.decode()
    assert "<dt>Available afterwards</dt><dd>60</dd>" in preview
    assert "second person" not in preview
    assert "waits until a second person approves it" in client.post(url, large).content.decode()
    assert "<dt>" not in client.post(url, small | {"seen": "50", "back": ""}).content.decode()
    # What was shown was another amount.
    assert "<dd>61</dd>" in client.post(url, small | {"amount": "51", "seen": "50"}).content.decode()
    assert (Adjustment.objects.count(), ledger.balance(organization_id=organization.pk)) == (0, (10, 0))

    for _ in range(2):
        assert client.post(url, small | {"seen": "50"}).status_code == 302
    assert "/adjustment/" in client.post(url, large | {"seen": "500"})["Location"]
    for wrong in ({"amount": "0"}, {"amount": "9" * 20}, {"reason": ""}, {"kind": "Whim"}, {"amount": "-61"}):
        values = {"amount": "5", "kind": "Other", "reason": "x", "reference": "adj_3", **wrong}
        assert client.post(url, values | {"seen": values["amount"]}).status_code == 200
    assert Adjustment.objects.get(pk="adj_1").reason == "Goodwill: slow week"
    assert ledger.balance(organization_id=organization.pk) == (60, 0)

    approval = reverse("admin:billing_adjustment_approve", args=["adj_2"])
    client.post(approval)
    assert ledger.balance(organization_id=organization.pk) == (60, 0)
    client.force_login(UserFactory.create(is_staff=True, is_superuser=True))
    client.post(approval)

    assert ledger.balance(organization_id=organization.pk) == (560, 0)
    assert ledger.balance(organization_id=stranger.pk) == (10, 0)
    assert Adjustment.objects.count() == 2


def test_staff_without_the_permission_adjust_nothing(client):
    client.force_login(UserFactory.create(is_staff=True))
    organization = funded_organization(10)
    waiting = adjustments.request(
        organization_id=organization.pk, amount=10**6, reason="x", requested_by="user:0", adjustment_id="adj_1"
    )

    for url in (
        reverse("admin:billing_creditaccount_adjust", args=[organization.pk]),
        reverse("admin:billing_adjustment_approve", args=[waiting.pk]),
    ):
        assert client.post(url, {"amount": "5", "reason": "x", "reference": "adj_2"}).status_code == 403
    assert ledger.balance(organization_id=organization.pk) == (10, 0)
