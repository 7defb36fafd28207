"""Lanes: rows are worked on side by side, leases renewed, and one bad row harms no other."""

import itertools
import mmap
import os
import threading
import time

import pytest

from seedancee2.lib import lanes

pytestmark = pytest.mark.django_db  # a drain gives connections back, also those that another test opened


class Rows:
    """Due rows that are handed out once."""

    def __init__(self, *rows: str) -> None:
        self._due = list(rows)

    def claim(self, limit: int) -> list[str]:
        """Hand out at most `limit` rows."""
        taken, self._due = self._due[:limit], self._due[limit:]
        return taken


def test_every_row_is_worked_on_once_and_a_failing_one_harms_no_other():
    done: list[str] = []

    def work(row: str) -> None:
        if row == "bad":
            raise RuntimeError(row)
        done.append(row)

    count = lanes.drain("test", claim=Rows("a", "bad", "b", "c").claim, work=work, concurrency=2)

    assert count == 4
    assert sorted(done) == ["a", "b", "c"]


def test_no_more_rows_are_in_work_than_asked():
    in_work, most = 0, 0
    lock = threading.Lock()

    def work(row: str) -> None:
        nonlocal in_work, most
        with lock:
            in_work += 1
            most = max(most, in_work)
        time.sleep(0.02)
        with lock:
            in_work -= 1

    lanes.drain("test", claim=Rows(*"abcdefgh").claim, work=work, concurrency=3)

    assert most == 3


def test_leases_of_rows_in_work_are_renewed(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(lanes, "RENEW_EVERY", 0.0)
    monkeypatch.setattr(lanes, "PAUSE", 0.01)
    renewed: list[list[str]] = []
    is_enough = threading.Event()

    def renew(rows: object) -> None:
        renewed.append(list(rows))  # type: ignore[call-overload] # what the lane gives is a sequence
        if len(renewed) >= 3:
            is_enough.set()

    def work(row: str) -> None:
        is_enough.wait(5)

    lanes.drain("test", claim=Rows("slow").claim, work=work, renew=renew, concurrency=1)

    assert renewed[:3] == [["slow"], ["slow"], ["slow"]]


def test_an_empty_lane_starts_no_thread():
    before = threading.active_count()

    assert lanes.drain("test", claim=Rows().claim, work=lambda row: None, concurrency=4) == 0
    assert threading.active_count() == before


def test_whoever_is_told_to_stop_finishes_its_rows_and_claims_no_more(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(lanes, "_stopping", bytearray(1))
    rows = Rows(*"abcde")
    done: list[str] = []

    def work(row: str) -> None:
        lanes.stop()
        time.sleep(0.05)
        done.append(row)

    count = lanes.drain("test", claim=rows.claim, work=work, concurrency=2)

    assert count == 2
    assert sorted(done) == ["a", "b"]
    assert lanes.drain("test", claim=rows.claim, work=work, concurrency=2) == 0
    assert rows.claim(9) == ["c", "d", "e"]


def test_children_hear_that_their_worker_is_told_to_stop(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(lanes, "_stopping", mmap.mmap(-1, 1))
    reading, writing = os.pipe()
    child = os.fork()
    if child == 0:
        while not lanes._stopping[0]:
            time.sleep(0.005)
        os.write(writing, b"heard")
        os._exit(0)
    lanes.stop()

    assert os.read(reading, 5) == b"heard"
    assert os.waitpid(child, 0)[1] == 0


def test_rows_without_end_leave_the_process_to_others_when_the_budget_is_over():
    seconds = itertools.cycle((0.01, 0.01, 0.2))

    def claim(limit: int) -> list[float]:
        return [next(seconds) for _ in range(limit)]

    started = time.monotonic()
    count = lanes.drain("test", claim=claim, work=time.sleep, concurrency=4, budget=2.0, longest=60.0)

    assert count > 4
    assert time.monotonic() - started < 20
