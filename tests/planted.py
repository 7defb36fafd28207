"""Tables that refuse rows for the rest of a test: what was to be written beside such a row must not stay."""

from django.db import connection

MESSAGE = "planted: this table takes no rows"


def refuse_rows(table: str) -> None:
    """Let every INSERT into a table fail; the rollback of the test's transaction takes it back."""
    name = connection.ops.quote_name(table)
    with connection.cursor() as cursor:
        cursor.execute(
            f"CREATE FUNCTION planted() RETURNS trigger LANGUAGE plpgsql AS $$BEGIN RAISE '{MESSAGE}'; END$$;"
            f"CREATE TRIGGER planted BEFORE INSERT ON {name} EXECUTE FUNCTION planted()"
        )
