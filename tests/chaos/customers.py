"""Customers under load: every task has its own Idempotency-Key, and whoever got no answer asks again with it."""

import random
import threading
import time
from collections import Counter, defaultdict
from dataclasses import dataclass
from typing import Any

import requests

from tests.receivers import Answer, Receiver

PATIENCE = 300.0  # seconds in which a customer repeats one request
_REPEATED = {409, 429, 500, 502, 503}

# What a prompt makes of a task, and how often.
_KINDS = {"": 70, "[sandbox:delay=3]": 14, "[sandbox:moderation]": 8, "[sandbox:fail]": 8}
_ENDS = {"[sandbox:moderation]": "content_policy_violation", "[sandbox:fail]": "generation_failed"}


@dataclass(frozen=True)
class Wanted:
    """One video that a customer wants."""

    key: str
    at: float
    prompt: str
    end: str
    """`completed`, or the code of the error that it must end with."""
    callback: str | None
    body: dict[str, Any]


def plan(
    seed: int, *, count: int, seconds: float, receiver: Receiver, hook_failures: int, duration: int = 4
) -> list[Wanted]:
    """Draw who wants what and when, and what the receiver does with the callbacks."""
    draw = random.Random(f"customers/{seed}")
    wanted = []
    for number in range(count):
        kind = draw.choices(list(_KINDS), list(_KINDS.values()))[0]
        prompt = f"waves {number} {kind}".strip()
        body: dict[str, Any] = {
            "model": "mini",
            "input": {"prompt": prompt, "duration": duration, "resolution": "480p"},
            "metadata": {"number": number},
        }
        callback = None
        if draw.random() < 0.9:
            callback = f"/hook/{number}"
            body["callback_url"] = receiver.url(callback)
            if draw.random() < 0.3:
                failures = [Answer(status=500), Answer(is_reset=True), Answer(status=503), Answer(delay=1, status=500)]
                count_of_failures = draw.randint(1, hook_failures)
                receiver.plan(callback, *draw.sample(failures, count_of_failures), Answer())
        at = draw.uniform(0, seconds)
        wanted.append(Wanted(f"chaos-{seed}-{number}", at, prompt, _ENDS.get(kind, "completed"), callback, body))
    return sorted(wanted, key=lambda one: one.at)


class Customers:
    """A few threads that create what is wanted, each thing at its time."""

    def __init__(self, url: str, headers: dict[str, str], wanted: list[Wanted], *, threads: int, seed: int) -> None:
        self.answers: Counter[str] = Counter()
        self.tasks: dict[str, set[str]] = defaultdict(set)
        self.complaints: list[str] = []
        self.slowest = 0.0
        self._url = f"{url}/videos/generations"
        self._headers = headers
        self._waiting = list(reversed(wanted))
        self._seed = seed
        self._lock = threading.Lock()
        self._threads = [threading.Thread(target=self._work, args=(number,), daemon=True) for number in range(threads)]

    def start(self) -> None:
        """Begin."""
        self._started = time.monotonic()
        for thread in self._threads:
            thread.start()

    def join(self) -> None:
        """Wait until everyone has what they asked for."""
        for thread in self._threads:
            thread.join()

    def _work(self, number: int) -> None:
        draw = random.Random(f"customer/{self._seed}/{number}")
        while True:
            with self._lock:
                if not self._waiting:
                    return
                wanted = self._waiting.pop()
            time.sleep(max(0.0, self._started + wanted.at - time.monotonic()))
            try:
                self._create(wanted)
                if draw.random() < 0.1:
                    self._create(wanted)  # some send again what was answered already
            except Exception as error:  # noqa: BLE001 - whatever it is, the audit must hear of it
                self._complain(f"{wanted.key}: {type(error).__name__}: {error}")

    def _create(self, wanted: Wanted) -> None:
        end = time.monotonic() + PATIENCE
        while time.monotonic() < end:
            began = time.monotonic()
            try:
                reply = requests.post(
                    self._url, headers={**self._headers, "Idempotency-Key": wanted.key}, json=wanted.body, timeout=20
                )
            except requests.RequestException as error:
                self._count(type(error).__name__)
                time.sleep(0.5)
                continue
            finally:
                self.slowest = max(self.slowest, time.monotonic() - began)
            self._count(str(reply.status_code))
            if reply.status_code == 201:
                if "Idempotent-Replayed" in reply.headers:
                    self._count("replayed")
                with self._lock:
                    self.tasks[wanted.key].add(reply.json()["data"]["id"])
                return
            if reply.status_code not in _REPEATED:
                self._complain(f"{wanted.key}: {reply.status_code} {reply.text[:200]}")
                return
            if reply.status_code == 500 and reply.json()["error"]["code"] != "internal_error":
                self._complain(f"{wanted.key}: 500 with {reply.text[:200]}")
            time.sleep(0.5)
        self._complain(f"{wanted.key}: no task within {PATIENCE:.0f} s")

    def _count(self, what: str) -> None:
        with self._lock:
            self.answers[what] += 1

    def _complain(self, what: str) -> None:
        with self._lock:
            self.complaints.append(what)
