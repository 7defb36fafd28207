"""The real servers, started and stopped from their wheels."""

import contextlib
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import psutil
import psycopg
import pytest
import redis

from seedancee2.local import postgres, processes, servers, valkey
from seedancee2.local.servers import Server


@contextlib.contextmanager
def running(server: Server) -> Iterator[subprocess.Popen[bytes]]:
    process = processes.spawn(server.program)
    try:
        deadline = time.monotonic() + 10
        while not server.is_ready():
            assert process.poll() is None, server.last_words()
            assert time.monotonic() < deadline, server.last_words()
            time.sleep(0.02)
        yield process
    finally:
        processes.stop(process, server.program)


@pytest.fixture
def awkward_folder(tmp_path: Path) -> Path:
    """A folder with a space, letters of other alphabets, and a name longer than any Unix socket's."""
    folder = tmp_path / "a folder" / ("ünï код " + "long" * 40)
    folder.mkdir(parents=True)
    return folder


def test_postgres_keeps_its_data_address_and_password_over_a_restart(awkward_folder: Path) -> None:
    server = postgres.prepare(awkward_folder / "postgres", is_durable=False)
    with running(server), psycopg.connect(server.url, autocommit=True) as connection:
        connection.execute("CREATE TABLE kept (word text)")
        connection.execute("INSERT INTO kept VALUES ('Zürich')")

    again = postgres.prepare(awkward_folder / "postgres", is_durable=False)
    with running(again), psycopg.connect(again.url) as connection:
        assert connection.execute("SELECT word FROM kept").fetchall() == [("Zürich",)]
    assert again.url == server.url


def test_postgres_refuses_who_lacks_the_password_and_survives_a_kill(awkward_folder: Path) -> None:
    server = postgres.prepare(awkward_folder / "postgres", is_durable=False)
    with running(server) as process:
        with pytest.raises(psycopg.OperationalError, match="password"):
            psycopg.connect(server.url.replace(":", ":wrong", 2).replace(":wrong", ":", 1))
        with socket.socket() as outside:
            assert outside.connect_ex((_outer_address(), int(server.url.rpartition(":")[2].partition("/")[0]))) != 0
        process.kill()

    again = postgres.prepare(awkward_folder / "postgres", is_durable=False)
    assert (awkward_folder / "postgres" / "data" / "postmaster.pid").exists()
    with running(again):
        pass


def test_postgres_is_no_victim_of_another_program_with_its_old_number(awkward_folder: Path) -> None:
    server = postgres.prepare(awkward_folder / "postgres", is_durable=False)
    lock = awkward_folder / "postgres" / "data" / "postmaster.pid"
    lock.write_text(f"{os.getpid()}\n")

    with running(server):
        assert psutil.pid_exists(os.getpid())


def test_valkey_keeps_its_data_and_wants_its_password(awkward_folder: Path) -> None:
    server = valkey.prepare(awkward_folder / "valkey")
    with running(server), redis.Redis.from_url(server.url) as client:
        client.set("kept", "yes")
        assert client.info("memory")["maxmemory_policy"] == "noeviction"
        with socket.create_connection(("127.0.0.1", client.get_connection_kwargs()["port"])) as stranger:
            stranger.sendall(b"PING\r\n")
            assert stranger.recv(64).startswith(b"-NOAUTH")

    again = valkey.prepare(awkward_folder / "valkey")
    with running(again), redis.Redis.from_url(again.url) as client:
        assert client.get("kept") == b"yes"
    assert again.url == server.url


def test_a_taken_port_is_left_to_who_has_it(tmp_path: Path) -> None:
    before = servers.access(tmp_path)
    with socket.socket() as other:
        other.bind(("127.0.0.1", before.port))
        other.listen()
        after = servers.access(tmp_path)

    assert after.port != before.port
    assert after.password == before.password
    assert servers.access(tmp_path) == after


@pytest.mark.skipif(not Path("/proc").exists(), reason="only Linux ends children with their parent")
def test_no_server_outlives_a_killed_parent(tmp_path: Path) -> None:
    code = (
        "import sys, time; from pathlib import Path; from seedancee2.local import processes, valkey;"
        "print(processes.spawn(valkey.prepare(Path(sys.argv[1])).program).pid, flush=True); time.sleep(60)"
    )
    parent = subprocess.Popen([sys.executable, "-c", code, str(tmp_path)], stdout=subprocess.PIPE, text=True)
    assert parent.stdout
    server = psutil.Process(int(parent.stdout.readline()))
    parent.send_signal(signal.SIGKILL)
    parent.wait()
    parent.stdout.close()

    deadline = time.monotonic() + 5
    while server.is_running() and server.status() != psutil.STATUS_ZOMBIE:  # in a container nobody may collect it
        assert time.monotonic() < deadline
        time.sleep(0.05)


def _outer_address() -> str:
    """Give an address of this machine that is not the loopback's, where it has one."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        try:
            probe.connect(("192.0.2.1", 9))  # sends nothing: only asks which address would be ours
        except OSError:
            return "127.0.0.2"
        return str(probe.getsockname()[0])
