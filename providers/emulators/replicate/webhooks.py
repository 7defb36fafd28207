"""Replicate's webhooks: when they are due, and how they are signed (sheet §6, Standard Webhooks)."""

import base64
import functools
import hashlib
import heapq
import hmac
import itertools
import json
import secrets
import threading
from collections.abc import Callable, Mapping
from typing import Any

SECRET_PREFIX = "whsec_"  # noqa: S105 - the prefix that tells what follows
RETRY_SECONDS = (0.5, 1.0, 2.0)
"""Pauses before a terminal event is sent again; the real ones are not published."""
STALE_SECONDS = 600


def new_secret() -> str:
    """Return a signing secret."""
    return SECRET_PREFIX + base64.b64encode(secrets.token_bytes(24)).decode()


def signature(secret: str, message_id: str, timestamp: str, body: bytes) -> str:
    """Return one entry of the signature header."""
    key = base64.b64decode(secret.removeprefix(SECRET_PREFIX))
    digest = hmac.new(key, f"{message_id}.{timestamp}.".encode() + body, hashlib.sha256).digest()
    return "v1," + base64.b64encode(digest).decode()


def message(body: Mapping[str, Any], *, secret: str, now: float, fault: str = "") -> tuple[bytes, dict[str, str]]:
    """Return the body and headers of one webhook, with one of the faults of the knob `callback`."""
    raw = json.dumps(body).encode()
    if fault == "unsigned":
        return raw, {}
    timestamp = str(int(now) + {"stale": -STALE_SECONDS, "future": STALE_SECONDS}.get(fault, 0))
    message_id = f"msg_{secrets.token_hex(13)}"
    entry = signature(new_secret() if fault == "bad-signature" else secret, message_id, timestamp, raw)
    if fault == "second-signature":
        entry = f"v1,AAAA {entry}"
    elif fault == "tampered":
        raw = json.dumps({**body, "error": "tampered"}).encode()
    elif fault == "re-serialised":
        raw = json.dumps(body, separators=(",", ":")).encode()
    return raw, {"webhook-id": message_id, "webhook-timestamp": timestamp, "webhook-signature": entry}


class Schedule:
    """Runs what is due by the emulator's clock, one after the other, in a thread of its own."""

    def __init__(self, now: Callable[[], float]) -> None:
        self._now = now
        self._due: list[tuple[float, int, Callable[[], None]]] = []
        self._numbers = itertools.count()
        self._changed = threading.Condition()
        self._thread: threading.Thread | None = None

    def at(self, due: float, action: Callable[..., None], *arguments: Any) -> None:
        """Call `action` then; never where `due` is infinite."""
        if due == float("inf"):
            return
        call: Callable[[], None] = functools.partial(action, *arguments)
        with self._changed:
            heapq.heappush(self._due, (due, next(self._numbers), call))
            self._changed.notify()

    def wake(self) -> None:
        """Look at the clock again, since it was changed."""
        with self._changed:
            self._changed.notify()

    def start(self) -> None:
        """Begin to run what is due."""
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()

    def stop(self) -> None:
        """Run nothing more."""
        thread, self._thread = self._thread, None
        self.wake()
        if thread:
            thread.join()

    def _run(self) -> None:
        while self._thread is threading.current_thread():
            with self._changed:
                pause = self._due[0][0] - self._now() if self._due else None
                if pause is None or pause > 0:
                    # Also a bound on a wake-up that came just before the wait.
                    self._changed.wait(min(pause or 1.0, 1.0))
                    continue
                action = heapq.heappop(self._due)[2]
            action()
