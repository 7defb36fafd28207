"""Wake-ups: what waits for the broker, and what waits for nothing."""

import itertools
import threading
import time

from celery import current_app

from seedancee2.lib import wakeups


def test_a_wake_up_outlives_a_broker_that_fails_and_many_are_one(monkeypatch):
    sent: list[str] = []
    calls = threading.Event()
    answers = iter([OSError("away"), OSError("away")])

    def send_task(name: str, **options: object) -> None:
        calls.set()
        if error := next(answers, None):
            raise error
        sent.append(name)

    monkeypatch.setattr(wakeups, "PAUSE_AFTER_FAILURE", 2.0)
    monkeypatch.setattr(current_app, "send_task", send_task)
    wakeups.wake("tests.nothing")
    assert calls.wait(5)
    began = time.monotonic()
    for _ in range(10_000):
        wakeups.wake("tests.nothing")
    assert time.monotonic() - began < 1

    end = time.monotonic() + 15
    while not sent and time.monotonic() < end:
        time.sleep(0.02)
    assert sent == ["tests.nothing"]


def test_wake_ups_close_together_are_published_at_most_once_a_breath_and_the_last_is_not_lost(monkeypatch):
    sent_at: list[float] = []
    asked_at = 0.0
    monkeypatch.setattr(current_app, "send_task", lambda name, **options: sent_at.append(time.monotonic()))

    began = time.monotonic()
    while time.monotonic() < began + 6 * wakeups.BREATH:
        wakeups.wake("tests.often")
        asked_at = time.monotonic()
        time.sleep(0.001)

    end = time.monotonic() + 5
    while (not sent_at or sent_at[-1] < asked_at) and time.monotonic() < end:
        time.sleep(0.02)
    assert sent_at[-1] >= asked_at
    assert all(later - earlier >= wakeups.BREATH for earlier, later in itertools.pairwise(sent_at))
