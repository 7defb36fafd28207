"""axe finds nothing on any page that links lead to: signed out and signed in, wide in light and narrow in dark."""

import json
import re
from collections import deque
from urllib.parse import urldefrag, urlsplit

import pytest
from axe_playwright_python.sync_playwright import Axe
from playwright.sync_api import Browser, Page

from tests.browser.test_accounts import say_that_it_is_you, sign_up
from tests.browser.test_walk import create, issue_key

pytestmark = [pytest.mark.browser, pytest.mark.xdist_group("browser")]

# What may differ on the second look: colours, and what is only there or only hidden on a narrow screen.
LOOKS = (
    ({"width": 1280, "height": 900}, "light", {"resultTypes": ["violations"]}),
    (
        {"width": 390, "height": 844},
        "dark",
        {"resultTypes": ["violations"], "runOnly": ["color-contrast", "scrollable-region-focusable"]},
    ),
)
ID = re.compile(r"\d{4}-\d\d|[a-z]{3}_[0-9a-z]{26}|\d+")
# Files, and the two readers of the OpenAPI document, whose elements are their makers' (/docs tells the same).
FILES = re.compile(r"\.(csv|md|txt|json)$|^/docs/api(/try)?$|^/(static|media|admin|v1)/")
SIGNED_OUT = (
    *("/accounts/password/reset/", "/accounts/password/reset/done/", "/accounts/confirm-email/"),
    *("/accounts/password/reset/key/1-expired/", "/accounts/confirm-email/expired/", "/accounts/inactive/"),
)
SIGNED_IN = ("/accounts/2fa/totp/activate/", "/accounts/2fa/webauthn/add/", "/accounts/password/change/")


def look(page: Page, address: str) -> dict[str, list[str]]:
    """Return what axe finds on a page: by address, scheme and rule the elements that break it."""
    page.goto(address)
    found = {}
    for size, scheme, options in LOOKS:
        page.set_viewport_size(size)  # type: ignore[arg-type] # playwright's own kind of dict
        page.emulate_media(color_scheme=scheme)  # type: ignore[arg-type] # one of its literals
        page.evaluate("for (const one of document.querySelectorAll('details.more')) one.open = true")
        for violation in Axe().run(page, options=options).response["violations"]:
            elements = [node["html"] for node in violation["nodes"]]
            found[f"{address} in {scheme}: {violation['id']}"] = elements
    return found


def crawl(page: Page, beginning: tuple[str, ...], seen: set[str]) -> dict[str, list[str]]:
    """Look at every page that links lead to and that was not seen yet, and return what axe finds."""
    waiting, found = deque(beginning), dict[str, list[str]]()
    seen |= {ID.sub("*", urlsplit(address).path) for address in beginning}
    while waiting:
        found |= look(page, waiting.popleft())
        for link in page.evaluate("[...document.links].filter(a => a.host === location.host).map(a => a.href)"):
            there = urldefrag(link).url
            path = ID.sub("*", urlsplit(there).path)
            if path not in seen and not FILES.search(path):
                seen.add(path)
                waiting.append(there)
    return found


def test_axe_finds_nothing(browser: Browser, page: Page, base_url: str) -> None:
    seen = {"/console/", "/console/billing/", "/console/webhooks/"}  # which lead to the sign-in, for now
    found = crawl(page, ("/", *SIGNED_OUT), seen)
    seen = {path for path in seen if not path.startswith("/console/")}
    sign_up(page, "axe@example.com", "Axe")
    key = issue_key(page, "looked at")
    assert create(base_url, key, callback_url="https://example.com/hook").status_code == 201
    page.goto("/console/members/")
    page.get_by_label("E-mail").fill("invited@example.com")
    page.get_by_role("button", name="Send invitation").click()
    page.goto("/accounts/2fa/totp/activate/")
    say_that_it_is_you(page)
    found |= crawl(page, ("/console/", *SIGNED_IN), seen)
    found |= look(browser.new_page(base_url=base_url), "/no-such-page")  # the browser complains of its status
    assert not found, json.dumps(found, indent=1)
    assert {"/console/tasks/*/delete/", "/console/webhooks/deliveries/*/", "/console/keys/*/roll/"} <= seen
