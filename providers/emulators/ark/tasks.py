"""Tasks and how they get on with time: queued, running where a slot is free, then ended (Ark sheet §4, §7)."""

import heapq
import itertools
import math
from collections.abc import Iterator
from dataclasses import dataclass, field

from providers.emulators.ark.errors import Refused
from providers.emulators.ark.rules import Order

QUEUED, RUNNING, SUCCEEDED, FAILED = "queued", "running", "succeeded", "failed"
CANCELLED, EXPIRED = "cancelled", "expired"
RECORD_SECONDS = 7 * 86_400
CANCELLED_RECORD_SECONDS = 86_400
UNDOCUMENTED_STATUS = "reviewing"
STUCK, UNKNOWN, UNKNOWN_WHILE_RUNNING = "stuck", "unknown", "unknown-while-running"


@dataclass(slots=True, eq=False)
class Task:
    """One task; times are the provider's, in seconds since 1970. `oddity` and `notice` are two of its knobs."""

    id: str
    order: Order
    created_at: float
    queued_seconds: float
    running_seconds: float
    failure: Refused | None
    oddity: str
    notice: str
    media_name: str
    wishes: str
    """The prompt where it has knobs, so that others need not be searched for them again and again."""
    starts_at: float = math.inf
    ends_at: float = math.inf
    cancelled_at: float = math.inf
    ending: str = SUCCEEDED
    told: set[str] = field(default_factory=set)
    """The states that callbacks have told of."""

    @property
    def ready_at(self) -> float:
        """Return when it may start, if there is a slot."""
        return self.created_at + self.queued_seconds

    @property
    def expires_at(self) -> float:
        """Return when Ark gives it up."""
        return self.created_at + self.order.expires_after

    def start(self, at: float) -> None:
        """Take a slot, which decides when and how the task ends."""
        self.starts_at = at
        if self.oddity in (STUCK, UNKNOWN):
            return
        if at + self.running_seconds > self.expires_at:
            self.ending = EXPIRED
        elif self.oddity and self.oddity != UNKNOWN_WHILE_RUNNING:
            self.ending = self.oddity
        elif self.failure:
            self.ending = FAILED
        self.ends_at = min(at + self.running_seconds, self.expires_at)

    def state(self, at: float) -> tuple[str, float]:
        """Return the status and since when it holds."""
        if at >= self.cancelled_at:
            return CANCELLED, self.cancelled_at
        if at >= self.ends_at:
            return self.ending, self.ends_at
        if at >= self.starts_at:
            is_odd = self.oddity in (UNKNOWN, UNKNOWN_WHILE_RUNNING)
            return UNDOCUMENTED_STATUS if is_odd else RUNNING, self.starts_at
        if at >= self.expires_at:
            return EXPIRED, self.expires_at
        return QUEUED, self.created_at

    def is_kept(self, at: float) -> bool:
        """Say whether Ark still knows of it."""
        return at < min(self.created_at + RECORD_SECONDS, self.cancelled_at + CANCELLED_RECORD_SECONDS)


class Lane:
    """The queue and the slots of one model; whoever reads a task's state calls `advance` before."""

    def __init__(self) -> None:
        self._waiting: list[tuple[float, int, Task]] = []
        self._slots: list[float] = []
        self._counter = itertools.count()

    @property
    def queued_count(self) -> int:
        """Return how many tasks wait."""
        return len(self._waiting)

    def join(self, task: Task) -> None:
        """Put a task in the queue."""
        heapq.heappush(self._waiting, (task.ready_at, next(self._counter), task))

    def leave(self, task: Task) -> None:
        """Take a task out of the queue."""
        self._waiting = [entry for entry in self._waiting if entry[2] is not task]
        heapq.heapify(self._waiting)

    def advance(self, now: float, limit: float) -> Iterator[Task]:
        """Start every task that had its turn by now with at most `limit` running, and yield each."""
        while self._waiting:
            start = self._next_start(limit)
            if start > now:
                return
            task = heapq.heappop(self._waiting)[2]
            if start < task.expires_at:
                while len(self._slots) >= limit:
                    heapq.heappop(self._slots)
                task.start(start)
                heapq.heappush(self._slots, task.ends_at)
                yield task

    def _next_start(self, limit: float) -> float:
        ready_at = self._waiting[0][0]
        while self._slots and self._slots[0] <= ready_at:
            heapq.heappop(self._slots)
        surplus = len(self._slots) + 1 - limit
        return max(ready_at, heapq.nsmallest(int(surplus), self._slots)[-1]) if surplus >= 1 else ready_at
