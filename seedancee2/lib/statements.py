"""Statements that every request sends: made once, and planned by the server once for each connection."""

import contextlib
import functools
from collections.abc import Iterator
from typing import Any, Self

import psycopg
from django.db import connection, models
from django.db.backends.utils import CursorWrapper
from psycopg.errors import FeatureNotSupported
from psycopg.pq import TransactionStatus


@contextlib.contextmanager
def planned_once() -> Iterator[CursorWrapper]:
    """Give a cursor whose statements are parsed and planned once for each connection, not each time.

    For what every request asks and finds by a unique key, so that one plan serves all: measured, planning took three
    quarters of the server's time. Rows come as psycopg reads them: JSON is parsed, moments are aware, in UTC. A proxy
    that hands connections around must know prepared statements (PgBouncer does since 1.21).

    Raises:
        django.db.DatabaseError: as any cursor of Django's.
    """
    connection.ensure_connection()
    wrap: Any = connection.make_debug_cursor if connection.queries_logged else connection.make_cursor
    with connection.wrap_database_errors, _PlannedOnce(connection.connection) as cursor:
        yield wrap(cursor)


def insert(row: models.Model) -> None:
    """Write a new row as its `save` would, but send no signals; a key that the database gives is set on the row.

    Measured, making the statement anew took a third of a creation's time in Python.
    """
    statement, columns, has_given_key = _insertion(type(row))
    values = [column.get_db_prep_save(column.pre_save(row, add=True), connection) for column in columns]
    with planned_once() as cursor:
        cursor.execute(statement, values)
        if not has_given_key:
            row.pk = cursor.fetchone()[0]
    row._state.adding, row._state.db = False, connection.alias


class _PlannedOnce(psycopg.Cursor[Any]):
    def execute(self, query: Any, params: Any = None, **_: Any) -> Self:
        try:
            return super().execute(query, params, prepare=True, binary=True)
        except FeatureNotSupported:
            # A migration has changed the type of a column that a plan of this connection answers with: it plans each
            # time from now on, until the pool replaces it.
            self.connection.prepare_threshold = None
            if self.connection.info.transaction_status != TransactionStatus.IDLE:
                raise
            return super().execute(query, params, prepare=True, binary=True)

    def _convert_query(self, *arguments: Any) -> Any:
        self._query = super()._convert_query(*arguments)  # where Django's log of queries looks for it
        return self._query


@functools.cache
def _insertion(model: type[models.Model]) -> tuple[str, "list[models.Field[Any, Any]]", bool]:
    columns = [column for column in model._meta.concrete_fields if not isinstance(column, models.AutoField)]
    quote = connection.ops.quote_name
    names = ", ".join(quote(str(column.column)) for column in columns)
    values = ", ".join(["%s"] * len(columns))
    statement = f"INSERT INTO {quote(model._meta.db_table)} ({names}) VALUES ({values})"  # noqa: S608 - names only
    key = model._meta.pk
    if key in columns:
        return statement, columns, True
    return f"{statement} RETURNING {quote(str(key.column))}", columns, False
