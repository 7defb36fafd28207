"""The audit log: written beside what it tells of, and never changed."""

import pytest
from django.db import ProgrammingError, connection, transaction

from accounts import audit
from accounts.models import AuditEntry, Organization, User

pytestmark = pytest.mark.django_db


@pytest.fixture
def entry() -> AuditEntry:
    """An entry about a key of an organization."""
    person = User.objects.create_user("ada@example.com", is_staff=True)
    organization = Organization.objects.create(name="Loom")
    return audit.note(
        organization_id=organization.pk,
        actor=person,
        action="key.issued",
        target="render farm",
        after={"name": "render farm"},
        reason="asked by mail",
    )


def test_an_entry_says_who_did_what(entry):
    entry.refresh_from_db()

    assert (entry.actor_name, entry.is_by_staff, entry.action) == ("ada@example.com", True, "key.issued")
    assert (entry.before, entry.after, entry.reason) == ({}, {"name": "render farm"}, "asked by mail")


def test_a_command_acts_as_the_system():
    assert audit.note(organization_id=None, actor=None, action="rate.changed", target="mini").actor_name == "system"


@pytest.mark.parametrize(
    "statement",
    [
        "UPDATE accounts_auditentry SET reason = ''",
        "UPDATE accounts_auditentry SET created_at = now()",
        "DELETE FROM accounts_auditentry",
        "TRUNCATE accounts_auditentry",
    ],
)
def test_no_statement_rewrites_an_entry(entry, statement):
    with connection.cursor() as cursor:
        cursor.execute("SET CONSTRAINTS ALL IMMEDIATE")  # else PostgreSQL itself refuses the last, for its own reason
        with pytest.raises(ProgrammingError, match=r"Cannot|append-only"), transaction.atomic():
            cursor.execute(statement)

    assert AuditEntry.objects.get().reason == "asked by mail"


def test_an_entry_outlives_the_person_and_names_them(entry):
    User.objects.all().delete()

    entry.refresh_from_db()
    assert (entry.actor_id, entry.actor_name) == (None, "ada@example.com")
