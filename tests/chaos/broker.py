"""`python -m tests.chaos.broker`: hurt the connections to Valkey again and again; nobody may stay deaf.

After each fault a canary goes through every queue, and one comes from beat; the time until each has sung is what it
took that part of the system to work again.
"""

import argparse
import os
import random
import signal
import statistics
import sys
import threading
import time
from collections import defaultdict
from collections.abc import Callable

import celery
import redis
import requests

from tests.chaos.run import keep_output, seed_of_run
from tests.chaos.system import WORKERS, HurtSystem, until

QUEUES = ("submit", "poll", "default", "deliver", "settle")
PATIENCE = 120.0

Harm = Callable[[HurtSystem, float], None]
"""Does it, holds it for some seconds where it has a length, and ends it."""


def _held(begin: Callable[[HurtSystem], object], end: Callable[[HurtSystem], object]) -> Harm:
    def harm(system: HurtSystem, seconds: float) -> None:
        begin(system)
        time.sleep(seconds)
        end(system)

    return harm


def _kill_pools(system: HurtSystem) -> None:
    # Of all workers, a few times: a message in their hands must not take a place for ever.
    for _ in range(3):
        for name in WORKERS:
            system.kill_child(name, random.choice)
        time.sleep(random.uniform(0.2, 1.0))


def _deafen_and_freeze(system: HurtSystem) -> None:
    system.valkey.deafen()
    system.valkey.freeze()


HARMS: dict[str, Harm] = {
    "half-open": lambda system, _: system.valkey.deafen(),
    "half-open, then frozen": _held(lambda system: _deafen_and_freeze(system), lambda system: system.valkey.thaw()),
    "frozen": _held(lambda system: system.valkey.freeze(), lambda system: system.valkey.thaw()),
    "stopped": _held(
        lambda system: system.signal_valkey(signal.SIGSTOP), lambda system: system.signal_valkey(signal.SIGCONT)
    ),
    "refused": _held(lambda system: system.valkey.refuse(), lambda system: system.valkey.accept()),
    "slow": _held(lambda system: system.valkey.dawdle(0.3), lambda system: system.valkey.dawdle(0)),
    "reset": lambda system, _: system.valkey.reset(),
    "killed": lambda system, _: system.signal_valkey(signal.SIGKILL),
    "FLUSHALL": lambda system, _: system.flush_valkey(),
    "pool processes killed": lambda system, _: _kill_pools(system),
}

SUDDEN = ("half-open", "reset", "killed", "FLUSHALL", "pool processes killed")  # those without a length


def connect(system: HurtSystem) -> "tuple[celery.Celery, redis.Redis]":
    """Return what sends canaries, and what sees them sing, both past the proxy."""
    messages = celery.Celery(broker=system.valkey_url)
    messages.conf.broker_transport_options = {"socket_timeout": 1, "socket_connect_timeout": 1}
    messages.conf.task_publish_retry = False
    return messages, redis.Redis.from_url(system.valkey_url, socket_timeout=1)


def resumed(system: HurtSystem, messages: celery.Celery, valkey: "redis.Redis") -> dict[str, float]:
    """Return the seconds from now on until each queue is worked on again, and until beat sends again."""
    began = time.time()
    seconds: dict[str, float] = {}
    sent_at = 0.0

    def have_all_sung() -> bool:
        nonlocal sent_at
        try:
            if time.time() - sent_at > 0.5:  # again and again, as beat does: a message may be lost
                sent_at = time.time()
                for queue in QUEUES:
                    if queue not in seconds:
                        messages.send_task("chaos.canary", kwargs={"name": queue}, queue=queue, expires=5)
            for name in (*QUEUES, "beat"):
                value = valkey.get(f"canary:{name}")
                if name not in seconds and value is not None and float(value) > began:
                    seconds[name] = float(value) - began
        except (redis.RedisError, OSError, celery.exceptions.OperationalError):
            return False
        return len(seconds) == len(QUEUES) + 1

    end = time.monotonic() + PATIENCE
    while not have_all_sung() and time.monotonic() < end:
        time.sleep(0.05)
    return {name: seconds.get(name, float("inf")) for name in (*QUEUES, "beat")}


class Trickle:
    """A customer who goes on creating tasks, so that messages are on their way when the harm comes."""

    def __init__(self, system: HurtSystem, pause: float) -> None:
        self._system, self._pause = system, pause
        self._is_over = threading.Event()
        self._thread = threading.Thread(target=self._work, daemon=True)
        self._thread.start()

    def stop(self) -> None:
        """Stop."""
        self._is_over.set()
        self._thread.join()

    def _work(self) -> None:
        number = 0
        while not self._is_over.wait(self._pause):
            number += 1
            body = {
                "model": "mini",
                "input": {"prompt": f"drop {number} [sandbox:moderation]", "duration": 4, "resolution": "480p"},
            }
            try:
                requests.post(
                    f"{self._system.url}/videos/generations", headers=self._system.headers, json=body, timeout=30
                )
            except requests.RequestException:
                continue


def main() -> int:
    """Run, print each time and the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--times", type=int, default=20, help="of each fault")
    parser.add_argument("--only", nargs="*", default=list(HARMS), choices=list(HARMS))
    parser.add_argument("--pause", type=float, default=0.5, help="seconds between two creates beside it")
    parser.add_argument("--seed", type=int, default=seed_of_run())
    given = parser.parse_args()
    dice = random.Random(f"broker/{given.seed}")
    _say(f"seed {given.seed}; load average {os.getloadavg()[0]:.1f}")
    rounds = [name for _ in range(given.times) for name in dice.sample(given.only, len(given.only))]
    figures: dict[str, list[dict[str, float]]] = defaultdict(list)
    with HurtSystem(CHAOS_SEED=str(given.seed)) as system:
        messages, valkey = connect(system)
        trickle = Trickle(system, given.pause)
        for name in rounds:
            seconds = round(dice.uniform(1, 15), 1)
            time.sleep(dice.uniform(0, 3))
            HARMS[name](system, seconds)
            until(lambda: answers(valkey), 60)
            times = resumed(system, messages, valkey)
            figures[name].append(times)
            told = ", ".join(f"{part} {value:.1f}" for part, value in times.items())
            _say(f"{name} ({seconds} s): {told}; load {os.getloadavg()[0]:.1f}")
            if max(times.values()) == float("inf"):
                break
        trickle.stop()
        if any(max(run.values()) > 60 for runs in figures.values() for run in runs):
            _say(f"what the system printed is in {keep_output(system, f'broker-{given.seed}')}")
    for name, runs in figures.items():
        worst = [max(run.values()) for run in runs]
        _say(f"{name:<24} {len(runs):3} ×  median {statistics.median(worst):5.1f} s  worst {max(worst):5.1f} s")
    return 1 if any(max(run.values()) > 60 for runs in figures.values() for run in runs) else 0


def answers(valkey: "redis.Redis") -> bool:
    """Tell whether Valkey is there."""
    try:
        return bool(valkey.ping())
    except redis.RedisError:
        return False


def _say(line: str) -> None:
    sys.stdout.write(f"{line}\n")
    sys.stdout.flush()


if __name__ == "__main__":
    sys.exit(main())
