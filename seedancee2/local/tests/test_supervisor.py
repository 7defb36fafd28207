"""The supervisor, with stand-ins for the real programs."""

import contextlib
import os
import signal
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

from seedancee2.local.processes import Program
from seedancee2.local.supervisor import Stopping, Supervisor

_NOTES_SIGTERM = """
import signal, sys, time
def note(*_):
    open(sys.argv[1], "a").write(sys.argv[2] + "\\n"); sys.exit()
signal.signal(signal.SIGTERM, note)
print("ready", flush=True)
time.sleep(60)
"""


class Screen:
    """What was printed, by whom."""

    def __init__(self) -> None:
        self.lines: list[tuple[str, str]] = []

    def say(self, name: str, line: str) -> None:
        self.lines.append((name, line))


@pytest.fixture
def screen() -> Screen:
    return Screen()


@pytest.fixture
def supervisor(screen: Screen) -> Iterator[Supervisor]:
    with Supervisor(screen.say) as programs:
        yield programs


def program(name: str, code: str, *arguments: str) -> Program:
    return Program(name=name, command=[sys.executable, "-c", code, *arguments], folder=Path.cwd(), stop_seconds=5)


def test_a_command_hands_on_its_lines_and_its_exit_status(supervisor: Supervisor) -> None:
    lines: list[str] = []

    status = supervisor.run(
        program("command", "print('one'); print('two ü', end=''); raise SystemExit(3)"), lines.append
    )

    assert (status, lines) == (3, ["one", "two ü"])


def test_who_dies_is_started_again_and_it_is_said(supervisor: Supervisor, screen: Screen) -> None:
    supervisor.start(program("fragile", "import os; print(os.getpid(), flush=True); import time; time.sleep(60)"))
    assert supervisor.wait_until(lambda: len(screen.lines) == 1, seconds=5)

    os.kill(int(screen.lines[0][1]), signal.SIGKILL)

    assert supervisor.wait_until(lambda: len(screen.lines) == 3, seconds=5)
    assert screen.lines[1] == ("run", "fragile ended (killed by SIGKILL): starting it again in 1 s")
    assert screen.lines[2][0] == "fragile"
    assert screen.lines[2][1] != screen.lines[0][1]


def test_a_command_that_cannot_start_is_tried_again_later(
    supervisor: Supervisor, screen: Screen, tmp_path: Path
) -> None:
    script = tmp_path / "script"
    script.write_text("#!/bin/sh\necho $$; exec sleep 60\n")
    script.chmod(0o700)
    supervisor.start(Program(name="moved", command=[str(script)], folder=tmp_path))
    assert supervisor.wait_until(lambda: bool(screen.lines), seconds=5)
    away = script.rename(tmp_path / "away")

    os.kill(int(screen.lines[0][1]), signal.SIGKILL)
    assert supervisor.wait_until(lambda: any("could not be started" in line for _, line in screen.lines), seconds=5)
    away.rename(script)

    assert supervisor.wait_until(lambda: screen.lines[-1][0] == "moved", seconds=5)


def test_the_last_started_are_stopped_first_and_nothing_is_left(screen: Screen, tmp_path: Path) -> None:
    notes = tmp_path / "notes"
    before = set(psutil.Process().children(recursive=True))
    with contextlib.suppress(Stopping), Supervisor(screen.say) as supervisor:
        supervisor.start(program("database", _NOTES_SIGTERM, str(notes), "database"))
        supervisor.start(
            program("web", _NOTES_SIGTERM, str(notes), "web"),
            Program(name="family", command=["/bin/sh", "-c", "sleep 60 & echo ready; wait"], folder=tmp_path),
        )
        assert supervisor.wait_until(lambda: len(screen.lines) == 3, seconds=5)
        threading.Timer(0.1, os.kill, (os.getpid(), signal.SIGTERM)).start()
        supervisor.wait(10)

    assert notes.read_text().split() == ["web", "database"]
    assert screen.lines[-2:] == [("run", "stopping web, family"), ("run", "stopping database")]
    assert set(psutil.Process().children(recursive=True)) <= before


def test_who_does_not_stop_in_time_is_killed(screen: Screen, tmp_path: Path) -> None:
    stubborn = Program(
        name="stubborn",
        command=["/bin/sh", "-c", "trap '' TERM; echo ready; while :; do sleep 0.1; done"],
        folder=tmp_path,
        stop_seconds=0.5,
    )
    started_at = time.monotonic()
    with Supervisor(screen.say) as supervisor:
        supervisor.start(stubborn)
        supervisor.wait_until(lambda: bool(screen.lines), seconds=5)

    assert screen.lines[-1] == ("run", "stubborn did not stop in time: killed")
    assert time.monotonic() - started_at < 5
