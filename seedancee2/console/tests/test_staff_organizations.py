"""The staff's page of an organization: exact figures, few queries, and nothing done without a reason and an entry."""

import datetime as dt
import re

import pytest
import time_machine
from django.contrib.admin.utils import quote
from django.contrib.auth.models import Group
from django.db import ProgrammingError, connection, transaction
from django.test import Client
from django.test.utils import CaptureQueriesContext
from django.urls import reverse

from accounts import clients, lookups, notes
from accounts.models import ApiKey, AuditEntry, Organization, StaffNote
from accounts.tests.factories import MembershipFactory, OrganizationFactory, UserFactory, issue_key
from billing import adjustments, ledger, topups
from billing.models import Adjustment, CreditAccount, LedgerEntry
from generations import lifecycle
from generations.models import Generation
from generations.tests.factories import create_generation, funded_organization
from seedancee2.api.errors import InvalidApiKey
from seedancee2.console import staff_groups, staff_organization
from seedancee2.lib import clock
from tests.web import complete
from webhooks.models import Delivery, Endpoint

pytestmark = pytest.mark.django_db

WHY = "asked by mail"
MOST_QUERIES = 12


def staff(client: Client, group: str = ""):
    staff_groups.ensure()
    user = UserFactory.create(is_staff=True, is_superuser=not group)
    if group:
        user.groups.set([Group.objects.get(name=group)])
    client.force_login(user)
    return user


def page(organization: Organization, name: str = "change") -> str:
    return reverse(f"admin:accounts_organization_{name}", args=[organization.pk])


def busy_organization() -> Organization:
    """Make an organization with much of everything; last month it was charged 20 credits, this month 33."""
    with time_machine.travel(clock.now().replace(day=1) - dt.timedelta(days=3)):
        organization = funded_organization(1_000)
        complete(create_generation(organization))
    first, second, failed, *_ = (create_generation(organization, callback_url="https://a.example/") for _ in range(13))
    complete(first)
    complete(second)
    lifecycle.refund(public_id=second.pk, amount=7, actor="t", reason="r")
    lifecycle.fail(public_id=failed.pk, code=Generation.ErrorCode.GENERATION_FAILED)
    adjustments.request(organization_id=organization.pk, amount=-100, reason="typo", requested_by="user:0")
    adjustments.request(
        organization_id=organization.pk, amount=10**6, reason="big", requested_by="user:0", adjustment_id="adj_big"
    )
    for number in range(15):
        issue_key(organization, name=f"key {number}")
        MembershipFactory.create(organization=organization, role="owner")
    owner = organization.memberships.first()
    assert owner is not None
    topups.ask(organization_id=organization.pk, amount=5_000, note="for the launch", asked_by=owner.user)
    Endpoint.objects.update(
        failing_since=clock.now(), failure_count=6, last_error="timed out", paused_until=clock.now() + dt.timedelta(1)
    )
    return organization


def test_the_page_tells_how_an_organization_stands_in_few_queries(client):
    organization, stranger = busy_organization(), funded_organization(9_999)
    create_generation(stranger)
    user = staff(client, "support")
    note = notes.write(organization=organization, author=user, text="Pays by invoice.\n<b>Call Ada</b>")
    overview = staff_organization.compile(organization)
    facts = overview.facts
    assert (facts["available"], facts["held"], facts["spent"]) == (1_000 - 20 - 40 + 7 - 100 - 200, 200, 33)
    assert (facts["open_count"], facts["key_count"], facts["waiting_count"]) == (10, 15, 1)
    assert facts["pending_count"] == Delivery.objects.filter(organization=organization, state="pending").count() == 3
    assert (facts["top_up"]["amount"], facts["top_up"]["note"]) == (5_000, "for the launch")
    assert [(one["origin"], one["failure_count"], one["is_paused"]) for one in facts["endpoints"]] == [
        ("https://a.example:443", 6, True)
    ]
    assert [one.sequence for one in overview.entries] == sorted(
        (one.sequence for one in overview.entries), reverse=True
    )
    assert {len(overview.entries), len(overview.keys), len(overview.tasks)} == {8}

    client.get("/admin/accounts/organization/")  # notes the use of the session, once a minute
    with CaptureQueriesContext(connection) as queries:
        text = client.get(page(organization)).content.decode()

    assert len(queries) <= MOST_QUERIES, "\n".join(query["sql"][:330] for query in queries)
    assert "Pays by invoice.<br>&lt;b&gt;Call Ada&lt;/b&gt;" in text
    assert note.author_name == user.email
    for entry in LedgerEntry.objects.filter(account_id=organization.pk).order_by("-sequence")[:8]:
        assert entry.reference in text
    # Support sees no adjustments, and so no way to them.
    assert "adjustments to approve" not in text
    staff(client)
    client.get("/admin/accounts/organization/")
    with CaptureQueriesContext(connection) as queries:
        text = client.get(page(organization)).content.decode()
    assert len(queries) <= MOST_QUERIES
    assert "adjustments to approve" in text
    assert "for the launch" in text
    wrong = [(name, link) for name, link in overview.links.items() if client.get(link).status_code != 200]
    assert wrong == []
    for name in ("tasks", "open", "entries", "keys"):
        assert stranger.name not in client.get(overview.links[name]).content.decode()
    shown = re.findall(r"vid_5F[0-9a-z]{26}/change", client.get(overview.links["open"]).content.decode())
    assert len(dict.fromkeys(shown)) == 10
    with CaptureQueriesContext(connection) as queries:
        client.get("/admin/accounts/organization/")
    assert len(queries) <= MOST_QUERIES


def test_an_organization_that_never_did_anything_has_a_page(client):
    organization = OrganizationFactory.create()
    staff(client)

    text = client.get(page(organization)).content.decode()

    assert "No credits ever moved." in text
    assert staff_organization.compile(organization).facts["spent"] == 0
    reply = client.get(page(organization, "adjust"))
    assert reply["Location"] == reverse("admin:billing_creditaccount_adjust", args=[organization.pk])
    assert "<strong>0</strong> credits available" in client.get(reply["Location"]).content.decode()
    form = {"amount": "5", "kind": "Goodwill", "reason": "welcome", "reference": "adj_1"}
    for wrong in ("adj_" + "1" * 37, "adj_Ä", "adj_1\n2", "other_1", "a\x00b"):
        refused = client.post(reply["Location"], form | {"seen": "5", "reference": wrong})
        assert "This page was changed: open it anew." in refused.content.decode(), wrong
    # To look at the form, or at what it would do, makes no account.
    assert client.post(reply["Location"], form).status_code == 200
    assert not CreditAccount.objects.filter(pk=organization.pk).exists()
    assert client.post(reply["Location"], form | {"seen": "5"}).status_code == 302
    assert (ledger.balance(organization_id=organization.pk), LedgerEntry.objects.count()) == ((5, 0), 1)
    nobody = reverse("admin:billing_creditaccount_adjust", args=[organization.pk + 10**6])
    assert client.get(nobody).status_code == 404


def test_a_note_stands_for_good_and_is_the_staffs_alone(client):
    organization = OrganizationFactory.create()
    user = staff(client, "finance")
    assert client.post(page(organization, "write_note"), {"text": "  "}).status_code == 200
    assert client.post(page(organization, "write_note"), {"text": "x" * 2001}).status_code == 200
    assert (StaffNote.objects.count(), AuditEntry.objects.count()) == (0, 0)

    assert client.post(page(organization, "write_note"), {"text": "Pays late."}).status_code == 302

    note, entry = StaffNote.objects.get(), AuditEntry.objects.get()
    assert (note.text, note.author, note.author_name) == ("Pays late.", user, user.email)
    assert (entry.action, entry.organization, entry.after["note"]) == ("note.written", None, note.pk)
    for statement in ("UPDATE accounts_staffnote SET text = 'x'", "DELETE FROM accounts_staffnote"):
        with pytest.raises(ProgrammingError), transaction.atomic(), connection.cursor() as cursor:
            cursor.execute(statement)
    user.delete()
    assert StaffNote.objects.get().author_name == user.email
    with pytest.raises(ValueError, match="2,000"):
        notes.write(organization=organization, author=user, text="")


def test_all_keys_are_revoked_after_the_name_was_typed(client):
    organization, stranger = OrganizationFactory.create(name="Northwind"), OrganizationFactory.create()
    secrets = [issue_key(organization, name=f"key {number}") for number in range(3)]
    other = issue_key(stranger)
    user = staff(client, "support")
    address = page(organization, "revoke_all")
    question = client.get(address).content.decode()
    assert all(f"key {number} sk_seedancee2_live_…" in question for number in range(3))
    for answer in ({"reason": WHY, "confirm": "northwind"}, {"confirm": "Northwind"}):
        assert client.post(address, answer).status_code == 200
    assert ApiKey.objects.filter(revoked_at=None).count() == 4

    assert client.post(address, {"reason": WHY, "confirm": "Northwind"}).status_code == 302

    for secret in secrets:
        with pytest.raises(InvalidApiKey):
            clients.authenticate(secret)
    assert clients.authenticate(other)
    entries = AuditEntry.objects.filter(action="key.revoked")
    assert set(entries.values_list("organization", "actor", "reason")) == {(organization.pk, user.pk, WHY)}
    assert entries.count() == 3
    assert client.post(address, {"reason": WHY, "confirm": "Northwind"}).status_code == 302
    assert entries.count() == 3


def test_chosen_organizations_are_suspended_after_their_number_was_typed(client):
    first, second, third = (funded_organization() for _ in range(3))
    secret = issue_key(first)
    task = create_generation(first)
    staff(client, "operations")
    address = "/admin/accounts/organization/"
    chosen = {"action": "suspend_selected", "_selected_action": [first.pk, second.pk]}
    question = client.post(address, chosen).content.decode()
    assert f"{first}: keys that work: 1; open tasks: 1" in question
    assert f"{second}: keys that work: 0; open tasks: 0" in question
    for answer in ({"reason": WHY, "confirm": "3"}, {"confirm": "2"}):
        assert client.post(address, chosen | {"confirmed": "yes"} | answer).status_code == 200
    assert not Organization.objects.filter(is_suspended=True).exists()
    assert clients.authenticate(secret)

    assert client.post(address, chosen | {"confirmed": "yes", "reason": WHY, "confirm": "2"}).status_code == 302

    assert set(Organization.objects.filter(is_suspended=True)) == {first, second}
    assert AuditEntry.objects.filter(action="organization.suspended", reason=WHY).count() == 2
    with pytest.raises(InvalidApiKey):
        clients.authenticate(secret)
    complete(task)  # what was under way is finished and charged
    assert ledger.balance(organization_id=first.pk) == (980, 0)
    staff(client, "support")
    answer = {"confirmed": "yes", "reason": WHY, "confirm": "1"}
    client.post(address, {"action": "suspend_selected", "_selected_action": [third.pk]} | answer)
    third.refresh_from_db()
    assert not third.is_suspended


def test_fifty_organizations_are_shown_in_few_queries_before_they_are_suspended(client):
    chosen = [OrganizationFactory.create().pk for _ in range(50)]
    staff(client, "operations")
    client.get("/admin/accounts/organization/")

    with CaptureQueriesContext(connection) as queries:
        page = client.post(
            "/admin/accounts/organization/", {"action": "suspend_selected", "_selected_action": chosen}
        ).content.decode()

    assert page.count("keys that work: 0; open tasks: 0") == 50
    assert len(queries) <= MOST_QUERIES


def test_lists_find_organizations_and_keys_by_number_name_and_last_four_through_an_index(client):
    organization, stranger = OrganizationFactory.create(name="Loom_Works"), OrganizationFactory.create(name="Looms")
    secret, other = issue_key(organization, name="first"), issue_key(stranger, name="second")
    staff(client)

    def listed(model: str, term: str) -> list[int]:
        return [row.pk for row in client.get(f"/admin/accounts/{model}/", {"q": term}).context["cl"].result_list]

    for term in ("loom_", " LOOM_works ", str(organization.pk)):
        assert listed("organization", term) == [organization.pk], term
        assert listed("apikey", term) == [ApiKey.objects.get(name="first").pk], term
    for key, name in ((secret, "first"), (other, "second")):
        assert listed("apikey", key[-4:]) == [ApiKey.objects.get(name=name).pk]
    for nothing in ("works", "%", "9" * 30, "²"):
        assert listed("organization", nothing) == listed("apikey", nothing) == [], nothing
    with transaction.atomic(), connection.cursor() as cursor:
        cursor.execute("SET LOCAL enable_seqscan = off; SET LOCAL enable_indexscan = off")
        assert "accounts_organization_" in lookups.organizations(Organization.objects.all(), "loom").explain()
        test_keys, revoked = ApiKey.objects.filter(mode="test"), ApiKey.objects.filter(revoked_at__isnull=False)
        assert "accounts_apikey_test" in test_keys.order_by("-pk").explain()
        assert "accounts_apikey_revoked" in revoked.order_by("-pk").explain()
        assert "accounts_organization_stopped" in Organization.objects.filter(is_suspended=True).explain()
    for page in ("organization", "apikey"):
        assert "?o=" not in client.get(f"/admin/accounts/{page}/").content.decode()  # no order that has no index


def test_an_adjustment_above_the_limit_waits_and_the_page_leads_to_it(client, settings):
    settings.ADJUSTMENT_LIMIT = 100
    organization = funded_organization(1_000)
    user = staff(client, "finance")
    adjustments.request(organization_id=organization.pk, amount=101, reason="gift", requested_by=f"user:{user.pk}")
    waiting = Adjustment.objects.get()

    text = client.get(page(organization)).content.decode()
    link = staff_organization.compile(organization).links["adjustments"]

    assert "adjustments to approve" in text
    assert link.replace("&", "&amp;") in text
    assert quote(waiting.pk) in client.get(link).content.decode()
    assert ledger.balance(organization_id=organization.pk) == (1_000, 0)
