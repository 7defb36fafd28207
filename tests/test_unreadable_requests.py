"""What gunicorn itself refuses is told in the public page's form too."""

import json
import socket
from pathlib import Path
from urllib.parse import urlsplit

import pytest

from tests.web import server

pytestmark = pytest.mark.django_db(transaction=True)


REFUSED = [
    (b"GET /v1/models?x=" + b"a" * 9000 + b" HTTP/1.1\r\nHost: localhost\r\n\r\n", 414),
    (b"GET /v1/models HTTP/1.1\r\nHost: localhost\r\nX-Long: " + b"a" * 20_000 + b"\r\n\r\n", 431),
    (b"GET /v1/models HTTP/1.1\r\nHost: localhost\r\nBad Header: x\r\n\r\n", 400),
    (b"GET /v1/models HTTP/1.1\r\nHost: localhost\r\nExpect: nonsense\r\n\r\n", 417),
    (b"nonsense\r\n\r\n", 400),
]


def test_refusals_of_the_server_are_json(tmp_path: Path) -> None:
    with server(tmp_path / "web.log") as address:
        replies = [_exchange(address, request) for request, _ in REFUSED]

    for (_, status), reply in zip(REFUSED, replies, strict=True):
        head, _, body = reply.partition(b"\r\n\r\n")
        assert head.startswith(f"HTTP/1.1 {status} ".encode())
        assert b"Content-Type: application/json" in head
        assert b"X-Request-Id: req_" in head
        error = json.loads(body)["error"]
        assert (error["code"], error["type"]) == ("invalid_request", "invalid_request_error")


def _exchange(address: str, request: bytes) -> bytes:
    parts = urlsplit(address)
    with socket.create_connection((parts.hostname, parts.port), timeout=10) as client:
        client.sendall(request)
        reply = b""
        while chunk := client.recv(4096):
            reply += chunk
    return reply
