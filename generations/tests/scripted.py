"""A provider and a storage that do what a test tells them."""

import hashlib
from collections import Counter
from pathlib import Path
from typing import Any, ClassVar

from django.core.files.storage import InMemoryStorage

from providers.adapters import base

SUBMISSIONS = [*["accept", "taken, not told", "not taken, not told", "raises"] * 2, *base.ErrorClass]
ANSWERS = [*["succeeded"] * 5, *["transient"] * 4, "running", "pending", "unreadable", "raises", *base.ErrorClass]
DOWNLOADS = ["whole", "whole", "whole", "broken", "broken", "gone", "unusable", "storage away"]


class FlakyStorage(InMemoryStorage):
    """Storage in memory that can be away."""

    is_away = False

    def get_available_name(self, name: str, max_length: int | None = None) -> str:
        return name

    def _save(self, name: str, content: Any) -> str:
        if FlakyStorage.is_away:
            raise ConnectionError("away")
        saved: str = super()._save(name, content)  # type: ignore[misc]
        return saved


class Provider:
    """What the provider does next, and its own books: each token it received, and the runs it took."""

    def __init__(self) -> None:
        self.outcome = ""
        self.received: Counter[bytes] = Counter()
        self.runs: dict[bytes, str] = {}


class ScriptedAdapter(base.Adapter):
    """Does what the machine drew."""

    capabilities = base.Capabilities(has_watermark=True)
    provider: ClassVar[Provider]
    video: ClassVar[bytes]

    def submit(self, request: base.JobRequest, *, upstream_model: str, ticket: base.Ticket) -> base.Submission:
        digest, outcome = hashlib.sha256(ticket.token.encode()).digest(), self.provider.outcome
        self.provider.received[digest] += 1
        self._note("submit")
        if outcome in base.ErrorClass.__members__.values():
            return base.Refused(base.ErrorClass(outcome), "refused")
        if outcome != "not taken, not told":
            self.provider.runs[digest] = f"run_{len(self.provider.runs)}"
        if outcome == "raises":
            raise ConnectionError("reset")
        return base.Accepted(self.provider.runs[digest]) if outcome == "accept" else base.Unknown("no answer")

    def fetch(self, ref: base.Ref) -> base.Progress:
        outcome = self.provider.outcome
        self._note("fetch")
        if outcome == "raises":
            raise ConnectionError("reset")
        if outcome in base.ErrorClass.__members__.values():
            return base.Failed(base.ErrorClass(outcome), "failed")
        told: dict[str, base.Progress] = {
            "pending": base.Pending(),
            "succeeded": base.Succeeded("https://provider.example/video.mp4"),
            "unreadable": base.Unreadable("what?"),
        }
        return told.get(outcome, base.Running())

    def recover(self, lost: base.Lost) -> list[base.Accepted]:
        if self.provider.outcome == "raises":
            raise ConnectionError("reset")
        found = self.provider.runs.get(lost.token_digest)
        return [base.Accepted(found)] if found else []

    def download(self, url: str, destination: Path, *, max_bytes: int) -> None:
        outcome = self.provider.outcome
        if outcome in ("broken", "gone"):
            raise base.DownloadError(outcome, is_final=outcome == "gone")
        destination.write_bytes(b"<html>" if outcome == "unusable" else self.video)
        FlakyStorage.is_away = outcome == "storage away"

    def _note(self, kind: str) -> None:
        self.exchanges.append(base.Exchange(kind, "{}", 200, "{}", 1))
