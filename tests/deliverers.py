"""Deliverers as processes of their own: `python -m tests.deliverers COUNT HASTE` forks them, and again when one dies.

HASTE is JSON: seconds that take the place of those of production, so that three days pass within a test.
"""

import contextlib
import datetime as dt
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from typing import Any

import psutil

from seedancee2.local.state import ROOT


@contextlib.contextmanager
def running(count: int, **haste: float) -> Iterator["subprocess.Popen[bytes]"]:
    """Run so many on this test's database; the process given is their parent, which only keeps up their number."""
    from tests import web  # needs Django's models, which `main` has not set up yet when it comes by here

    environment = web.environment("http://127.0.0.1:1") | {"OUTBOUND_ALLOWED_HOSTS": "127.0.0.1"}
    environment["LOG_LEVEL"] = "CRITICAL"
    command = [sys.executable, "-m", "tests.deliverers", str(count), json.dumps(haste)]
    parent = subprocess.Popen(command, cwd=ROOT, env=environment)
    try:
        yield parent
    finally:
        parent.terminate()
        try:
            parent.wait(timeout=30)
        finally:
            parent.kill()
            parent.wait()


def children(parent: int) -> list[psutil.Process]:
    """Return the processes that another one keeps up."""
    return psutil.Process(parent).children()


def main() -> None:
    """Fork, and go on forking until SIGTERM."""
    os.environ.setdefault("DJANGO_SETTINGS_MODULE", "seedancee2.settings")
    import django

    django.setup()
    _hurry(**json.loads(sys.argv[2]))
    alive: set[int] = set()
    is_over = False

    def end(*_: object) -> None:
        nonlocal is_over
        is_over = True

    signal.signal(signal.SIGTERM, end)
    while not is_over:
        while len(alive) < int(sys.argv[1]):
            alive.add(_forked(_deliver))
        with contextlib.suppress(ChildProcessError):
            while pid := os.waitpid(-1, os.WNOHANG)[0]:
                alive.discard(pid)
        time.sleep(0.02)
    for pid in alive:
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGTERM)
    for pid in alive:
        with contextlib.suppress(ChildProcessError):
            os.waitpid(pid, 0)


def _forked(work: Callable[[int], None]) -> int:
    parent = os.getpid()
    pid = os.fork()
    if pid == 0:
        try:
            work(parent)
        finally:
            os._exit(0)
    return pid


def _deliver(parent: int) -> None:
    from seedancee2.lib import lanes
    from webhooks import tasks

    # Shared memory that all of them have from their parent: one that is told to end must not end the others.
    lanes._stopping = bytearray(1)  # type: ignore[assignment] # read and set like the real one
    signal.signal(signal.SIGTERM, lambda *_: lanes.stop())
    while not lanes._stopping[0] and os.getppid() == parent:
        with contextlib.suppress(Exception):  # as a worker would: the next message finds what this one left
            tasks.deliver()
        time.sleep(0.02)


def _hurry(**seconds: float) -> None:
    from webhooks import delivery, endpoints

    settable: dict[str, Callable[[float], Any]] = {
        "retry": lambda value: setattr(delivery, "SCHEDULE", (0.0, *[value] * (len(delivery.SCHEDULE) - 1))),
        "deadline": lambda value: setattr(delivery, "DEADLINE_SECONDS", value),
        "lease": lambda value: setattr(delivery, "LEASE", dt.timedelta(seconds=value)),
        "least_lease": lambda value: setattr(delivery, "_LEAST_LEASE", dt.timedelta(seconds=value)),
        "shortest_pause": lambda value: setattr(endpoints, "SHORTEST_PAUSE", dt.timedelta(seconds=value)),
        "longest_pause": lambda value: setattr(endpoints, "LONGEST_PAUSE", dt.timedelta(seconds=value)),
    }
    for name, value in seconds.items():
        settable[name](value)


if __name__ == "__main__":
    main()
