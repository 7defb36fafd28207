"""The console's pages about credits: who sees and does what, the ledger in pages, filters and files."""

import csv
import io
import re

import pytest
import time_machine
from django.db import transaction
from django.test import Client

from accounts.models import AuditEntry, Membership, Organization
from accounts.tests.factories import MembershipFactory, OrganizationFactory, UserFactory
from billing import ledger, topups
from billing.console import LINES_ON_A_PAGE
from billing.models import BalanceAlert, LedgerEntry, TopUpRequest
from seedancee2.lib import ids

pytestmark = pytest.mark.django_db

Role = Membership.Role
PAGE, LEDGER, FILE = "/console/billing/", "/console/billing/ledger/", "/console/billing/ledger.csv"
MAY = {Role.OWNER, Role.ADMIN, Role.BILLING}


@pytest.fixture
def organization() -> Organization:
    return OrganizationFactory.create(name="Northwind")


def signed_in(organization: Organization, role: str = Role.OWNER) -> Client:
    client = Client()
    client.force_login(MembershipFactory.create(organization=organization, role=role).user)
    return client


def adjust(organization: Organization, amount: int, reason: str = "test") -> None:
    with transaction.atomic():
        ledger.adjust(
            organization_id=organization.pk,
            amount=amount,
            reference=ids.new("adj"),
            actor="user:77",
            reason=reason,
        )


def spend(organization: Organization, amount: int, end: str = "capture") -> str:
    reference = ids.new("vid")
    with transaction.atomic():
        ledger.reserve(organization_id=organization.pk, amount=amount, reference=reference, actor="api_key:5")
        if end == "capture":
            ledger.capture(reference=reference, actor="t")
        elif end == "release":
            ledger.release(reference=reference, actor="t", reason="generation_failed")
    return reference


def read(reply) -> list[dict[str, str]]:
    return list(csv.DictReader(io.StringIO(b"".join(reply.streaming_content).decode())))


@pytest.mark.parametrize("role", Role.values)
def test_the_roles_table_cell_by_cell(organization, role):
    adjust(organization, 100)
    alert = BalanceAlert.objects.create(account_id=organization.pk, credits=5)
    client, yes = signed_in(organization, role), role in MAY

    for address in (PAGE, LEDGER, FILE):
        assert client.get(address).status_code == (200 if yes else 403)
    assert client.post("/console/billing/top-up/", {"amount": "50"}).status_code == (302 if yes else 403)
    assert TopUpRequest.objects.count() == int(yes)
    assert client.post("/console/billing/alerts/", {"credits": "70"}).status_code == (302 if yes else 403)
    assert BalanceAlert.objects.filter(credits=70).exists() == yes
    assert client.post(f"/console/billing/alerts/{alert.pk}/remove/").status_code == (302 if yes else 403)
    assert BalanceAlert.objects.filter(pk=alert.pk).exists() != yes
    TopUpRequest.objects.all().delete()
    request = topups.ask(organization_id=organization.pk, amount=5, note="", asked_by=UserFactory.create())
    assert client.post(f"/console/billing/top-up/{request.pk}/withdraw/").status_code == (302 if yes else 403)
    request.refresh_from_db()
    assert (request.state == "withdrawn") == yes


def test_a_stranger_sees_and_changes_nothing(organization):
    adjust(organization, 4_711, "secret plans")
    alert = BalanceAlert.objects.create(account_id=organization.pk, credits=5)
    request = topups.ask(organization_id=organization.pk, amount=5, note="", asked_by=UserFactory.create())
    stranger = signed_in(OrganizationFactory.create())
    before = AuditEntry.objects.count()

    for address in (PAGE, LEDGER):
        assert b"4,711" not in stranger.get(address).content
        assert stranger.get(f"{address}?organization={organization.pk}").status_code == 404
    assert read(stranger.get(FILE)) == []
    assert stranger.get(f"{FILE}?organization={organization.pk}").status_code == 404
    for address in (f"/console/billing/alerts/{alert.pk}/remove/", f"/console/billing/top-up/{request.pk}/withdraw/"):
        assert stranger.post(address).status_code == 404
        assert stranger.post(address, {"organization": organization.pk}).status_code == 404
    for address, values in (("top-up/", {"amount": "5"}), ("alerts/", {"credits": "9"})):
        reply = stranger.post(f"/console/billing/{address}", {**values, "organization": organization.pk})
        assert reply.status_code == 404

    request.refresh_from_db()
    assert (request.state, BalanceAlert.objects.count(), TopUpRequest.objects.count()) == ("open", 1, 1)
    assert AuditEntry.objects.count() == before
    assert Client().get(PAGE).status_code == 302


def test_the_page_tells_balance_holds_and_movements(organization):
    adjust(organization, 12_345)
    task = spend(organization, 20, end="")
    spend(organization, 10)

    page = signed_in(organization).get(PAGE)

    text = page.content.decode()
    assert (page.context["available"], page.context["held"], page.context["balance"]) == (12_315, 20, 12_335)
    assert "12,315" in text
    assert "Open holds: 20 credits for 1 task<" in text
    assert f'href="/console/tasks/{task}/"' in text
    assert [line.label for line in page.context["lines"]] == [
        "Charged",
        "Held for a task",
        "Held for a task",
        "Credits added",
    ]
    assert "no-store" in page["Cache-Control"]
    assert "user:77" not in text


def test_an_empty_account_says_what_to_do(organization):
    client = signed_in(organization)
    assert b"No credits are available" in client.get(PAGE).content
    assert b"Nothing has moved yet" in client.get(LEDGER).content
    assert b"No such movements" in client.get(f"{LEDGER}?kind=refund").content


def test_asking_is_answered_and_shown_until_it_is_decided(organization):
    client = signed_in(organization)

    page = client.post("/console/billing/top-up/", {"amount": "5000", "note": "<b>May</b>"}, follow=True)

    text = page.content.decode()
    assert "You asked for 5,000 credits" in text
    assert "&lt;b&gt;May&lt;/b&gt;" in text
    assert "<b>May" not in text
    again = client.post("/console/billing/top-up/", {"amount": "1"}, follow=True)
    assert b"You have asked already" in again.content
    assert TopUpRequest.objects.count() == 1

    request = TopUpRequest.objects.get()
    staff = UserFactory.create(email="ann@seedancee2.example", is_staff=True)
    topups.grant(request_id=request.pk, amount=4_000, reason="Invoice 7", granted_by=staff)
    text = client.get(PAGE).content.decode()
    assert "4,000 credits were added" in text
    assert "Invoice 7" in text
    assert "ann@seedancee2.example" not in text
    assert b"has dealt with this" in client.post(f"{PAGE}top-up/{request.pk}/withdraw/", follow=True).content


@pytest.mark.parametrize(
    ("address", "values", "message"),
    [
        ("top-up/", {"amount": "0"}, "greater than or equal to 1"),
        ("top-up/", {"amount": ""}, "required"),
        ("top-up/", {"amount": "9" * 30}, "less than or equal"),
        ("top-up/", {"amount": "5", "note": "x" * 501}, "at most 500"),
        ("alerts/", {"credits": "-1"}, "greater than or equal to 1"),
        ("alerts/", {"credits": "5"}, "already"),
        ("alerts/", {"credits": "1.5"}, "whole number"),
    ],
)
def test_what_is_wrong_is_said_beside_the_field(organization, address, values, message):
    adjust(organization, 1)
    BalanceAlert.objects.create(account_id=organization.pk, credits=5)

    reply = signed_in(organization).post(f"/console/billing/{address}", values)

    assert reply.status_code == 200
    assert message in reply.content.decode()
    assert (TopUpRequest.objects.count(), BalanceAlert.objects.count(), AuditEntry.objects.count()) == (0, 1, 0)


def test_pages_of_the_ledger_hold_every_movement_once_whatever_moves_meanwhile(organization):
    for _ in range(60):
        adjust(organization, 10)
    client = signed_in(organization)

    first = client.get(LEDGER)
    for _ in range(5):
        adjust(organization, 1)
    page = first.context["page_of_lines"]
    second = client.get(f"{LEDGER}?before={page.older}").context["page_of_lines"]

    shown = [line.entry.sequence for line in page.lines + second.lines]
    assert shown == list(range(60, 0, -1))
    assert len(page.lines) == LINES_ON_A_PAGE
    assert (page.newer, second.older) == (None, None)
    back = client.get(f"{LEDGER}?after={second.newer}").context["page_of_lines"]
    assert [line.entry.sequence for line in back.lines] == list(range(60, 10, -1))
    front = client.get(f"{LEDGER}?after={back.newer}").context["page_of_lines"]
    assert [line.entry.sequence for line in front.lines] == [65, 64, 63, 62, 61]
    assert (front.newer, front.older) == (None, 61)


def test_filters_choose_by_kind_and_day(organization):
    with time_machine.travel("2026-07-31T23:59:59.999Z", tick=False):
        adjust(organization, 1_000)
        spend(organization, 10)
    with time_machine.travel("2026-08-01T00:00:00.000Z", tick=False):
        spend(organization, 20)
        spend(organization, 30, end="release")
    client = signed_in(organization)

    def changes(query: str) -> list[tuple[int, int]]:
        page = client.get(f"{LEDGER}?{query}").context["page_of_lines"]
        return [(line.entry.available_change, line.entry.reserved_change) for line in page.lines]

    assert changes("kind=capture") == [(0, -20), (0, -10)]
    assert changes("kind=capture&end=2026-07-31") == [(0, -10)]
    assert changes("kind=capture&start=2026-08-01&end=2026-08-01") == [(0, -20)]
    assert changes("kind=release") == [(30, -30)]
    assert len(changes("start=2026-07-31&end=2026-08-01")) == 7
    wrong = client.get(f"{LEDGER}?start=2026-08-02&end=2026-08-01")
    assert b"before the first one" in wrong.content
    assert client.get(f"{LEDGER}?kind=bribe&before=x").status_code == 200
    assert client.get(f"{FILE}?kind=bribe").status_code == 404
    assert [row["held_change"] for row in read(client.get(f"{FILE}?kind=capture"))] == ["-10", "-20"]


def test_the_file_holds_every_movement_with_a_balance_that_runs(organization):
    adjust(organization, 1_000, '=HYPERLINK("evil")')
    task = spend(organization, 10)
    with transaction.atomic():
        ledger.refund(reference=task, amount=4, actor="user:77", reason="sorry")

    rows = read(signed_in(organization).get(FILE))

    assert [row["movement"] for row in rows] == ["Credits added", "Held for a task", "Charged", "Refunded"]
    assert [row["task"] for row in rows] == ["", task, task, task]
    assert rows[0]["reason"] == '\'=HYPERLINK("evil")'
    balance = 0
    for row in rows:
        balance += int(row["available_change"]) + int(row["held_change"])
        assert int(row["balance_after"]) == balance
        assert int(row["available_after"]) + int(row["held_after"]) == balance
    assert (balance, len(rows)) == (994, LedgerEntry.objects.count())
    assert "user:77" not in str(rows)


def test_nothing_changes_by_get_or_from_elsewhere(organization):
    client = signed_in(organization)
    for address in ("top-up/", "alerts/", "alerts/1/remove/", f"top-up/{ids.new('top')}/withdraw/"):
        assert client.get(f"/console/billing/{address}").status_code == 405
    guarded = Client(enforce_csrf_checks=True)
    guarded.force_login(Membership.objects.get().user)
    assert guarded.post("/console/billing/top-up/", {"amount": "5"}).status_code == 403
    assert (TopUpRequest.objects.count(), AuditEntry.objects.count()) == (0, 0)


def test_the_pages_hold_no_inline_script_or_style(organization):
    adjust(organization, 10)
    spend(organization, 5, end="")
    client = signed_in(organization)
    for address in (PAGE, LEDGER):
        page = client.get(address)
        assert "style-src 'self'" in page["Content-Security-Policy"]
        assert not re.search(r"<script(?![^>]*\bsrc=)|<style|\sstyle=|\son[a-z]+=|javascript:", page.content.decode())
