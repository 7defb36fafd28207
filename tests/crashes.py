"""Programs that die by kill -9 at a planted point: a child of the test does the work, and never comes back from it."""

import os
import signal
import sys
import time
import traceback
from collections.abc import Callable
from typing import Any, NoReturn

from django.db import OperationalError, connection, connections
from django.db.backends.base.base import BaseDatabaseWrapper

from seedancee2.lib import wakeups

_NAME = "crashing"  # what PostgreSQL calls the child's sessions


def die() -> NoReturn:
    """End this process as `kill -9` does: nothing is cleaned up, flushed or told."""
    os.kill(os.getpid(), signal.SIGKILL)
    raise AssertionError("unreachable")


_TRIES, _NO_CONNECTION = 5, 75


def before(owner: Any, name: str) -> Callable[[], None]:
    """Plant a death where a function would be entered."""
    return lambda: setattr(owner, name, lambda *_, **__: die())


def after(owner: Any, name: str) -> Callable[[], None]:
    """Plant a death where a function has done its work and would return."""

    def plant() -> None:
        real = getattr(owner, name)

        def work_and_die(*arguments: Any, **named: Any) -> NoReturn:
            real(*arguments, **named)
            die()

        setattr(owner, name, work_and_die)

    return plant


def at_commit(owner: Any, name: str, *, is_done: bool) -> Callable[[], None]:
    """Plant a death just before or just after the first commit that follows a call of a function."""

    def plant() -> None:
        real = getattr(owner, name)

        def arm(*arguments: Any, **named: Any) -> Any:
            (after if is_done else before)(BaseDatabaseWrapper, "_commit")()
            return real(*arguments, **named)

        setattr(owner, name, arm)

    return plant


def killed(work: Callable[[], object], *, at: Callable[[], None]) -> None:
    """Do some work in a child that dies at a planted point; return when PostgreSQL has noticed that it is gone."""
    # Nothing of the database is open while we fork: a connection that two processes use belongs to neither.
    connections.close_all()
    connection.close_pool()  # type: ignore[attr-defined] # PostgreSQL's alone has one
    for _ in range(_TRIES):
        status = _forked(work, at)
        if not (os.WIFEXITED(status) and os.WEXITSTATUS(status) == _NO_CONNECTION):
            break
    assert os.WIFSIGNALED(status), "the planted point was not reached"
    assert os.WTERMSIG(status) == signal.SIGKILL
    _await_end_of_sessions()


def _forked(work: Callable[[], object], at: Callable[[], None]) -> int:
    """Do some work in a child and return the status that it ended with."""
    pid = os.fork()
    if pid == 0:
        try:
            os.environ["PGAPPNAME"] = _NAME
            wakeups._ensure_publisher = lambda: None  # the publisher's thread stayed with the parent
            try:
                connection.ensure_connection()
            except OperationalError:  # a busy machine may give none in time; nothing was begun
                os._exit(_NO_CONNECTION)
            at()
            work()
        except BaseException:  # noqa: BLE001 - whatever it was, the child ends here and the parent tells
            traceback.print_exc()
        finally:
            sys.stderr.flush()
            os._exit(1)
    return os.waitpid(pid, 0)[1]


def _await_end_of_sessions() -> None:
    end = time.monotonic() + 10
    with connection.cursor() as cursor:
        while True:
            cursor.execute("SELECT count(*) FROM pg_stat_activity WHERE application_name = %s", [_NAME])
            if cursor.fetchone() == (0,):
                return
            assert time.monotonic() < end, "PostgreSQL still serves the process that was killed"
            time.sleep(0.002)
