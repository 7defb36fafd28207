"""Names turned into addresses by the system's resolver, which knows no time limit of its own."""

import ipaddress
import queue
import socket
import threading
import time
from typing import Final

from seedancee2.lib.destinations import Address
from seedancee2.lib.http.outcomes import Kind, TransportFailed

# A look-up cannot be interrupted, only left behind; this bounds how many may be left behind at once.
_places: Final = threading.BoundedSemaphore(64)


def resolve(name: str, *, seconds: float) -> list[Address]:
    """Ask once for all addresses of a name, and wait so many seconds at most.

    Raises:
        TransportFailed: there is none, or no answer came in time.
    """
    until = time.monotonic() + seconds
    answers: queue.SimpleQueue[list[str]] = queue.SimpleQueue()

    def ask() -> None:
        try:
            found = socket.getaddrinfo(name, None, type=socket.SOCK_STREAM)
            answers.put(list(dict.fromkeys(str(entry[4][0]) for entry in found)))
        except (OSError, UnicodeError):
            answers.put([])
        finally:
            _places.release()

    if not _places.acquire(timeout=seconds):
        raise TransportFailed(Kind.DNS, was_sent=False)
    try:
        threading.Thread(target=ask, name="resolve", daemon=True).start()
    except RuntimeError as error:
        # This process may start no more threads; the place is given back, or none would be left when it may again.
        _places.release()
        raise TransportFailed(Kind.DNS, was_sent=False) from error
    try:
        answer = answers.get(timeout=max(0.0, until - time.monotonic()))
    except queue.Empty:
        answer = []
    if not answer:
        raise TransportFailed(Kind.DNS, was_sent=False)
    return [ipaddress.ip_address(address) for address in answer]
