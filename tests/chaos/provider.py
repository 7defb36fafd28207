"""A sandbox provider that cannot be relied on: it refuses, loses answers, breaks off and dawdles."""

import hashlib
import os
import random
import time
from collections.abc import Mapping, Sequence
from pathlib import Path

from providers.adapters.base import (
    Accepted,
    DownloadError,
    ErrorClass,
    JobRequest,
    Lost,
    Progress,
    Ref,
    Refused,
    Submission,
    Ticket,
    Unknown,
    Unreadable,
)
from providers.adapters.sandbox import SandboxAdapter
from providers.models import UpstreamJob
from tests.chaos.load import HANG, HANG_SECONDS

RATE = float(os.environ.get("CHAOS_PROVIDER_RATE", "0"))  # share of the calls that go wrong
SEED = os.environ.get("CHAOS_SEED", "0")

_SUBMIT_FAULTS = ("refused", "busy", "request lost", "answer lost", "broken off", "slow")


class UnreliableAdapter(SandboxAdapter):
    """The sandbox with faults; those of a submission are drawn from the seed, its prompt and its number."""

    def submit(self, request: JobRequest, *, upstream_model: str, ticket: Ticket) -> Submission:
        """Take the job, or not, and tell, or not."""
        if HANG in request.prompt:
            time.sleep(HANG_SECONDS)
        digest = hashlib.sha256(ticket.token.encode()).digest()
        job = UpstreamJob.objects.get(callback_token_digest=digest)
        draw = random.Random(f"{SEED}/{request.prompt}/{job.number}")
        fault = draw.choice(_SUBMIT_FAULTS) if draw.random() < RATE else ""
        match fault:
            case "refused":
                return Refused(ErrorClass.TRANSIENT, "chaos: refused")
            case "busy":
                return Refused(ErrorClass.CAPACITY, "chaos: busy")
            case "request lost":
                return Unknown("chaos: the request was lost")
            case "slow":
                time.sleep(3)
        outcome = super().submit(request, upstream_model=upstream_model, ticket=ticket)
        match fault:
            case "answer lost":
                return Unknown("chaos: the answer was lost")
            case "broken off":
                raise ConnectionResetError("chaos: broken off after the job was taken")
        return outcome

    def fetch_many(self, refs: Sequence[Ref]) -> Mapping[str, Progress]:
        """Answer, or break off, or say what nobody can read."""
        found = super().fetch_many(refs)
        if _goes_wrong():
            raise ConnectionResetError("chaos: broken off")
        return {name: Unreadable("chaos: unreadable") if _goes_wrong() else told for name, told in found.items()}

    def recover(self, lost: Lost) -> Sequence[Accepted]:
        """Tell the truth, or break off; a provider that denies a job it has cannot be helped."""
        if _goes_wrong():
            raise ConnectionResetError("chaos: broken off")
        return super().recover(lost)

    def download(self, url: str, destination: Path, *, max_bytes: int) -> None:
        """Deliver, or break off half-way."""
        if _goes_wrong():
            destination.write_bytes(b"half a video")
            raise DownloadError("chaos: broken off")
        super().download(url, destination, max_bytes=max_bytes)


def _goes_wrong() -> bool:
    return random.random() < RATE / 2
