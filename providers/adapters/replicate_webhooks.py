"""Replicate's signatures (Replicate sheet §6, Standard Webhooks), and the key they are checked with."""

import base64
import binascii
import datetime as dt
import hashlib
import hmac
import json
import re
import threading
import time
from collections.abc import Callable, Mapping
from typing import Any, Final

from seedancee2.lib import http

SECRET: Final = "/webhooks/default/secret"  # noqa: S105 - the path where it is asked for
WINDOW_SECONDS: Final = 300
REFRESH_SECONDS: Final = 60.0
RETRY_SECONDS: Final = 5.0
ASK_SECONDS: Final = 5.0

_TIMESTAMP = re.compile(r"[0-9]{1,12}")


class SigningKey:
    """The key of one account: asked for once, and again, at most once a minute, where a signature does not fit."""

    def __init__(self, url: str, authorization: str) -> None:
        self._url = url
        self._authorization = authorization
        self._lock = threading.Lock()
        self._key: bytes | None = None
        self._next_at = -REFRESH_SECONDS

    def check(self, fits: Callable[[bytes], bool]) -> bool | None:
        """Tell whether a signature fits; None where there is no key to tell by."""
        known = self._key
        if known is not None and fits(known):
            return True
        with self._lock:
            # Those who waited here take the answer that another got.
            if time.monotonic() >= self._next_at:
                self._key = self._asked() or self._key
                self._next_at = time.monotonic() + (REFRESH_SECONDS if self._key else RETRY_SECONDS)
            known = self._key
        return None if known is None else fits(known)

    def _asked(self) -> bytes | None:
        # No exchange is noted: the answer is a secret.
        headers = {"Authorization": self._authorization, "Accept": "application/json"}
        try:
            reply = http.send("GET", self._url, headers=headers, deadline_seconds=ASK_SECONDS, max_response_bytes=4096)
            data = json.loads(reply.body) if reply.status_code == 200 else None
        except (http.Blocked, http.TransportFailed, ValueError, RecursionError):
            return None
        return _opened(data.get("key")) if isinstance(data, dict) else None


_keys: dict[tuple[str, str, str], SigningKey] = {}
_lock = threading.Lock()


def key_of(channel_name: str, url: str, *, authorization: str) -> SigningKey:
    """Return this process's key for an account; it changes with the channel's credential."""
    account = hashlib.sha256(authorization.encode()).hexdigest()
    with _lock:
        return _keys.setdefault((channel_name, url, account), SigningKey(url, authorization))


def fault(headers: Mapping[str, str], body: bytes, *, received_at: dt.datetime, secret: str, key: SigningKey) -> str:
    """Say what is wrong with a callback's signature; empty where it is good. A secret goes before the key."""
    message_id, timestamp, signatures = (
        headers.get(f"webhook-{name}", "") for name in ("id", "timestamp", "signature")
    )
    if not (message_id and timestamp and signatures):
        return "The callback is not signed."
    if not _TIMESTAMP.fullmatch(timestamp):
        return "The callback's timestamp is no number."
    if abs(received_at.timestamp() - int(timestamp)) > WINDOW_SECONDS:
        return "The callback's signature is too old, or from the future."
    signed = f"{message_id}.{timestamp}.".encode(errors="replace") + body
    given = [entry[3:].encode(errors="replace") for entry in signatures.split(" ") if entry.startswith("v1,")]

    def fits(candidate: bytes) -> bool:
        expected = base64.b64encode(hmac.digest(candidate, signed, "sha256"))
        return any(hmac.compare_digest(expected, one) for one in given)

    if secret:
        opened = _opened(secret)
        is_good = None if opened is None else fits(opened)
    else:
        is_good = key.check(fits)
    if is_good is None:
        return "The keys could not be fetched."
    return "" if is_good else "The callback's signature is wrong."


def _opened(secret: Any) -> bytes | None:
    """Return the key inside `whsec_…`; None where there is none."""
    if not isinstance(secret, str):
        return None
    try:
        return base64.b64decode(secret.strip().removeprefix("whsec_"), validate=True) or None
    except (binascii.Error, ValueError):
        return None
