"""The provider's queue: requests wait, run a few at a time, and end (fal sheet §3, §6, §8)."""

import dataclasses
import heapq
import itertools
from collections.abc import Callable, Mapping
from typing import Any

from providers.emulators.fal.errors import Failure
from providers.emulators.fal.inputs import Endpoint

NEVER = float("inf")


@dataclasses.dataclass(slots=True, eq=False)
class Job:
    """One request; times in seconds since 1970, None where it is not there yet."""

    id: str
    endpoint: Endpoint
    payload: Mapping[str, Any]
    prompt: str
    webhook_url: str
    submitted_at: float
    queued_seconds: float
    running_seconds: float
    priority: int = 0
    failure: Failure | None = None
    is_stored: bool = True
    lifetime_seconds: float = 0.0
    file_path: str = ""
    gateway_id: str = ""
    seed: int = 0
    started_at: float | None = None
    ended_at: float | None = None
    result_reads: int = 0
    tally: int = 0
    """How many were ahead at first, plus how many had left the line by then."""

    @property
    def state(self) -> str:
        """Return the provider's word for where it is."""
        if self.ended_at is not None:
            return "COMPLETED"
        return "IN_QUEUE" if self.started_at is None else "IN_PROGRESS"


class Line:
    """Who waits and who runs; not for several threads at once. Nothing happens but in `advance` and `stop`."""

    def __init__(self, *, on_end: Callable[[Job], None]) -> None:
        self.waiting_count = 0
        self.running_count = 0
        self._left_count = 0
        self._on_end = on_end
        self._limit = 0
        self._order = itertools.count()
        self._events: list[tuple[float, int, Callable[[float], None]]] = []
        self._ready: list[tuple[int, int, Job]] = []

    def add(self, job: Job, *, timeout_seconds: float, timeout: Failure) -> None:
        """Let a request wait; it ends with `timeout` where it has not started after so many seconds."""
        job.tally = self.waiting_count + self._left_count
        self.waiting_count += 1
        self.at(job.submitted_at + job.queued_seconds, lambda at: self._make_ready(job))
        if timeout_seconds < NEVER:
            self.at(job.submitted_at + timeout_seconds, lambda at: self._give_up(job, timeout, at))

    def position(self, job: Job) -> int:
        """Return about how many wait ahead of it: those who left from behind it count too."""
        return max(0, job.tally - self._left_count)

    def at(self, at: float, action: Callable[[float], None]) -> None:
        """Have something done at a time."""
        heapq.heappush(self._events, (at, next(self._order), action))

    def advance(self, now: float, *, limit: int) -> None:
        """Do all that is due by now, in order; at most `limit` requests run at once, 0 for as many as come."""
        self._limit = limit
        while self._events and self._events[0][0] <= now:
            at, _, action = heapq.heappop(self._events)
            action(at)
        self._start(now)

    def stop(self, job: Job, failure: Failure, now: float) -> None:
        """End a request before its time."""
        if job.ended_at is None:
            job.failure = failure
            self._end(job, now)

    def _make_ready(self, job: Job) -> None:
        heapq.heappush(self._ready, (job.priority, next(self._order), job))
        self._start(job.submitted_at + job.queued_seconds)

    def _start(self, at: float) -> None:
        while self._ready and (not self._limit or self.running_count < self._limit):
            _, _, job = heapq.heappop(self._ready)
            if job.ended_at is None:
                job.started_at = at
                self._leave()
                self.running_count += 1
                if job.running_seconds < NEVER:
                    self.at(at + job.running_seconds, lambda at, job=job: self._end(job, at))  # type: ignore[misc]

    def _give_up(self, job: Job, failure: Failure, at: float) -> None:
        if job.started_at is None:
            self.stop(job, failure, at)

    def _end(self, job: Job, at: float) -> None:
        if job.ended_at is not None:
            return
        job.ended_at = at
        if job.started_at is None:
            self._leave()
        else:
            self.running_count -= 1
        self._on_end(job)
        self._start(at)

    def _leave(self) -> None:
        self.waiting_count -= 1
        self._left_count += 1
