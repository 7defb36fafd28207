"""Holding a reply back until a task moves (`GET …/{id}?wait=N`), without holding the database meanwhile."""

import threading
import time

from django.conf import settings
from django.db import connection

from generations.models import Generation

MAX_WAIT = 25  # seconds
LOOK_EVERY = 0.5

# Each waiting request keeps a thread of the web server; beyond this many in a process, replies come at once.
_waiters = threading.BoundedSemaphore(max(1, getattr(settings, "API_MAX_WAITERS", 4)))


def until_changed(generation: Generation, *, seconds: int) -> bool:
    """Wait until the status differs from the given row's, at most `seconds`; tell whether it did.

    A task that has ended never changes, so it is never waited for.
    """
    if seconds <= 0 or not generation.is_open or not _waiters.acquire(blocking=False):
        return False
    try:
        deadline = time.monotonic() + seconds
        while (left := deadline - time.monotonic()) > 0:
            _release_connection()
            time.sleep(min(LOOK_EVERY, left))
            status = Generation.objects.values_list("status", flat=True).get(pk=generation.pk)
            if status != generation.status:
                return True
        return False
    finally:
        _waiters.release()


def _release_connection() -> None:
    # Within a transaction (a test's) the connection is not ours to give back.
    if not connection.in_atomic_block:
        connection.close()
