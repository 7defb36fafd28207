"""The system as benchmarks run it: servers of its own, the Procfile's processes, and emulated providers beside them."""

import contextlib
import dataclasses
import multiprocessing
import os
import shutil
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import psutil
from honcho.environ import parse_procfile

from seedancee2.local import environment, postgres, processes, state, throwaway, valkey
from seedancee2.local.processes import Program
from seedancee2.local.servers import Server
from seedancee2.local.state import ROOT

LOOPBACK = "127.0.0.1"


@dataclasses.dataclass(slots=True)
class System:
    """One throwaway system: its folder, its environment, and the processes that were started."""

    folder: Path
    values: dict[str, str]
    running: dict[str, tuple[subprocess.Popen[bytes], Program]] = dataclasses.field(default_factory=dict)

    def start(self, *names: str) -> None:
        """Start processes of the Procfile by name; their output goes to a file in the folder."""
        for name in names:
            command = ["/bin/sh", "-c", f"exec {procfile()[name]}"]
            program = Program(
                name=name, command=command, folder=ROOT, environment=self.values, log=self.folder / f"{name}.log"
            )
            self.running[name] = (processes.spawn(program), program)

    def stop(self) -> None:
        """Stop whatever runs."""
        while self.running:
            processes.stop(*self.running.popitem()[1])

    def cpu_seconds(self) -> float:
        """Return the seconds of CPU that our processes have used, those of the database aside."""
        return sum(_cpu_seconds(process.pid) for process, _ in self.running.values())

    def last_words(self) -> str:
        """Return the ends of the logs, for whoever has to find out what went wrong."""
        return "\n".join(
            f"--- {path.name}\n" + "\n".join(path.read_text(errors="replace").splitlines()[-15:])
            for path in sorted(self.folder.glob("*.log"))
        )


def procfile() -> dict[str, str]:
    """Return the commands of the Procfile by name."""
    lines: dict[str, str] = parse_procfile((ROOT / "Procfile").read_text(encoding="utf-8")).processes
    return lines


@contextlib.contextmanager
def system(*, address: str = LOOPBACK, **settings: str) -> Iterator[System]:
    """Give a migrated system on durable servers of its own, set up in this process too; nothing is started yet.

    The servers are reached at `address`, which is one of this machine's.
    """
    folder = state.ensure_folder(state.ensure_var() / f"bench-{os.getpid()}")
    try:
        database = postgres.prepare(folder / "postgres", say=lambda _: None)
        redis = valkey.prepare(folder / "valkey")
        if address != LOOPBACK:
            database = _listening(database, address)
            (folder / "valkey" / "valkey.conf").open("a").write(f"bind {LOOPBACK} {address}\n")
        with throwaway._running(database) as database_url, throwaway._running(redis) as redis_url:
            given = {name: value for name, value in os.environ.items() if not name.endswith("_URL")}
            values = environment.complete({**given, "PORT": str(environment.free_port()), **settings})
            values |= {"DATABASE_URL": database_url.replace(LOOPBACK, address), "MEDIA_STORAGE_URL": folder.as_uri()}
            values |= {"REDIS_URL": redis_url.replace(LOOPBACK, address), **settings}
            values["PATH"] = environment.search_path(str(Path(sys.executable).parent), values)
            os.environ.update(values, DJANGO_SETTINGS_MODULE="seedancee2.settings")
            import django
            from django.core.management import call_command

            django.setup()
            call_command("migrate", verbosity=0)
            made = System(folder, values)
            try:
                yield made
            finally:
                made.stop()
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _listening(database: Server, address: str) -> Server:
    """Let PostgreSQL be reached at another address too, from the network of that address."""
    program = database.program
    with (program.folder / "data" / "pg_hba.conf").open("a") as file:
        file.write(f"host all all {address}/24 scram-sha-256\n")
    command = [*program.command, f"--listen_addresses={LOOPBACK},{address}"]
    return dataclasses.replace(database, program=dataclasses.replace(program, command=command))


class Provider:
    """An emulated provider in a process of its own, which runs `fill(emulator)` before it serves."""

    def __init__(
        self,
        name: str,
        *,
        running: float = 1.0,
        fill: Callable[[Any], Any] | None = None,
        address: str = LOOPBACK,
    ) -> None:
        context = multiprocessing.get_context("spawn")
        self.name, self.key = name, f"key-of-{name}"
        self._pipe, theirs = context.Pipe()
        self._process = context.Process(
            target=_serve, args=(theirs, name, self.key, running, fill, address), daemon=True
        )
        self._process.start()
        self.origin, self.filled = self._pipe.recv()

    def ask(self, question: Callable[[Any], Any]) -> Any:
        """Return what a function of a module says of the emulator, asked where it runs."""
        self._pipe.send(question)
        return self._pipe.recv()

    def cpu_seconds(self) -> float:
        """Return the seconds of CPU that it has used."""
        return _cpu_seconds(self._process.pid or 0)

    def kill(self) -> None:
        """Switch it off, with all that it knew."""
        self._process.kill()
        self._process.join()


@contextlib.contextmanager
def black_hole() -> Iterator[str]:
    """Give the origin of a server that accepts every connection and never says a word."""
    kept: list[socket.socket] = []
    with socket.create_server(("127.0.0.1", 0), backlog=512) as server:

        def accept() -> None:
            with contextlib.suppress(OSError):
                while True:
                    kept.append(server.accept()[0])

        threading.Thread(target=accept, daemon=True).start()
        yield f"http://127.0.0.1:{server.getsockname()[1]}"
        server.shutdown(socket.SHUT_RDWR)
    for connection in kept:
        connection.close()


def loaded() -> str:
    """Return the machine's load at this moment, for the head of a table."""
    return f"; load {os.getloadavg()[0]:.1f} on {os.cpu_count()} cores"


def database_cpu_seconds() -> float:
    """Return the seconds of CPU that the database has used; a backend's count with the server's once it is gone."""
    return sum(_cpu_seconds(process.pid) for process in psutil.Process().children() if process.name() == "postgres")


def _serve(pipe: Any, name: str, key: str, running: float, fill: Any, address: str) -> None:
    from providers import emulators
    from providers.emulators.server import Pace

    signal.signal(signal.SIGINT, signal.SIG_IGN)
    emulator = emulators.find(name)(key=key, pace=Pace(queued=0.5, running=running))
    with emulator.serving(address):
        pipe.send((emulator.origin, fill(emulator) if fill else None))
        with contextlib.suppress(EOFError, OSError):
            while True:
                pipe.send(pipe.recv()(emulator))


def _cpu_seconds(pid: int) -> float:
    seconds = 0.0
    with contextlib.suppress(psutil.NoSuchProcess):
        process = psutil.Process(pid)
        for one in (process, *process.children(recursive=True)):
            with contextlib.suppress(psutil.NoSuchProcess):
                times = one.cpu_times()
                ended = times.children_user + times.children_system
                seconds += times.user + times.system + ended
    return seconds
