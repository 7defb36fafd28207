"""What every browser test shares: one live system, as `make run` starts it, and a browser.

A module of browser tests says `pytestmark = [pytest.mark.browser, pytest.mark.xdist_group("browser")]`, so that one
process runs them all and starts one system.
"""

import os
from collections.abc import Iterator
from typing import Any

import pytest
from playwright.sync_api import Browser, Page, expect

from tests.browser import chromium
from tests.local_system import LocalSystem

expect.set_options(timeout=30_000)  # its own patience is five seconds, whatever the page's is


@pytest.fixture(scope="package")
def chromium_path() -> str:
    """Where the browser is; where none is installed the tests are skipped, and with CI=true they fail.

    BROWSER_TESTS=off says that none could be installed, and skips them there too.
    """
    try:
        return chromium.find()
    except chromium.NoChromium as missing:
        if os.environ.get("CI") == "true" and os.environ.get("BROWSER_TESTS") != "off":
            pytest.fail(str(missing))
        pytest.skip(str(missing))


@pytest.fixture(scope="module")
def browser(chromium_path: str) -> Iterator[Browser]:
    """A browser, closed after each module: while playwright runs, its event loop keeps the ORM from this thread."""
    with chromium.launched(chromium_path) as browser:
        yield browser


@pytest.fixture(scope="package")
def system(chromium_path: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[LocalSystem]:
    """The whole system in a folder of its own."""
    system = LocalSystem(tmp_path_factory.mktemp("browser") / "seedancee2")
    yield system
    system.stop()


@pytest.fixture(scope="package")
def run(system: LocalSystem) -> dict[str, Any]:
    """What `make run` prints: the address, keys and the staff's sign-in."""
    return system.start()


@pytest.fixture(scope="package")
def base_url(run: dict[str, Any]) -> str:
    """The system's address by the name localhost: browsers allow no passkey for a bare IP address."""
    url: str = run["base_url"]
    return url.replace("127.0.0.1", "localhost")


@pytest.fixture
def page(browser: Browser, base_url: str) -> Iterator[Page]:
    """A page of a browser that knows nothing yet; whatever the console or the policy complains of fails the test."""
    context = browser.new_context(base_url=base_url)
    context.set_default_timeout(15_000)
    page = context.new_page()
    complaints: list[str] = []
    page.on("pageerror", lambda error: complaints.append(str(error)))
    page.on("console", lambda message: complaints.append(message.text) if message.type == "error" else None)
    yield page
    context.close()
    assert complaints == []
