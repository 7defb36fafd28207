"""Child processes that never outlive the process which started them."""

from __future__ import annotations

import contextlib
import ctypes
import os
import pwd
import signal
import subprocess
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

_PR_SET_PDEATHSIG = 1
_libc = ctypes.CDLL(None) if sys.platform == "linux" else None  # loaded here: a forked child should load nothing


def _nothing() -> None:
    pass


@dataclass(frozen=True, kw_only=True)
class Program:
    """A command that runs until it is told to stop."""

    name: str
    command: list[str]
    folder: Path
    environment: Mapping[str, str] = field(default_factory=lambda: dict(os.environ))
    user: str | None = None  # another system user to run as, where we are root
    log: Path | None = None  # where its output goes; without one it goes to whoever started it
    stop_signal: signal.Signals = signal.SIGTERM
    stop_seconds: float = 25.0
    is_kept: bool = True  # started again when it ends
    before: Callable[[], None] = _nothing  # what must be done before each start


def spawn(program: Program) -> subprocess.Popen[bytes]:
    """Start a program in a session of its own, bound to the life of this process; call it from the main thread."""
    program.before()
    if program.log:
        with program.log.open("ab") as log:
            return _popen(program, log.fileno())
    return _popen(program, subprocess.PIPE)


def _popen(program: Program, output: int) -> subprocess.Popen[bytes]:
    return subprocess.Popen(  # noqa: S603 (the commands are the Procfile's and our own)
        program.command,
        cwd=program.folder,
        env=program.environment,
        stdin=subprocess.DEVNULL,
        stdout=output,
        stderr=subprocess.STDOUT,
        # Ctrl-C in a terminal reaches every process of the session: they must hear from us instead, in good order.
        start_new_session=True,
        preexec_fn=_die_with_parent(os.getpid(), program.stop_signal),  # noqa: PLW1509 (one thread; two bare calls)
        user=program.user,
        group=pwd.getpwnam(program.user).pw_gid if program.user else None,
        extra_groups=[] if program.user else None,
    )


def _die_with_parent(parent: int, stop_signal: signal.Signals) -> Callable[[], None]:
    """Make what a child does before its command: ask the system to stop it when its parent is gone, even by kill -9."""

    def ask() -> None:
        if _libc is None:
            return
        _libc.prctl(_PR_SET_PDEATHSIG, int(stop_signal))
        if os.getppid() != parent:  # it died in between
            os._exit(1)

    return ask


def sweep(process: subprocess.Popen[bytes]) -> None:
    """Kill what an ended program left behind in its process group."""
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.killpg(process.pid, signal.SIGKILL)


def stop(process: subprocess.Popen[bytes], program: Program) -> None:
    """Stop a program the way it likes best, and by force where that takes too long."""
    with contextlib.suppress(ProcessLookupError):
        process.send_signal(program.stop_signal)
    try:
        process.wait(program.stop_seconds)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()
    finally:
        sweep(process)
        if process.stdout:
            process.stdout.close()
