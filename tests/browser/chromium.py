"""The browser that tests and screenshots drive: the system's Chromium, or the one that playwright has installed."""

import contextlib
import os
import shutil
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


@contextlib.contextmanager
def launched(path: str) -> Iterator[Browser]:
    """Run a browser without a window."""
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=path, args=["--no-sandbox"])
        try:
            yield browser
        finally:
            browser.close()
