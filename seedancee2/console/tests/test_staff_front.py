"""The staff's front page, search, rates and page of a task: exact figures, few queries, and only what one may see."""

import datetime as dt
from decimal import Decimal

import pytest
from django.contrib.auth.models import Group, Permission
from django.core.cache import cache
from django.db import connection, transaction
from django.urls import reverse

from accounts import keys
from accounts.models import ApiKey, AuditEntry
from accounts.tests.factories import UserFactory, issue_key
from billing import adjustments, topups
from billing.models import Finding, Rate
from generations import lifecycle, reconciliation
from generations.models import Generation, ReconciliationRun
from generations.tests.factories import create_generation, funded_organization
from providers.models import Channel, ChannelHealth, Route, UpstreamCall, UpstreamJob
from seedancee2.console import staff_figures, staff_groups, staff_rates, staff_search
from seedancee2.lib import clock, heartbeats, ids
from seedancee2.lib.cache import Cache
from tests.web import complete
from webhooks.models import Callback, Delivery, DeliveryAttempt, Endpoint

pytestmark = pytest.mark.django_db

MOST_QUERIES = 12


@pytest.fixture(autouse=True)
def _nothing_is_kept() -> None:
    """Figures are kept for ten seconds, and another test may have counted them."""
    cache.clear()
    staff_groups.ensure()


@pytest.fixture
def superuser(client):
    """Somebody who may see everything, signed in."""
    user = UserFactory.create(is_staff=True, is_superuser=True)
    client.force_login(user)
    return user


def member(client, group):
    user = UserFactory.create(is_staff=True)
    user.groups.set([Group.objects.get(name=group)])
    client.force_login(user)
    return user


def test_the_front_page_counts_what_is_there():
    now = clock.now()
    organization = funded_organization(1_000)
    old, _, done, failed = (create_generation(organization, callback_url="https://a.example/") for _ in range(4))
    Generation.objects.filter(pk=old.pk).update(
        status="processing", created_at=now - dt.timedelta(minutes=70), deadline_at=now - dt.timedelta(minutes=10)
    )
    complete(done)
    lifecycle.fail(public_id=failed.pk, code=Generation.ErrorCode.GENERATION_FAILED)
    lifecycle.refund(public_id=done.pk, amount=5, actor="t", reason="r")
    Delivery.objects.filter(reference=done.pk).update(attempt_count=3)
    channel = Channel.objects.get(name="sandbox")
    UpstreamJob.objects.filter(reference=old.pk).update(
        status="submitting", channel=channel, submit_started_at=now - dt.timedelta(minutes=5)
    )
    ChannelHealth.objects.create(channel=channel, open_until=now + dt.timedelta(minutes=1), reason="transient")
    Finding.objects.create(rule="r", subject="s", detail="d")
    heartbeats.note(heartbeats.BEAT)

    figures = staff_figures.count()

    pending, processing = figures.tasks
    assert (pending.count, pending.five_minutes, pending.overdue) == (1, 0, 0)
    assert (processing.count, processing.quarter, processing.hour, processing.overdue) == (1, 1, 1, 1)
    assert [(lane.name, lane.waiting) for lane in figures.lanes] == [
        ("submit", 3),
        ("poll", 1),
        ("settle", 0),
        ("deliver", 2),
    ]
    assert figures.unknown_count == 1
    assert figures.webhooks == {"pending": 2, "failing": 1, "hosts": 1}
    (sandbox,) = figures.channels
    assert (sandbox.name, sandbox.open_count, sandbox.breaker, sandbox.reason) == ("sandbox", 1, "open", "transient")
    assert (figures.money["hold_count"], figures.money["held"], figures.money["findings"]) == (2, 40, 1)
    today = figures.days[-1]
    assert (today.sold, today.held, today.earned, today.returned) == (1_000, 80, 20, 25)
    assert len(figures.days) == staff_figures.DAYS_AT_ONCE
    assert figures.parts is not None
    assert figures.parts[heartbeats.BEAT] < 15


def test_provider_cost_stands_against_what_customers_paid(client):
    organization = funded_organization(1_000)
    channel = Channel.objects.get(name="sandbox")
    route = Route.objects.create(
        model="mini", traffic="live", channel=channel, upstream_model="m", cost_per_second=Decimal("1.5")
    )
    paid, refunded, late, failed, old, running = (create_generation(organization) for _ in range(6))
    for task in (paid, refunded, old):
        complete(task)
    lifecycle.refund(public_id=refunded.pk, amount=5, actor="t", reason="r")
    made = {"status": "succeeded", "upstream_id": "x", "finished_at": clock.now()}
    for task, values in (
        (paid, made),
        (refunded, made),
        (late, {"status": "failed", "finished_at": clock.now(), "late_at": clock.now()}),
        (failed, {"status": "failed", "finished_at": clock.now()}),
        (old, made | {"finished_at": clock.now() - dt.timedelta(days=2)}),
        (running, {"status": "running", "upstream_id": "x"}),
    ):
        unique = {"upstream_id": task.pk} if "upstream_id" in values else {}
        jobs = UpstreamJob.objects.filter(reference=task.pk)
        jobs.update(channel=channel, upstream_model="m", **(values | unique))

    (sandbox,) = staff_figures.count().channels

    # Three videos of four seconds were paid for, two of them by a customer, of which one got 5 of 20 credits back.
    assert (sandbox.made_seconds, sandbox.unpriced_seconds, sandbox.cost, sandbox.charged) == (
        12,
        0,
        Decimal("0.18"),
        35,
    )
    assert f"{sandbox.cents_per_credit:.3f}" == "0.514"
    route.delete()
    (sandbox,) = staff_figures.count().channels
    assert (sandbox.unpriced_seconds, sandbox.cost, sandbox.cents_per_credit) == (12, 0, None)
    for group in ("finance", "support", "operations"):
        member(client, group)
        page = client.get("/admin/").content.decode()
        assert ("Provider cost against charge" in page) == (group == "finance")
        assert ("without 12 s of unknown price" in page) == (group == "finance")


def test_a_hold_older_than_any_deadline_is_money_at_risk(settings):
    create_generation(funded_organization())
    assert staff_figures.count().money["old_count"] == 0

    settings.TASK_DEADLINE_SECONDS = -60  # as if a minute had gone by since the deadline
    money = staff_figures.count().money

    assert (money["old_count"], money["old"]) == (1, 20)


def test_the_days_come_a_few_with_each_look():
    counts = [len(staff_figures.count().days) for _ in range(12)]

    assert counts[0] == staff_figures.DAYS_AT_ONCE
    assert counts == sorted(counts)
    assert counts[-1] == staff_figures.DAYS


def test_a_day_that_is_over_is_summed_once():
    funded_organization(70)
    yesterday = clock.now().date() - dt.timedelta(days=1)
    figures = staff_figures.count()
    assert {day.date: day.sold for day in figures.days}[yesterday] == 0
    cache.set(f"staff:day:{yesterday}", staff_figures.Day(yesterday, sold=9))

    assert {day.date: day.sold for day in staff_figures.count().days}[yesterday] == 9


def test_reconciliation_tells_the_front_page_what_it_found():
    create_generation(funded_organization())
    reconciliation.report()

    money = staff_figures.count().money

    assert (money["found"], money["is_whole"]) == (0, False)
    assert ReconciliationRun.objects.count() == 1


@pytest.mark.parametrize("group", ["support", "finance", "operations"])
def test_the_front_page_needs_few_queries_and_shows_what_the_group_may_see(
    client, group, django_assert_max_num_queries
):
    create_generation(funded_organization())
    member(client, group)
    client.get("/admin/search/")  # once a minute a session is noted as seen

    with django_assert_max_num_queries(MOST_QUERIES):
        page = client.get("/admin/").content.decode()

    assert ("Money at risk" in page) == (group != "operations")
    assert ("Work that waits" in page) == (group != "finance")
    assert ("Credits by day" in page) == (group != "operations")
    assert ("/admin/providers/channel/" in page) == (group == "operations")


def test_every_figure_leads_to_a_page_that_opens(client, superuser):
    create_generation(funded_organization(), callback_url="https://a.example/")
    page = client.get("/admin/")
    urls = {tile.url for _, tiles in page.context["sections"] for tile in tiles if tile.url}

    assert len(urls) > 12
    statuses = {url: client.get(url).status_code for url in urls - {"/readyz"}}
    assert set(statuses.values()) == {200}, statuses


def test_the_front_page_comes_up_without_redis(client, superuser, settings, monkeypatch):
    settings.REDIS_URL = "redis://127.0.0.1:1/0"
    monkeypatch.setattr(cache._cache, "_servers", ["redis://127.0.0.1:1/0"])
    monkeypatch.setattr(cache._cache, "_pools", {})
    monkeypatch.setattr(Cache, "_asked_again_at", 0.0)

    page = client.get("/admin/")

    assert page.status_code == 200
    assert "no answer" in page.content.decode()


# --- Search ---


def found(client, term):
    groups = client.get("/admin/search/", {"q": term}).context["groups"]
    return {group.name: [result.url for result in group.results] for group in groups}


def test_everything_is_found_by_what_it_is_called(client, superuser):
    organization, stranger = funded_organization(), funded_organization()
    secret = issue_key(organization)
    person = UserFactory.create(email="ada@loom.example")
    task = create_generation(
        organization,
        callback_url="https://a.example/",
        metadata={"customer_job_id": "order 7", "n": 12, "deep": {"a": 1}},
    )
    other = create_generation(stranger, metadata={"customer_job_id": "order 8"})
    UpstreamJob.objects.filter(reference=task.pk).update(
        channel=Channel.objects.get(name="sandbox"), upstream_id="up_42", status="running"
    )
    complete(task)
    delivery = Delivery.objects.get()
    page = reverse("admin:generations_generation_change", args=[task.pk])

    assert found(client, task.pk) == {"Tasks": [page]}
    assert found(client, f"  {task.pk.upper()} ") == {"Tasks": [page]}
    assert found(client, "order 7") == {"Tasks by metadata": [page]}
    assert found(client, "12") == {"Tasks by metadata": [page]}
    assert found(client, "up_42") == {
        "Jobs at providers": [
            reverse("admin:providers_upstreamjob_change", args=[UpstreamJob.objects.get(reference=task.pk).pk])
        ]
    }
    assert found(client, delivery.pk) == {
        "Webhook deliveries": [reverse("admin:webhooks_delivery_change", args=[delivery.pk])]
    }
    assert found(client, "Ada@Loom.example") == {"People": [reverse("admin:accounts_user_change", args=[person.pk])]}
    assert found(client, organization.name.upper()) == {
        "Organizations": [reverse("admin:accounts_organization_change", args=[organization.pk])]
    }
    for term in (secret[-4:], f"…{secret[-4:]}", f"sk_seedancee2_live_…{secret[-4:]}", secret):
        assert list(found(client, term)) == ["API keys"], term
    endpoint = {"Endpoints": [reverse("admin:webhooks_endpoint_change", args=[Endpoint.objects.get().pk])]}
    for term in ("a.example", "a.example/hook", "https://a.example/", "https://A.example:443/hook?x"):
        assert found(client, term) == endpoint, term
    asked = topups.ask(organization_id=stranger.pk, amount=5, note="", asked_by=person)
    assert found(client, asked.pk) == {
        "Requests for credits": [reverse("admin:billing_topuprequest_change", args=[asked.pk])]
    }
    adjustments.request(
        organization_id=stranger.pk, amount=5, reason="r", requested_by="user:0", adjustment_id="payment 7"
    )
    assert found(client, "payment 7") == {
        "Adjustments": [reverse("admin:billing_adjustment_change", args=["payment 7"])]
    }
    for nothing in (
        "http://a.example",
        "https://[",
        "order",
        "order 7 ",
        "up_4",
        "'; --",
        "%",
        "\x00",
        "x" * 5_000,
        "vid_",
        other.pk[:-1],
    ):
        assert found(client, nothing) == ({"Tasks by metadata": [page]} if nothing == "order 7 " else {}), nothing


def test_a_pasted_key_is_shown_nowhere_again(client, superuser):
    organization, imported = funded_organization(), "customers:own_key+0123456789=="
    secret = issue_key(organization)
    ours = ApiKey.objects.get()
    theirs = keys.import_existing(organization=organization, name="old", secret=imported)
    issue_key(funded_organization())
    texts = (
        "{}",
        "Authorization: Bearer {}",
        "key={}",
        'curl -H "x-api-key: {}" https://a.example',
        "seen: '{}', twice: {}",
    )
    for known, key in ((secret, ours), (imported, theirs)):
        for text in texts:
            for send in (client.post, client.get):
                reply = send("/admin/search/", {"q": text.format(*[known] * 2)})
                page = reply.content.decode()
                assert known not in page, text
                assert f"{key.masked}" in page, text
                assert "whole API key" in page
                (group,) = reply.context["groups"]
                assert [one.url for one in group.results] == [reverse("admin:accounts_apikey_change", args=[key.pk])]
    page = client.get("/admin/").content.decode()
    assert page.count('method="post" role="search"') == 2


def test_what_is_no_key_here_or_only_the_beginning_of_one_is_told_apart(client, superuser):
    secret = issue_key(funded_organization())
    unknown = secret[:-5] + ("a" if secret[-5] != "a" else "b") + secret[-4:]

    page = client.post("/admin/search/", {"q": unknown})
    assert "No key here is this one" in page.content.decode()
    assert (unknown in page.content.decode(), page.context["groups"]) == (False, [])
    page = client.post("/admin/search/", {"q": f"it began with {secret[:30]}"})
    assert "the beginning of an API key" in page.content.decode()
    assert (secret[:30] in page.content.decode(), page.context["groups"]) == (False, [])


def test_who_may_see_no_keys_is_told_so_and_shown_none(client):
    secret = issue_key(funded_organization())
    member(client, "finance")

    page = client.post("/admin/search/", {"q": secret})

    assert "which you may not see" in page.content.decode()
    assert (secret in page.content.decode(), page.context["groups"]) == (False, [])


def test_a_request_id_leads_to_the_log(client, superuser):
    assert "request_id=req_" in client.get("/admin/search/", {"q": ids.new("req")}).content.decode()


@pytest.mark.parametrize(
    ("group", "names"),
    [("support", {"Tasks", "People"}), ("finance", {"Tasks"}), ("operations", {"Tasks"}), (None, set())],
)
def test_search_shows_nothing_that_one_may_not_see(client, group, names):
    person = UserFactory.create(email="ada@loom.example")
    task = create_generation(funded_organization())
    if group:
        member(client, group)
    else:
        client.force_login(UserFactory.create(is_staff=True))

    assert set(found(client, task.pk)) | set(found(client, person.email)) == names


def test_every_search_goes_by_an_index(client, superuser, django_assert_max_num_queries):
    create_generation(funded_organization(), metadata={"a": "b"})
    client.get("/admin/search/")  # once a minute a session is noted as seen
    with django_assert_max_num_queries(MOST_QUERIES):
        client.get("/admin/search/", {"q": "abcd"})
    with transaction.atomic(), connection.cursor() as cursor:
        cursor.execute("SET LOCAL enable_seqscan = off")  # for tables that were never written to
        # The planner takes every other table for one of a million rows: among few, any index would do.
        cursor.execute(
            "UPDATE pg_class SET reltuples = 1000000, relpages = 1"
            " WHERE relkind = 'r' AND relnamespace = 'public'::regnamespace AND relname ~ %s",
            ["^(accounts|billing|generations|providers|webhooks)_"],
        )
        for look, term, index in (
            (staff_search._tasks, ids.new("vid"), "generations_generation_pkey"),
            (staff_search._jobs, "up_1", "providers_job_upstream_id"),
            (staff_search._deliveries, ids.new("dlv"), "webhooks_delivery_"),
            (staff_search._people, "a@b.example", "accounts_user_email"),
            (staff_search._organizations, "loom", "accounts_organization_"),
            (staff_search._keys, "ab12", "accounts_apikey_last_four"),
            (staff_search._top_ups, ids.new("top"), "billing_topuprequest_"),
        ):
            assert index in look(term).order_by().values("pk").explain(), index
        cursor.execute(f"EXPLAIN {staff_search._BY_METADATA}", ["a", "a", 5])
        assert "generations_metadata" in str(cursor.fetchall())


@pytest.mark.parametrize(
    "metadata", [{"a": "x" * 16_000}, {"a": [1, 2]}, {"a": None}, {"a": ""}, {"a": 1e300}, {"a": True}]
)
def test_no_metadata_is_too_odd_for_the_index(metadata):
    task = create_generation(funded_organization(), metadata=metadata)

    term = metadata["a"] if isinstance(metadata["a"], str) else "true"
    names = {group.name for group in staff_search.find(term=term, may=lambda _: True)}
    assert ("Tasks by metadata" in names) == (metadata["a"] is True or len(str(term)) > 100)
    assert Generation.objects.get(pk=task.pk).metadata == metadata


# --- Rates ---


def rate_form(**values):
    return {
        "model": "mini",
        "resolution": "480p",
        "credits_per_second": "6",
        "effective_at": "",
        "reason": "costs",
    } | values


def test_a_rate_is_saved_only_after_its_preview_was_seen(client, django_assert_max_num_queries):
    user = member(client, "finance")
    before = Rate.objects.count()

    preview = client.post("/admin/billing/rate/add/", rate_form())
    shown = {example.text: (example.before, example.after) for example in preview.context["examples"]}
    assert shown["mini, 480p, 15 s"] == (75, 90)
    assert shown["mini, 480p, 4 s"] == (20, 24)
    assert shown["pro, 720p, 5 s"] == (100, 100)
    seen = preview.context["form"].data["seen"]
    changed = client.post("/admin/billing/rate/add/", rate_form(credits_per_second="7", seen=seen))
    assert changed.status_code == 200
    assert (Rate.objects.count(), AuditEntry.objects.count()) == (before, 0)

    assert client.post("/admin/billing/rate/add/", rate_form(seen=seen)).status_code == 302

    rate = Rate.objects.latest("pk")
    assert (rate.model, rate.resolution, rate.credits_per_second) == ("mini", "480p", 6)
    entry = AuditEntry.objects.get()
    assert (entry.action, entry.target, entry.actor_id, entry.reason) == ("rate.added", "mini 480p", user.pk, "costs")
    assert (entry.before, entry.after["credits_per_second"]) == ({"credits_per_second": 5}, 6)


@pytest.mark.parametrize(
    "values",
    [
        {"effective_at": "2020-01-01 00:00"},
        {"credits_per_second": "0"},
        {"resolution": "1080p"},
        {"model": "nothing"},
        {"reason": ""},
    ],
)
def test_a_rate_that_would_be_wrong_is_refused(client, values):
    member(client, "finance")
    before = Rate.objects.count()

    page = client.post("/admin/billing/rate/add/", rate_form(**values))

    assert page.context["form"].errors
    assert page.context["examples"] == []
    assert (Rate.objects.count(), AuditEntry.objects.count()) == (before, 0)


def test_a_rate_of_a_later_day_is_compared_with_what_holds_then():
    later = clock.now() + dt.timedelta(days=2)
    Rate.objects.create(model="mini", resolution="480p", credits_per_second=8, effective_at=later)

    shown = staff_rates.preview(model="mini", resolution="480p", credits_per_second=9, at=later + dt.timedelta(days=1))

    assert {example.text: (example.before, example.after) for example in shown}["mini, 480p, 4 s"] == (32, 36)


# --- A task ---

UPSTREAM = {"Job 1: taken", "up_42", "their-model"}
SEEN = {
    "support": UPSTREAM | {"Ledger: reserve", "Webhook, attempt 1", "the receiver said"},
    "finance": {"Ledger: reserve"},
    "operations": UPSTREAM
    | {"said to them", "they answered", "called back", "Webhook, attempt 1", "the receiver said"},
}


@pytest.mark.parametrize("group", [*SEEN, None])
def test_a_tasks_page_shows_each_group_what_its_lists_do(client, group):
    if group:
        member(client, group)
    else:
        user = UserFactory.create(is_staff=True)
        user.user_permissions.set(Permission.objects.filter(codename="view_generation"))
        client.force_login(user)
    now = clock.now()
    task = complete(create_generation(funded_organization(), callback_url="https://customer.example/"))
    job = UpstreamJob.objects.get()
    UpstreamJob.objects.update(
        channel=Channel.objects.get(name="sandbox"),
        upstream_model="their-model",
        upstream_id="up_42",
        submit_started_at=now,
        submitted_at=now,
    )
    UpstreamCall.objects.create(job=job, kind="submit", request="said to them", response="they answered")
    Callback.objects.create(job=job, body=b"{}", body_sha256=b"x", verdict="hint")
    DeliveryAttempt.objects.create(
        delivery=Delivery.objects.get(), number=1, started_at=now, duration_ms=1, response_excerpt="the receiver said"
    )

    reply = client.get(reverse("admin:generations_generation_change", args=[task.pk]))
    page = reply.content.decode()

    assert "Task completed" in page
    assert {text for text in set().union(*SEEN.values()) if text in page} == (SEEN[group] if group else set())
    dossier = reply.context["dossier"]
    known = {"jobs": "Job 1" in page, "entries": "Ledger" in page, "deliveries": "Webhook, attempt" in page}
    assert {name: bool(getattr(dossier, name)) for name in known} == known
