"""A prediction and its life, told from the time alone (sheet §2, §3 and §8)."""

import dataclasses
import datetime as dt
import math
import secrets
from collections.abc import Mapping
from typing import Any

from providers.emulators.replicate import inputs

RETENTION_SECONDS = 3600.0
MAX_RUN_SECONDS = 1800.0
NEVER = math.inf
UNKNOWN_STATUS = "hibernating"
_ID_LETTERS = "0123456789abcdefghjkmnpqrstvwxyz"


@dataclasses.dataclass(frozen=True, slots=True)
class Timeline:
    """When a prediction starts and ends, in seconds since 1970, and how."""

    started_at: float
    ended_at: float
    ending: str
    error: str | None


@dataclasses.dataclass(slots=True)
class Prediction:
    """One prediction; `timeline` is replaced as a whole, so that it can be read without a lock."""

    model: str
    version: str
    input: Mapping[str, Any]
    webhook: str
    events: tuple[str, ...]
    has_filter: bool
    created_at: float
    queued: float
    running: float
    ending: str
    error: str | None
    deadline: float
    status_while_running: str = "processing"
    id: str = dataclasses.field(default_factory=lambda: "".join(secrets.choice(_ID_LETTERS) for _ in range(26)))
    file_key: str = dataclasses.field(default_factory=lambda: secrets.token_urlsafe(24))
    timeline: Timeline = Timeline(NEVER, NEVER, "", None)
    is_reported: bool = False
    """Whether its end was announced."""

    @property
    def prompt(self) -> str:
        """The prompt as it was received."""
        return str(self.input["prompt"])

    @property
    def duration(self) -> int:
        """Seconds of video: what was asked for, or what the model decided."""
        asked = int(self.setting("duration"))
        return inputs.DECIDED_DURATION if asked == inputs.MIN_DURATION else asked

    def setting(self, name: str) -> Any:
        """Return an input or its default."""
        return self.input.get(name, inputs.DEFAULTS[name])

    def plan(self, started_at: float) -> None:
        """Lay out the life of a prediction that starts then; a deadline before means that it never does."""
        ended_at, ending, error = started_at + self.running, self.ending, self.error
        if self.running != NEVER and self.running > MAX_RUN_SECONDS:
            ended_at, ending, error = started_at + MAX_RUN_SECONDS, "failed", "Prediction timed out after 30 minutes."
        if self.deadline <= started_at:
            started_at, ended_at, ending, error = NEVER, self.deadline, "aborted", None
        elif self.deadline < ended_at:
            ended_at, ending, error = self.deadline, "canceled", None
        self.timeline = Timeline(started_at, ended_at, ending, error)

    def cancel(self, at: float, *, delay: float = 0.0) -> None:
        """End it, `delay` seconds later where it runs; nothing happens to one that has ended."""
        line = self.timeline
        has_started = at >= line.started_at
        started_at, ended_at = (line.started_at, min(at + delay, line.ended_at)) if has_started else (NEVER, at)
        if ended_at < line.ended_at:
            self.timeline = Timeline(started_at, ended_at, "canceled", None)

    def has_ended(self, at: float) -> bool:
        """Return whether it is in a terminal state."""
        return at >= self.timeline.ended_at

    def is_removed(self, at: float) -> bool:
        """Return whether its data are gone, an hour after its end."""
        return at >= self.timeline.ended_at + RETENTION_SECONDS

    def view(self, at: float, *, origin: str, output: Any, is_removed: bool, has_echo: bool) -> dict[str, Any]:
        """Return the prediction object; `has_echo`: whether it repeats the webhook's address."""
        line = self.timeline
        is_started, is_ended = at >= line.started_at, at >= line.ended_at
        is_succeeded = is_ended and line.ending == "succeeded"
        metrics: dict[str, Any] = {}
        if is_ended and is_started:
            metrics["predict_time"] = round(line.ended_at - line.started_at, 3)
        if is_succeeded:
            metrics["video_output_duration_seconds"] = self.duration
        address = f"{origin}/v1/predictions/{self.id}"
        body: dict[str, Any] = {
            "id": self.id,
            "model": self.model,
            "version": self.version,
            "input": {} if is_removed else dict(self.input),
            "logs": "Generating the video\n" if is_started and not is_removed else "",
            "output": output if is_succeeded and not is_removed else None,
            "error": line.error if is_ended else None,
            "status": line.ending if is_ended else self.status_while_running if is_started else "starting",
            "data_removed": is_removed,
            "created_at": _timestamp(self.created_at),
            "started_at": _timestamp(line.started_at) if is_started else None,
            "completed_at": _timestamp(line.ended_at) if is_ended else None,
            "metrics": metrics,
            "urls": {
                "get": address,
                "cancel": f"{address}/cancel",
                "web": f"https://replicate.com/p/{self.id}",
                "stream": f"https://stream.replicate.com/v1/files/{self.file_key}",
            },
        }
        if has_echo and self.webhook:
            body["webhook"] = self.webhook
            if self.has_filter:
                body["webhook_events_filter"] = list(self.events)
        return body


def _timestamp(seconds: float) -> str:
    time = dt.datetime.fromtimestamp(seconds, dt.UTC)
    return time.isoformat(timespec="milliseconds").replace("+00:00", "Z")
