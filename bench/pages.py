"""`python -m bench.pages`: what the main pages cost a browser that comes for the first time, on this machine.

Bytes and requests as they go over the wire, and the time to the first contentful paint: medians of cold loads, each in
a browser context of its own, from the system as `make run` starts it. A proxy in front that compresses sends less.
"""

import statistics
import sys
import tempfile
from pathlib import Path
from typing import Any, Final

from playwright.sync_api import Browser, Page

from tests.browser import chromium
from tests.local_system import LocalSystem

PAGES: Final = ("/", "/docs", "/console/", "/console/tasks/")
LOADS: Final = 7
PASSWORD: Final = "correct horse battery staple"
_MEASURE: Final = """() => new Promise(done => {
    const told = () => {
        const all = [...performance.getEntriesByType('navigation'), ...performance.getEntriesByType('resource')];
        const paint = performance.getEntriesByName('first-contentful-paint')[0];
        const sum = (one, two) => one + two;
        done({
            requests: all.length,
            wire: all.map(entry => entry.transferSize).reduce(sum, 0),
            content: all.map(entry => entry.decodedBodySize).reduce(sum, 0),
            answer: all[0].responseStart,
            paint: paint ? paint.startTime : -1,
        });
    };
    setTimeout(told, 300);
})"""


def measure(browser: Browser, base_url: str, path: str, state: Any) -> dict[str, float]:
    """Return the medians of a page's loads, each with an empty cache."""
    loads: list[dict[str, float]] = []
    for _ in range(LOADS):
        context = browser.new_context(base_url=base_url, storage_state=state)
        page = context.new_page()
        page.goto(path, wait_until="networkidle")
        loads.append(page.evaluate(_MEASURE))
        context.close()
    return {name: statistics.median(load[name] for load in loads) for name in loads[0]}


def sign_up(page: Page) -> None:
    """Make an account with an organization of its own."""
    page.goto("/accounts/signup/")
    page.get_by_label("Your name").fill("Paula Page")
    page.get_by_label("E-mail address").fill("pages@example.com")
    page.get_by_role("textbox", name="Password").fill(PASSWORD)
    page.get_by_role("button", name="Create account").click()
    page.wait_for_url("**/console/**")


def main() -> None:
    """Start the system, measure, print the table."""
    try:
        path = chromium.find()
    except chromium.NoChromium as missing:
        sys.exit(str(missing))
    with tempfile.TemporaryDirectory(prefix="seedancee2-pages-") as folder:
        system = LocalSystem(Path(folder) / "seedancee2")
        try:
            base_url = system.start()["base_url"]
            with chromium.launched(path) as browser:
                context = browser.new_context(base_url=base_url)
                sign_up(context.new_page())
                state = context.storage_state()
                sizes, times = f"{'KiB sent':>10}{'unpacked':>10}", f"{'first byte':>12}{'first paint':>13}"
                print(f"{'page':<18}{'requests':>10}{sizes}{times}")
                for address in PAGES:
                    found = measure(browser, base_url, address, state if address.startswith("/console/") else None)
                    sizes = f"{found['wire'] / 1024:>10.1f}{found['content'] / 1024:>10.1f}"
                    times = f"{found['answer']:>9.0f} ms{found['paint']:>10.0f} ms"
                    print(f"{address:<18}{found['requests']:>10.0f}{sizes}{times}")
        finally:
            system.stop()


if __name__ == "__main__":
    main()
