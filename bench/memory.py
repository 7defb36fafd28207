"""What the processes keep in memory, at rest and under load. Run: python -m bench.memory [MINUTES].

The whole Procfile with the sandbox for a provider. For MINUTES (3 unless told) one client creates two test tasks a
second, and eight read, list and sum without a pause. The first third is warm-up; growth is from the mean of the next
sixth to that of the last. Resident sets, children included; pages that processes share count in each.
"""

import contextlib
import functools
import random
import statistics
import sys
import threading
import time
from collections import defaultdict

import psutil

from bench import load, system
from bench.api import BODY, TASKS, UNLIMITED
from bench.system import System

PROCESSES = ("web", "worker", "poll", "deliver", "media", "beat")
CREATES_PER_SECOND = 2
SAMPLE_EVERY = 2.0  # seconds


def main() -> None:
    """Measure and print one table."""
    minutes = float(sys.argv[1]) if len(sys.argv) > 1 else 3
    with system.system(LOG_LEVEL="WARNING", **UNLIMITED) as made:
        measure(made, minutes)


def measure(made: System, minutes: float) -> None:
    """Start all, look at them at rest and under load."""
    made.start(*PROCESSES)
    port = int(made.values["PORT"])
    load.await_health(port)
    key = _key()
    load.offer(port, functools.partial(load.request, "GET", TASKS, key), connections=2, seconds=3)
    rest = _resident(made)
    samples: dict[str, list[float]] = defaultdict(list)
    end = time.monotonic() + 60 * minutes
    offered = [
        threading.Thread(target=_create, args=(port, key, end)),
        threading.Thread(target=_read, args=(port, key, end)),
    ]
    for thread in offered:
        thread.start()
    while time.monotonic() < end:
        time.sleep(SAMPLE_EVERY)
        for name, size in _resident(made).items():
            samples[name].append(size)
    for thread in offered:
        thread.join()
    print(f"\nresident sets in MB, {minutes:g} minutes of load{system.loaded()}")
    print(f"{'':<14}{'at rest':>9}{'warmed up':>11}{'at the end':>12}{'growth':>9}   bar: 5 %")
    for name in PROCESSES:
        third, sixth = len(samples[name]) // 3, max(1, len(samples[name]) // 6)
        warm, last = statistics.mean(samples[name][third : third + sixth]), statistics.mean(samples[name][-sixth:])
        print(f"{name:<14}{rest[name]:>9.0f}{warm:>11.0f}{last:>12.0f}{last / warm - 1:>9.1%}")
    made.stop()


def _create(port: int, key: str, end: float) -> None:
    body = {**BODY, "input": {**BODY["input"], "prompt": "waves [sandbox:delay=0]"}}  # type: ignore[dict-item] # a dict
    while time.monotonic() < end:
        load.offer(port, lambda: load.request("POST", TASKS, key, body), connections=1, seconds=0.001, status=201)
        time.sleep(1 / CREATES_PER_SECOND)


def _read(port: int, key: str, end: float) -> None:
    paths = [f"{TASKS}?limit=20", "/v1/usage", "/v1/models", f"{TASKS}?status=completed"]
    while time.monotonic() < end:
        load.offer(
            port,
            lambda: load.request("GET", random.choice(paths), key),
            connections=8,
            seconds=min(10, end - time.monotonic()),
        )


def _resident(made: System) -> dict[str, float]:
    found = {}
    for name, (process, _) in made.running.items():
        size = 0
        for one in (psutil.Process(process.pid), *psutil.Process(process.pid).children(recursive=True)):
            with contextlib.suppress(psutil.NoSuchProcess):  # a short-lived child
                size += one.memory_info().rss
        found[name] = size / 1e6
    return found


def _key() -> str:
    from accounts import keys
    from accounts.models import Organization

    organization = Organization.objects.create(name="bench memory")
    return keys.issue(organization=organization, name="bench", mode="test").secret


if __name__ == "__main__":
    main()
