"""The one way out: every HTTP request of this service to somebody else's host is made here.

One request, one connection, to an address that was checked after the name was resolved. Built on urllib3's connections
and not on a session or pool: there is no redirect, proxy, cookie, .netrc, retry or decompression to be switched off.
"""

import http.client
from collections.abc import Collection, Mapping
from pathlib import Path

from seedancee2.lib.http.exchange import Exchange
from seedancee2.lib.http.outcomes import Blocked, Download, Kind, Reply, TransportFailed

__all__ = ["Blocked", "Download", "Kind", "Reply", "TransportFailed", "download", "send"]


def send(
    method: str,
    url: str,
    *,
    headers: Mapping[str, str] | None = None,
    body: bytes = b"",
    deadline_seconds: float,
    max_response_bytes: int,
    allowed_hosts: Collection[str] | None = None,
) -> Reply:
    """Make one request, of which everything, name look-up included, ends by the deadline.

    Raises:
        Blocked: the URL or an address of its host may not be called.
        TransportFailed: no whole reply came in time.
    """
    with Exchange(url, deadline_seconds, allowed_hosts) as exchange:
        response = exchange.request(method, headers, body)
        received = bytearray()
        for chunk in exchange.chunks(response, max_response_bytes + 1):
            received += chunk
        return Reply(
            status_code=response.status,
            headers=response.headers,
            body=bytes(received[:max_response_bytes]),
            is_cut=len(received) > max_response_bytes,
            duration_ms=exchange.duration_ms,
            address=exchange.address,
        )


def download(
    url: str,
    destination: Path,
    *,
    max_bytes: int,
    deadline_seconds: float,
    headers: Mapping[str, str] | None = None,
    allowed_hosts: Collection[str] | None = None,
) -> Download:
    """Stream a URL's content into a file, which is there afterwards only if the status is 200 and all of it came.

    Raises:
        Blocked: the URL or an address of its host may not be called.
        TransportFailed: no whole content came in time, or it is longer than `max_bytes`.
    """
    with Exchange(url, deadline_seconds, allowed_hosts) as exchange:
        response = exchange.request("GET", headers, b"")
        byte_count = 0
        if response.status == http.client.OK:
            try:
                with destination.open("wb") as file:
                    for chunk in exchange.chunks(response, max_bytes + 1):
                        byte_count += file.write(chunk)
                if byte_count > max_bytes:
                    raise TransportFailed(Kind.TOO_LARGE, was_sent=True)
            except BaseException:
                destination.unlink(missing_ok=True)
                raise
        return Download(
            status_code=response.status,
            headers=response.headers,
            byte_count=byte_count,
            duration_ms=exchange.duration_ms,
            address=exchange.address,
        )
