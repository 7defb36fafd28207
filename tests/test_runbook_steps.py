"""The runbook, walked: each section of docs/runbook.md by somebody of the group it names, on the pages it names."""

import datetime as dt
from pathlib import Path
from typing import Any

import pytest
from django.contrib.auth.models import Group
from django.core.cache import cache
from django.db import connection
from django.test import Client
from django.urls import reverse

from accounts import clients
from accounts.models import AuditEntry
from accounts.tests.factories import UserFactory, issue_key
from billing import ledger
from billing.models import CreditAccount, Finding
from billing.reconciliation import BEGINNING
from generations import reconciliation
from generations.models import Generation
from generations.tests import pipeline
from generations.tests.factories import create_generation, funded_organization
from providers.models import Channel, ChannelHealth, SandboxRun, UpstreamJob
from seedancee2.api.errors import PublicError
from seedancee2.console import staff_groups
from seedancee2.lib import clock
from tests.web import complete
from webhooks.models import Delivery, Endpoint

pytestmark = pytest.mark.django_db

RUNBOOK = (Path(__file__).resolve().parent.parent / "docs" / "runbook.md").read_text()
WHY = {"reason": "incident 7"}


@pytest.fixture(autouse=True)
def _groups() -> None:
    cache.clear()
    staff_groups.ensure()


class Person:
    """One of a group of the staff, who opens pages and sends forms and is never refused."""

    def __init__(self, group: str) -> None:
        self.user = UserFactory.create(is_staff=True)
        self.user.groups.set([Group.objects.get(name=group)])
        self.client = Client()
        self.client.force_login(self.user)

    def open(self, url: str, **query: Any) -> str:
        reply = self.client.get(url, query)
        assert reply.status_code == 200, (url, reply.status_code)
        return reply.content.decode()

    def send(self, url: str, **form: Any) -> str:
        reply = self.client.post(url, WHY | form, follow=True)
        assert reply.status_code == 200, (url, reply.status_code)
        return reply.content.decode()

    def tile(self, name: str) -> str:
        """Return what the front page leads to by this name."""
        reply = self.client.get("/admin/")
        (found,) = (tile for _, tiles in reply.context["sections"] for tile in tiles if tile.name == name)
        assert found.url, name
        return str(found.url)


def on(model: str, page: str, row: Any) -> str:
    return reverse(f"admin:{model}_{page}", args=[row.pk])


def section(title: str) -> str:
    """Return the text of a section, which the test after it walks."""
    _, _, rest = RUNBOOK.partition(f"## {title}\n")
    assert rest, title
    return rest.partition("\n## ")[0]


def test_tasks_do_not_move():
    text = section("Tasks do not move")
    pipeline.route_live_traffic_to_sandbox()
    operator, task = Person("operations"), create_generation(funded_organization(100))
    now = clock.now()
    Generation.objects.update(created_at=now - dt.timedelta(minutes=90), deadline_at=now - dt.timedelta(minutes=1))
    UpstreamJob.objects.update(due_at=now + dt.timedelta(hours=1))

    for tile in ("an hour and more", "past the deadline"):
        assert tile in text
        assert task.pk in operator.open(operator.tile(tile))
    page = operator.open(on("generations_generation", "change", task))
    assert "Timeline" in page
    assert "queued" in page
    for action in ("Poll now", "Fail and release", "Move"):
        assert action in page
        assert f"**{action}**" in text
    operator.send(on("generations_generation", "move", task), channel=str(Channel.objects.get(name="sandbox").pk))
    UpstreamJob.objects.update(due_at=now + dt.timedelta(hours=1))
    assert "Poll now: done." in operator.send(on("generations_generation", "poll_now", task))
    assert "Fail and release: done." in operator.send(on("generations_generation", "fail", task))

    assert ledger.balance(organization_id=task.organization_id) == (100, 0)
    assert "Delete content: done." in operator.send(on("generations_generation", "erase", task))
    assert "**Delete content**" in text
    assert AuditEntry.objects.filter(actor=operator.user, reason="incident 7").count() == 4


def test_a_provider_is_down():
    text = section("A provider is down")
    operator, channel = Person("operations"), Channel.objects.get(name="sandbox")
    ChannelHealth.objects.create(channel=channel, open_until=clock.now() + dt.timedelta(minutes=5), reason="transient")

    assert "transient" in operator.open("/admin/")
    page = operator.open(on("providers_channel", "change", channel))
    for action in ("Drain", "Test call"):
        assert action in page
        assert f"**{action}**" in text
    assert "No other way is left for" in operator.open(on("providers_channel", "drain", channel))
    operator.send(on("providers_channel", "drain", channel))
    assert Channel.objects.get(pk=channel.pk).state == "draining"
    operator.open(on("providers_channel", "test_call", channel))
    operator.send(on("providers_channel", "activate", channel))
    operator.send(on("providers_channel", "forget_failures", channel))

    assert Channel.objects.get(pk=channel.pk).state == "active"
    assert ChannelHealth.objects.filter(open_until__isnull=False).count() == 0
    assert operator.open(operator.tile("made for nobody, 24 h"))
    assert AuditEntry.objects.filter(actor=operator.user).count() == 3


def test_a_number_is_not_explained(settings):
    text = section("A number is not explained")
    settings.ADJUSTMENT_LIMIT = 5
    first, second, organization = Person("finance"), Person("finance"), funded_organization(100)
    CreditAccount.objects.filter(pk=organization.pk).update(available=107)  # past the ledger
    reconciliation.report(since=BEGINNING)

    assert "balance_equals_entries" in first.open(first.tile("open findings"))
    finding = Finding.objects.get()
    assert "107" in first.open(on("billing_finding", "change", finding))
    account = CreditAccount.objects.get(pk=organization.pk)
    first.open(on("billing_creditaccount", "change", account))
    first.open("/admin/billing/ledgerentry/")
    statement = text.partition("UPDATE")[2].partition(";")[0].replace("<the number>", str(organization.pk))
    with connection.cursor() as cursor:
        cursor.execute(f"UPDATE {statement}")
    assert ledger.balance(organization_id=organization.pk) == (100, 0)
    asked = {"amount": "7", "kind": "Correction", "reference": "adj_7"}
    assert "107" in first.send(on("billing_creditaccount", "adjust", account), **asked)
    told = first.send(on("billing_creditaccount", "adjust", account), **asked, seen="7")
    assert "somebody else must approve it" in told
    second.send(reverse("admin:billing_adjustment_approve", args=["adj_7"]))
    assert ledger.balance(organization_id=organization.pk) == (107, 0)

    assert reconciliation.report(since=BEGINNING) == []
    finding.refresh_from_db()
    assert finding.resolved_at is not None


def test_a_key_leaked():
    section("A key leaked")
    support, organization = Person("support"), funded_organization()
    secret, other = issue_key(organization), issue_key(funded_organization())
    task = create_generation(organization)

    (group,) = support.client.post("/admin/search/", {"q": f"x-api-key: {secret}"}).context["groups"]
    assert "last used" in support.open(group.results[0].url).lower()
    support.send(group.results[0].url.replace("change", "revoke"), confirm=secret[-4:])
    with pytest.raises(PublicError):
        clients.authenticate(secret)
    assert clients.authenticate(other)
    support.open(on("accounts_organization", "issue_key", organization))
    page = support.open("/admin/generations/generation/", organization__id__exact=organization.pk)
    assert task.pk in page
    assert task.pk not in support.open(
        "/admin/generations/generation/", organization__id__exact=organization.pk + 10**6
    )

    assert AuditEntry.objects.filter(actor=support.user, action="key.revoked").count() == 1


def test_many_tasks_are_to_be_refunded():
    section("Many tasks are to be refunded")
    clerk, organization, stranger = Person("finance"), funded_organization(100), funded_organization(100)
    tasks = [complete(create_generation(organization)) for _ in range(3)]
    beside = complete(create_generation(stranger))

    shown = clerk.open("/admin/generations/generation/", status__exact="completed", model="mini", made="hour")
    assert all(task.pk in shown for task in tasks)
    form = {"action": "refund_selected", "_selected_action": [task.pk for task in tasks]}
    asked = clerk.send("/admin/generations/generation/", **form)
    assert "60 credits go back to 1 organization." in asked
    assert ledger.balance(organization_id=organization.pk) == (40, 0)
    seen = {f"seen_{task.pk}": "0" for task in tasks}
    told = clerk.send("/admin/generations/generation/", **form, **seen, confirmed="yes")
    assert "Refunded 60 credits of 3 tasks." in told
    clerk.send(on("generations_generation", "refund", beside), amount="5", refunded_before="0")

    assert ledger.balance(organization_id=organization.pk) == (100, 0)
    assert ledger.balance(organization_id=stranger.pk) == (85, 0)
    assert AuditEntry.objects.filter(actor=clerk.user, action="task.refunded").count() == 4
    found = reconciliation.report(since=BEGINNING)
    assert {one.rule for one in found} <= {"file_is_stored_whole"}  # the files are only names here


def test_a_customers_webhooks_fail():
    section("A customer's webhooks fail")
    support = Person("support")
    task = complete(create_generation(funded_organization(), callback_url="https://customer.example/hook"))
    later = clock.now() + dt.timedelta(minutes=20)
    Delivery.objects.update(state="abandoned", due_at=None, finished_at=clock.now())
    Endpoint.objects.update(failing_since=clock.now(), failure_count=9, paused_until=later, last_error="timed out")

    (group,) = support.client.get("/admin/search/", {"q": "https://customer.example/hook"}).context["groups"]
    assert "timed out" in support.open(group.results[0].url)
    delivery = Delivery.objects.get()
    assert delivery.pk in support.open("/admin/webhooks/delivery/", state__exact="abandoned")
    support.open("/admin/webhooks/delivery/send-test/")
    assert "is tried now" in support.send(group.results[0].url.replace("change", "try-now"))
    assert "Send webhook again: done." in support.send(on("generations_generation", "redeliver", task))

    assert Delivery.objects.get().state == "pending"
    assert Endpoint.objects.get().paused_until <= clock.now()


def test_what_was_queued_at_the_backup_is_failed_after_a_restore():
    assert "Admin → Upstream jobs, *status* queued" in section("Restore")
    pipeline.route_live_traffic_to_sandbox()
    operator, task = Person("operations"), create_generation(funded_organization(100))
    support = Person("support")

    assert task.pk in support.open("/admin/providers/upstreamjob/", status__exact="queued")
    operator.open("/admin/generations/reconciliationrun/")
    operator.send(on("generations_generation", "fail", task))
    pipeline.run("submit")

    assert SandboxRun.objects.count() == 0
    assert ledger.balance(organization_id=task.organization_id) == (100, 0)
