"""A copy of this checkout, run as a newcomer would run it."""

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

from seedancee2.local import servers
from seedancee2.local.state import ROOT

_SET_BY_TESTS = (
    "DATABASE_URL",
    "REDIS_URL",
    "SECRET_KEY",
    "MEDIA_STORAGE_URL",
    "MEDIA_BASE_URL",
    "PUBLIC_BASE_URL",
    "OUTBOUND_ALLOWED_HOSTS",
    "ALLOWED_HOSTS",
    "LOCAL_MODE",
    "DEBUG",
)
_LEFT_OUT = (".venv", ".git", "var", "__pycache__", ".*_cache", ".hypothesis", "bench")


class LocalSystem:
    """What `make run` starts, in a folder of its own."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        shutil.copytree(ROOT, folder, ignore=shutil.ignore_patterns(*_LEFT_OUT))
        self.environment = {name: value for name, value in os.environ.items() if name not in _SET_BY_TESTS}
        self.environment |= {"PORT": str(servers.free_port()), "WEB_CONCURRENCY": "1"}
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def output(self) -> str:
        """All that was printed."""
        return (self.folder / "output").read_text(errors="replace")

    def start(self, *, seconds: float = 90, **environment: str) -> dict[str, Any]:
        """Start, wait until `var/run.json` is there, and return its content."""
        with (self.folder / "output").open("ab") as output:
            self._process = subprocess.Popen(
                [sys.executable, "-m", "seedancee2.local.run"],
                cwd=self.folder,
                env=self.environment | environment,
                stdout=output,
                stderr=subprocess.STDOUT,
                stdin=subprocess.DEVNULL,
                start_new_session=True,
            )
        run_file = self.folder / "var" / "run.json"
        end = time.monotonic() + seconds
        while not run_file.exists():
            assert self._process.poll() is None, self.output
            assert time.monotonic() < end, self.output
            time.sleep(0.1)
        facts: dict[str, Any] = json.loads(run_file.read_text())
        return facts

    def manage(self, *arguments: str) -> str:
        """Run a management command against the running system, with nothing configured, and return its output."""
        result = subprocess.run(
            [sys.executable, "manage.py", *arguments],
            cwd=self.folder,
            env=self.environment,
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )
        assert result.returncode == 0, result.stderr
        return result.stdout

    def stop(self) -> int:
        """Send SIGTERM as a service manager would, and return the exit status."""
        if self._process is None:
            return 0
        self._process.send_signal(signal.SIGTERM)
        return self._process.wait(timeout=60)
