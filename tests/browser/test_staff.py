"""The staff's pages in a real browser: nothing that a customer or a provider wrote is ever run."""

import datetime as dt
from collections.abc import Iterator
from typing import Any
from urllib.parse import quote

import pytest
from django.contrib.auth.models import Group
from django.core.cache import cache
from django.db import connections
from django.test import Client
from django.urls import reverse
from playwright.sync_api import Browser, Dialog, Page, expect
from pytest_django.plugin import DjangoDbBlocker

from accounts.models import ApiKey, AuditEntry, Organization
from accounts.tests.factories import MembershipFactory, UserFactory, issue_key
from billing import adjustments, topups
from billing.models import BalanceAlert, CreditAccount, Finding, LedgerEntry, Reservation
from generations import lifecycle
from generations.models import Generation
from generations.tests.factories import create_generation, funded_organization
from providers.models import Channel, ChannelHealth, Route, SandboxRun, UpstreamCall, UpstreamJob
from seedancee2.console import staff_groups
from seedancee2.console.tests.test_staff_urls import ACTIONS, addresses, filled
from seedancee2.lib import clock
from tests import web
from webhooks.models import Callback, Delivery, DeliveryAttempt, Endpoint

pytestmark = [pytest.mark.django_db(transaction=True), pytest.mark.browser, pytest.mark.xdist_group("browser")]

HIT = "window.pwned=1"
PAYLOADS = [
    f"<script>{HIT}</script>",
    f"</script><script>{HIT}</script>",
    f"<ScRiPt>{HIT}</sCrIpT>",
    f"</pre><script>{HIT}</script>",
    f"</textarea><script>{HIT}</script>",
    f"</title><script>{HIT}</script>",
    f"--><script>{HIT}</script>",
    f"]]><script>{HIT}</script>",
    f"<img src=x onerror={HIT}>",
    f'"><img src=x onerror="{HIT}">',
    f"'><img src=x onerror='{HIT}'>",
    f"<svg onload={HIT}>",
    f"<svg><script>{HIT}</script></svg>",
    f"<body onload={HIT}>",
    f"<details open ontoggle={HIT}>",
    f"<input autofocus onfocus={HIT}>",
    f"<video><source onerror={HIT}></video>",
    f'<iframe srcdoc="<script>parent.{HIT}</script>"></iframe>',
    f"<object data=javascript:{HIT}></object>",
    f"<math><mtext><script>{HIT}</script></mtext></math>",
    f"<a href=javascript:{HIT} autofocus>x</a>",
    f"javascript:{HIT}",
    f"data:text/html,<script>parent.{HIT}</script>",
    f'" onmouseover="{HIT}" x="',
    f'" x-init="{HIT}" x-data="',
    f"' x-init='{HIT}' x-data='",
    f"<div x-data x-init={HIT}></div>",
    f"'}}; {HIT}; ({{a: '",
    f'<div hx-get="/" hx-trigger="load" hx-on::before-request="{HIT}"></div>',
    f"{{{{constructor.constructor('{HIT}')()}}}}",
    f"{{% if 1 %}}{HIT}{{% endif %}}",
    f"\\u003cscript\\u003e{HIT}\\u003c/script\\u003e",
    f"<style>@import 'javascript:{HIT}';</style>",
    f'<base href="javascript:{HIT}//">',
    f'<meta http-equiv="refresh" content="0;url=javascript:{HIT}">',
    f'<form action="javascript:{HIT}"><button autofocus>x</button></form>',
]


# Posts fields from the page itself, as a button of it would.
SEND = """fields => {
    const form = document.createElement('form');
    form.method = 'post';
    fields.csrfmiddlewaretoken = document.querySelector('[name=csrfmiddlewaretoken]').value;
    for (const [name, value] of Object.entries(fields)) {
        const input = document.createElement('input');
        [input.type, input.name, input.value] = ['hidden', name, value];
        form.append(input);
    }
    document.body.append(form);
    form.submit();
}"""


@pytest.fixture(scope="module")
def address(
    chromium_path: str,
    django_db_setup: None,
    django_db_blocker: DjangoDbBlocker,
    tmp_path_factory: pytest.TempPathFactory,
) -> Iterator[str]:
    """The server of production on the tests' database; where there is no browser, nothing is started."""
    with django_db_blocker.unblock(), web.server(tmp_path_factory.mktemp("staff") / "web.log") as base_url:
        yield base_url


@pytest.fixture(scope="module")
def driven(address: str, browser: Browser) -> Iterator[Browser]:
    """The browser; its driver runs a loop in this thread, which does nothing while a test speaks to the database."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("DJANGO_ALLOW_ASYNC_UNSAFE", "true")
        yield browser
        connections.close_all()  # opened beside the loop, they are not those that pytest closes


@pytest.fixture
def page(driven: Browser, address: str) -> Iterator[Page]:
    """A page of a browser that knows nothing yet; what it refused and what ran is kept in `window`."""
    cache.clear()
    context = driven.new_context(base_url=address)
    context.set_default_timeout(60_000)
    context.add_init_script(
        "window.refused = [];"
        "addEventListener('securitypolicyviolation', e => refused.push(`${e.violatedDirective} ${e.blockedURI} "
        "${e.sourceFile} ${e.sample}`));"
    )
    yield context.new_page()
    context.close()


def sign_in(page: Page, *, group: str = "") -> Any:
    """Sign somebody of the staff in: a superuser, or one of a group."""
    user = UserFactory.create(is_staff=True, is_superuser=not group)
    if group:
        staff_groups.ensure()
        user.groups.set([Group.objects.get(name=group)])
    client = Client()
    client.force_login(user)
    value = client.cookies["sessionid"].value
    page.context.add_cookies([{"name": "sessionid", "value": value, "domain": "127.0.0.1", "path": "/"}])
    return user


def plant() -> dict[str, Any]:
    """Write every payload into every field that a customer or a provider fills."""
    together = "\n".join(PAYLOADS)
    organization = funded_organization(100_000)
    Organization.objects.filter(pk=organization.pk).update(name=f"{PAYLOADS[0]} {PAYLOADS[9]}"[:120])
    channel = Channel.objects.get(name="sandbox")
    for payload in PAYLOADS:
        task = create_generation(
            organization, prompt=payload, metadata={payload: payload}, callback_url="https://customer.example/"
        )
        lifecycle.fail(public_id=task.pk, code=Generation.ErrorCode.GENERATION_FAILED)
        Generation.objects.filter(pk=task.pk).update(error_message=payload, callback_url=payload)
        Delivery.objects.filter(reference=task.pk).update(url=payload, host=payload)
    task = create_generation(
        organization,
        prompt=together,
        image_urls=tuple(PAYLOADS),
        metadata={payload: [payload] for payload in PAYLOADS} | {"customer_job_id": PAYLOADS[0]},
        callback_url="https://customer.example/",
    )
    done = web.complete(create_generation(organization, metadata=dict.fromkeys(PAYLOADS, "x")))
    lifecycle.fail(public_id=task.pk, code=Generation.ErrorCode.GENERATION_FAILED)
    Generation.objects.filter(pk=task.pk).update(callback_url=together, error_message=together[:500])
    UpstreamJob.objects.filter(reference=task.pk).update(
        status="failed", finished_at=clock.now(), channel=channel, upstream_id=PAYLOADS[8], error_detail=together
    )
    UpstreamJob.objects.exclude(reference=task.pk).update(error_detail=PAYLOADS[1])
    job = UpstreamJob.objects.get(reference=task.pk)
    for payload in PAYLOADS:
        UpstreamCall.objects.create(job=job, kind="submit", request=payload, response=payload)
    Callback.objects.create(
        job=job, body=b"x", body_sha256=b"x", verdict="forged", detail=together[:500], headers={together: together}
    )
    ChannelHealth.objects.create(channel=channel, open_until=clock.now(), reason="transient", detail=together)
    Finding.objects.create(rule=PAYLOADS[0][:60], subject=PAYLOADS[1], detail=together)
    delivery = Delivery.objects.get(reference=task.pk)
    Delivery.objects.filter(pk=delivery.pk).update(url=together, body=together.encode())
    for number, payload in enumerate(PAYLOADS, 1):
        DeliveryAttempt.objects.create(
            delivery=delivery,
            number=number,
            started_at=clock.now(),
            duration_ms=1,
            error=payload,
            response_excerpt=payload,
        )
    person = UserFactory.create(name=PAYLOADS[9])
    MembershipFactory.create(user=person, organization=organization)
    issue_key(organization)
    ApiKey.objects.update(name=PAYLOADS[9])
    asked = topups.ask(organization_id=organization.pk, amount=5, note=together[:500], asked_by=person)
    waiting = adjustments.request(
        organization_id=organization.pk, amount=10**6, reason=together[:500], requested_by="user:0", adjustment_id="a"
    )
    for number, payload in enumerate(PAYLOADS):
        adjustments.request(
            organization_id=organization.pk,
            amount=1,
            reason=payload,
            requested_by=f"user:{payload}"[:120],
            adjustment_id=f"a{number}",
        )
    later = clock.now() + dt.timedelta(minutes=20)
    Endpoint.objects.update(last_error=PAYLOADS[8], failing_since=clock.now(), paused_until=later)
    endpoint = Endpoint.objects.latest("pk")
    Endpoint.objects.filter(pk=endpoint.pk).update(origin=PAYLOADS[9])
    AuditEntry.objects.create(actor_name=PAYLOADS[0], action="x.y", target=task.pk, reason=together[:500])
    return {
        "accounts_apikey": ApiKey.objects.get(),
        "accounts_organization": organization,
        "accounts_user": person,
        "billing_adjustment": waiting,
        "billing_balancealert": BalanceAlert.objects.create(account_id=organization.pk, credits=1),
        "billing_creditaccount": CreditAccount.objects.get(pk=organization.pk),
        "billing_finding": Finding.objects.get(),
        "billing_ledgerentry": LedgerEntry.objects.filter(kind="adjust").latest("pk"),
        "billing_reservation": Reservation.objects.get(pk=done.pk),
        "billing_topuprequest": asked,
        "generations_generation": task,
        "providers_channel": channel,
        "providers_route": Route.objects.filter(channel=channel).first(),
        "providers_upstreamcall": UpstreamCall.objects.latest("pk"),
        "providers_upstreamjob": job,
        "webhooks_callback": Callback.objects.get(),
        "webhooks_delivery": delivery,
        "webhooks_endpoint": endpoint,
        "done": done,
    }


def test_nothing_that_others_wrote_runs_on_any_page(page: Page) -> None:
    assert len(PAYLOADS) >= 25
    sign_in(page)
    rows = plant()
    done = rows["done"]
    paths = ["/admin/", "/admin/billing/rate/add/", f"/admin/search/?q={rows['generations_generation'].pk}"]
    paths += [
        filled(pattern, name, rows)
        for pattern, name in addresses()
        if name in ACTIONS or str(name).endswith(("_changelist", "_change"))
        if "<" not in pattern or "_".join(pattern.split("/")[2:4]) in rows
        if name != "password_change"  # which leads out of the admin
    ]
    paths += [reverse(f"admin:generations_generation_{one}", args=[done.pk]) for one in ("change", "refund", "erase")]
    found: dict[str, Any] = {}

    def look(where: str) -> None:
        page.wait_for_function("window.Alpine && document.documentElement.hasAttribute('x-data')")
        seen = page.evaluate("({ran: window.pwned || 0, refused: window.refused})")
        if seen["ran"] or seen["refused"]:
            found[where] = seen

    def note_dialog(dialog: Dialog) -> None:
        found["dialog"] = dialog.message
        dialog.dismiss()

    page.on("dialog", note_dialog)
    assert len(paths) > 60
    for path in paths:
        reply = page.goto(path, wait_until="load")
        assert reply
        if reply.status == 200:
            look(path)
        else:
            assert (path, reply.status) == (
                reverse("admin:accounts_organization_reinstate", args=[rows["accounts_organization"].pk]),
                403,
            )
    for model, action, row in (
        ("generations/generation", "refund_selected", done),
        ("webhooks/delivery", "redeliver_selected", rows["webhooks_delivery"]),
        ("accounts/apikey", "revoke_selected", rows["accounts_apikey"]),
    ):
        page.goto(f"/admin/{model}/", wait_until="load")
        with page.expect_navigation(wait_until="load"):
            page.evaluate(SEND, {"action": action, "_selected_action": str(row.pk)})
        expect(page.get_by_role("link", name="Cancel")).to_be_visible()
        look(action)
    for payload in PAYLOADS:
        page.goto(f"/admin/search/?q={quote(payload)}", wait_until="load")
        assert page.input_value("#front-search") == payload.strip()
        look(payload)

    assert found == {}


def test_a_script_of_a_page_would_be_refused(page: Page) -> None:
    sign_in(page)
    page.goto("/admin/", wait_until="load")

    page.evaluate("document.body.insertAdjacentHTML('beforeend', '<img src=x onerror=\"window.pwned=1\">')")
    page.wait_for_function("window.refused.length > 0")

    assert page.evaluate("window.pwned || 0") == 0
    assert "script-src" in page.evaluate("window.refused.join()")
    policy = page.request.get("/admin/").headers["content-security-policy"]
    directives = [directive.strip() for directive in policy.split(";")]  # their order is nobody's
    assert "script-src 'self' 'unsafe-eval'" in directives
    assert "default-src 'none'" in directives


def test_a_test_call_tells_each_check(page: Page) -> None:
    sign_in(page, group="operations")
    route = Route.objects.get(channel__name="sandbox", model="mini", traffic="test")

    page.goto(reverse("admin:providers_channel_test_call", args=[route.channel_id]))
    page.get_by_label("Route").select_option(str(route.pk))
    page.get_by_label("Reason").fill("after the new key")
    page.get_by_role("button", name="Test call").click()
    page.get_by_text("Done.").wait_for()

    text = page.inner_text("#content")
    assert "a submission is accepted" in text
    assert "it succeeds" in text
    assert SandboxRun.objects.count() == 1
    assert UpstreamJob.objects.count() == 0
    assert AuditEntry.objects.get().action == "channel.tried"
