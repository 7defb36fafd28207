"""What migrations do beyond Django's own operations."""

from typing import Any, Final

from django.contrib.postgres.operations import AddIndexConcurrently

from seedancee2.lib.database import patience

HOUR: Final = 3_600


class AddIndexPatiently(AddIndexConcurrently):
    """Build an index beside a live table, for up to an hour; each transaction that is older than it is waited for.

    Where that fails, migrate again: an index of this name, half built as it may be, is dropped first.
    """

    def database_forwards(self, app_label: str, schema_editor: Any, from_state: Any, to_state: Any) -> None:
        """Drop what was left of an earlier try, and build."""
        with patience(seconds=HOUR, is_for_locks=True):
            schema_editor.execute(f"DROP INDEX CONCURRENTLY IF EXISTS {schema_editor.quote_name(self.index.name)}")
            super().database_forwards(app_label, schema_editor, from_state, to_state)

    def database_backwards(self, app_label: str, schema_editor: Any, from_state: Any, to_state: Any) -> None:
        """Drop it."""
        with patience(seconds=HOUR, is_for_locks=True):
            super().database_backwards(app_label, schema_editor, from_state, to_state)
