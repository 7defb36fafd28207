"""Webhooks: what they say, how they are signed with Ed25519, and that they come again (fal sheet §7)."""

import base64
import collections
import functools
import hashlib
import json
import time
import uuid
from collections.abc import Callable
from typing import Any

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from providers.emulators.fal.line import Job, Line
from providers.emulators.server import Emulator, Response

MAX_ATTEMPTS = 10
FIRST_RETRY_SECONDS = 15.0
"""Doubled from attempt to attempt: the tenth comes about two hours after the first."""
LATE_SECONDS = 5.0
OFF_SECONDS = 600


@functools.lru_cache(maxsize=16)
def key_named(name: str) -> Ed25519PrivateKey:
    """Return a signing key that is the same for the same name in every process."""
    return Ed25519PrivateKey.from_private_bytes(hashlib.sha256(name.encode()).digest())


def jwks(keys: list[Ed25519PrivateKey]) -> dict[str, Any]:
    """Return the public halves as a JSON Web Key Set."""
    return {"keys": [{"kty": "OKP", "crv": "Ed25519", "x": _base64url(key)} for key in keys]}


def headers(key: Ed25519PrivateKey, *, request_id: str, user_id: str, timestamp: int, body: bytes) -> dict[str, str]:
    """Return the four headers that sign a body; `timestamp` in seconds since 1970."""
    digest = hashlib.sha256(body).hexdigest()
    message = f"{request_id}\n{user_id}\n{timestamp}\n{digest}"
    return {
        "X-Fal-Webhook-Request-Id": request_id,
        "X-Fal-Webhook-User-Id": user_id,
        "X-Fal-Webhook-Timestamp": str(timestamp),
        "X-Fal-Webhook-Signature": key.sign(message.encode()).hex(),
    }


def body(
    *, request_id: str, gateway_id: str, status: int, payload: Any, is_serializable: bool = True
) -> dict[str, Any]:
    """Return what a webhook says of an end with this HTTP status."""
    ids = {"request_id": request_id, "gateway_request_id": gateway_id}
    if status != 200:
        return {**ids, "status": "ERROR", "error": f"Invalid status code: {status}", "payload": payload}
    if not is_serializable:
        message = "Response payload is not JSON serializable. Please fetch the result from the response URL."
        return {**ids, "status": "OK", "payload": None, "payload_error": message}
    return {**ids, "status": "OK", "payload": payload}


def _base64url(key: Ed25519PrivateKey) -> str:
    return base64.urlsafe_b64encode(key.public_key().public_bytes_raw()).rstrip(b"=").decode()


class Courier:
    """Sends an emulator's webhooks; `outcome` says what the result of a request is."""

    def __init__(
        self,
        emulator: Emulator,
        line: Line,
        *,
        user_id: str,
        key: Ed25519PrivateKey,
        outcome: Callable[[Job], Response],
    ) -> None:
        self._emulator = emulator
        self._line = line
        self._user_id = user_id
        self._published = [key]
        self._outcome = outcome
        self._outbox: collections.deque[tuple[Job, int]] = collections.deque()
        self._awaited: dict[int, tuple[bytes, Job, int]] = {}
        self._heard_count = 0

    def keys(self) -> list[Ed25519PrivateKey]:
        """Return the keys in the key set; the last one signs."""
        name = self._emulator.knob("signing-key")
        return [key_named(name)] if name else self._published

    def rotate_key(self, *, is_old_kept: bool) -> None:
        """Sign with a new key from now on."""
        with self._emulator.lock:
            self._emulator.knobs.pop("signing-key", None)
            kept = self._published if is_old_kept else []
            self._published = [*kept, Ed25519PrivateKey.generate()]

    def announce_start(self, job: Job) -> None:
        """Plan the webhook of a request that just came, where it is to be too early."""
        if job.webhook_url and self._word(job) in ("early", "reordered"):
            self._plan(job, job.submitted_at + job.queued_seconds)

    def announce_end(self, job: Job) -> None:
        """Plan the webhook of a request that has ended."""
        word = self._word(job)
        if not job.webhook_url or word in ("none", "early", "reordered"):
            return
        at = (job.ended_at or 0) + (LATE_SECONDS if word == "late" else 0)
        for _ in range(2 if word == "twice" else 1):
            self._plan(job, at)

    def repeat(self) -> None:
        """Plan the next attempt of every webhook that was not taken; under the emulator's lock."""
        sent = self._emulator.callbacks.sent
        while self._heard_count < len(sent):
            attempt = self._awaited.pop(id(sent[self._heard_count].body), None)
            status = sent[self._heard_count].status
            self._heard_count += 1
            if attempt is None or (status is not None and 200 <= status < 300):
                continue
            _, job, number = attempt
            if number < MAX_ATTEMPTS:
                first = float(self._emulator.knob("callback-retry", job.prompt) or FIRST_RETRY_SECONDS)
                self._plan(job, self._emulator.now() + first * 2 ** (number - 1), number + 1)

    def send(self) -> None:
        """Send all that is due; not under the lock, as a video may have to be drawn for its size."""
        while self._outbox:
            self._deliver(*self._outbox.popleft())

    def _word(self, job: Job) -> str:
        return self._emulator.knob("callback", job.prompt)

    def _plan(self, job: Job, at: float, attempt: int = 1) -> None:
        self._line.at(at, lambda _: self._outbox.append((job, attempt)))

    def _deliver(self, job: Job, attempt: int) -> None:
        word = self._word(job)
        if word == "rotated-key" and attempt == 1:
            self.rotate_key(is_old_kept=False)
        response = self._outcome(job)
        value = body(
            request_id=str(uuid.uuid4()) if word in ("unknown-id", "mismatched-id") else job.id,
            gateway_id=job.gateway_id,
            status=response.status,
            payload=json.loads(response.body),
            is_serializable=word != "payload-error",
        )
        raw = json.dumps(value).encode()
        # Signed by the world's clock, which receivers compare with, and not by ours, which tests let jump.
        signed = headers(
            key_named("nobody published it") if word == "foreign-key" else self.keys()[-1],
            request_id=value["request_id"] if word == "unknown-id" else job.id,
            user_id=self._user_id,
            timestamp=int(time.time()) + {"stale": -OFF_SECONDS, "future": OFF_SECONDS}.get(word, 0),
            body=raw,
        )
        if word == "unsigned":
            signed = {}
        if word == "bad-signature":
            signed["X-Fal-Webhook-Signature"] = "00" * 64
        if word == "tampered":
            raw = raw.replace(b"//127.0.0.1:", b"//localhost:") + b"\n"
        with self._emulator.lock:
            # By the object: the books of what was sent hold the very same one.
            self._awaited[id(raw)] = (raw, job, attempt)
        self._emulator.callbacks.send(job.webhook_url, raw, signed)
