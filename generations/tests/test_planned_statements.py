"""Statements that are planned once do what the ORM's do."""

import psycopg
import pytest
from django.db import NotSupportedError, connection, transaction

from accounts.tests.factories import OrganizationFactory
from generations.models import Generation
from generations.tests.factories import create_generation
from providers.models import UpstreamJob
from seedancee2.lib import statements

pytestmark = pytest.mark.django_db


def _plans(pattern: str) -> int:
    with connection.cursor() as cursor:
        cursor.execute("SELECT count(*) FROM pg_prepared_statements WHERE statement LIKE %s", [pattern])
        return int(cursor.fetchone()[0])


def test_a_statement_is_planned_once_for_a_connection():
    for number in range(3):
        with statements.planned_once() as cursor:
            cursor.execute("SELECT %s::bigint AS planned_here", [number])
            assert cursor.fetchone() == (number,)

    assert _plans("%planned_here") == 1


def test_other_statements_are_not_kept():
    for number in range(10):
        with connection.cursor() as cursor:
            cursor.execute("SELECT %s AS planned_each_time", [number])

    assert _plans("%planned_each_time%") == 0


def test_rows_that_were_inserted_are_as_the_orm_saves_them():
    first = create_generation(OrganizationFactory.create(), is_test=True, metadata={"z": 1, "a": [True, None, "é"]})
    for model, key in ((Generation, first.pk), (UpstreamJob, UpstreamJob.objects.get(reference=first.pk).pk)):
        row = model.objects.get(pk=key)
        columns = [field.attname for field in model._meta.concrete_fields if not field.primary_key]
        values = {name: getattr(row, name) for name in columns}
        row.delete() if model is UpstreamJob else model.objects.filter(pk=key).delete()

        again = model(**values) if model is UpstreamJob else model(pk=key, **values)
        statements.insert(again)

        stored = model.objects.get(pk=again.pk)
        assert {name: getattr(stored, name) for name in columns} == values
        assert not again._state.adding


@pytest.mark.django_db(transaction=True)
def test_a_column_that_changes_its_type_costs_one_transaction_at_most():
    parameters = {
        name: connection.get_connection_params()[name] for name in ("dbname", "user", "password", "host", "port")
    }

    def ask() -> str:
        with statements.planned_once() as cursor:
            cursor.execute("SELECT name FROM planned_test", [])
            return str(cursor.fetchone()[0])

    # Another connection, as a migration has: on its own psycopg would forget its plans.
    with psycopg.connect(**parameters, autocommit=True) as other:
        other.execute("CREATE TABLE planned_test (name varchar(5)); INSERT INTO planned_test VALUES ('a')")
        try:
            assert ask() == "a"
            other.execute("ALTER TABLE planned_test ALTER name TYPE text")
            assert [ask(), ask()] == ["a", "a"]

            connection.close()
            assert ask() == "a"
            connection.connection.prepare_threshold = 2**31
            assert ask() == "a"
            other.execute("ALTER TABLE planned_test ALTER name TYPE varchar(7)")
            with pytest.raises(NotSupportedError), transaction.atomic():
                ask()
            with transaction.atomic():
                assert ask() == "a"
        finally:
            other.execute("DROP TABLE planned_test")
            connection.close()
