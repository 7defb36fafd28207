"""The commands that staff and scripts use."""

import io
import json
import sys
from typing import Any

import pytest
from django.core.management import CommandError, call_command
from django.db import connection

from accounts import clients
from accounts.models import ApiKey, Organization
from accounts.tests.factories import OrganizationFactory
from billing import ledger
from billing.models import LedgerEntry
from webhooks import secrets

pytestmark = pytest.mark.django_db


def _run(*args: Any) -> list[str]:
    out = io.StringIO()
    call_command(*args, stdout=out)
    return out.getvalue().splitlines()


def test_issue_key_makes_the_organization_and_ends_with_the_key_alone():
    OrganizationFactory(name="Stranger")

    lines = _run("issue_key", "Acme", "--name", "backend", "--credits", "500", "--rate", "30")

    client = clients.authenticate(lines[-1])
    organization = Organization.objects.get(name="Acme")
    assert (client.organization_id, client.is_test, client.create_rate_limit) == (organization.pk, False, 30)
    assert ledger.balance(organization_id=organization.pk) == (500, 0)
    assert ApiKey.objects.get().name == "backend"


def test_issue_key_again_adds_credits_and_a_second_key():
    first = json.loads(_run("issue_key", "Acme", "--credits", "500", "--json")[-1])
    second = json.loads(_run("issue_key", "acme", "--credits", "20", "--json")[-1])

    assert (first["organization"], second["organization"]) == ("Acme", "Acme")
    assert (first["credits"], second["credits"]) == (500, 520)
    assert first["signing_secret"] == second["signing_secret"]
    assert first["signing_secret"].startswith("whsec_")
    assert (
        clients.authenticate(first["api_key"]).organization_id
        == clients.authenticate(second["api_key"]).organization_id
    )
    assert sorted(first) == ["api_key", "credits", "organization", "signing_secret"]


def test_issue_key_makes_test_keys():
    (*_, secret) = _run("issue_key", "Acme", "--test")

    assert secret.startswith("sk_seedancee2_test_")
    assert clients.authenticate(secret).is_test


@pytest.mark.parametrize(
    "arguments",
    [
        ["", "--credits", "1"],
        ["Acme", "--credits", "-1"],
        ["Acme", "--credits", str(10**13)],
        ["Acme", "--rate", "0"],
        ["A" * 121],
    ],
)
def test_issue_key_refuses_bad_arguments_and_changes_nothing(arguments):
    with pytest.raises(CommandError):
        _run("issue_key", *arguments)

    assert not Organization.objects.exists()


def test_import_key_reads_standard_input(monkeypatch):
    secret = "legacy-key-0123456789abcdef"
    monkeypatch.setattr(sys, "stdin", io.StringIO(secret + "\n"))

    lines = _run("import_key", "Acme")

    assert clients.authenticate(secret).organization_id == Organization.objects.get(name="Acme").pk
    assert secret not in "".join(lines)


def test_import_key_refuses_an_empty_line(monkeypatch):
    monkeypatch.setattr(sys, "stdin", io.StringIO("\n"))

    with pytest.raises(CommandError, match="standard input"):
        _run("import_key", "Acme")


def test_adjust_credits_moves_both_ways_and_never_below_zero():
    _run("issue_key", "Acme", "--credits", "100")

    assert json.loads(_run("adjust_credits", "Acme", "50", "--reason", "gift", "--json")[-1]) == {
        "available": 150,
        "held": 0,
    }
    _run("adjust_credits", "Acme", "-150", "--reason", "typing error")
    with pytest.raises(CommandError, match="nothing was changed"):
        _run("adjust_credits", "Acme", "-1", "--reason", "typing error")

    assert json.loads(_run("balance", "Acme", "--json")[-1]) == {"available": 0, "held": 0}
    assert list(LedgerEntry.objects.order_by("id").values_list("kind", "available_change", "actor")) == [
        ("grant", 100, "system:cli"),
        ("adjust", 50, "system:cli"),
        ("adjust", -150, "system:cli"),
    ]


@pytest.mark.parametrize("command", [["balance"], ["signing_secret"]])
def test_an_unknown_organization_is_named(command):
    with pytest.raises(CommandError, match="no organization named 'Nobody'"):
        _run(*command, "Nobody")


def test_signing_secret_rotates_with_an_overlap():
    _run("issue_key", "Acme")
    organization = Organization.objects.get()
    (old,) = _run("signing_secret", "Acme")

    (new,) = _run("signing_secret", "Acme", "--rotate")

    assert new != old
    assert secrets.active(organization_id=organization.pk) == [new, old]
    assert _run("signing_secret", "Acme") == [new]


def test_reconcile_ledger_names_a_planted_discrepancy(capsys):
    _run("issue_key", "Acme", "--credits", "100")
    assert _run("reconcile_ledger") == ["Every credit is explained: 0 discrepancies."]
    with connection.cursor() as cursor:
        cursor.execute("UPDATE billing_creditaccount SET available = 99")

    out = io.StringIO()
    with pytest.raises(CommandError) as failure:
        call_command("reconcile_ledger", stdout=out)

    assert failure.value.returncode == 1
    assert "balance_equals_entries: organization" in out.getvalue()


def test_prepare_local_keeps_what_is_still_valid(tmp_path):
    first = json.loads(_run("prepare_local", "--json")[-1])
    previous = tmp_path / "run.json"
    previous.write_text(json.dumps(first))

    second = json.loads(_run("prepare_local", "--previous", str(previous), "--json")[-1])

    assert first == second
    assert ledger.balance(organization_id=Organization.objects.get().pk) == (100_000, 0)
    assert ApiKey.objects.count() == 2


def test_prepare_local_is_refused_outside_local_mode(settings):
    settings.LOCAL_MODE = False

    with pytest.raises(CommandError, match="LOCAL_MODE"):
        _run("prepare_local")

    assert not Organization.objects.exists()


def test_create_staff_makes_somebody_who_can_sign_in(monkeypatch, client, settings):
    settings.ACCOUNT_EMAIL_VERIFICATION = "mandatory"
    monkeypatch.setattr(sys, "stdin", io.StringIO("correct horse battery staple\n"))

    _run("create_staff", "Ann@example.com")

    client.post("/accounts/login/", {"login": "ann@example.com", "password": "correct horse battery staple"})
    assert client.get("/admin/").status_code == 200


@pytest.mark.parametrize(("email", "password"), [("ann", "correct horse battery staple"), ("ann@example.com", "short")])
def test_create_staff_refuses_nonsense(monkeypatch, email, password):
    monkeypatch.setattr(sys, "stdin", io.StringIO(password + "\n"))

    with pytest.raises(CommandError):
        _run("create_staff", email)


def test_import_key_with_a_bad_key_makes_no_organization(monkeypatch):
    monkeypatch.setattr(sys, "stdin", io.StringIO("short\n"))

    with pytest.raises(CommandError, match="16 to 200"):
        _run("import_key", "Acme")

    assert not Organization.objects.exists()
