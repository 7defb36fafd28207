"""The walk of a newcomer and of a company, from the sign-up to the video, the cap and the webhook."""

import re
import subprocess
import time
from typing import Any

import pytest
import requests
from playwright.sync_api import Browser, Page, expect

from tests.browser.test_accounts import PASSWORD, set_up_the_app, sign_up
from tests.local_system import LocalSystem
from tests.receivers import Received, Receiver

pytestmark = [pytest.mark.browser, pytest.mark.xdist_group("browser")]

VIDEO = {"model": "mini", "input": {"prompt": "waves", "duration": 4, "resolution": "480p"}}
PRICE = 20  # of one such video: 4 s at 5 credits
SECONDS = 90  # of patience with a busy machine


def issue_key(page: Page, name: str, *, mode: str = "Live", cap: int | None = None) -> str:
    """Issue a key on the page and return what it shows once."""
    page.goto("/console/keys/")
    page.get_by_label("Name", exact=True).fill(name)
    page.locator("form[data-once]").get_by_label("Mode", exact=True).select_option(label=mode)
    if cap is not None:
        page.get_by_label("Credits a month").fill(str(cap))
    page.get_by_role("button", name="Issue key").click()
    return page.locator("#new-key").inner_text()


def create(base_url: str, key: str, **changes: Any) -> requests.Response:
    headers = {"Authorization": f"Bearer {key}"}
    return requests.post(f"{base_url}/v1/videos/generations", json=VIDEO | changes, headers=headers, timeout=30)


def task_at(base_url: str, key: str, task_id: str) -> dict[str, Any]:
    headers = {"Authorization": f"Bearer {key}"}
    reply = requests.get(f"{base_url}/v1/videos/generations/{task_id}", headers=headers, timeout=30)
    data: dict[str, Any] = reply.json()["data"]
    return data


def await_end(base_url: str, key: str, task_id: str) -> dict[str, Any]:
    end = time.monotonic() + SECONDS
    while (task := task_at(base_url, key, task_id))["status"] in ("pending", "processing"):
        assert time.monotonic() < end, task
        time.sleep(0.5)
    return task


def await_request(receiver: Receiver, number: int) -> Received:
    end = time.monotonic() + SECONDS
    while len(receiver.received("/hook")) < number:
        assert time.monotonic() < end, receiver.requests
        time.sleep(0.2)
    return receiver.received("/hook")[number - 1]


def await_delivery(base_url: str, key: str, task_id: str) -> None:
    """Wait until the outcome of a task's webhook is written, which comes after the receiver has seen it."""
    headers, end = {"Authorization": f"Bearer {key}"}, time.monotonic() + SECONDS
    address = f"{base_url}/v1/webhooks/deliveries?task={task_id}"
    while (row := requests.get(address, headers=headers, timeout=30).json()["data"][0])["state"] != "delivered":
        assert time.monotonic() < end, row
        time.sleep(0.2)


def test_from_the_sign_up_to_the_video_in_the_page(page: Page, base_url: str) -> None:
    sign_up(page, "walker@example.com", "Wanda Walker")
    expect(page.get_by_role("heading", name="First steps")).to_be_visible()
    key = issue_key(page, "first", mode="Test")
    assert key.startswith("sk_seedancee2_test_")

    # The very line of the page, with the key in the place of the x's.
    page.goto("/console/")
    line = page.locator(".code pre").first.inner_text().replace("sk_seedancee2_test_xxxxx", key)
    done = subprocess.run(["bash", "-c", f"{line} -sS"], capture_output=True, text=True, timeout=30, check=True)
    (task_id,) = re.findall(r'"id":"(vid_\w+)"', done.stdout)

    page.goto("/console/tasks/")
    page.locator(f"a[href*='/console/tasks/{task_id}/']").first.click()
    video = page.locator("video")
    expect(video).to_be_visible(timeout=SECONDS * 1000)  # the page follows the task by itself
    assert video.evaluate(
        """async video => {
            video.muted = true;
            await video.play();
            await new Promise(done => { video.ontimeupdate = () => { if (video.currentTime > 0.2) done(); } });
            return video.currentTime > 0 && video.videoWidth > 0;
        }"""
    )


def test_the_playground_makes_a_video_without_leaving_the_page(page: Page) -> None:
    sign_up(page, "player@example.com", "Pia Player")
    page.goto("/console/playground/")
    expect(page.get_by_text("Free", exact=True)).to_be_visible()
    page.get_by_label("Prompt").fill("A lighthouse in the rain")
    page.get_by_role("button", name="Make video").click()
    expect(page.locator("video")).to_be_visible(timeout=SECONDS * 1000)
    page.get_by_label("Live: charges credits").check()
    expect(page.get_by_text("50 credits", exact=False).first).to_be_visible()


def test_a_company_invites_an_admin_demands_a_second_factor_and_has_a_key_that_stops_at_its_cap(
    browser: Browser, page: Page, base_url: str, system: LocalSystem
) -> None:
    sign_up(page, "owner@example.com", "Northwind")
    page.goto("/console/members/")
    invited = "admin@example.com"
    page.get_by_label("E-mail").fill(invited)
    page.get_by_label("Role", exact=True).select_option(label="Admin")
    page.get_by_role("button", name="Send invitation").click()
    expect(page.get_by_text(invited).first).to_be_visible()
    path = re.findall(r"/console/invitations/[\w-]+/", system.output)[-1]

    context = browser.new_context(base_url=base_url)
    admin = context.new_page()
    admin.goto(path)
    admin.get_by_role("link", name="Create an account").click()
    expect(admin.get_by_label("E-mail address")).to_have_value(invited)
    admin.get_by_label("Your name").fill("Ada Admin")
    admin.get_by_role("textbox", name="Password").fill(PASSWORD)
    admin.get_by_role("button", name="Create account").click()
    expect(admin.get_by_role("link", name="Members")).to_be_visible()
    key = issue_key(admin, "capped", cap=2 * PRICE + 1)

    page.goto("/accounts/2fa/")
    set_up_the_app(page)
    page.goto("/console/settings/")
    page.get_by_label("Every member needs a second factor").check()
    page.get_by_role("button", name="Save").click()
    expect(page.get_by_text("The settings are saved.")).to_be_visible()
    admin.goto("/console/keys/")
    expect(admin.get_by_text("Northwind asks everyone who enters for a second factor.")).to_be_visible()
    set_up_the_app(admin)
    admin.goto("/accounts/2fa/")
    admin.get_by_role("link", name="Go to the console").click()
    expect(admin.get_by_role("link", name="Members")).to_be_visible()
    context.close()

    assert [create(base_url, key).status_code for _ in range(3)] == [201, 201, 402]
    refusal = create(base_url, key).json()["error"]
    assert refusal["code"] == "insufficient_credits"
    assert "cap" in refusal["message"]


def test_a_key_is_rolled_and_revoked(page: Page, base_url: str) -> None:
    sign_up(page, "roller@example.com", "Rolf Roller")
    old = issue_key(page, "rolled", mode="Test")
    page.goto("/console/keys/")
    page.get_by_role("link", name="rolled", exact=True).click()
    page.get_by_role("link", name=re.compile("Roll")).first.click()
    page.get_by_role("button", name="Roll key").click()
    new = page.locator("#new-key").inner_text()
    assert [create(base_url, key).status_code for key in (old, new)] == [201, 201]

    page.goto("/console/keys/")
    page.get_by_role("row").filter(has_text=new[-4:]).get_by_role("link", name="rolled", exact=True).click()
    page.get_by_role("link", name=re.compile("Revoke")).first.click()
    page.get_by_role("textbox").last.fill("rolled")
    page.get_by_role("button", name="Revoke key").click()
    expect(page.get_by_text("is revoked. Requests with it get 401 now.")).to_be_visible()
    assert [create(base_url, key).status_code for key in (old, new)] == [201, 401]


def test_a_webhook_is_sent_again_and_usage_is_what_the_api_says(page: Page, base_url: str) -> None:
    sign_up(page, "hook@example.com", "Hanna Hook")
    key = issue_key(page, "hooked")
    with Receiver() as receiver:
        task_id = create(base_url, key, callback_url=receiver.url("/hook")).json()["data"]["id"]
        await_end(base_url, key, task_id)
        page.goto("/console/webhooks/")
        page.locator("a[href*='/console/webhooks/deliveries/dlv_']").first.click()
        first = await_request(receiver, 1)
        await_delivery(base_url, key, task_id)
        page.get_by_role("button", name=re.compile("Send it")).click()
        expect(page.get_by_text("It is being sent again.")).to_be_visible()
        again = await_request(receiver, 2)
    assert again.body == first.body
    assert again.headers["x-seedancee2-delivery"] == first.headers["x-seedancee2-delivery"]
    assert again.headers["x-seedancee2-attempt"] == "2"

    told = requests.get(f"{base_url}/v1/usage", headers={"Authorization": f"Bearer {key}"}, timeout=30).json()["data"]
    page.goto("/console/usage/")
    tiles = dict(
        zip(page.locator("dl.tiles dt").all_inner_texts(), page.locator("dl.tiles dd").all_inner_texts(), strict=True)
    )
    shown = (tiles["Tasks"], tiles["Completed"], tiles["Net credits"])
    summary = told["summary"]
    assert shown == tuple(str(summary[name]) for name in ("total_jobs", "completed_jobs", "net_credits"))
    assert shown == ("1", "1", str(PRICE))
