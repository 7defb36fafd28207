"""Wake-ups: Celery messages that say "look at your rows", and carry nothing else.

A request never waits for the broker: a daemon thread publishes. Wake-ups of one name that wait are one, and one that
cannot be published waits until the broker is back; should the process end before, the sweep of the next second finds
the row anyway.
"""

import os
import threading
import time

import structlog
from celery import current_app
from django.db import transaction

log = structlog.get_logger(__name__)

PAUSE_AFTER_FAILURE = 2.0  # seconds in which nothing is published after the broker failed
EXPIRY = 10  # seconds after which a wake-up is worth nothing
# Seconds between two rounds of publishing: the first wake-up goes out at once, those that follow it closely are one.
# Publishing takes as long as writing a task's rows, and the thread that does it has the interpreter meanwhile.
BREATH = 0.05

_waiting: set[str] = set()  # added to by any thread, emptied by the publisher
_is_work = threading.Event()
_start_lock = threading.Lock()
_publisher_pid: int | None = None


def on_commit(task_name: str) -> None:
    """Wake a task by name once the current transaction has committed; never raises, never waits."""
    transaction.on_commit(lambda: wake(task_name), robust=False)


def wake(task_name: str) -> None:
    """Ask the publishing thread to send one wake-up."""
    _ensure_publisher()
    _waiting.add(task_name)
    _is_work.set()


def _ensure_publisher() -> None:
    # A forked child inherits the flag but not the thread, hence the comparison by process id.
    global _publisher_pid
    if _publisher_pid == os.getpid():
        return
    with _start_lock:
        if _publisher_pid != os.getpid():
            threading.Thread(target=_publish_for_ever, name="wakeups", daemon=True).start()
            _publisher_pid = os.getpid()


def _publish_for_ever() -> None:
    while True:
        _is_work.wait()
        _is_work.clear()
        while _waiting:
            _publish(_waiting.pop())
        time.sleep(BREATH)


def _publish(task_name: str) -> None:
    try:
        current_app.send_task(task_name, expires=EXPIRY, retry=False, ignore_result=True)
    except Exception as error:  # noqa: BLE001 - the broker's client raises many kinds; none may end this thread
        log.warning("wakeup_failed", task=task_name, error=type(error).__name__)
        _waiting.add(task_name)
        time.sleep(PAUSE_AFTER_FAILURE)
