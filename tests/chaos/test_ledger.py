"""The checks after `python -m tests.chaos.ledger` find what is wrong, each its own wrong."""

import pytest
from django.db import connection, transaction

from accounts.models import Organization
from billing import ledger
from tests.chaos.ledger import CHECKS

_PLANTED = {
    "what is available is the sum of the entries": "UPDATE billing_creditaccount SET available = available + 1",
    "what is held is the sum of the entries": "UPDATE billing_creditaccount SET reserved = reserved + 1",
    "what is held is the sum of the open holds": "DELETE FROM billing_reservation WHERE state = 'held'",
    "sequence numbers run from 1 without a gap": "UPDATE billing_ledgerentry SET sequence = 9 WHERE kind = 'refund'",
    "each balance follows from the one before": """
        UPDATE billing_ledgerentry SET available_after = available_after + 1 WHERE kind = 'capture'
    """,
    "a hold has its entry, and exactly one more once it is closed": """
        DELETE FROM billing_ledgerentry WHERE kind = 'capture'
    """,
    "no more is refunded than was charged": "UPDATE billing_reservation SET refunded = 11 WHERE reference = 'vid_1'",
    "what a client was told is there": "INSERT INTO journal VALUES ('capture', 'vid_2')",
}


def _violations():
    with connection.cursor() as cursor:
        found = set()
        for what, sql in CHECKS.items():
            cursor.execute(sql)
            if cursor.fetchall():
                found.add(what)
    return found


@pytest.fixture
def history(db):
    organization = Organization.objects.create(name="poor 1")
    common = {"actor": "system:chaos"}
    with transaction.atomic():
        ledger.grant(organization_id=organization.pk, amount=100, reference="grt_1", reason="chaos", **common)
        ledger.reserve(organization_id=organization.pk, amount=30, reference="vid_1", **common)
        ledger.capture(reference="vid_1", **common)
        ledger.refund(reference="vid_1", amount=10, reason="chaos", **common)
        ledger.reserve(organization_id=organization.pk, amount=20, reference="vid_2", **common)
    with connection.cursor() as cursor:
        cursor.execute("CREATE TEMPORARY TABLE journal (kind text, reference text) ON COMMIT DROP")
        cursor.execute("INSERT INTO journal VALUES ('capture', 'vid_1'), ('reserve', 'vid_2')")
        cursor.execute("SET LOCAL session_replication_role = replica")  # past the triggers that forbid what follows


def test_a_sound_ledger_passes_every_check(history):
    assert _violations() == set()


@pytest.mark.parametrize("what", CHECKS)
def test_what_is_planted_is_found(history, what):
    with connection.cursor() as cursor:
        cursor.execute(_PLANTED[what])

    assert what in _violations()
