"""Lanes: rows that are due are claimed from PostgreSQL and worked on by a few threads.

A Celery task drains a lane. It carries no row: a lost message costs one second, a repeated one finds nothing to claim.
"""

import mmap
import time
from collections.abc import Callable, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from typing import TypeVar

import structlog
from django.db import DatabaseError, connections

log = structlog.get_logger(__name__)

PAUSE = 0.25  # seconds after which a lane with a free thread looks for due rows again
SLOW = 3.0  # seconds after which a row counts as slow
RENEW_EVERY = 5.0  # seconds between two renewals of the leases in work

Row = TypeVar("Row")

# In memory that a worker shares with the processes which it forks later: 1 once it was told to stop.
_stopping = mmap.mmap(-1, 1)


def stop() -> None:
    """Let this process and its children finish the rows that they have and claim no more."""
    _stopping[0] = 1


def drain(
    name: str,
    *,
    claim: Callable[[int], Sequence[Row]],
    work: Callable[[Row], None],
    concurrency: int,
    renew: Callable[[Sequence[Row]], None] | None = None,
    budget: float = 20.0,
    longest: float = 90.0,
    pulse: Callable[[], None] = lambda: None,
) -> int:
    """Work on due rows until none is left or `budget` seconds have passed; return how many were worked on.

    As long as a slow row is still in work, others are claimed beside it, for `longest` seconds at most: quick ones end
    with the budget, for other lanes share the process.

    `claim(n)` leases at most n due rows to this caller, `renew` prolongs the leases of those in work, `pulse` is called
    every few seconds as a sign of life. A row whose work raises is logged and left to its lease.
    """
    started = time.monotonic()
    count = 0
    if _stopping[0]:
        return count
    running: dict[Future[None], Row] = {}
    begun: dict[Future[None], float] = {}
    renewed = started
    rows = _claimed(claim, concurrency)
    if not rows:
        return 0
    with ThreadPoolExecutor(max_workers=concurrency, thread_name_prefix=name) as pool:
        while rows or running:
            added = {pool.submit(_work_on, name, work, row): row for row in rows}
            running |= added
            begun |= dict.fromkeys(added, time.monotonic())
            count += len(rows)
            # Rows that become due must not wait for the slowest of those in work as long as a thread is free.
            done, _ = wait(running, timeout=PAUSE, return_when=FIRST_COMPLETED)
            for future in done:
                del running[future], begun[future]
            if time.monotonic() - renewed > RENEW_EVERY:
                renewed = time.monotonic()
                pulse()
                if renew and running:
                    _renew(name, renew, list(running.values()))
            free = concurrency - len(running)
            age = time.monotonic() - started
            is_slow = any(time.monotonic() - since > SLOW for since in begun.values())
            is_over = _stopping[0] or age > longest or (age > budget and not is_slow)
            rows = _claimed(claim, free) if free > 0 and not is_over else ()
    return count


def release_connections() -> None:
    """Give this thread's database connections back to the pool; to be called before anything slow.

    Within a transaction it does nothing: outside tests nobody waits for a network there.
    """
    for connection in connections.all(initialized_only=True):
        if not connection.in_atomic_block:
            connection.close_if_unusable_or_obsolete()


def _claimed(claim: Callable[[int], Sequence[Row]], limit: int) -> Sequence[Row]:
    try:
        return claim(limit)
    finally:
        release_connections()


def _renew(name: str, renew: Callable[[Sequence[Row]], None], rows: Sequence[Row]) -> None:
    try:
        renew(rows)
    except DatabaseError as error:
        # The rows in work go on: their own writes are fenced, should the lease end meanwhile.
        log.warning("lane_leases_not_renewed", lane=name, error=type(error).__name__)
    finally:
        release_connections()


def _work_on(name: str, work: Callable[[Row], None], row: Row) -> None:
    try:
        work(row)
    except Exception:  # the edge of a worker: the row's lease brings it back, the log tells why
        log.exception("lane_row_failed", lane=name, row=str(row))
    finally:
        connections.close_all()
