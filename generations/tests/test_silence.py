"""A provider takes a job and is not heard of any more: the channel's policy decides, and nobody is charged twice."""

import datetime as dt

import pytest
import time_machine

from billing import ledger
from generations import reconciliation, runner
from generations.tests import pipeline
from generations.tests.emulated import connect, provider, run_until_ended
from generations.tests.factories import create_generation, funded_organization
from providers import emulators, late, polls, submissions
from providers.models import Channel, ChannelHealth, UpstreamCall, UpstreamJob
from seedancee2.lib import clock

pytestmark = pytest.mark.django_db

Status = UpstreamJob.Status
GRACE = dt.timedelta(seconds=600)


@pytest.fixture(autouse=True)
def machine(settings, tmp_path, monkeypatch) -> None:
    """Loopback may be called, media stays in a folder of the test, and retries are quick."""
    settings.OUTBOUND_ALLOWED_HOSTS = ["127.0.0.1"]
    settings.STORAGES = {
        **settings.STORAGES,
        "default": {
            "BACKEND": "django.core.files.storage.FileSystemStorage",
            "OPTIONS": {"location": str(tmp_path), "allow_overwrite": True},
        },
    }
    monkeypatch.setattr(runner, "RETRY_PAUSE", runner.RETRY_PAUSE / 100)


@pytest.fixture
def customer(db):
    return funded_organization(100)


def set_policy(channel: Channel, policy: str) -> None:
    Channel.objects.filter(pk=channel.pk).update(
        unknown_policy=policy, unknown_grace_seconds=int(GRACE.total_seconds())
    )


def poll_now() -> None:
    """Poll every job that was sent, whenever it is due."""
    UpstreamJob.objects.filter(status__in=UpstreamJob.SENT).update(due_at=clock.now())
    pipeline.run("poll")


def silent_for(job: UpstreamJob, silence: dt.timedelta) -> UpstreamJob:
    """Let so much of a silence be over, and poll."""
    UpstreamJob.objects.filter(pk=job.pk).update(unheard_since=clock.now() - silence)
    poll_now()
    job.refresh_from_db()
    return job


def only_job(generation) -> UpstreamJob:
    return UpstreamJob.objects.get(reference=generation.pk)


def test_a_job_moves_on_once_nothing_was_heard_of_it_for_the_grace(customer):
    dead = emulators.find("ark")()
    with provider("kie", priority=2) as (second, _):
        with dead.serving() as base_url:
            channel = connect(dead, base_url, priority=1)
            set_policy(channel, "retry")
            generation = create_generation(customer)
            pipeline.run("submit")
        # From here on nothing listens at the first.
        job = only_job(generation)
        assert (job.channel_id, job.status, job.unheard_since) == (channel.pk, Status.SUBMITTED, None)
        poll_now()
        job.refresh_from_db()
        assert job.unheard_since is not None
        assert silent_for(job, GRACE - dt.timedelta(seconds=10)).status == Status.SUBMITTED
        silent_for(job, GRACE)
        run_until_ended(generation)

    ends = UpstreamJob.objects.filter(reference=generation.pk).order_by("number")
    assert [(one.channel.adapter, one.status, one.error_class) for one in ends] == [
        ("ark", Status.FAILED, "transient"),
        ("kie", Status.SUCCEEDED, ""),
    ]
    assert (len(dead.submissions), len(second.submissions)) == (1, 1)
    assert generation.status == "completed"
    assert ledger.balance(organization_id=customer.pk) == (80, 0)
    assert reconciliation.discrepancies() == []


def test_where_it_may_not_be_sent_again_it_stays_and_may_yet_succeed(customer):
    with provider("ark", priority=1) as (first, channel), provider("kie", priority=2) as (second, _):
        set_policy(channel, "fail")
        generation = create_generation(customer)
        pipeline.run("submit")
        first.knobs["poll"] = "drop"
        job = silent_for(only_job(generation), GRACE * 3)
        assert job.status == Status.SUBMITTED

        first.knobs.clear()
        run_until_ended(generation)

    job.refresh_from_db()
    assert (job.status, job.unheard_since, generation.status) == (Status.SUCCEEDED, None, "completed")
    assert (len(first.submissions), len(second.submissions)) == (1, 0)
    assert ledger.balance(organization_id=customer.pk) == (80, 0)


def test_at_the_deadline_a_silent_job_that_may_not_move_on_fails_the_task(customer):
    with provider("ark") as (first, channel):
        set_policy(channel, "fail")
        generation = create_generation(customer)
        pipeline.run("submit")
    UpstreamJob.objects.update(deadline_at=clock.now())
    poll_now()
    run_until_ended(generation)

    assert (generation.error_code, len(first.submissions)) == ("generation_timeout", 1)
    assert ledger.balance(organization_id=customer.pk) == (100, 0)


def test_any_answer_that_can_be_read_ends_the_silence(customer):
    with provider("ark") as (first, channel):
        set_policy(channel, "retry")
        first.knobs["status"] = "stuck"
        generation = create_generation(customer)
        pipeline.run("submit")
        poll_now()
        job = only_job(generation)
        assert (job.status, job.unheard_since) == (Status.RUNNING, None)

        assert silent_for(job, GRACE * 3).unheard_since is None
        assert job.status == Status.RUNNING


@pytest.mark.parametrize(
    ("answer", "is_silence"),
    [
        ("poll=drop", True),
        ("poll=html", True),
        ("poll=5xx", True),
        ("poll=429", True),
        ("poll=404", True),
        ("poll=401", True),
        ("status=unknown", False),
        ("result=no-url", False),
    ],
)
def test_what_counts_as_silence(customer, answer, is_silence):
    name, _, value = answer.partition("=")
    with provider("ark") as (first, channel):
        set_policy(channel, "retry")
        first.knobs[name] = value
        generation = create_generation(customer)
        pipeline.run("submit")
        run_until_heard(generation)
        assert (only_job(generation).unheard_since is not None) is is_silence


def run_until_heard(generation) -> None:
    """Poll a job until its answer is none that a young job gives: it waited, or began."""
    for _ in range(200):
        poll_now()
        job = only_job(generation)
        if job.unheard_since or job.odd_count or UpstreamCall.objects.filter(job=job, response__contains="review"):
            return
    raise AssertionError(job)


@pytest.mark.parametrize(("answer", "unheard_count"), [("drop", 3), ("", 0)])
def test_what_there_was_no_time_to_ask_about_is_silent_only_with_the_others(
    customer, monkeypatch, answer, unheard_count
):
    monkeypatch.setattr(polls, "BATCH_SECONDS", 0.0)
    with provider("kie") as (first, channel):
        set_policy(channel, "retry")
        first.knobs |= {"status": "stuck", "poll": answer}
        for _ in range(3):
            create_generation(customer)
        pipeline.run("submit")
        asked_count = len(first.requests)

        poll_now()

        assert len(first.requests) == asked_count + 1
        assert UpstreamJob.objects.filter(unheard_since__isnull=False).count() == unheard_count
        assert UpstreamJob.objects.filter(poll_count=1).count() == 3


def test_a_late_success_of_a_job_that_moved_on_is_kept_as_our_cost_and_never_charged(customer):
    with provider("ark", priority=1) as (first, channel), provider("kie", priority=2) as (second, _):
        set_policy(channel, "retry")
        generation = create_generation(customer)
        pipeline.run("submit")
        first.knobs["poll"] = "drop"
        job = silent_for(only_job(generation), GRACE)
        first.knobs.clear()
        run_until_ended(generation)
        assert (len(first.submissions), len(second.submissions)) == (1, 1)

        job.refresh_from_db()
        assert late.claim_due(10) == []
        UpstreamJob.objects.filter(watch_at__isnull=False).update(watch_at=clock.now())
        watched = late.claim_due(10)
        assert watched == [job]
        late.look(watched[0])

    job.refresh_from_db()
    assert (job.status, job.watch_at) == (Status.FAILED, None)
    assert job.late_at is not None
    assert generation.status == "completed"
    assert ledger.balance(organization_id=customer.pk) == (80, 0)
    assert reconciliation.discrepancies() == []


@pytest.mark.parametrize(("policy", "status"), [("retry", Status.FAILED), ("fail", Status.SUBMITTING)])
def test_a_submission_that_nobody_can_look_for_moves_on_by_the_channels_policy(customer, policy, status):
    with provider("ark", priority=1) as (first, channel), provider("kie", priority=2) as (second, _):
        set_policy(channel, policy)
        first.knobs |= {"submit": "drop", "poll": "drop"}
        generation = create_generation(customer)
        pipeline.run("submit")
        poll_now()
        job = only_job(generation)
        assert (job.status, job.unheard_since is not None) == (Status.SUBMITTING, True)
        assert silent_for(job, GRACE - dt.timedelta(seconds=10)).status == Status.SUBMITTING

        assert silent_for(job, GRACE).status == status
        if policy == "retry":
            run_until_ended(generation)
            assert (len(first.submissions), len(second.submissions)) == (1, 1)
            assert ledger.balance(organization_id=customer.pk) == (80, 0)
        else:
            first.knobs.clear()
            poll_now()
            job.refresh_from_db()
            assert (job.status, job.unheard_since) == (Status.SUBMITTED, None)


@pytest.mark.parametrize(("policy", "count"), [("retry", 2), ("fail", 1)])
def test_a_finished_job_whose_file_cannot_be_had_for_the_grace_is_made_elsewhere(customer, policy, count):
    dead = emulators.find("ark")()
    with provider("kie", priority=2):
        with dead.serving() as base_url:
            set_policy(connect(dead, base_url, priority=1), policy)
            generation = create_generation(customer)
            pipeline.run("submit")
            while only_job(generation).status != Status.SUCCEEDED:
                poll_now()
        for age in (dt.timedelta(), GRACE):
            assert UpstreamJob.objects.get().status == Status.SUCCEEDED
            UpstreamJob.objects.update(due_at=clock.now(), finished_at=clock.now() - age)
            pipeline.run("settle")

        assert UpstreamJob.objects.filter(reference=generation.pk).count() == count
        if policy == "retry":
            run_until_ended(generation)
            assert generation.status == "completed"
            assert ledger.balance(organization_id=customer.pk) == (80, 0)


def test_a_callback_of_a_job_that_moved_on_lets_us_look_at_once(customer):
    with provider("ark", priority=1) as (first, channel), provider("kie", priority=2):
        set_policy(channel, "retry")
        generation = create_generation(customer)
        pipeline.run("submit")
        first.knobs["poll"] = "drop"
        job = silent_for(only_job(generation), GRACE)
        assert late.claim_due(10) == []

        submissions.hint(job=job, upstream_id="")

        assert late.claim_due(10) == [job]


def test_a_job_that_still_waits_there_is_stopped_at_the_late_look(customer):
    with provider("ark", priority=1) as (first, channel), provider("kie", priority=2):
        set_policy(channel, "retry")
        first.knobs["queued"] = "600"
        generation = create_generation(customer)
        pipeline.run("submit")
        first.knobs["poll"] = "drop"
        job = silent_for(only_job(generation), GRACE)
        first.knobs.clear()
        UpstreamJob.objects.filter(pk=job.pk).update(watch_at=clock.now())

        (watched,) = late.claim_due(10)
        late.look(watched)

        assert [method for _, method, _ in first.requests][-1] == "DELETE"
        run_until_ended(generation)
    assert generation.status == "completed"


def test_a_failure_that_was_told_is_not_watched(customer):
    with provider("ark", priority=1) as (first, channel), provider("kie", priority=2):
        set_policy(channel, "retry")
        first.knobs["fail"] = "InternalServiceError"
        generation = create_generation(customer)
        run_until_ended(generation)

    assert UpstreamJob.objects.filter(watch_at__isnull=False).count() == 0


def test_an_outage_of_a_minute_moves_nothing(customer):
    with provider("ark", priority=1) as (first, channel), provider("kie", priority=2) as (second, _):
        set_policy(channel, "retry")
        generation = create_generation(customer)
        pipeline.run("submit")
        first.knobs["poll"] = "5xx"
        with time_machine.travel(clock.now() + dt.timedelta(seconds=60), tick=True):
            poll_now()
            assert only_job(generation).unheard_since is not None
            first.knobs.clear()
            run_until_ended(generation)

    assert (len(first.submissions), len(second.submissions)) == (1, 0)
    assert ChannelHealth.objects.filter(open_until__isnull=False).count() == 0
    assert ledger.balance(organization_id=customer.pk) == (80, 0)
