"""Connections to PostgreSQL that do not wait for ever: a frozen server or a lost network sends no error of its own."""

from typing import Any

import psycopg
from django.conf import settings
from psycopg.pq import TransactionStatus


class PatientConnection(psycopg.Connection[Any]):
    """A connection whose every wait ends after DATABASE_PATIENCE_SECONDS."""

    def wait(self, gen: Any, interval: float = 0.1, timeout: float | None = None) -> Any:
        """Run one operation; where the server does not answer in time, close the connection.

        Raises:
            psycopg.OperationalError: the server did not answer in time.
        """
        try:
            return super().wait(gen, interval, settings.DATABASE_PATIENCE_SECONDS if timeout is None else timeout)
        except psycopg.OperationalError:
            # What the server still does with the operation is unknown, so nothing else may be sent after it.
            if self.pgconn.transaction_status == TransactionStatus.ACTIVE:
                self.close()
            raise
