"""A real server, and name servers that say what a test wants."""

import ipaddress
import socket
from collections.abc import Iterator
from typing import Any

import pytest

from seedancee2.lib.tests.outbound import FakeDNS
from tests.receivers import Receiver


@pytest.fixture
def receiver() -> Iterator[Receiver]:
    with Receiver() as running:
        yield running


@pytest.fixture
def dns(monkeypatch: pytest.MonkeyPatch) -> FakeDNS:
    """Answer every name look-up with these addresses: one list for each look-up in turn, the last for ever."""

    def answer(*answers: list[str]) -> None:
        left = list(answers)

        def getaddrinfo(host: Any, port: Any, *args: Any, **kwargs: Any) -> list[Any]:
            addresses = left.pop(0) if len(left) > 1 else left[0]
            if not addresses:
                raise socket.gaierror(socket.EAI_NONAME, "no such name")
            return [
                (socket.AF_INET6 if ":" in address else socket.AF_INET, socket.SOCK_STREAM, 6, "", (address, port))
                for address in addresses
            ]

        monkeypatch.setattr(socket, "getaddrinfo", getaddrinfo)

    return answer


@pytest.fixture
def connected(monkeypatch: pytest.MonkeyPatch) -> list[tuple[str, int]]:
    """Note every connection that is tried, and let none through except to loopback."""
    tried: list[tuple[str, int]] = []

    class WatchedSocket(socket.socket):
        def connect(self, address: Any) -> None:
            tried.append(address)
            if not ipaddress.ip_address(address[0]).is_loopback:
                raise ConnectionRefusedError
            super().connect(address)

    monkeypatch.setattr(socket, "socket", WatchedSocket)
    return tried
