"""Replies as the standard library reads them, with an end to what it would read without one."""

import http.client
import io
import socket
from typing import Any, Final

MAX_HEAD_BYTES: Final = 64 * 1024
"""For the status line and headers, those of all interim replies included."""


class Meter:
    """What may still be taken off the wire; the framing of a body may take as much as the body itself."""

    def __init__(self) -> None:
        self.left = MAX_HEAD_BYTES

    def expect(self, body_bytes: int) -> None:
        """Allow a body of so many bytes from here on."""
        self.left = 2 * body_bytes + MAX_HEAD_BYTES


class MeteredResponse(http.client.HTTPResponse):
    """A response that takes no more off the wire than its meter allows.

    Without it a hundred lines of 64 KiB are a head, interim replies, trailers and extensions of chunks never end, and a
    chunk of length -1 is read to the end of the connection at once.
    """

    def __init__(self, sock: socket.socket, *arguments: Any, meter: Meter, **options: Any) -> None:
        super().__init__(sock, *arguments, **options)
        self.fp = io.BufferedReader(_MeteredFile(self.fp.detach(), meter))

    def _read_status(self) -> tuple[str, int, str]:
        version, status, reason = super()._read_status()  # type: ignore[misc] # private, and the one seam there is
        # Passed over like 100, the only one that the library knows (RFC 9110 §15.2); 101 was never asked for.
        is_interim = 100 <= status < 200 and status != http.HTTPStatus.SWITCHING_PROTOCOLS
        return version, http.HTTPStatus.CONTINUE if is_interim else status, reason

    def _read_next_chunk_size(self) -> int:
        size: int = super()._read_next_chunk_size()  # type: ignore[misc] # private, and the one seam there is
        if size < 0:
            raise http.client.HTTPException("a chunk of negative length")
        return size


class _MeteredFile(io.RawIOBase):
    def __init__(self, source: io.RawIOBase, meter: Meter) -> None:
        self._source = source
        self._meter = meter

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        if self._meter.left <= 0:
            raise http.client.HTTPException("more came than a reply may take")
        count = self._source.readinto(memoryview(buffer)[: self._meter.left]) or 0
        self._meter.left -= count
        return count

    def close(self) -> None:
        self._source.close()
        super().close()
