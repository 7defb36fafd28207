"""A real HTTP server on loopback that records what it gets and answers, hangs, drips or breaks as it is told."""

import contextlib
import socket
import ssl
import struct
import threading
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler
from typing import Any, Self

from providers.emulators.quiet import QuietServer


@dataclass(frozen=True)
class Received:
    """One request as it came."""

    method: str
    path: str
    headers: Mapping[str, str]
    body: bytes
    at: float


@dataclass(frozen=True)
class Answer:
    """What the receiver does with one request; without a value of its own it says 200."""

    status: int = 200
    body: bytes = b"ok"
    headers: Mapping[str, str] = field(default_factory=dict)
    delay: float = 0.0
    """Seconds before the first byte of the reply."""
    header_drip: float = 0.0
    """Seconds between the bytes of endless headers."""
    body_drip: float = 0.0
    """Seconds between the bytes of the body."""
    has_length: bool = True
    """Whether Content-Length tells how long the body is."""
    is_reset: bool = False
    """Break the connection instead of answering."""
    raw: bytes | None = None
    """Bytes sent instead of any HTTP."""


class Receiver:
    """The server; `with Receiver() as receiver:` runs it in threads of its own."""

    def __init__(self, *, tls: ssl.SSLContext | None = None) -> None:
        self.requests: list[Received] = []
        self.connection_count = 0
        self._answers: dict[str, list[Answer]] = {}
        self._lock = threading.Lock()
        self._closing = threading.Event()
        self._server = QuietServer(("127.0.0.1", 0), _handler_for(self))
        self._scheme = "http"
        if tls is not None:
            self._server.socket = tls.wrap_socket(self._server.socket, server_side=True, do_handshake_on_connect=False)
            self._scheme = "https"
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.05,), daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._closing.set()
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()

    @property
    def port(self) -> int:
        """The port it listens on."""
        return int(self._server.server_address[1])

    def url(self, path: str = "/", *, host: str = "127.0.0.1") -> str:
        """Return the URL of a path."""
        return f"{self._scheme}://{host}:{self.port}{path}"

    def plan(self, path: str, *answers: Answer) -> None:
        """Answer requests for a path with these in turn, the last one for ever."""
        with self._lock:
            self._answers[path] = list(answers)

    def received(self, path: str) -> list[Received]:
        """Return what came for a path, in order."""
        with self._lock:
            return [request for request in self.requests if request.path == path]

    def _take(self, request: Received) -> Answer:
        with self._lock:
            self.requests.append(request)
            answers = self._answers.get(request.path, [])
            if not answers:
                return Answer()
            return answers.pop(0) if len(answers) > 1 else answers[0]

    def _pause(self, seconds: float) -> None:
        if self._closing.wait(seconds):
            raise ConnectionAbortedError


def _handler_for(receiver: Receiver) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"
        timeout = 60

        def setup(self) -> None:
            super().setup()
            with receiver._lock:
                receiver.connection_count += 1

        def handle_one_request(self) -> None:
            try:
                super().handle_one_request()
            except (ConnectionError, TimeoutError, ssl.SSLError):
                self.close_connection = True

        def _respond(self) -> None:
            body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
            headers = {name.lower(): value for name, value in self.headers.items()}
            answer = receiver._take(Received(self.command, self.path, headers, body, time.monotonic()))
            self.close_connection = True
            receiver._pause(answer.delay)
            if answer.is_reset:
                # Closing with SO_LINGER 0 sends RST instead of FIN.
                self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
                self.connection.close()
                return
            if answer.raw is not None:
                self.wfile.write(answer.raw)
                return
            self.wfile.write(f"HTTP/1.1 {answer.status} Status\r\n".encode())
            for number in self._drips(answer.header_drip):
                self.wfile.write(f"X-Drip-{number}: 1\r\n".encode())
            for name, value in answer.headers.items():
                self.wfile.write(f"{name}: {value}\r\n".encode())
            if answer.has_length:
                self.wfile.write(f"Content-Length: {len(answer.body)}\r\n".encode())
            self.wfile.write(b"Connection: close\r\n\r\n")
            if not answer.body_drip:
                self.wfile.write(answer.body)
                return
            for index, _ in zip(range(len(answer.body)), self._drips(answer.body_drip), strict=False):
                self.wfile.write(answer.body[index : index + 1])

        def _drips(self, seconds: float) -> Iterator[int]:
            number = 0
            while seconds:
                receiver._pause(seconds)
                yield number
                number += 1

        do_GET = do_POST = do_PUT = do_DELETE = _respond

        def log_message(self, format: str, *args: Any) -> None:
            """Keep the tests' output clean."""

    return Handler


@contextlib.contextmanager
def black_hole() -> Iterator[int]:
    """Yield a port where connections are taken and nothing is ever said."""
    with socket.create_server(("127.0.0.1", 0), backlog=128) as listener:
        yield listener.getsockname()[1]
