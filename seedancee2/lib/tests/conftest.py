"""Real servers: one that answers, one that resolves names, one that must not be reached."""

import ipaddress
import socket
import threading
from collections.abc import Iterator
from typing import Any

import pytest

from seedancee2.lib.tests.canaries import Canary
from seedancee2.lib.tests.nameserver import NameServer, used_by_resolver
from tests.receivers import Receiver


@pytest.fixture
def receiver() -> Iterator[Receiver]:
    with Receiver() as running:
        yield running


@pytest.fixture
def canary() -> Iterator[Canary]:
    with Canary() as listening:
        yield listening


@pytest.fixture
def nameserver() -> Iterator[NameServer]:
    """A real name server that the system's own resolver asks."""
    with NameServer() as server, used_by_resolver(server):
        yield server


@pytest.fixture
def connected(monkeypatch: pytest.MonkeyPatch) -> list[tuple[str, int]]:
    """Note every connection that is tried, and let none through except to loopback."""
    tried: list[tuple[str, int]] = []
    # What runs in this process all the time (a publisher of wake-ups, say) may connect to Redis whenever it likes.
    others = set(threading.enumerate()) - {threading.current_thread()}

    class WatchedSocket(socket.socket):
        def connect(self, address: Any) -> None:
            if threading.current_thread() in others:
                super().connect(address)
                return
            tried.append(address)
            if not ipaddress.ip_address(address[0]).is_loopback:
                raise ConnectionRefusedError
            super().connect(address)

    monkeypatch.setattr(socket, "socket", WatchedSocket)
    return tried
