"""The HTTP server under emulators and under the receivers of tests."""

import contextlib
import socket
from http.server import ThreadingHTTPServer
from typing import Any


class QuietServer(ThreadingHTTPServer):
    """Serves in threads, many connections at once, and ends at once."""

    daemon_threads = True
    block_on_close = False
    request_queue_size = 512

    def shutdown(self) -> None:
        """Stop at once: the loop looks up only between polls, unless its socket wakes it."""
        with contextlib.suppress(OSError):
            self.socket.shutdown(socket.SHUT_RDWR)
        super().shutdown()

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Stay quiet: that clients go away is what many tests are about."""
