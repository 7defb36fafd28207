"""Reconciliation: silent where all is well, and each planted mismatch named, kept and closed again."""

import datetime as dt
from pathlib import Path

import pytest
import time_machine
from django.core.files.storage import default_storage
from django.db import connection, transaction

from accounts.models import ApiKey
from accounts.tests.factories import issue_key
from billing import ledger
from billing import reconciliation as billing_reconciliation
from billing.allowances import Allowance
from billing.models import Finding, LedgerEntry
from billing.reconciliation import BEGINNING
from generations import lifecycle, reconciliation
from generations.models import Generation, OutputAsset
from generations.tests.factories import create_generation, funded_organization
from generations.tests.pipeline import route_live_traffic_to_sandbox, run_to_end
from seedancee2.lib import ids

pytestmark = pytest.mark.django_db


@pytest.fixture(autouse=True)
def media_folder(settings, tmp_path) -> Path:
    """Media goes to a folder of this test."""
    options = {"location": str(tmp_path), "allow_overwrite": True}
    storage = {"BACKEND": "django.core.files.storage.FileSystemStorage", "OPTIONS": options}
    settings.STORAGES = {**settings.STORAGES, "default": storage}
    return Path(tmp_path)


@pytest.fixture
def ended() -> Generation:
    """A completed generation of 20 credits, in a world with a failed and an open one."""
    route_live_traffic_to_sandbox()
    organization = funded_organization(100)
    with time_machine.travel(dt.datetime.now(dt.UTC) - dt.timedelta(minutes=5), tick=False) as turned:
        run_to_end(turned, create_generation(organization, prompt="waves [sandbox:fail]"))
        ended = run_to_end(turned, create_generation(organization, callback_url="https://example.com/"))
    create_generation(organization)
    assert reconciliation.discrepancies() == []
    return ended


def _execute(sql: str) -> None:
    with connection.cursor() as cursor:
        cursor.execute("SET LOCAL session_replication_role = replica")
        cursor.execute(sql)
        cursor.execute("SET LOCAL session_replication_role = origin")


def _rules() -> set[str]:
    return {item.rule for item in reconciliation.report()}


def _names(ended: Generation) -> dict[str, object]:
    """How findings name the rows of this world."""
    tasks = dict(Generation.objects.values_list("status", "public_id"))
    entries = {f"{kind} of {reference}": pk for pk, kind, reference in LedgerEntry.objects.values_list(*ENTRY)}
    return {
        "organization": ended.organization_id,
        "completed": ended.pk,
        "open": tasks["pending"],
        "capture": entries[f"capture of {ended.pk}"],
        "last": entries[f"reserve of {tasks['pending']}"],
    }


ENTRY = ["pk", "kind", "reference"]
MISMATCHES = [
    (
        "UPDATE billing_creditaccount SET available = available + 1",
        "balance_equals_entries",
        ["organization {organization}"],
    ),
    (
        "UPDATE billing_reservation SET amount = amount + 1 WHERE state = 'held'",
        "held_equals_open_reservations",
        ["organization {organization}"],
    ),
    (
        "DELETE FROM billing_ledgerentry WHERE kind = 'capture'",
        "sequence_has_no_gap",
        ["organization {organization}"],
    ),
    (
        "DELETE FROM billing_ledgerentry WHERE kind = 'capture'",
        "balances_after_are_a_chain",
        ["entry {last}"],
    ),
    (
        "UPDATE billing_ledgerentry SET available_after = 7 WHERE kind = 'capture'",
        "balances_after_are_a_chain",
        ["entry {capture}", "entry {last}"],
    ),
    (
        "UPDATE billing_reservation SET state = 'released' WHERE state = 'captured'",
        "reservation_has_its_entries",
        ["reservation {completed}"],
    ),
    (
        "UPDATE billing_reservation SET amount = 19 WHERE state = 'captured'",
        "reservation_has_its_entries",
        ["reservation {completed}"],
    ),
    (
        "UPDATE billing_reservation SET reference = 'vid_x' WHERE state = 'held'",
        "reservation_has_its_entries",
        ["reservation vid_x", "reservation {open}"],
    ),
    (
        "UPDATE billing_reservation SET state = 'released' WHERE state = 'captured'",
        "hold_open_while_task_open",
        ["task {completed}"],
    ),
    (
        "UPDATE generations_generation SET credits = 21 WHERE status = 'completed'",
        "hold_is_the_price",
        ["task {completed}"],
    ),
    (
        "UPDATE generations_generation SET credits = 21 WHERE status = 'completed'",
        "usage_equals_ledger",
        ["organization {organization}"],
    ),
    (
        "UPDATE billing_reservation SET refunded = 5 WHERE state = 'captured'",
        "refunds_are_on_the_reservation",
        ["reservation {completed}"],
    ),
    ("DELETE FROM webhooks_delivery", "ended_task_told_its_callback", ["task {completed}"]),
    (
        "DELETE FROM generations_outputasset WHERE kind = 'thumbnail'",
        "completed_task_has_its_files",
        ["task {completed}"],
    ),
    (
        "UPDATE generations_generation SET deadline_at = now() - interval '1 hour' WHERE status = 'pending'",
        "open_task_within_deadline",
        ["task {open}"],
    ),
    (
        "UPDATE billing_reservation SET reference = 'vid_x' WHERE state = 'held'",
        "hold_has_a_task",
        ["reservation vid_x"],
    ),
]


@pytest.mark.parametrize(("sql", "rule", "subjects"), MISMATCHES)
def test_a_planted_mismatch_is_found_by_every_look_and_names_its_rows(ended, sql, rule, subjects):
    expected = sorted(subject.format(**_names(ended)) for subject in subjects)

    _execute(sql)

    for found in (reconciliation.report(), reconciliation.discrepancies(since=BEGINNING)):
        assert sorted(item.subject for item in found if item.rule == rule) == expected
    open_findings = Finding.objects.filter(rule=rule, resolved_at=None)
    assert sorted(open_findings.values_list("subject", flat=True)) == expected


def test_a_file_that_is_gone_or_cut_is_found(ended):
    video, thumbnail = OutputAsset.objects.order_by("kind").values_list("path", flat=True)[::-1]
    default_storage.delete(thumbnail)
    Path(default_storage.path(video)).write_bytes(b"x")

    found = {item.subject: item.rule for item in reconciliation.report()}

    assert found == {f"file {video}": "file_is_stored_whole", f"file {thumbnail}": "file_is_stored_whole"}


@pytest.mark.parametrize(
    ("sql", "rule"),
    [
        ("UPDATE billing_creditaccount SET available = available + 1", "balance_equals_entries"),
        ("UPDATE billing_reservation SET amount = amount + 1 WHERE state = 'held'", "held_equals_open_reservations"),
        (
            "DELETE FROM billing_ledgerentry WHERE sequence = (SELECT max(sequence) FROM billing_ledgerentry)",
            "sequence_has_no_gap",
        ),
    ],
)
def test_what_is_changed_long_after_the_last_movement_is_found(ended, sql, rule):
    _execute("UPDATE billing_ledgerentry SET created_at = created_at - interval '30 days'")
    _execute("UPDATE billing_creditaccount SET moved_at = moved_at - interval '30 days'")
    assert _rules() == set()

    _execute(sql)

    assert rule in _rules()


def test_a_finding_is_kept_once_and_closed_when_it_is_gone(ended):
    _execute("UPDATE billing_creditaccount SET available = available + 1")
    reconciliation.report()
    reconciliation.report(since=BEGINNING)
    assert Finding.objects.count() == 1

    _execute("UPDATE billing_creditaccount SET available = available - 1")
    reconciliation.report()
    assert Finding.objects.filter(resolved_at=None).count() == 1
    reconciliation.report(since=BEGINNING)

    assert Finding.objects.get().resolved_at is not None


@pytest.fixture
def aged() -> Generation:
    """A task completed five days ago, a part of it given back since, and a second one that was completed just now."""
    route_live_traffic_to_sandbox()
    now = dt.datetime.now(dt.UTC)
    with time_machine.travel(now - dt.timedelta(days=5), tick=False) as turned:
        organization = funded_organization(200)
        old = run_to_end(turned, create_generation(organization))
        lifecycle.refund(public_id=old.pk, amount=3, actor="t", reason="slow")
    with time_machine.travel(now - dt.timedelta(minutes=5), tick=False) as turned:
        lifecycle.refund(public_id=old.pk, amount=4, actor="t", reason="slower")
        run_to_end(turned, create_generation(organization))
    assert reconciliation.report() == []
    assert reconciliation.report(since=BEGINNING) == []
    return old


@pytest.mark.parametrize(
    ("sql", "rule"),
    [
        ("DELETE FROM billing_ledgerentry WHERE sequence = 5", "sequence_has_no_gap"),
        ("DELETE FROM billing_ledgerentry WHERE sequence = 4", "sequence_has_no_gap"),
        (
            "UPDATE billing_ledgerentry SET available_change = available_change - 1 WHERE sequence = 5",
            "balance_equals_entries",
        ),
        ("UPDATE billing_ledgerentry SET available_after = 1 WHERE sequence = 6", "balances_after_are_a_chain"),
        (
            "UPDATE billing_reservation SET amount = amount - 1 WHERE refunded = 0",
            "reservation_has_its_entries",
        ),
        ("UPDATE billing_reservation SET refunded = refunded - 1 WHERE refunded > 0", "refunds_are_on_the_reservation"),
        ("UPDATE billing_creditaccount SET reserved = reserved + 1", "balance_equals_entries"),
    ],
)
def test_a_look_at_the_day_goes_on_from_the_balance_before_it(aged, sql, rule):
    _execute(sql)

    assert rule in _rules()


def test_what_was_changed_in_the_past_is_found_by_the_look_at_everything(aged):
    _execute("UPDATE billing_ledgerentry SET available_after = 1 WHERE sequence = 2")

    assert _rules() == set()
    assert {item.rule for item in reconciliation.report(since=BEGINNING)} == {"balances_after_are_a_chain"}


def test_a_hold_made_as_a_month_begins_counts_in_that_month():
    organization = funded_organization(100)
    issue_key(organization)
    key = ApiKey.objects.get(organization=organization)
    end_of_month = dt.datetime(2026, 9, 30, 23, 59, 59, 999_000, tzinfo=dt.UTC)
    with time_machine.travel(end_of_month, tick=False) as turned, transaction.atomic():
        reference = ids.new("vid")
        turned.shift(dt.timedelta(milliseconds=2))
        allowance = Allowance(api_key_id=key.pk, monthly_cap=None)
        ledger.reserve(organization_id=organization.pk, amount=5, reference=reference, actor="t", allowance=allowance)

    since = end_of_month + dt.timedelta(days=3)
    assert billing_reconciliation.discrepancies(since=since) == []
    _execute("UPDATE billing_keyallowance SET used = used + 1")
    assert [item.rule for item in billing_reconciliation.discrepancies(since=since)] == ["allowance_equals_its_holds"]
