"""`make screenshots`: every page, light and dark, wide and narrow, as PNG files in var/screenshots.

It runs a copy of this checkout with a demo customer who has videos, so what is seen is what a customer sees. A page
that no application serves yet is passed over; one that answers with an error ends the run with its address.
"""

import dataclasses
import json
import re
import shutil
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import requests
from playwright.sync_api import Browser, Page

from seedancee2.local.state import VAR
from tests.browser import chromium
from tests.local_system import LocalSystem

FOLDER = VAR / "screenshots"
WIDTHS = {"wide": (1280, 900), "narrow": (390, 844)}
SCHEMES = ("light", "dark")
DEMO = ("demo@example.com", "correct horse battery staple")

# Names of files and addresses of pages for everybody.
OPEN = [
    ("landing", "/"),
    ("docs", "/docs"),
    ("docs-api", "/docs/api"),
    ("pricing", "/pricing"),
    ("status", "/status"),
    ("errors", "/errors"),
    ("changelog", "/changelog"),
    ("not-found", "/no-such-page"),
    ("sign-in", "/accounts/login/"),
    ("sign-up", "/accounts/signup/"),
    ("password-reset", "/accounts/password/reset/"),
    ("password-reset-sent", "/accounts/password/reset/done/"),
    ("password-reset-expired", "/accounts/password/reset/key/1-expired/"),
    ("verification-sent", "/accounts/confirm-email/"),
    ("confirm-expired", "/accounts/confirm-email/expired/"),
    ("inactive", "/accounts/inactive/"),
]
# Of the signed-in the names of addresses, as the URL map has them; `console-task` takes the id of a task.
SIGNED_IN = [
    "console-home",
    "console-tasks",
    "console-task",
    "console-playground",
    "console-keys",
    "console-usage",
    "console-billing",
    "console-webhooks",
    "console-members",
    "console-audit",
    "console-settings",
    "account_profile",
    "account_email",
    "account_change_password",
    "usersessions_list",
    "mfa_index",
    "mfa_activate_totp",
    "mfa_list_webauthn",
    "mfa_add_webauthn",
    "account_logout",
]

# Of the staff; `{organization}`, `{key}` and `{task}` are those of the demo customer, `{channel}` is the sandbox.
STAFF = [
    ("staff-front", "/admin/"),
    ("staff-organizations", "/admin/accounts/organization/"),
    ("staff-organization", "/admin/accounts/organization/{organization}/change/"),
    ("staff-issue-key", "/admin/accounts/organization/{organization}/issue-key/"),
    ("staff-note", "/admin/accounts/organization/{organization}/note/"),
    ("staff-revoke-all", "/admin/accounts/organization/{organization}/revoke-all/"),
    ("staff-suspend", "/admin/accounts/organization/{organization}/suspend/"),
    ("staff-act-as", "/admin/accounts/organization/{organization}/act-as/"),
    ("staff-adjust", "/admin/billing/creditaccount/{organization}/adjust/"),
    ("staff-key", "/admin/accounts/apikey/{key}/change/"),
    ("staff-revoke", "/admin/accounts/apikey/{key}/revoke/"),
    ("staff-task", "/admin/generations/generation/{task}/change/"),
    ("staff-audit", "/admin/accounts/auditentry/"),
    ("staff-search", "/admin/search/?q=demo"),
    ("staff-tasks", "/admin/generations/generation/"),
    ("staff-refund", "/admin/generations/generation/{task}/refund/"),
    ("staff-jobs", "/admin/providers/upstreamjob/"),
    ("staff-channels", "/admin/providers/channel/"),
    ("staff-channel", "/admin/providers/channel/{channel}/change/"),
    ("staff-drain", "/admin/providers/channel/{channel}/drain/"),
    ("staff-test-call", "/admin/providers/channel/{channel}/test-call/"),
    ("staff-routes", "/admin/providers/route/"),
    ("staff-rates", "/admin/billing/rate/"),
    ("staff-rate", "/admin/billing/rate/add/"),
    ("staff-accounts", "/admin/billing/creditaccount/"),
    ("staff-ledger", "/admin/billing/ledgerentry/"),
    ("staff-adjustments", "/admin/billing/adjustment/"),
    ("staff-top-ups", "/admin/billing/topuprequest/"),
    ("staff-findings", "/admin/billing/finding/"),
    ("staff-deliveries", "/admin/webhooks/delivery/"),
    ("staff-endpoints", "/admin/webhooks/endpoint/"),
    ("staff-callbacks", "/admin/webhooks/callback/"),
    ("staff-people", "/admin/accounts/user/"),
    ("staff-groups", "/admin/auth/group/"),
]
VISITED = [
    ("visit-home", "/console/"),
    ("visit-billing", "/console/billing/"),
    ("visit-refused", "/console/playground/"),
]

_FIND = """
import json
from django.urls import NoReverseMatch, reverse
found = {{}}
for name in {names!r}:
    for arguments in ([], [{task_id!r}]):
        try:
            found[name] = reverse(name, args=arguments)
        except NoReverseMatch:
            continue
print(json.dumps(found))
"""

_MAKE_CUSTOMER = """
from accounts.models import Membership, Organization, User
user = User.objects.create_user({email!r}, {password!r}, name="Demo Customer")
demo = Organization.objects.get(name="demo")
Membership.objects.create(user=user, organization=demo, role="owner")
staff = User.objects.filter(is_superuser=True).first()
from accounts import notes
from billing import adjustments, topups
notes.write(organization=demo, author=staff, text="Pays by invoice, thirty days.\\nCall Ada before a change of prices.")
adjustments.request(organization_id=demo.pk, amount=50_000, reason="Purchase: invoice 7", requested_by="user:0")
topups.ask(organization_id=demo.pk, amount=5_000, note="for the launch in June", asked_by=user)
from providers.models import Channel
print(demo.pk, demo.api_keys.first().pk, Channel.objects.get(name="sandbox").pk)
"""


@dataclasses.dataclass(frozen=True, slots=True)
class Shot:
    """A page to photograph."""

    name: str
    address: str


def take(browser: Browser, base_url: str, addresses: dict[str, str]) -> int:
    """Write every picture, and return how many."""
    count = 0
    for scheme in SCHEMES:
        page = browser.new_context(base_url=base_url, color_scheme=scheme).new_page()  # type: ignore[arg-type]
        count += sum(_photograph(page, Shot(*entry), scheme) for entry in OPEN)
        _sign_in(page, *DEMO)
        count += sum(_photograph(page, Shot(*entry), scheme) for entry in addresses.items())
        page.context.close()
    return count


def take_of_staff(browser: Browser, run: dict[str, Any], base_url: str, addresses: dict[str, str]) -> int:
    """Write the pictures of the staff's pages and of what a visitor sees, and return how many."""
    count = 0
    person = (run["staff_email"], run["staff_password"])
    for scheme in SCHEMES:
        page = browser.new_context(base_url=base_url, color_scheme=scheme).new_page()  # type: ignore[arg-type]
        _sign_in(page, *person)
        count += sum(_photograph(page, Shot(*entry), scheme) for entry in addresses.items())
        page.goto(addresses["staff-adjust"])
        page.get_by_label("Amount").fill("20000")
        page.locator("select[name=kind]").select_option("Goodwill")
        page.get_by_label("In words").fill("a slow week")
        page.get_by_role("button", name="Show what it does").click()
        page.get_by_text("Available afterwards").wait_for()
        count += _shoot(page, Shot("staff-adjust-preview", page.url), scheme)
        page.goto(addresses["staff-act-as"])
        page.get_by_label("Reason").fill("for a picture")
        page.get_by_role("button", name="Look as customer").click()
        count += sum(_photograph(page, Shot(*entry), scheme) for entry in VISITED)
        page.context.close()
    return count


def _photograph(page: Page, shot: Shot, scheme: str) -> int:
    reply = page.goto(shot.address, wait_until="networkidle")
    status = reply.status if reply else 0
    if status == 404 and shot.name != "not-found":
        print(f"  {shot.address} is not served yet")
        return 0
    if status >= 400 and status != 404 and shot.name != "visit-refused":
        raise SystemExit(f"{shot.address} answers {status}.")
    return _shoot(page, shot, scheme)


def _shoot(page: Page, shot: Shot, scheme: str) -> int:
    for width, (across, down) in WIDTHS.items():
        page.set_viewport_size({"width": across, "height": down})
        page.screenshot(path=FOLDER / f"{shot.name}-{scheme}-{width}.png", full_page=True)
        _hold_to_width(page, shot, across)
    return len(WIDTHS)


def _hold_to_width(page: Page, shot: Shot, across: int) -> None:
    needed = page.evaluate("document.documentElement.scrollWidth")
    if needed > across:
        print(f"  {shot.address} is {needed} pixels wide on a screen of {across}")


def _sign_in(page: Page, email: str, password: str) -> None:
    page.goto("/accounts/login/")
    page.get_by_label("E-mail address").fill(email)
    page.get_by_role("textbox", name="Password").fill(password)
    page.get_by_role("button", name="Sign in", exact=True).click()
    page.wait_for_url(re.compile("/console/"))
    # The pages of the second factor ask for the password once more.
    page.goto("/accounts/reauthenticate/?next=/accounts/2fa/")
    page.get_by_role("textbox", name="Password").fill(password)
    page.get_by_role("button", name="Confirm").click()
    page.wait_for_url(re.compile("/2fa/"))


def _make_videos(run: dict[str, Any]) -> str:
    """Make one of each: completed, failed, and still at work; return the id of the completed one."""
    headers = {"Authorization": f"Bearer {run['api_key']}"}
    address = f"{run['base_url']}/v1/videos/generations"
    ids = []
    for prompt in (
        "A drone shot of waves breaking against black rocks",
        "[sandbox:fail] A storm",
        "[sandbox:delay=600] Clouds",
    ):
        body = {"model": "mini", "input": {"prompt": prompt, "duration": 5, "resolution": "480p"}}
        reply = requests.post(address, headers=headers, json=body, timeout=30)
        reply.raise_for_status()
        ids.append(str(reply.json()["data"]["id"]))
    end = time.monotonic() + 60
    while time.monotonic() < end:
        state = requests.get(f"{address}/{ids[0]}", headers=headers, timeout=30).json()["data"]["status"]
        if state in ("completed", "failed"):
            return ids[0]
        time.sleep(0.5)
    raise SystemExit("The demo customer's video was not made within a minute.")


def main() -> None:
    """Start the system, take the pictures, stop it."""
    try:
        path = chromium.find()
    except chromium.NoChromium as missing:
        sys.exit(str(missing))
    shutil.rmtree(FOLDER, ignore_errors=True)
    FOLDER.mkdir(parents=True)
    with tempfile.TemporaryDirectory(prefix="seedancee2-screenshots-") as folder:
        system = LocalSystem(Path(folder) / "seedancee2")
        try:
            run = system.start()
            make = _MAKE_CUSTOMER.format(email=DEMO[0], password=DEMO[1])
            organization, key, channel = system.manage("shell", "-v", "0", "-c", make).splitlines()[-1].split()
            task_id = _make_videos(run)
            find = _FIND.format(names=SIGNED_IN, task_id=task_id)
            known = {"organization": organization, "key": key, "task": task_id, "channel": channel}
            of_staff = {name: address.format(**known) for name, address in STAFF}
            addresses = json.loads(system.manage("shell", "-v", "0", "-c", find).splitlines()[-1])
            for name in SIGNED_IN:
                if name not in addresses:
                    print(f"  {name} is not served yet")
            with chromium.launched(path) as browser:
                base_url = run["base_url"].replace("127.0.0.1", "localhost")
                count = take(browser, base_url, addresses) + take_of_staff(browser, run, base_url, of_staff)
        finally:
            system.stop()
    print(f"{count} pictures in {FOLDER}")


if __name__ == "__main__":
    main()
