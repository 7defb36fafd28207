"""`make run` from its first line to the last, with stand-ins for what the servers are there for."""

import json
import os
import shutil
import signal
import socket
import stat
import subprocess
import sys
import time
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path

import psutil
import psycopg
import pytest

from seedancee2.local import servers, state

_MANAGE = """
import json, os, sys
if sys.argv[1] == "prepare_local":
    names = ("api_key", "test_key", "signing_secret", "staff_email", "staff_password")
    print(json.dumps({name: f"the {name}" for name in names}))
"""
_WEB = """
import http.server, os
class Handler(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        self.send_response(200)
        self.end_headers()
        self.wfile.write(str(os.getpid()).encode())
http.server.HTTPServer((os.environ["BIND"], int(os.environ["PORT"])), Handler).serve_forever()
"""


class Checkout:
    """A checkout of which only this folder is real."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        shutil.copytree(state.ROOT / "seedancee2" / "local", folder / "seedancee2" / "local")
        (folder / "seedancee2" / "__init__.py").touch()
        (folder / "manage.py").write_text(_MANAGE)
        (folder / "web.py").write_text(_WEB)
        (folder / "Procfile").write_text("web: python web.py\nworker: sleep 600\n")
        self.port = servers.free_port()
        self.started: list[subprocess.Popen[bytes]] = []

    def start(self, **environment: str) -> subprocess.Popen[bytes]:
        """Do what `make run` does, in this checkout."""
        names = ("DATABASE_URL", "REDIS_URL", "SECRET_KEY", "MEDIA_STORAGE_URL", "PUBLIC_BASE_URL", "MEDIA_BASE_URL")
        clean = {name: value for name, value in os.environ.items() if name not in names}
        with (self.folder / "output").open("ab") as output:
            process = subprocess.Popen(
                [sys.executable, "-m", "seedancee2.local.run"],
                cwd=self.folder,
                env=clean | {"PORT": str(self.port)} | environment,
                stdout=output,
                stderr=output,
            )
        self.started.append(process)
        return process

    def await_run(self) -> dict[str, str]:
        """Wait until the system is up, and give what it says of itself."""
        wait_for((self.folder / "var" / "run.json").exists)
        values: dict[str, str] = json.loads((self.folder / "var" / "run.json").read_text())
        return values

    def output(self) -> str:
        return (self.folder / "output").read_text()

    def web_process(self) -> int | None:
        try:
            with urllib.request.urlopen(f"http://127.0.0.1:{self.port}/", timeout=2) as response:
                return int(response.read())
        except OSError:
            return None

    def processes(self) -> list[psutil.Process]:
        """Find whatever runs in this checkout, whoever its parent is by now."""
        return [
            process
            for process in psutil.process_iter(["cwd"])
            if str(process.info["cwd"] or "").startswith(str(self.folder)) and process.pid != os.getpid()
        ]


def wait_for(condition: Callable[[], object]) -> None:
    deadline = time.monotonic() + 15
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.05)


@pytest.fixture
def checkout(tmp_path: Path) -> Iterator[Checkout]:
    made = Checkout(tmp_path / "a clone")
    yield made
    for process in made.started:
        if process.poll() is None:
            process.terminate()
            process.wait(30)


def test_a_run_from_the_first_line_to_the_last(checkout: Checkout) -> None:
    runner = checkout.start()
    run = checkout.await_run()
    assert set(run) == {
        *("base_url", "database_url", "redis_url"),
        *("api_key", "test_key", "signing_secret", "staff_email", "staff_password"),
    }
    assert run["base_url"] == f"http://127.0.0.1:{checkout.port}"
    assert {stat.S_IMODE(path.stat().st_mode) for path in checkout.folder.glob("var/*.json")} == {0o600}
    with psycopg.connect(run["database_url"], autocommit=True) as connection:
        connection.execute("CREATE TABLE kept (word text)")

    second = checkout.start()
    assert second.wait(10) == 1
    assert f"already runs in this checkout (process {runner.pid})" in checkout.output()

    killed = checkout.web_process()
    assert killed
    os.kill(killed, signal.SIGKILL)
    wait_for(lambda: checkout.web_process() not in {None, killed})
    assert "web ended (killed by SIGKILL): starting it again in 1 s" in checkout.output()

    runner.send_signal(signal.SIGINT)
    assert runner.wait(30) == 0
    assert checkout.processes() == []
    assert not (checkout.folder / "var" / "run.json").exists()

    # Again: the data, the addresses and the keys are as they were, even though this one ends by force.
    runner = checkout.start()
    again = checkout.await_run()
    assert again == run
    with psycopg.connect(again["database_url"]) as connection:
        assert connection.execute("SELECT count(*) FROM kept").fetchone() == (0,)
    runner.kill()
    runner.wait()
    if sys.platform == "linux":
        wait_for(lambda: checkout.processes() == [])


def test_nothing_embedded_starts_where_the_addresses_are_given(checkout: Checkout) -> None:
    checkout.start(DATABASE_URL="postgres://elsewhere/there", REDIS_URL="redis://elsewhere/3")

    run = checkout.await_run()

    assert (run["database_url"], run["redis_url"]) == ("postgres://elsewhere/there", "redis://elsewhere/3")
    assert not (checkout.folder / "var" / "postgres").exists()
    assert not (checkout.folder / "var" / "valkey").exists()


def test_a_busy_port_is_refused_before_anything_starts(checkout: Checkout) -> None:
    with socket.create_server(("127.0.0.1", checkout.port)):
        runner = checkout.start()
        assert runner.wait(10) == 1

    assert f"Cannot start: Port {checkout.port} on 127.0.0.1 is taken" in checkout.output()
    assert not (checkout.folder / "var" / "postgres").exists()
