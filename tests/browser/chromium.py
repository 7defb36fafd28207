"""The browser that tests and screenshots drive: the system's Chromium, or the one that playwright has installed.

Run as a program it installs one where there is none and that may be done: `python -m tests.browser.chromium`.
"""

import contextlib
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator

from playwright.sync_api import Browser, sync_playwright

_NAMES = ("chromium", "chromium-browser", "google-chrome")


class NoChromium(Exception):
    """There is no browser to drive."""


def find() -> str:
    """Return the path of a browser.

    Raises:
        NoChromium: none is installed; the message says how to.
    """
    for path in filter(None, map(shutil.which, _NAMES)):
        return path
    with sync_playwright() as playwright:
        path = playwright.chromium.executable_path
    if os.path.exists(path):
        return path
    raise NoChromium("No Chromium here: run `playwright install --with-deps chromium`, or `apt-get install chromium`.")


def install() -> bool:
    """Tell whether there is a browser; where there was none, one is installed first, by apt as root, else for us."""
    ways = [[sys.executable, "-m", "playwright", "install", "chromium"]]
    if os.geteuid() == 0 and shutil.which("apt-get"):
        ways.insert(0, ["apt-get", "install", "-y", "--no-install-recommends", "chromium"])
    for way in [[], *ways]:
        with contextlib.suppress(OSError, subprocess.TimeoutExpired):
            if way:
                print(f"no Chromium here; trying `{' '.join(way)}`", flush=True)
                subprocess.run(way, capture_output=True, check=False, timeout=300)
        with contextlib.suppress(NoChromium):
            find()
            return True
    print("no Chromium here and none could be installed: the browser tests are left out", flush=True)
    return False


@contextlib.contextmanager
def launched(path: str) -> Iterator[Browser]:
    """Run a browser without a window."""
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=path, args=["--no-sandbox"])
        try:
            yield browser
        finally:
            browser.close()


if __name__ == "__main__":
    sys.exit(0 if install() else 1)
