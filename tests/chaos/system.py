"""A system that can be hurt: its own servers behind fault proxies, and its programs by name."""

import contextlib
import json
import os
import signal
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Self

import psutil
import psycopg
import redis
from psycopg.rows import dict_row

from seedancee2.local import processes
from seedancee2.local.processes import Program
from seedancee2.local.servers import free_port
from seedancee2.local.state import ROOT
from tests.chaos.proxy import FaultProxy
from tests.chaos.servers import FILE
from tests.local_system import LocalSystem

# The word that tells each program of the Procfile apart in its command line.
_PROGRAMS = {
    "web": "gunicorn",
    "worker": "io@%h",
    "poll": "poll@%h",
    "deliver": "deliver@%h",
    "media": "media@%h",
    "beat": "beat",
}
WORKERS = ("worker", "poll", "deliver", "media")


class HurtSystem:
    """What `make run` starts, with the settings of `tests.chaos`; `with HurtSystem() as system:`."""

    def __init__(self, **environment: str) -> None:
        self.facts: dict[str, Any] = {}
        self._environment = environment
        self._stack = contextlib.ExitStack()

    def __enter__(self) -> Self:
        with contextlib.ExitStack() as stack:
            # Not in the folder of pytest: its next run would lock out PostgreSQL, which is another user if we are root.
            self.folder = Path(stack.enter_context(_temporary_folder()))
            addresses = self._start_servers(stack)
            self.postgres = stack.enter_context(FaultProxy(addresses["postgres"]))
            self.valkey = stack.enter_context(FaultProxy(addresses["valkey"]))
            self.postgres_url, self.valkey_url = addresses["postgres"], addresses["valkey"]
            self.local = LocalSystem(self.folder / "checkout")
            stack.callback(self._stop)
            self.facts = self.local.start(
                seconds=180,
                DJANGO_SETTINGS_MODULE="tests.chaos.settings",
                DATABASE_URL=self.postgres.url,
                REDIS_URL=self.valkey.url,
                CHAOS_VALKEY_URL=self.valkey_url,
                WEB_CONCURRENCY="2",
                RATE_LIMIT_CREATES="60000",
                RATE_LIMIT_REQUESTS="60000",
                **self._environment,
            )
            self._stack = stack.pop_all()
        return self

    def __exit__(self, *_: object) -> None:
        self._stack.close()

    @property
    def url(self) -> str:
        """Where the API answers."""
        return f"{self.facts['base_url']}/v1"

    @property
    def headers(self) -> dict[str, str]:
        """The demo organization's key."""
        return {"Authorization": f"Bearer {self.facts['api_key']}"}

    def program(self, name: str) -> psutil.Process | None:
        """Return the process of a program of the Procfile, if one runs at the moment."""
        assert self.local._process is not None
        for process in _children(self.local._process.pid):
            with contextlib.suppress(psutil.Error):
                if _PROGRAMS[name] in process.cmdline():
                    return process
        return None

    def another(self, name: str) -> "Another":
        """Describe one more of a program; `with system.another("beat"):` runs it."""
        process = self.program(name)
        assert process is not None
        return Another(process, self.folder / f"another-{name}.log")

    def kill_group(self, name: str) -> str:
        """Kill -9 a program with all its processes."""
        process = self.program(name)
        if process is None:
            return "was down already"
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        return "killed"

    def kill_child(self, name: str, pick: Callable[[list[Any]], Any]) -> str:
        """Kill -9 one of the processes that a program started itself."""
        process = self.program(name)
        children = _children(process.pid) if process else []
        if not children:
            return "was down already"
        with contextlib.suppress(psutil.Error):
            pick(children).kill()
        return "killed"

    def signal_program(self, name: str, number: signal.Signals) -> None:
        """Send a signal to all processes of a program."""
        process = self.program(name)
        if process:
            os.killpg(process.pid, number)

    def signal_valkey(self, number: signal.Signals) -> None:
        """Send a signal to Valkey."""
        for process in self._server_processes("valkey-server"):
            process.send_signal(number)

    def signal_postgres(self, number: signal.Signals) -> None:
        """Send a signal to PostgreSQL; SIGQUIT is its immediate shutdown, and stopping means all its processes."""
        for process in self._server_processes("postgres"):
            everyone = [process, *process.children(recursive=True)]
            for one in everyone if number in (signal.SIGSTOP, signal.SIGCONT) else [process]:
                with contextlib.suppress(psutil.NoSuchProcess):
                    one.send_signal(number)

    def flush_valkey(self) -> None:
        """Forget all that Valkey knows, if it is there."""
        with contextlib.suppress(redis.RedisError), redis.Redis.from_url(self.valkey_url, socket_timeout=2) as client:
            client.flushall()

    def rows(self, sql: str, parameters: Any = None) -> list[dict[str, Any]]:
        """Ask the database past the proxy."""
        with psycopg.connect(self.postgres_url, autocommit=True, row_factory=dict_row, connect_timeout=5) as one:
            return one.execute(sql, parameters).fetchall()

    def balance(self) -> dict[str, int]:
        """Return the demo organization's credits."""
        told: dict[str, int] = json.loads(self.local.manage("balance", "demo", "--json").splitlines()[-1])
        return told

    def heal(self) -> None:
        """End every fault."""
        self.postgres.heal()
        self.valkey.heal()
        self.signal_valkey(signal.SIGCONT)
        self.signal_postgres(signal.SIGCONT)
        for name in _PROGRAMS:
            self.signal_program(name, signal.SIGCONT)

    def await_programs(self, seconds: float = 60) -> None:
        """Wait until every program runs."""
        until(lambda: all(self.program(name) for name in _PROGRAMS), seconds)

    def _start_servers(self, stack: contextlib.ExitStack) -> dict[str, str]:
        servers = self.folder / "servers"
        servers.mkdir(parents=True)
        program = Program(
            name="servers",
            command=[sys.executable, "-m", "tests.chaos.servers", str(servers)],
            folder=ROOT,
            log=self.folder / "servers.log",
        )
        process = processes.spawn(program)
        stack.callback(processes.stop, process, program)
        self._servers_pid = process.pid

        def are_up() -> bool:
            assert process.poll() is None, (self.folder / "servers.log").read_text()
            return (servers / FILE).exists()

        until(are_up, 120)
        addresses: dict[str, str] = json.loads((servers / FILE).read_text())
        return addresses

    def _server_processes(self, word: str) -> Iterator[psutil.Process]:
        for process in _children(self._servers_pid):
            with contextlib.suppress(psutil.Error):
                if word in Path(process.cmdline()[0]).name:
                    yield process

    def _stop(self) -> None:
        with contextlib.suppress(psutil.Error):
            self.heal()
        self.local.stop()


class Another:
    """One more of a program, as the first one was started, but on a port of its own."""

    def __init__(self, first: psutil.Process, log: Path) -> None:
        self.port = free_port()
        self._program = Program(
            name="another",
            command=first.cmdline(),
            folder=Path(first.cwd()),
            environment=first.environ() | {"PORT": str(self.port)},
            log=log,
        )

    def __enter__(self) -> Self:
        self._process = processes.spawn(self._program)
        return self

    def __exit__(self, *_: object) -> None:
        processes.stop(self._process, self._program)

    def restart(self) -> float:
        """End it by SIGTERM, start it again, and return how many seconds it took to end."""
        began = time.monotonic()
        processes.stop(self._process, self._program)
        seconds = time.monotonic() - began
        self._process = processes.spawn(self._program)
        return seconds


def until(condition: Callable[[], Any], seconds: float, *, pause: float = 0.1) -> Any:
    """Wait until a condition holds and return what it gave."""
    end = time.monotonic() + seconds
    while not (value := condition()):
        assert time.monotonic() < end, f"It did not happen within {seconds} s."
        time.sleep(pause)
    return value


def _temporary_folder() -> tempfile.TemporaryDirectory[str]:
    return tempfile.TemporaryDirectory(prefix="seedancee2-chaos-", ignore_cleanup_errors=True)


def _children(pid: int) -> list[psutil.Process]:
    try:
        return psutil.Process(pid).children()
    except psutil.NoSuchProcess:
        return []
