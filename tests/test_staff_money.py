"""Credits that people move: each movement has its entry in the audit log in the same transaction, or neither is there.

The first two tests look at the code: whoever adds a way to move credits adds its row here.
"""

import ast
import inspect
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
from django.db import DatabaseError

from accounts.models import AuditEntry, User
from accounts.tests.factories import OrganizationFactory, UserFactory
from billing import adjustments, ledger, topups
from billing.models import Adjustment, CreditAccount, LedgerEntry, Reservation, TopUpRequest
from generations import interventions
from generations.models import Generation
from generations.tests.factories import create_generation, funded_organization
from seedancee2.console import provisioning
from tests.planted import MESSAGE, refuse_rows
from tests.web import complete

pytestmark = pytest.mark.django_db

ROOT = Path(__file__).resolve().parent.parent
APPS = ("accounts", "billing", "generations", "providers", "webhooks", "seedancee2")

# Every call of a function that moves credits, by where it stands; what a person reaches is in MOVES below.
CALLS = {
    ("generations/lifecycle.py", "create", "reserve"),  # the customer's own key or playground
    ("generations/lifecycle.py", "complete", "capture"),  # the system
    ("generations/lifecycle.py", "fail", "release"),  # the system, and interventions.fail
    ("generations/lifecycle.py", "refund", "refund"),  # interventions.refund
    ("billing/adjustments.py", "_move", "adjust"),  # adjustments.request and approve
    ("billing/welcome.py", "on_organization_signed_up", "grant"),  # the system
    ("seedancee2/console/provisioning.py", "issue_key", "grant"),  # the commands
}
LOOKS = {
    ledger: {"open_account", "balance_at", "balance"},
    adjustments: {"needs_second_person", "demand_refund"},
    topups: {"latest"},
}


@pytest.fixture
def staff() -> User:
    """Somebody who may act alone up to a limit."""
    user: User = UserFactory.create(is_staff=True)
    return user


def by(user: User) -> str:
    return f"user:{user.pk}"


def waiting(settings: Any) -> Adjustment:
    settings.ADJUSTMENT_LIMIT = 10
    organization = funded_organization(100)
    return adjustments.request(
        organization_id=organization.pk, amount=50, reason="bought", requested_by=by(UserFactory.create())
    )


def asked() -> TopUpRequest:
    return topups.ask(organization_id=OrganizationFactory.create().pk, amount=5, note="", asked_by=UserFactory.create())


def request_one(staff: User, settings: Any) -> Callable[[], Any]:
    organization = funded_organization(100)
    return lambda: adjustments.request(
        organization_id=organization.pk, amount=-5, reason="bought", requested_by=by(staff)
    )


def approve_one(staff: User, settings: Any) -> Callable[[], Any]:
    adjustment = waiting(settings)
    return lambda: adjustments.approve(adjustment_id=adjustment.pk, approved_by=by(staff))


def decline_one(staff: User, settings: Any) -> Callable[[], Any]:
    adjustment = waiting(settings)
    return lambda: adjustments.decline(adjustment_id=adjustment.pk, declined_by=by(staff))


def grant_a_top_up(staff: User, settings: Any) -> Callable[[], Any]:
    request = asked()
    return lambda: topups.grant(request_id=request.pk, amount=5, reason="paid", granted_by=staff)


def decline_a_top_up(staff: User, settings: Any) -> Callable[[], Any]:
    request = asked()
    return lambda: topups.decline(request_id=request.pk, reason="unpaid", declined_by=staff)


def ask_for_a_top_up(staff: User, settings: Any) -> Callable[[], Any]:
    organization = OrganizationFactory.create()
    return lambda: topups.ask(organization_id=organization.pk, amount=5, note="", asked_by=staff)


def withdraw_a_top_up(staff: User, settings: Any) -> Callable[[], Any]:
    request = asked()
    return lambda: topups.withdraw(organization_id=request.account_id, request_id=request.pk, withdrawn_by=staff)


def refund_a_task(staff: User, settings: Any) -> Callable[[], Any]:
    task = complete(create_generation(funded_organization()))
    return lambda: interventions.refund(
        public_id=task.pk, amount=5, refunded_before=0, actor=staff, reason="it flickers"
    )


def fail_a_task(staff: User, settings: Any) -> Callable[[], Any]:
    task = create_generation(funded_organization())
    return lambda: interventions.fail(public_id=task.pk, actor=staff, reason="stuck")


def issue_a_key_with_credits(staff: User, settings: Any) -> Callable[[], Any]:
    return lambda: provisioning.issue_key(organization_name="Acme", credits=50)


# What a person does to credits: what prepares it, how many entries of the ledger it writes, and its audit entries.
MOVES: dict[str, tuple[Callable[[User, Any], Callable[[], Any]], int, list[str]]] = {
    "adjustments.request": (request_one, 1, ["credits.adjustment_requested", "credits.adjusted"]),
    "adjustments.approve": (approve_one, 1, ["credits.adjustment_approved", "credits.adjusted"]),
    "adjustments.decline": (decline_one, 0, ["credits.adjustment_declined"]),
    "topups.ask": (ask_for_a_top_up, 0, ["credits.requested"]),
    "topups.withdraw": (withdraw_a_top_up, 0, ["credits.request_withdrawn"]),
    "topups.grant": (
        grant_a_top_up,
        1,
        ["credits.adjustment_requested", "credits.adjusted", "credits.request_granted"],
    ),
    "topups.decline": (decline_a_top_up, 0, ["credits.request_declined"]),
    "interventions.refund": (refund_a_task, 1, ["task.refunded"]),
    "interventions.fail": (fail_a_task, 1, ["task.failed"]),
    "provisioning.issue_key": (issue_a_key_with_credits, 1, ["key.issued", "credits.granted"]),
}


def public(module: ModuleType) -> set[str]:
    found = inspect.getmembers(module, inspect.isfunction)
    return {name for name, one in found if one.__module__ == module.__name__ and not name.startswith("_")}


def test_every_function_that_people_move_credits_by_is_looked_at_here():
    for module in (adjustments, topups):
        name = module.__name__.rpartition(".")[2]
        assert {f"{name}.{one}" for one in public(module) - LOOKS[module]} <= MOVES.keys()
    moving = {function for _, _, function in CALLS}
    assert public(ledger) - LOOKS[ledger] == moving


def test_nobody_else_moves_credits():
    moving = public(ledger) - LOOKS[ledger]
    found = set()
    for top in APPS:
        for path in (ROOT / top).rglob("*.py"):
            name = path.relative_to(ROOT).as_posix()
            if "/tests/" in name or "/migrations/" in name:
                continue
            for function in ast.walk(ast.parse(path.read_text())):
                # Under its own name alone, so that its calls can be seen.
                if isinstance(function, ast.ImportFrom):
                    names = {(function.module, one.name) for one in function.names if one.asname or one.name in moving}
                    assert not names & ({("billing", "ledger")} | {("billing.ledger", one) for one in moving}), name
                if isinstance(function, ast.FunctionDef):
                    found |= {(name, function.name, called) for called in _moved(function) if called in moving}

    assert found == CALLS


def _moved(function: ast.FunctionDef) -> set[str]:
    return {
        node.attr
        for node in ast.walk(function)
        if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name) and node.value.id == "ledger"
    }


@pytest.mark.parametrize("name", MOVES)
def test_each_is_in_the_audit_log(name, staff, settings):
    prepare, entry_count, actions = MOVES[name]
    act = prepare(staff, settings)
    entries, last = LedgerEntry.objects.count(), AuditEntry.objects.count()

    act()

    assert LedgerEntry.objects.count() == entries + entry_count
    noted = AuditEntry.objects.order_by("id")[last:]
    assert [entry.action for entry in noted] == actions
    who = {"system:cli", "system"} if name == "provisioning.issue_key" else {staff.email}
    assert {entry.actor_name for entry in noted} <= who
    assert all(entry.organization_id for entry in noted)


@pytest.mark.parametrize("name", MOVES)
@pytest.mark.parametrize("table", ["accounts_auditentry", "billing_ledgerentry"])
def test_neither_is_there_without_the_other(name, table, staff, settings):
    prepare, entry_count, _ = MOVES[name]
    act = prepare(staff, settings)
    if table == "billing_ledgerentry" and not entry_count:
        return  # it moves nothing, so nothing can be missing
    before = state()
    refuse_rows(table)

    with pytest.raises(DatabaseError, match=MESSAGE):
        act()

    assert state() == before


def state() -> list[Any]:
    tables = (CreditAccount, LedgerEntry, Reservation, Adjustment, TopUpRequest, Generation, AuditEntry)
    return [sorted(str(sorted(row.items())) for row in table.objects.values()) for table in tables]
