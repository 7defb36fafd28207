"""A PostgreSQL and a Valkey for tests and checks: quick, and nothing in them needs to last."""

from __future__ import annotations

import contextlib
import itertools
import os
import shutil
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

from seedancee2.local import postgres, processes, state, valkey
from seedancee2.local.servers import Server
from seedancee2.local.state import CannotStart

_START_SECONDS = 20


@contextlib.contextmanager
def servers() -> Iterator[dict[str, str]]:
    """Start the servers that the environment does not name, give the addresses of both, and stop what was started."""
    with contextlib.ExitStack() as stack:
        addresses = {name: os.environ.get(name, "") for name in ("DATABASE_URL", "REDIS_URL")}
        if not all(addresses.values()):
            folder = stack.enter_context(_folder())
            if not addresses["REDIS_URL"]:
                server = valkey.prepare(folder / "valkey", is_durable=False)
                addresses["REDIS_URL"] = stack.enter_context(_running(server))
            if not addresses["DATABASE_URL"]:
                addresses["DATABASE_URL"] = _start_postgres(folder / "postgres", stack)
        yield addresses


@contextlib.contextmanager
def _folder() -> Iterator[Path]:
    """Give the first folder that no other run is using; its data are kept, since making them takes longest."""
    var = state.ensure_var()
    for number in itertools.count(1):
        folder = state.ensure_folder(var / f"test-{number}")
        if held := state.lock(folder / "lock"):
            with held:
                yield folder
            return


def _start_postgres(folder: Path, stack: contextlib.ExitStack) -> str:
    try:
        return stack.enter_context(_running(postgres.prepare(folder, is_durable=False)))
    except CannotStart:
        shutil.rmtree(folder / "data", ignore_errors=True)  # written without fsync: a power cut may have broken it
        return stack.enter_context(_running(postgres.prepare(folder, is_durable=False)))


@contextlib.contextmanager
def _running(server: Server) -> Iterator[str]:
    process = processes.spawn(server.program)
    try:
        _await(server, process)
        yield server.url
    finally:
        processes.stop(process, server.program)


def _await(server: Server, process: subprocess.Popen[bytes]) -> None:
    deadline = time.monotonic() + _START_SECONDS
    while not server.is_ready():
        if process.poll() is not None or time.monotonic() > deadline:
            raise CannotStart(f"The {server.program.name} for tests does not start:\n{server.last_words()}")
        time.sleep(0.02)
