"""What the embedded servers have in common: a port and a password of their own, and last words when they fail."""

from __future__ import annotations

import random
import secrets
import socket
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from seedancee2.local import state
from seedancee2.local.processes import Program
from seedancee2.local.state import CannotStart

# Above the usual servers' ports, below those which the system hands out to outgoing connections.
_PORTS = range(20_000, 32_000)


@dataclass(frozen=True, kw_only=True)
class Server:
    """An embedded server: how to start it, where it answers, and whether it does."""

    program: Program
    url: str
    is_ready: Callable[[], bool]

    def last_words(self) -> str:
        """Give the end of the server's log, for the message that it would not start."""
        log = self.program.log
        lines = log.read_text(encoding="utf-8", errors="replace").splitlines() if log and log.exists() else []
        return "\n".join(lines[-5:])


@dataclass(frozen=True, kw_only=True)
class Access:
    """The port and password of a server, remembered beside its data."""

    port: int
    password: str


def access(folder: Path) -> Access:
    """Give the remembered port and password of the server in a folder; another port only where that one is taken."""
    remembered = folder / "access.json"
    values = state.read_json(remembered)
    port, password = values.get("port"), values.get("password")
    if isinstance(port, int) and isinstance(password, str) and is_free(port):
        return Access(port=port, password=password)
    chosen = Access(port=free_port(), password=password if isinstance(password, str) else secrets.token_hex(16))
    state.write_json(remembered, {"port": chosen.port, "password": chosen.password})
    return chosen


def free_port() -> int:
    """Choose a port on which nothing listens."""
    for port in random.sample(_PORTS, k=100):
        if is_free(port):
            return port
    raise CannotStart("No free port was found between 20000 and 32000.")


def is_free(port: int, host: str = "127.0.0.1") -> bool:
    """Tell whether a server could listen on this port now."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    with socket.socket(family, socket.SOCK_STREAM) as probe:
        # As the servers do: connections that are still closing from a run before do not count as taken.
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((host, port))
        except OSError:
            return False
    return True
