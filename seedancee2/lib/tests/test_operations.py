"""Operations of migrations, on tables that others use."""

import threading
import time

import pytest
from django.apps import apps
from django.db import connection, connections, models, transaction
from django.db.migrations.state import ProjectState

from seedancee2.lib.operations import AddIndexPatiently

NAME = "content_type_patient"
LONGER_THAN_A_LOCK = 2.5  # seconds; others give up after 2


def _states() -> list[tuple[str, bool]]:
    with connection.cursor() as cursor:
        cursor.execute(
            "SELECT relname, indisvalid FROM pg_index JOIN pg_class ON oid = indexrelid WHERE relname = %s", [NAME]
        )
        return list(cursor.fetchall())


@pytest.mark.django_db(transaction=True)
def test_an_index_is_built_beside_a_transaction_that_takes_its_time_and_goes_again() -> None:
    state = ProjectState.from_apps(apps)
    operation = AddIndexPatiently("contenttype", models.Index(fields=["model"], name=NAME))
    has_written, has_waited = threading.Event(), threading.Event()

    def write() -> None:
        with transaction.atomic(), connection.cursor() as cursor:
            cursor.execute("UPDATE django_content_type SET model = model")
            has_written.set()
            time.sleep(LONGER_THAN_A_LOCK)
            has_waited.set()
        connections.close_all()

    writer = threading.Thread(target=write)
    writer.start()
    assert has_written.wait(10)
    with connection.schema_editor(atomic=False) as editor:
        operation.database_forwards("contenttypes", editor, state, state)
    assert _states() == [(NAME, True)]
    assert has_waited.is_set()

    with connection.schema_editor(atomic=False) as editor:
        operation.database_forwards("contenttypes", editor, state, state)  # what an earlier try left is no hindrance
        assert _states() == [(NAME, True)]
        operation.database_backwards("contenttypes", editor, state, state)
    assert _states() == []
    with connection.cursor() as cursor:
        cursor.execute("SELECT current_setting('lock_timeout'), current_setting('statement_timeout')")
        assert cursor.fetchone() == ("2s", "5s")
    writer.join()
