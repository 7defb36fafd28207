"""Runs programs in the foreground: prefixes what they print, starts again what dies, and stops all in good order."""

from __future__ import annotations

import dataclasses
import os
import selectors
import signal
import subprocess
import time
from collections.abc import Callable

from seedancee2.local import processes
from seedancee2.local.processes import Program
from seedancee2.local.state import CannotStart

_TICK_SECONDS = 0.25
_LONGEST_BACKOFF_SECONDS = 10
_STEADY_SECONDS = 30  # who ran this long has earned a quick start again
_LONGEST_LINE = 65_536
_SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


class Stopping(BaseException):
    """Someone asked to stop; like KeyboardInterrupt, no ordinary handler may swallow it."""


class _Child:
    """A program and the process that runs it at the moment, if one does."""

    def __init__(self, program: Program) -> None:
        self.program = program
        self.process: subprocess.Popen[bytes] | None = None
        self.started_at = 0.0
        self.start_again_at = 0.0
        self.deaths = 0
        self.unfinished_line = b""


class Supervisor:
    """Programs that belong together, started in order and stopped in reverse, all from one thread.

    One thread, because the system ends a child when the thread that started it ends.
    """

    def __init__(self, say: Callable[[str, str], None]) -> None:
        """Print through `say(name, line)`."""
        self._say = say
        self._stages: list[list[_Child]] = []
        self._selector = selectors.DefaultSelector()
        self._handlers: dict[signal.Signals, object] = {}
        self._stop_requests = 0
        self._stop_requested_at = 0.0

    def __enter__(self) -> Supervisor:
        """Turn Ctrl-C, SIGTERM and a closed terminal into an orderly stop."""
        for number in _SIGNALS:
            if number != signal.SIGHUP or signal.getsignal(number) != signal.SIG_IGN:  # ignored: someone said nohup
                self._handlers[number] = signal.signal(number, self._request_stop)
        return self

    def __exit__(self, *_: object) -> None:
        """Stop everything, whatever happened."""
        try:
            self._stop()
        finally:
            for number, handler in self._handlers.items():
                signal.signal(number, handler)  # type: ignore[arg-type]
            self._selector.close()

    def start(self, *programs: Program) -> None:
        """Start programs and keep them running; they are stopped before those of an earlier call."""
        children = [_Child(program) for program in programs]
        self._stages.append(children)
        for child in children:
            self._check()
            self._spawn(child)

    def run(self, program: Program, say: Callable[[str], None]) -> int:
        """Run a command to its end, hand on its output line by line, and give its exit status."""
        child = _Child(dataclasses.replace(program, is_kept=False))
        self._stages.append([child])
        process = self._spawn(child, say)
        while process.poll() is None:
            self.wait(0.05)
        self._bury(child)
        self._stages.remove([child])
        return process.returncode

    def wait(self, seconds: float) -> None:
        """Let the programs run: hand on their output, start again what died; raise Stopping when asked to stop."""
        end = time.monotonic() + seconds
        while True:
            self._check()
            self._read(min(_TICK_SECONDS, max(0.0, end - time.monotonic())))
            for stage in self._stages:
                for child in stage:
                    self._revive(child)
            if time.monotonic() >= end:
                return

    def wait_until(self, condition: Callable[[], bool], *, seconds: float) -> bool:
        """Let the programs run until a condition holds; tell whether it came to hold in time."""
        end = time.monotonic() + seconds
        while not condition():
            if time.monotonic() >= end:
                return False
            self.wait(0.05)
        return True

    def _request_stop(self, *_: object) -> None:
        now = time.monotonic()
        if now - self._stop_requested_at > 1:  # `make` hands on a signal that we had already: that is one request
            self._stop_requests += 1
        self._stop_requested_at = now

    def _check(self) -> None:
        if self._stop_requests:
            raise Stopping

    def _spawn(self, child: _Child, say: Callable[[str], None] | None = None) -> subprocess.Popen[bytes]:
        child.process = processes.spawn(child.program)
        child.started_at = time.monotonic()
        if child.process.stdout:
            os.set_blocking(child.process.stdout.fileno(), False)
            hand_on = say or (lambda line: self._say(child.program.name, line))
            self._selector.register(child.process.stdout, selectors.EVENT_READ, (child, hand_on))
        return child.process

    def _revive(self, child: _Child) -> None:
        now = time.monotonic()
        if child.process and child.process.poll() is not None and child.program.is_kept:
            status = child.process.returncode
            self._bury(child)
            child.deaths = 1 if now - child.started_at > _STEADY_SECONDS else child.deaths + 1
            self._delay(child, f"ended ({_ending(status)})")
        elif child.process is None and now >= child.start_again_at:
            try:
                self._spawn(child)
            except (OSError, CannotStart) as error:
                child.deaths += 1
                self._delay(child, f"could not be started ({error})")

    def _delay(self, child: _Child, what: str) -> None:
        seconds = min(2 ** (child.deaths - 1), _LONGEST_BACKOFF_SECONDS)
        child.start_again_at = time.monotonic() + seconds
        where = f"; its last words are in {child.program.log}" if child.program.log else ""
        self._say("run", f"{child.program.name} {what}: starting it again in {seconds} s{where}")

    def _read(self, seconds: float) -> None:
        for key, _ in self._selector.select(seconds):
            self._read_one(key)

    def _read_one(self, key: selectors.SelectorKey) -> bool:
        """Hand on the lines that are there; tell whether more may follow at once."""
        child, hand_on = key.data
        try:
            data = os.read(key.fd, _LONGEST_LINE)
        except BlockingIOError:
            return False
        *lines, child.unfinished_line = (child.unfinished_line + data).split(b"\n")
        if child.unfinished_line and (not data or len(child.unfinished_line) >= _LONGEST_LINE):
            lines.append(child.unfinished_line)
            child.unfinished_line = b""
        for line in lines:
            hand_on(line.decode(errors="replace"))
        if not data:
            self._selector.unregister(key.fileobj)
        return bool(data)

    def _bury(self, child: _Child) -> None:
        """Read what an ended process still had to say, and end what it left behind."""
        process, child.process = child.process, None
        if process is None:
            return
        processes.sweep(process)
        if process.stdout:
            key = self._selector.get_map().get(process.stdout)
            while key and self._read_one(key):
                pass
            if process.stdout in self._selector.get_map():
                self._selector.unregister(process.stdout)
            process.stdout.close()

    def _stop(self) -> None:
        for stage in reversed(self._stages):
            running = [(child, child.process) for child in stage if child.process]
            requests = self._stop_requests
            started_at = time.monotonic()
            if running:
                self._say("run", "stopping " + ", ".join(child.program.name for child, _ in running))
            for child, process in running:
                process.send_signal(child.program.stop_signal)
            while pending := [(child, process) for child, process in running if process.poll() is None]:
                self._read(_TICK_SECONDS)
                for child, process in pending:
                    is_late = time.monotonic() - started_at > child.program.stop_seconds
                    if is_late or self._stop_requests > max(requests, 1):  # asked again: no more patience
                        self._say("run", f"{child.program.name} did not stop in time: killed")
                        process.kill()
                        process.wait()
            for child, _ in running:
                self._bury(child)


def _ending(status: int) -> str:
    if status < 0:
        return f"killed by {signal.Signals(-status).name}"
    return f"exit status {status}"
