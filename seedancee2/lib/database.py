"""Connections to PostgreSQL that do not wait for ever: a frozen server or a lost network sends no error of its own."""

import contextlib
import select
import time
from collections.abc import Iterator
from contextvars import ContextVar
from typing import Any, ClassVar, Final

import psycopg
from django.conf import settings
from django.db import DatabaseError, connection
from psycopg.errors import QueryCanceled
from psycopg.pq import TransactionStatus

_SUSPICIOUS_SECONDS: Final = 0.2
_FRESH_SECONDS: Final = 1.0

_allowed: ContextVar[float | None] = ContextVar("allowed", default=None)  # seconds, inside `patience` only


class PatientConnection(psycopg.Connection[Any]):
    """A connection whose every wait ends after DATABASE_PATIENCE_SECONDS, or what `patience` allows.

    When one waited in vain, the others of the process are probably as dead: each that was idle meanwhile must answer
    its next operation, the pool's check, at once, or every one of them would cost another customer the whole patience.
    """

    _silence_at: ClassVar[float] = 0.0
    _answered_at = 0.0

    def execute(self, query: Any, *arguments: Any, **options: Any) -> psycopg.Cursor[Any]:
        """Execute a query; the pool's check, an empty one, only where the server may have gone since its last word.

        The check costs as much as any statement, at every request. A server that ends closes its connections, and each
        then has something to be read; one that falls silent shows within the second, or by another's `wait`.
        """
        is_fresh = time.monotonic() - self._answered_at < _FRESH_SECONDS and self._answered_at > self._silence_at
        if query == "" and is_fresh and not select.select([self], [], [], 0)[0]:
            return self.cursor()
        return super().execute(query, *arguments, **options)

    def wait(self, gen: Any, interval: float = 0.1, timeout: float | None = None) -> Any:
        """Run one operation; where the server does not answer in time, close the connection.

        Raises:
            psycopg.OperationalError: the server did not answer in time.
        """
        allowed = _allowed.get()
        is_idle_since_silence = 0 < self._answered_at < self._silence_at and self._is(TransactionStatus.IDLE)
        is_suspicious = is_idle_since_silence and allowed is None
        seconds = _SUSPICIOUS_SECONDS if is_suspicious else allowed or settings.DATABASE_PATIENCE_SECONDS
        try:
            result = super().wait(gen, interval, seconds if timeout is None else timeout)
        except psycopg.OperationalError:
            # What the server still does with the operation is unknown, so nothing else may be sent after it.
            if self._is(TransactionStatus.ACTIVE):
                if not is_suspicious:  # else one slow check would set off the next
                    PatientConnection._silence_at = time.monotonic()
                self.close()
            raise
        self._answered_at = time.monotonic()
        return result

    def _is(self, status: TransactionStatus) -> bool:
        return bool(self.pgconn.transaction_status == status)


@contextlib.contextmanager
def patience(*, seconds: float, is_for_locks: bool = False) -> Iterator[None]:
    """Let each statement in here take so many seconds: the server allows it, and we wait for it a little longer.

    A statement that waits for a lock of others ends after two seconds still, unless locks may take as long.
    """
    names = ("statement_timeout", "lock_timeout") if is_for_locks else ("statement_timeout",)
    before = {name: _limit(name, f"{seconds:.0f}s") for name in names}
    token = _allowed.set(seconds + settings.DATABASE_PATIENCE_SECONDS)
    try:
        yield
    finally:
        _allowed.reset(token)
        # After an error inside a transaction this is refused, but then its rollback takes the setting back.
        with contextlib.suppress(DatabaseError):
            for name, timeout in before.items():
                _limit(name, timeout)


def _limit(name: str, timeout: str) -> str:
    """Set one of the server's limits for this session; return what it was."""
    with connection.cursor() as cursor:
        cursor.execute("SELECT current_setting(%s), set_config(%s, %s, false)", [name, name, timeout])
        return str(cursor.fetchone()[0])


def took_too_long(error: DatabaseError) -> bool:
    """Tell whether PostgreSQL gave a statement up at its time limit."""
    return isinstance(error.__cause__, QueryCanceled)
