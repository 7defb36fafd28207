"""Receivers in a process of their own: each does one thing wrong until some attempt, and notes all that came."""

import contextlib
import hashlib
import multiprocessing
from typing import Any, Self

from tests.receivers import Answer, Received, Receiver

GOOD_FROM = 4  # the attempt that is answered well

FAULTS = {
    "well": Answer(),
    "fails": Answer(500, b"no"),
    "refuses": Answer(404),
    "is busy": Answer(429, headers={"Retry-After": "0"}),
    "redirects": Answer(302, headers={"Location": "/elsewhere"}),
    "hangs": Answer(delay=60),
    "drips headers": Answer(header_drip=0.1),
    "drips its body": Answer(body=b"x" * 1000, body_drip=0.1),
    "resets": Answer(is_reset=True),
    "answers garbage": Answer(raw=b"\x00\x01 garbage\r\n\r\n"),
    "says nothing": Answer(raw=b""),
    "cuts its body": Answer(raw=b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\nhalf"),
}


class FaultyReceivers:
    """The process; `with FaultyReceivers() as receivers:` runs it."""

    def __init__(self) -> None:
        context = multiprocessing.get_context("spawn")
        self._pipe, theirs = context.Pipe()
        self._process = context.Process(target=_serve, args=(theirs,), daemon=True)
        self._process.start()
        theirs.close()
        self.urls: dict[str, str] = self._pipe.recv()
        """By the name of the fault."""

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._process.kill()
        self._process.join()

    def requests(self) -> list[dict[str, str]]:
        """Return the headers of every request that came, with its `path` and the `sha256` of its body."""
        self._pipe.send(None)
        found: list[dict[str, str]] = self._pipe.recv()
        return found


class _Faulty(Receiver):
    def __init__(self, fault: Answer) -> None:
        super().__init__()
        self._fault = fault

    def _take(self, request: Received) -> Answer:
        super()._take(request)
        is_good = int(request.headers["x-seedancee2-attempt"]) >= GOOD_FROM
        return Answer() if is_good else self._fault


def _serve(pipe: Any) -> None:
    with contextlib.ExitStack() as stack:
        receivers = {name: stack.enter_context(_Faulty(fault)) for name, fault in FAULTS.items()}
        pipe.send({name: receiver.url("/hook") for name, receiver in receivers.items()})
        with contextlib.suppress(EOFError):
            while True:
                pipe.recv()
                pipe.send([_told(request) for receiver in receivers.values() for request in receiver.requests])


def _told(request: Received) -> dict[str, str]:
    return {**request.headers, "path": request.path, "sha256": hashlib.sha256(request.body).hexdigest()}
