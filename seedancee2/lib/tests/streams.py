"""A server that speaks raw bytes, for ever if it is told to, and does not care what HTTP is."""

import contextlib
import itertools
import socket
import ssl
import threading
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Self

BLOCK = 64 * 1024


@dataclass(frozen=True)
class Stream:
    """What is sent to one path: `first` at once, then `forever` again and again."""

    first: bytes = b""
    forever: bytes = b""
    pause: float = 0.0
    """Seconds between two bytes of `forever`; without it they come as fast as they are taken."""
    is_kept_open: bool = False
    """Say nothing more after `first`, and do not close."""


class Streamer:
    """The server; each connection has a thread. `with Streamer({"/": Stream(...)}) as streamer:`"""

    def __init__(self, streams: dict[str, Stream], *, tls: ssl.SSLContext | None = None) -> None:
        self._streams = streams
        self._tls = tls
        self._closing = threading.Event()
        self._listener = socket.create_server(("127.0.0.1", 0))
        self._thread = threading.Thread(target=self._accept, name="streamer", daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._closing.set()
        self._listener.shutdown(socket.SHUT_RDWR)
        self._thread.join()
        self._listener.close()

    def url(self, path: str = "/", *, host: str = "127.0.0.1", scheme: str = "http") -> str:
        """Return the URL of a path."""
        return f"{scheme}://{host}:{self._listener.getsockname()[1]}{path}"

    def _accept(self) -> None:
        while True:
            try:
                connection, _ = self._listener.accept()
            except OSError:
                return
            threading.Thread(target=self._answer, args=(connection,), name="stream", daemon=True).start()

    def _answer(self, connection: socket.socket) -> None:
        with contextlib.suppress(OSError), connection:
            if "" in self._streams:  # before any request, in the midst of a handshake
                self._send(connection, self._streams[""])
                return
            if self._tls is not None:
                connection = self._tls.wrap_socket(connection, server_side=True)
            with connection, connection.makefile("rb") as file:
                _, path, _ = file.readline().decode().split()
                while file.readline().strip():
                    pass
                self._send(connection, self._streams[path])

    def _send(self, connection: socket.socket, stream: Stream) -> None:
        connection.sendall(stream.first)
        if stream.is_kept_open:
            self._closing.wait(30)
        if not stream.forever:
            return
        if not stream.pause:
            block = stream.forever * (BLOCK // len(stream.forever) + 1)
            while not self._closing.is_set():
                connection.sendall(block)
        for byte in itertools.cycle(stream.forever):
            if self._closing.wait(stream.pause):
                return
            connection.sendall(bytes([byte]))


@contextlib.contextmanager
def full_queue() -> Iterator[int]:
    """Yield a port where no connection is ever taken: the queue of those that wait is full."""
    with socket.create_server(("127.0.0.1", 0), backlog=0) as listener, contextlib.ExitStack() as waiting:
        for _ in range(3):
            client = waiting.enter_context(socket.socket())
            client.setblocking(False)
            client.connect_ex(listener.getsockname())
        yield listener.getsockname()[1]


@contextlib.contextmanager
def deaf_server() -> Iterator[int]:
    """Yield a port where a connection is taken and nothing is ever read from it, with little room in its buffers."""
    with socket.socket() as listener:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        listener.bind(("127.0.0.1", 0))
        listener.listen(8)
        yield listener.getsockname()[1]
