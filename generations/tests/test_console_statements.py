"""Statements add up, whatever moved; and a stranger, or a role without billing, reads none."""

import csv
import datetime as dt
import io
import random

import pytest
import time_machine
from django.db import transaction
from django.test import Client

from accounts.models import Membership
from accounts.tests.factories import MembershipFactory, OrganizationFactory
from billing import history, ledger
from billing.models import LedgerEntry
from generations import lifecycle, statements
from generations.models import Generation
from generations.tests.factories import create_generation, funded_organization
from seedancee2.api.errors import InsufficientCredits
from seedancee2.lib import ids

pytestmark = pytest.mark.django_db

START = dt.datetime(2026, 5, 28, tzinfo=dt.UTC)


def signed_in(organization, role="owner") -> Client:
    client = Client()
    client.force_login(MembershipFactory.create(organization=organization, role=role).user)
    return client


def live_through(organization, seed: int, traveller) -> None:
    """Move credits in every way there is, in some order, over three months."""
    chance = random.Random(seed)
    open_tasks, charged = [], []
    for _ in range(150):
        traveller.shift(dt.timedelta(seconds=chance.randint(0, 100_000), milliseconds=chance.randint(0, 999)))
        what = chance.choice(["create", "create", "create", "complete", "fail", "refund", "adjust", "grant"])
        if what == "create":
            model = chance.choice(["pro", "fast", "mini"])
            try:
                open_tasks.append(create_generation(organization, model=model, duration=chance.randint(4, 15)))
            except InsufficientCredits:
                continue
        elif what in ("complete", "fail") and open_tasks:
            task = open_tasks.pop(chance.randrange(len(open_tasks)))
            if what == "complete":
                lifecycle.complete(public_id=task.pk, assets=[])
                charged.append(task)
            else:
                lifecycle.fail(public_id=task.pk, code=Generation.ErrorCode.GENERATION_FAILED)
        elif what == "refund" and charged:
            task = charged.pop(chance.randrange(len(charged)))
            lifecycle.refund(public_id=task.pk, amount=chance.randint(1, task.credits), actor="t", reason="sorry")
        elif what in ("adjust", "grant"):
            amount = chance.randint(1, 300)
            if what == "adjust" and chance.random() < 0.4:
                amount = -min(amount, ledger.balance(organization_id=organization.pk)[0])
            if amount:
                with transaction.atomic():
                    move = ledger.grant if what == "grant" else ledger.adjust
                    move(organization_id=organization.pk, amount=amount, reference=ids.new("x"), actor="t", reason="r")


@pytest.mark.parametrize("seed", range(6))
def test_every_month_adds_up_and_begins_where_the_last_one_ended(seed):
    with time_machine.travel(START, tick=False) as traveller:
        organization, stranger = funded_organization(2_000), funded_organization(2_000)
        create_generation(stranger)
        live_through(organization, seed, traveller)
        months = history.months(organization_id=organization.pk)
        found = [statements.of_month(organization_id=organization.pk, first=first) for first in reversed(months)]
        available, held = ledger.balance(organization_id=organization.pk)

    assert len(found) >= 3
    balance = 0
    for statement in found:
        month = statement.month
        assert month.opening == balance
        assert sum(credits for _, credits in statement.lines[:-1]) == month.closing
        assert sum(charge.credits for charge in statement.charges) == month.charged
        assert sum(charge.count for charge in statement.charges) == month.charged_count
        assert {charge.model for charge in statement.charges} <= {"pro", "fast", "mini"}
        balance = month.closing
    assert (balance, found[-1].month.closing_held) == (available + held, held)
    entries = LedgerEntry.objects.filter(account_id=organization.pk)
    assert sum(statement.month.charged for statement in found) == -sum(
        entry.reserved_change for entry in entries if entry.kind == "capture"
    )
    assert sum(statement.month.refunded for statement in found) == sum(
        entry.available_change for entry in entries if entry.kind == "refund"
    )


def test_the_last_instant_of_a_month_is_in_it_and_the_first_of_the_next_is_not():
    organization = OrganizationFactory.create()
    for moment, amount in (("2026-06-30T23:59:59.999Z", 1), ("2026-07-01T00:00:00.000Z", 20)):
        with time_machine.travel(moment, tick=False), transaction.atomic():
            ledger.grant(organization_id=organization.pk, amount=amount, reference=moment, actor="t", reason="r")

    june, july = (
        statements.of_month(organization_id=organization.pk, first=dt.date(2026, month, 1)).month for month in (6, 7)
    )

    assert (june.opening, june.added, june.closing) == (0, 1, 1)
    assert (july.opening, july.added, july.closing) == (1, 20, 21)


def test_the_page_and_the_file_say_the_same():
    with time_machine.travel("2026-07-10T12:00:00Z", tick=False):
        organization = funded_organization(1_000)
        task = create_generation(organization, model="pro")
        lifecycle.complete(public_id=task.pk, assets=[])
        create_generation(organization)
        client = signed_in(organization)
        page = client.get("/console/billing/statements/2026-07/")
        file = client.get("/console/billing/statements/2026-07.csv")

    rows = list(csv.reader(io.StringIO(b"".join(file.streaming_content).decode())))
    assert rows == [
        ["line", "credits"],
        ["Opening balance", "0"],
        ["Credits added", "1000"],
        ["Credits taken back", "0"],
        ["Charged: pro (1 task)", "-40"],
        ["Refunded", "0"],
        ["Closing balance", "960"],
    ]
    text = page.content.decode()
    assert "Charged: pro (1 task)" in text
    assert "20 of it are held" in text
    assert "start=2026-07-01&amp;end=2026-07-31" in text


@pytest.mark.parametrize("month", ["2026-13", "2026-00", "26-07", "2026-07-01", "9999-12", "1999-01", "２０２６-07"])
def test_months_that_are_none_are_not_found(month):
    client = signed_in(funded_organization())
    for address in (f"/console/billing/statements/{month}/", f"/console/billing/statements/{month}.csv"):
        assert client.get(address).status_code == 404


@pytest.mark.parametrize("role", Membership.Role.values)
def test_roles_and_strangers(role):
    organization, stranger = funded_organization(4_711), OrganizationFactory.create()
    month = LedgerEntry.objects.get().created_at.strftime("%Y-%m")
    for address in (f"/console/billing/statements/{month}/", f"/console/billing/statements/{month}.csv"):
        reply = signed_in(organization, role).get(address)
        assert reply.status_code == (200 if role in ("owner", "admin", "billing") else 403)
        outsider = signed_in(stranger, role)
        assert outsider.get(f"{address}?organization={organization.pk}").status_code == 404
    assert b"4,711" not in signed_in(stranger).get(f"/console/billing/statements/{month}/").content
