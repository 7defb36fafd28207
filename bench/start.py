"""How long until `make run` serves? Run: python -m bench.start.

In a copy of this checkout: cold, with no data yet, and warm, a second time on the data of the first. Installing the
requirements is not part of it.
"""

import contextlib
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from bench import load, system
from seedancee2.local import environment
from seedancee2.local.state import ROOT


def main() -> None:
    """Measure and print one table."""
    with tempfile.TemporaryDirectory(prefix="start-") as name:
        copy = Path(name)
        copy.chmod(0o755)  # the database's user passes through
        _copy(copy)
        times = {"cold": _start(copy), "warm": _start(copy)}
    print(f"\nfrom `make run` until everything is ready{system.loaded()}")
    for kind, (seconds, cpu) in times.items():
        print(f"{kind:<14}{seconds:>9.1f} s{cpu:>9.1f} CPU seconds")


def _copy(folder: Path) -> None:
    listed = subprocess.run(
        ["git", "ls-files", "-co", "--exclude-standard", "-z"], cwd=ROOT, capture_output=True, text=True, check=True
    ).stdout
    for path in filter(None, listed.split("\0")):
        if (ROOT / path).is_file():
            (folder / path).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(ROOT / path, folder / path)


def _start(folder: Path) -> tuple[float, float]:
    port = environment.free_port()
    given = {name: value for name, value in os.environ.items() if not name.endswith("_URL")}
    began = time.monotonic()
    with (folder / "run.log").open("ab") as log:
        process = subprocess.Popen(
            [sys.executable, "-m", "seedancee2.local.run"],
            cwd=folder,
            env={**given, "PORT": str(port)},
            stdout=log,
            stderr=log,
            start_new_session=True,
        )
    try:
        while not (folder / "var" / "run.json").exists():  # written once /readyz says so
            if process.poll() is not None or time.monotonic() - began > 300:
                raise SystemExit((folder / "run.log").read_text()[-3000:])
            time.sleep(0.05)
        seconds = time.monotonic() - began
        load.await_health(port)
        return seconds, system._cpu_seconds(process.pid)
    finally:
        with contextlib.suppress(ProcessLookupError):
            process.send_signal(signal.SIGINT)
        process.wait(60)


if __name__ == "__main__":
    main()
