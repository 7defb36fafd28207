"""Upstream jobs: claimed once, submitted once, and never sent again blindly."""

import datetime as dt
import threading
from collections.abc import Iterator

import pytest
import time_machine
from django.db import IntegrityError, connections, transaction

from providers import channels, claims, jobs, polls, submissions
from providers.adapters.base import Accepted, ErrorClass, JobRequest, Refused, Unknown
from providers.adapters.sandbox import SandboxAdapter
from providers.claims import Batch
from providers.models import Channel, Credential, SandboxRun, UpstreamCall, UpstreamJob
from seedancee2.lib import clock, vault

pytestmark = pytest.mark.django_db

Status = UpstreamJob.Status


@pytest.fixture
def turned() -> Iterator[time_machine.Traveller]:
    """A clock that stands still until the test moves it."""
    with time_machine.travel(dt.datetime(2026, 6, 29, 10, tzinfo=dt.UTC), tick=False) as traveller:
        yield traveller


def _request(prompt: str = "waves") -> JobRequest:
    return JobRequest(
        model="mini",
        prompt=prompt,
        duration=4,
        resolution="480p",
        aspect_ratio="16:9",
        generate_audio=False,
        watermark=False,
        return_last_frame=False,
    )


def _open(prompt: str = "waves", reference: str = "vid_a") -> UpstreamJob:
    return jobs.open(
        reference=reference,
        request=_request(prompt),
        traffic="test",
        deadline_at=clock.now() + dt.timedelta(hours=1),
    )


def _claimed(lane: str, limit: int = 10) -> list[UpstreamJob]:
    if lane == "poll":
        return [job for batch in claims.claim_polls(limit) for job in batch.jobs]
    return {"submit": claims.claim_queued, "settle": claims.claim_finished}[lane](limit)


def _claim(lane: str) -> UpstreamJob:
    (job,) = _claimed(lane)
    return job


def _poll(job: UpstreamJob) -> UpstreamJob:
    polls.poll(Batch((job,)))
    return UpstreamJob.objects.get(pk=job.pk)


def test_a_job_goes_from_queued_to_succeeded(turned):
    _open()

    job = submissions.submit(_claim("submit"))
    assert (job.status, job.channel.name, SandboxRun.objects.count()) == (Status.SUBMITTED, "sandbox", 1)
    turned.shift(1.3)
    job = _poll(_claim("poll"))
    assert job.status == Status.RUNNING
    turned.shift(1.3)
    job = _poll(_claim("poll"))
    assert job.status == Status.SUCCEEDED
    assert job.result["video_url"].startswith("sandbox://")

    job = jobs.settled(_claim("settle"))
    assert UpstreamJob.objects.get().due_at is None
    assert list(UpstreamCall.objects.order_by("id").values_list("kind", flat=True)) == ["submit", "fetch", "fetch"]


@pytest.mark.parametrize(
    ("directive", "error_class"),
    [
        ("fail", ErrorClass.OUR_BUG),
        ("moderation", ErrorClass.CUSTOMER_MODERATION),
        ("bad-reference", ErrorClass.CUSTOMER_INPUT),
    ],
)
def test_a_failure_keeps_its_class(turned, directive, error_class):
    _open(f"waves [sandbox:{directive}]")
    submissions.submit(_claim("submit"))
    turned.shift(3)

    job = _poll(_claim("poll"))

    assert (job.status, job.error_class) == (Status.FAILED, error_class)


def test_a_second_open_job_of_one_reference_is_refused():
    _open()

    with pytest.raises(IntegrityError), transaction.atomic():
        jobs.open(
            reference="vid_a",
            number=2,
            request=_request(),
            traffic="test",
            deadline_at=clock.now() + dt.timedelta(hours=1),
        )


def test_without_a_route_the_job_waits_and_expires_at_its_deadline(turned):
    Channel.objects.update(state=Channel.State.OFF)
    _open()

    assert _claimed("submit") == []
    turned.shift(3601)

    assert submissions.submit(_claim("submit")).status == Status.EXPIRED
    assert SandboxRun.objects.count() == 0


def test_a_stuck_job_is_asked_once_more_at_its_deadline(turned):
    _open("waves [sandbox:stuck]")
    submissions.submit(_claim("submit"))
    turned.shift(3601)

    job = _poll(_claim("poll"))

    assert job.status == Status.EXPIRED
    assert UpstreamCall.objects.filter(kind="fetch").count() == 1


def test_an_unknown_outcome_is_looked_for_and_found_without_sending_again(turned, monkeypatch):
    real_submit = SandboxAdapter.submit

    def accept_and_lose_the_answer(self, *args, **kwargs):
        assert isinstance(real_submit(self, *args, **kwargs), Accepted)
        return Unknown("The connection broke after the request was sent.")

    monkeypatch.setattr(SandboxAdapter, "submit", accept_and_lose_the_answer)
    _open()
    job = submissions.submit(_claim("submit"))
    assert job.status == Status.SUBMITTING
    assert _claimed("submit", 10) == []
    turned.shift(61)

    job = submissions.recover(_claim("poll"))

    assert (job.status, job.upstream_id) == (Status.SUBMITTED, SandboxRun.objects.get().run_id)


def test_a_submission_that_never_arrived_is_given_up_only_after_several_looks(turned, monkeypatch):
    monkeypatch.setattr(SandboxAdapter, "submit", lambda *_, **__: Unknown("Timed out."))
    _open()
    submissions.submit(_claim("submit"))

    statuses = []
    for _ in range(3):
        turned.shift(61)
        statuses.append(submissions.recover(_claim("poll")).status)

    assert statuses == [Status.SUBMITTING, Status.SUBMITTING, Status.FAILED]
    assert UpstreamJob.objects.get().error_class == ErrorClass.TRANSIENT


def test_a_worker_killed_before_the_answer_leaves_an_unknown_outcome(turned, monkeypatch):
    class Killed(BaseException):
        pass

    def die(*_, **__):
        raise Killed

    monkeypatch.setattr(SandboxAdapter, "submit", die)
    _open()
    with pytest.raises(Killed):
        submissions.submit(_claim("submit"))

    assert UpstreamJob.objects.get().status == Status.SUBMITTING
    assert _claimed("submit", 10) == []
    assert _claimed("poll", 10) == []
    turned.shift(61)
    assert len(_claimed("poll", 10)) == 1


def test_a_refusal_fails_the_job(turned, monkeypatch):
    monkeypatch.setattr(SandboxAdapter, "submit", lambda *_, **__: Refused(ErrorClass.CAPACITY, "Queue full."))
    _open()

    job = submissions.submit(_claim("submit"))

    assert (job.status, job.error_class, job.error_detail) == (Status.FAILED, ErrorClass.CAPACITY, "Queue full.")


def test_a_worker_that_lost_its_lease_writes_nothing(turned):
    _open()
    slow = _claim("submit")
    turned.shift(61)
    fast = _claim("submit")
    submissions.submit(fast)

    with pytest.raises(jobs.LeaseLost):
        submissions.submit(slow)

    assert SandboxRun.objects.count() == 1
    assert UpstreamJob.objects.get().status == Status.SUBMITTED


@pytest.mark.race
@pytest.mark.django_db(transaction=True)
def test_no_two_workers_claim_the_same_job():
    for number in range(60):
        _open(reference=f"vid_{number}")
    claimed: list[int] = []

    def work() -> None:
        while rows := _claimed("submit", 3):
            claimed.extend(row.pk for row in rows)
        connections.close_all()

    threads = [threading.Thread(target=work) for _ in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    assert sorted(claimed) == sorted(UpstreamJob.objects.values_list("pk", flat=True))


def test_a_lease_is_renewed_while_its_worker_lives_and_not_after_it_was_given_up(turned):
    _open()
    job = _claim("submit")
    turned.shift(15)
    claims.renew([job])
    turned.shift(15)
    assert _claimed("submit", 10) == []

    job = submissions.submit(job)
    due_at = UpstreamJob.objects.get().due_at
    claims.renew([job])

    assert UpstreamJob.objects.get().due_at == due_at
    with pytest.raises(jobs.LeaseLost):
        jobs.postpone(job, seconds=1)


def test_a_credential_that_does_not_open_sends_nothing_and_loses_nothing(turned):
    channel = Channel.objects.get()
    channels.set_credential(channel=channel, credential="good")
    lost = Credential.objects.create(channel=channel, sealed_secret=b"sealed with a key that is gone")
    _open()
    with pytest.raises(vault.UnreadableSecret):
        submissions.submit(_claim("submit"))
    assert UpstreamJob.objects.get().status == Status.QUEUED

    lost.delete()
    turned.shift(21)
    job = submissions.submit(_claim("submit"))
    assert job.credential == Credential.objects.get()
    Credential.objects.update(sealed_secret=b"sealed with a key that is gone")
    turned.shift(5)
    assert _poll(_claim("poll")).status == Status.SUBMITTED

    turned.shift(3600)
    assert _poll(_claim("poll")).status == Status.EXPIRED


def test_a_submission_that_is_still_unknown_at_the_deadline_is_a_timeout(turned, monkeypatch):
    monkeypatch.setattr(SandboxAdapter, "submit", lambda *_, **__: Unknown("Timed out."))
    _open()
    submissions.submit(_claim("submit"))
    turned.shift(3601)

    assert submissions.recover(_claim("poll")).status == Status.EXPIRED
