"""The staff at work in a browser: a key, an adjustment by two, a refund, a channel drained, a look as the customer."""

import contextlib
import json
import re
from collections.abc import Iterator
from typing import Any

import pytest
from playwright.sync_api import Browser, Page, expect
from playwright.sync_api import Error as PlaywrightError

from tests.browser.test_accounts import PASSWORD, fill_in_sign_in
from tests.browser.test_walk import await_end, create
from tests.local_system import LocalSystem

pytestmark = [pytest.mark.browser, pytest.mark.xdist_group("browser")]

_MAKE_STAFF = """
from django.contrib.auth.models import Group
from accounts.models import Organization, User
for name, group in (("sue", "support"), ("fay", "finance"), ("fred", "finance"), ("olga", "operations")):
    user = User.objects.create_user(f"{name}@seedancee2.example", %r, is_staff=True)
    user.groups.set([Group.objects.get(name=group)])
print(Organization.objects.get(name="demo").pk)
"""
_AUDIT = """
import json
from accounts.models import AuditEntry
rows = AuditEntry.objects.filter(actor_name__endswith="@seedancee2.example").order_by("pk")
print(json.dumps(list(rows.values_list("actor_name", "action", "reason"))))
"""


@pytest.fixture(scope="module")
def organization(run: dict[str, Any], system: LocalSystem) -> str:
    """The demo customer's page, and four of the staff."""
    number = system.manage("shell", "-v", "0", "-c", _MAKE_STAFF % PASSWORD).splitlines()[-1]
    return f"/admin/accounts/organization/{number}/change/"


@contextlib.contextmanager
def staff(browser: Browser, base_url: str, name: str) -> Iterator[Page]:
    """Somebody of the staff at a browser of their own, in which nothing is refused and nothing fails."""
    context = browser.new_context(base_url=base_url)
    context.set_default_timeout(15_000)
    page = context.new_page()
    complaints: list[str] = []
    page.on("pageerror", lambda error: complaints.append(str(error)))
    page.on("console", lambda told: complaints.append(f"{told.text} {told.location}") if told.type == "error" else None)
    fill_in_sign_in(page, f"{name}@seedancee2.example")
    page.wait_for_url(re.compile("/console/"))
    yield page
    context.close()
    assert complaints == []


def test_the_staff_work_for_a_customer_and_each_step_is_noted(
    browser: Browser, base_url: str, run: dict[str, Any], system: LocalSystem, organization: str
) -> None:
    task_id = create(base_url, run["api_key"]).json()["data"]["id"]

    with staff(browser, base_url, "sue") as page:
        page.goto(organization)
        page.get_by_role("link", name="Issue key").click()
        page.get_by_label("Name").fill("by hand")
        page.get_by_label("Reason").fill("lost theirs")
        page.get_by_role("button", name="Issue key").click()
        secret = page.locator("#new-key").inner_text()
        assert re.fullmatch(r"sk_seedancee2_live_[0-9A-Za-z]{38}", secret)
        assert secret not in page.url
        page.get_by_role("link", name="I have stored it").click()
        expect(page.get_by_text("by hand").first).to_be_visible()
        assert secret not in page.content()
        # The browser has not kept the page that showed it.
        with pytest.raises(PlaywrightError, match="ERR_CACHE_MISS"):
            page.go_back()
    assert secret not in system.output

    with staff(browser, base_url, "fay") as page:
        page.goto(organization)
        page.get_by_role("link", name="Adjust credits").click()
        page.get_by_label("Amount").fill("20000")
        page.locator("select[name=kind]").select_option("Purchase")
        page.get_by_label("In words").fill("invoice 2026-117")
        page.get_by_role("button", name="Show what it does").click()
        expect(page.get_by_text("it waits until a second person approves it")).to_be_visible()
        page.get_by_role("button", name="Ask for approval").click()
        page.wait_for_url(re.compile("/billing/adjustment/"))
        waiting = page.url
        page.get_by_role("link", name="Approve").click()
        page.get_by_role("button", name="Approve this adjustment").click()
        expect(page.get_by_text("Somebody else than who asked for it")).to_be_visible()
        before = _available(page, organization)

    await_end(base_url, run["api_key"], task_id)
    with staff(browser, base_url, "fred") as page:
        page.goto(waiting)
        page.get_by_role("link", name="Approve").click()
        page.get_by_role("button", name="Approve this adjustment").click()
        expect(page.get_by_text("the credits have moved")).to_be_visible()
        assert _available(page, organization) == before + 20_000
        page.goto(f"/admin/generations/generation/{task_id}/change/")
        page.get_by_role("link", name="Refund").click()
        page.get_by_label("Amount").fill("7")
        page.get_by_label("Reason").fill("flicker")
        page.get_by_role("button", name="Refund").click()
        expect(page.get_by_text("Refund: done.")).to_be_visible()
        assert _available(page, organization) == before + 20_007

    with staff(browser, base_url, "olga") as page:
        page.goto("/admin/providers/channel/")
        page.get_by_role("link", name="sandbox", exact=True).click()
        for verb in ("Drain", "Activate"):
            page.get_by_role("link", name=verb).click()
            page.get_by_label("Reason").fill("their status page is red")
            page.get_by_role("button", name=verb).click()
            page.wait_for_url(re.compile("/change/"))

    with staff(browser, base_url, "sue") as page:
        page.goto(organization)
        page.get_by_role("link", name="Look as customer").click()
        page.get_by_label("Reason").fill("they cannot find their bill")
        page.get_by_role("button", name="Look as customer").click()
        banner = page.get_by_role("complementary", name="Visit")
        for path in ("/console/", "/console/billing/", f"/console/tasks/{task_id}/"):
            page.goto(path)
            expect(banner).to_contain_text("You look at the console as demo. Nothing can be changed")
        expect(page.locator("video")).to_be_visible()
        assert page.request.get("/console/playground/").status == 403
        page.get_by_role("button", name="Stop").click()
        page.wait_for_url(re.compile("/change/"))
        page.goto("/console/")
        expect(banner).to_have_count(0)
        expect(page.get_by_text("demo", exact=True)).to_have_count(0)

    noted = json.loads(system.manage("shell", "-v", "0", "-c", _AUDIT).splitlines()[-1])
    assert [(name.partition("@")[0], action, reason) for name, action, reason in noted] == [
        ("sue", "key.issued", "lost theirs"),
        ("fay", "credits.adjustment_requested", "Purchase: invoice 2026-117"),
        ("fred", "credits.adjustment_approved", "Purchase: invoice 2026-117"),
        ("fred", "credits.adjusted", "Purchase: invoice 2026-117"),
        ("fred", "task.refunded", "flicker"),
        ("olga", "channel.state", "their status page is red"),
        ("olga", "channel.state", "their status page is red"),
        ("sue", "console.opened_by_staff", "they cannot find their bill"),
        ("sue", "console.left_by_staff", "they cannot find their bill"),
    ]


def _available(page: Page, organization: str) -> int:
    page.goto(organization)
    tile = page.locator("a.staff-tile", has_text="credits available")
    return int(tile.locator("strong").inner_text().replace(",", ""))
