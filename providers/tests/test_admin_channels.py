"""The staff's page of a channel: its keys go where they were meant to go, and nowhere else."""

import datetime as dt

import pytest
from django.urls import reverse

from accounts.models import AuditEntry, User
from accounts.tests.factories import UserFactory
from providers import admin_channels, channels, figures, jobs
from providers.adapters.base import JobRequest
from providers.admin import ChannelForm
from providers.models import Channel, ChannelHealth, Route, SandboxRun, UpstreamJob
from seedancee2.lib import clock, vault

pytestmark = pytest.mark.django_db


@pytest.fixture(autouse=True)
def _look_often(monkeypatch) -> None:
    """A test call looks twenty times in the time that it may take."""
    monkeypatch.setattr(admin_channels, "PATIENCE", 20.0)


@pytest.fixture
def channel() -> Channel:
    """A channel with a key."""
    made = Channel.objects.create(name="real", adapter="kie", base_url="https://api.kie.ai")
    channels.set_credential(channel=made, credential="the key")
    return made


def errors(channel, **changes):
    values = {
        "name": channel.name,
        "adapter": channel.adapter,
        "base_url": channel.base_url,
        "state": channel.state,
        "unknown_policy": channel.unknown_policy,
        "unknown_grace_seconds": channel.unknown_grace_seconds,
        "options": "{}",
        "output_hosts": "",
    }
    return dict(ChannelForm(values | changes, instance=channel).errors)


def test_a_key_is_never_sent_to_another_host(channel):
    assert errors(channel) == {}
    assert errors(channel, base_url="https://api.kie.ai/v2") == {}
    for url in ("https://evil.example.com", "http://api.kie.ai", "https://api.kie.ai:8443"):
        assert list(errors(channel, base_url=url)) == ["credential"]
    assert errors(channel, base_url="https://new.kie.ai", credential="another") == {}


def test_a_channel_with_jobs_under_way_stays_where_it_is(channel):
    request = JobRequest("mini", "waves", 4, "480p", "16:9", False, False, False)
    job = jobs.open(reference="vid_a", request=request, traffic="live", deadline_at=clock.now())
    UpstreamJob.objects.filter(pk=job.pk).update(channel=channel, status="running", upstream_id="x")

    assert list(errors(channel, base_url="https://new.kie.ai", credential="another")) == ["base_url"]
    assert list(errors(channel, adapter="fal")) == ["adapter"]


def signed_in(client, **user) -> User:
    member: User = UserFactory.create(is_staff=True, is_superuser=True, **user)
    client.force_login(member)
    return member


def form(channel, **changes):
    health, keys = "health", "credentials"
    inlines = {f"{name}-{which}_FORMS": "0" for name in (health, keys) for which in ("TOTAL", "INITIAL")}
    values = {
        "name": channel.name,
        "adapter": channel.adapter,
        "base_url": channel.base_url,
        "state": channel.state,
        "unknown_policy": channel.unknown_policy,
        "unknown_grace_seconds": channel.unknown_grace_seconds,
        "options": "{}",
        "output_hosts": "",
    }
    return values | inlines | changes


def test_a_key_is_written_and_never_shown_and_the_log_says_only_that_it_was(client, channel):
    member = signed_in(client)
    url = reverse("admin:providers_channel_change", args=[channel.pk])

    reply = client.post(url, form(channel, credential="a brand new key", callback_secret="whsec", max_open="7"))

    assert reply.status_code == 302, reply.content.decode()
    newest = channels.newest_credential(channel)
    assert vault.unseal(bytes(newest.sealed_secret)) == "a brand new key"
    assert b"a brand new key" not in bytes(newest.sealed_secret)
    entry = AuditEntry.objects.get()
    assert (entry.action, entry.target, entry.actor_id, entry.organization_id) == (
        "channel.changed",
        "real",
        member.pk,
        None,
    )
    assert (entry.before, entry.after) == (
        {"max_open": None},
        {"max_open": 7, "credential": "set anew", "callback_secret": "set anew"},
    )
    history = client.get(reverse("admin:providers_channel_history", args=[channel.pk])).content.decode()
    for page in (client.get(url).content.decode(), history):
        assert "a brand new key" not in page
        assert "whsec" not in page


@pytest.mark.parametrize(("action", "state"), [("drain", "draining"), ("switch_off", "off"), ("activate", "active")])
def test_a_channel_is_taken_out_and_let_in_with_a_reason(client, channel, action, state):
    signed_in(client)
    other = Channel.objects.create(name="other", adapter="kie", base_url="https://api.kie.ai")
    before = "off" if action == "activate" else "active"
    Channel.objects.update(state=before)
    url = reverse(f"admin:providers_channel_{action}", args=[channel.pk])

    assert client.post(url, {"reason": " "}).status_code == 200
    channel.refresh_from_db()
    assert (channel.state, AuditEntry.objects.count()) == (before, 0)
    client.post(url, {"reason": "their status page is red"})

    channel.refresh_from_db()
    other.refresh_from_db()
    entry = AuditEntry.objects.get()
    assert (channel.state, other.state) == (state, before)
    assert (entry.before, entry.after, entry.reason) == (
        {"state": before},
        {"state": state},
        "their status page is red",
    )


def test_draining_tells_first_what_it_touches(client, channel):
    signed_in(client)
    Route.objects.create(model="pro", traffic="live", channel=channel, upstream_model="x")
    Route.objects.create(model="mini", traffic="live", channel=channel, upstream_model="x")
    Route.objects.create(
        model="mini", traffic="live", channel=Channel.objects.get(name="sandbox"), upstream_model="sandbox-mini"
    )
    request = JobRequest("mini", "waves", 4, "480p", "16:9", False, False, False)
    for number, status in enumerate(["submitting", "running", "queued"], 1):
        job = jobs.open(reference=f"vid_{number}", request=request, traffic="live", deadline_at=clock.now())
        UpstreamJob.objects.filter(pk=job.pk).update(channel=channel, status=status, upstream_id=f"x{number}")

    page = client.get(reverse("admin:providers_channel_drain", args=[channel.pk])).content.decode()

    assert "2 jobs under way run out" in page
    assert "No other way is left for pro (live): those tasks wait." in page
    channel.refresh_from_db()
    assert channel.state == "active"


def test_forgetting_failures_closes_this_channels_breakers_only(client, channel):
    signed_in(client)
    other = Channel.objects.create(name="other", adapter="kie", base_url="https://api.kie.ai")
    later = clock.now() + dt.timedelta(hours=1)
    for one in (channel, other):
        ChannelHealth.objects.create(channel=one, failure_count=5, open_until=later)

    client.post(reverse("admin:providers_channel_forget_failures", args=[channel.pk]), {"reason": "topped up"})

    assert ChannelHealth.objects.get(channel=channel).open_until is None
    assert ChannelHealth.objects.get(channel=other).open_until == later
    assert AuditEntry.objects.get().action == "channel.failures_forgotten"


def test_a_channels_page_shows_its_own_last_day_in_few_queries(client, channel, django_assert_max_num_queries):
    signed_in(client)
    other = Channel.objects.create(name="other", adapter="kie", base_url="https://api.kie.ai")
    request = JobRequest("mini", "waves", 4, "480p", "16:9", False, False, False)
    now = clock.now()
    ends = [(channel, "succeeded", 30), (channel, "succeeded", 50), (channel, "failed", 5), (other, "failed", 5)]
    for number, (where, status, seconds) in enumerate(ends):
        job = jobs.open(reference=f"vid_{number}", request=request, traffic="live", deadline_at=now)
        UpstreamJob.objects.filter(pk=job.pk).update(
            channel=where,
            status=status,
            upstream_id=f"x{number}",
            submitted_at=now - dt.timedelta(seconds=seconds),
            finished_at=now,
        )

    hours = figures.hours(channel_id=channel.pk)
    assert len(hours) == 24
    assert [(hour.ended_count, hour.succeeded_count, hour.percentage, hour.seconds) for hour in hours[-1:]] == [
        (3, 2, 67, 40.0)
    ]
    assert sum(hour.ended_count for hour in hours) == 3
    client.get("/admin/search/")  # once a minute a session is noted as seen
    with django_assert_max_num_queries(12):
        page = client.get(reverse("admin:providers_channel_change", args=[channel.pk])).content.decode()
    assert "<td>67 %</td>" in page
    assert "<td>40 s</td>" in page


def test_a_test_call_is_audited_before_anything_is_sent_and_touches_no_customer(client):
    member = signed_in(client)
    route = Route.objects.get(channel__name="sandbox", model="mini", traffic="test")
    url = reverse("admin:providers_channel_test_call", args=[route.channel_id])

    reply = client.post(url, {"route": str(route.pk), "reason": "after the new key"})
    assert (AuditEntry.objects.get().action, SandboxRun.objects.count()) == ("channel.tried", 0)
    told = b"".join(reply.streaming_content).decode()

    assert "it succeeds" in told
    assert "Done." in told
    assert (SandboxRun.objects.count(), UpstreamJob.objects.count()) == (1, 0)
    assert AuditEntry.objects.get().actor_id == member.pk


def test_a_second_click_on_test_call_makes_no_second_video(client):
    signed_in(client)
    route = Route.objects.get(channel__name="sandbox", model="mini", traffic="test")
    url = reverse("admin:providers_channel_test_call", args=[route.channel_id])
    asked = {"route": str(route.pk), "reason": "after the new key"}

    first = client.post(url, asked)
    second = client.post(url, asked, follow=True)

    assert "A test call of this channel is under way" in second.content.decode()
    assert "data-once" in client.get(url).content.decode()
    assert b"it succeeds" in b"".join(first.streaming_content)
    assert (SandboxRun.objects.count(), AuditEntry.objects.count()) == (1, 1)
    # The turn is given back with the end, and does not outlive a process that died.
    assert client.post(url, asked).status_code == 200
    Channel.objects.update(tried_until=clock.now() - dt.timedelta(seconds=1))
    assert client.post(url, asked).status_code == 200
    assert AuditEntry.objects.count() == 3


def test_a_test_call_goes_through_no_other_channels_route(client, channel):
    signed_in(client)
    route = Route.objects.get(channel__name="sandbox", model="mini", traffic="test")

    reply = client.post(
        reverse("admin:providers_channel_test_call", args=[channel.pk]), {"route": str(route.pk), "reason": "x"}
    )

    assert "not one of the available choices" in reply.content.decode()
    assert (AuditEntry.objects.count(), SandboxRun.objects.count()) == (0, 0)


def shown(client, url):
    """Return what a browser would post of a channel's page where nobody touches anything."""
    page = client.get(url).context["adminform"].form
    values = {field.html_name: field.value() for field in page}
    values |= {field.html_initial_name: field.value() for field in page if field.field.show_hidden_initial}
    values |= {f"{name}-{which}_FORMS": "0" for name in ("health", "credentials") for which in ("TOTAL", "INITIAL")}
    return {name: "" if value is None else value for name, value in values.items()}


def test_an_old_page_undoes_neither_a_drain_nor_another_limit(client, channel):
    signed_in(client)
    url = reverse("admin:providers_channel_change", args=[channel.pk])
    old = shown(client, url)
    assert "initial-max_open" in client.get(url).content.decode()
    client.post(reverse("admin:providers_channel_drain", args=[channel.pk]), {"reason": "their page is red"})
    Channel.objects.filter(pk=channel.pk).update(max_submits_per_minute=5)

    reply = client.post(url, old | {"max_open": "3", "state": "active"})

    assert reply.status_code == 302, reply.content.decode()
    channel.refresh_from_db()
    assert (channel.state, channel.max_open, channel.max_submits_per_minute) == ("draining", 3, 5)
    entry = AuditEntry.objects.latest("pk")
    assert (entry.before, entry.after) == ({"max_open": None}, {"max_open": 3})
