"""Sending callbacks as providers do: in the background, after a while, and not always once or in order."""

import http.client
import threading
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from urllib.parse import urlsplit

TIMEOUT_SECONDS = 5.0


@dataclass(frozen=True, slots=True)
class Sent:
    """One callback and what came of it; no status where nobody answered."""

    url: str
    body: bytes
    headers: Mapping[str, str]
    status: int | None


class Sender:
    """Posts callbacks from threads of its own and keeps what came of them, in order of their end."""

    def __init__(self) -> None:
        self.sent: list[Sent] = []
        self._closing = threading.Event()
        self._lock = threading.Lock()

    def send(
        self,
        url: str,
        body: bytes,
        headers: Mapping[str, str],
        *,
        delay: float = 0.0,
        repeats: Sequence[float] = (),
    ) -> None:
        """Post `delay` seconds from now, and again after each pause of `repeats` until a status of 2xx comes."""
        if url and not self._closing.is_set():
            threading.Thread(target=self._send, args=(url, body, headers, (delay, *repeats)), daemon=True).start()

    def close(self) -> None:
        """Send nothing more."""
        self._closing.set()

    def _send(self, url: str, body: bytes, headers: Mapping[str, str], pauses: Sequence[float]) -> None:
        for pause in pauses:
            if self._closing.wait(pause) or self._post(url, body, headers):
                return

    def _post(self, url: str, body: bytes, headers: Mapping[str, str]) -> bool:
        parts = urlsplit(url)
        target = parts.path + (f"?{parts.query}" if parts.query else "")
        status = None
        connection_class = http.client.HTTPSConnection if parts.scheme == "https" else http.client.HTTPConnection
        connection = connection_class(parts.hostname or "", parts.port, timeout=TIMEOUT_SECONDS)
        try:
            connection.request("POST", target, body, {"Content-Type": "application/json", **headers})
            reply = connection.getresponse()
            reply.read()
            status = reply.status
        except (OSError, http.client.HTTPException):
            pass
        finally:
            connection.close()
        with self._lock:
            self.sent.append(Sent(url, body, dict(headers), status))
        return status is not None and 200 <= status < 300


def unix_time() -> str:
    """Return the seconds since 1970 as text, as signature headers carry them."""
    return str(int(time.time()))
