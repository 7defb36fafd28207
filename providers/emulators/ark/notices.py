"""Telling callback URLs of every change of state, with the body of GET and no signature (Ark sheet §8)."""

import heapq
import itertools
import json
import math
from typing import Any

from providers.emulators.ark import tasks
from providers.emulators.ark.documents import FOREIGN_ORIGIN, Documents
from providers.emulators.ark.tasks import Task
from providers.emulators.server import Emulator

_FINAL = (tasks.SUCCEEDED, tasks.FAILED, tasks.EXPIRED)
_TOLD = (tasks.QUEUED, tasks.RUNNING, *_FINAL)
_REPEAT_PAUSES = (1.0, 2.0, 4.0)
"""That failed notices of a final state are repeated three times is documented, in what seconds is not."""


class Notices:
    """The changes of one emulator's tasks that are still to be told."""

    def __init__(self, emulator: Emulator, documents: Documents) -> None:
        self._emulator = emulator
        self._documents = documents
        self._changes: list[tuple[float, int, Task]] = []
        self._counter = itertools.count()

    def watch(self, task: Task, *changes_at: float) -> None:
        """Note when the state of a task may change."""
        for at in changes_at:
            if task.order.callback_url and at != math.inf:
                heapq.heappush(self._changes, (at, next(self._counter), task))

    def tell(self) -> None:
        """Send a notice of each change that has come; the caller holds the emulator's lock."""
        while self._changes and self._changes[0][0] <= self._emulator.now():
            at, _, task = heapq.heappop(self._changes)
            status = task.state(at)[0]
            if status in _TOLD and status not in task.told:
                task.told.add(status)
                self._send(task, at, status)

    def _send(self, task: Task, at: float, status: str) -> None:
        word, url = task.notice, task.order.callback_url
        document = self._documents.show(task, at)
        if word == "none" or (word == "reordered" and status not in _FINAL):
            return
        documents: list[dict[str, Any]] = [document]
        if word == "reordered":
            past = [when for when in (task.starts_at, task.created_at) if when < at]
            documents += [self._documents.show(task, when) for when in past]
        elif word == "twice":
            documents *= 2
        elif word == "tampered":
            lie = {"status": tasks.SUCCEEDED, "content": {"video_url": f"{FOREIGN_ORIGIN}/lie.mp4"}}
            documents = [document | lie]
        elif word == "foreign-id":
            documents = [document | {"id": "cgt-20200101000000-aaaaa"}]
        elif word == "huge":
            documents = [document | {"padding": "x" * 65_536}]
        elif word == "wrong-token":
            url = url[:-1] + ("0" if url[-1] != "0" else "1")
        bodies = [b"<html>"] if word == "not-json" else [json.dumps(each).encode() for each in documents]
        for index, body in enumerate(bodies):
            delay = 0.5 * index + (5.0 if word == "late" else 0.0)
            repeats = _REPEAT_PAUSES if status in _FINAL else ()
            self._emulator.callbacks.send(url, body, {}, delay=delay, repeats=repeats)
