"""Callbacks of providers: a token opens one job's door, a signature is checked, and all that follows is a question."""

import datetime as dt
import json

import pytest
from django.test import Client

from generations.models import Generation
from generations.tests import pipeline
from generations.tests.emulated import prepare_machine, provider, run_until_ended
from generations.tests.factories import create_generation, funded_organization
from providers import late, submissions
from providers.emulators.server import Pace
from providers.models import Channel, UpstreamJob
from seedancee2.lib import clock
from webhooks import callbacks
from webhooks.models import Callback

pytestmark = pytest.mark.django_db

SLOW = Pace(queued=0, running=600)
Status = UpstreamJob.Status


@pytest.fixture(autouse=True)
def loopback(settings, tmp_path) -> None:
    """Loopback may be called, and media stays in a folder of the test."""
    prepare_machine(settings, tmp_path)


def post(path, body, **headers):
    data = body if isinstance(body, bytes) else json.dumps(body).encode()
    return Client().post(path, data, content_type="application/json", headers=headers)


def path_of(emulator):
    return "/" + emulator.submissions[-1].callback_url.split("/", 3)[3]


@pytest.fixture
def sent(db):
    """A running job at a slow provider that signs nothing, and the address where it may call back."""
    with provider("ark", pace=SLOW) as (emulator, channel):
        emulator.knobs["callback"] = "none"
        generation = create_generation(funded_organization(100))
        pipeline.run("submit")
        yield emulator, channel, generation


def test_a_callback_makes_us_ask_now(sent):
    emulator, _, _ = sent
    UpstreamJob.objects.update(due_at=clock.now() + dt.timedelta(minutes=5))
    task_id = emulator.submissions[0].task_id

    reply = post(
        path_of(emulator), {"id": task_id, "status": "succeeded", "content": {"video_url": "http://evil/x.mp4"}}
    )

    assert (reply.status_code, reply.json()) == (200, {"detail": "taken"})
    job = UpstreamJob.objects.get()
    assert (job.status, job.upstream_id, job.due_at <= clock.now()) == (Status.SUBMITTED, task_id, True)
    (kept,) = Callback.objects.all()
    assert (kept.verdict, kept.repeat_count, json.loads(bytes(kept.body))["status"]) == ("hint", 0, "succeeded")
    pipeline.run("poll")
    job.refresh_from_db()
    assert job.result is None


def test_the_same_again_and_older_ones_change_nothing(sent):
    emulator, _, _ = sent
    body = {"id": emulator.submissions[0].task_id, "status": "queued"}
    for _ in range(3):
        assert post(path_of(emulator), body).status_code == 200
    assert post(path_of(emulator), {**body, "status": "failed"}).status_code == 200

    assert UpstreamJob.objects.get().status == Status.SUBMITTED
    assert sorted(Callback.objects.values_list("repeat_count", flat=True)) == [0, 2]


def test_one_job_can_fill_no_more_than_its_share(sent):
    emulator, _, _ = sent
    for number in range(callbacks.MAX_KEPT + 5):
        assert post(path_of(emulator), {"id": "x", "n": number}).status_code == 200

    assert Callback.objects.count() == callbacks.MAX_KEPT


@pytest.mark.parametrize(
    "change",
    [
        lambda path: path[:-1] + ("A" if path[-1] != "A" else "B"),
        lambda path: path.replace("/channel-", "/other-"),
        lambda path: path.rsplit("/", 1)[0] + "/" + "A" * 43,
    ],
)
def test_without_the_token_there_is_no_job(sent, change):
    emulator, _, _ = sent
    before = UpstreamJob.objects.values().get()

    reply = post(change(path_of(emulator)), {"id": emulator.submissions[0].task_id})

    assert (reply.status_code, reply.json()) == (404, {"detail": "unknown"})
    assert UpstreamJob.objects.values().get() == before
    assert not Callback.objects.exists()


@pytest.mark.parametrize(
    "body", [b"", b"<html>", b"[]", b'{"id": 5}', b"\xff\xfe", b"null", b'{"id": "' + b"x" * 900 + b'"}']
)
def test_bodies_of_any_kind_are_taken_and_harm_nothing(sent, body):
    emulator, _, _ = sent

    assert post(path_of(emulator), body).status_code == 200
    assert UpstreamJob.objects.get().upstream_id == emulator.submissions[0].task_id


def test_a_body_that_is_too_large_is_refused(sent):
    emulator, _, _ = sent

    assert post(path_of(emulator), b" " * (callbacks.MAX_BODY_BYTES + 1)).status_code == 413
    assert Client().get(path_of(emulator)).status_code == 405
    assert not Callback.objects.exists()


@pytest.mark.parametrize("name", ["ark", "kie", "fal", "replicate"])
def test_a_lost_answer_is_adopted_by_the_callback_that_names_it(name):
    with provider(name, pace=Pace(queued=0, running=1.0)) as (emulator, _):
        emulator.knobs |= {"submit": "drop", "callback": "none"}
        generation = create_generation(funded_organization(100))
        pipeline.run("submit")
        job = UpstreamJob.objects.get()
        assert (job.status, job.upstream_id) == (Status.SUBMITTING, "")
        submissions.hint(job=job, upstream_id=emulator.submissions[0].task_id)
        run_until_ended(generation)

    job = UpstreamJob.objects.get()
    assert (job.status, job.upstream_id) == (Status.SUCCEEDED, emulator.submissions[0].task_id)
    assert (generation.status, len(emulator.submissions)) == ("completed", 1)


def test_a_hint_that_the_provider_does_not_confirm_adopts_nothing(sent, monkeypatch):
    emulator, _, _ = sent
    UpstreamJob.objects.update(status=Status.SUBMITTING, upstream_id="", due_at=clock.now())
    emulator_tasks = len(emulator.submissions)

    assert post(path_of(emulator), {"id": "cgt-20200101000000-xxxxx"}).status_code == 200
    monkeypatch.setattr(submissions, "GRACE", dt.timedelta(hours=1))
    emulator.knobs["poll"] = "404"
    pipeline.run("poll")

    job = UpstreamJob.objects.get()
    assert (job.status, job.upstream_id, len(emulator.submissions)) == (Status.SUBMITTING, "", emulator_tasks)


def test_what_comes_after_we_gave_up_is_our_cost_and_never_charged():
    customer, stranger = funded_organization(100), funded_organization(100)
    with provider("kie", pace=Pace(queued=0, running=0.5)) as (emulator, channel):
        Channel.objects.filter(pk=channel.pk).update(unknown_grace_seconds=0)
        emulator.knobs |= {"submit": "drop", "callback": "none"}
        generation = create_generation(customer)
        pipeline.run("submit")
        UpstreamJob.objects.update(due_at=clock.now())
        run_until_ended(generation)
        assert (generation.status, generation.error_code) == ("failed", "generation_failed")

        emulator.skip(10)
        task_id = emulator.submissions[0].task_id
        assert post(path_of(emulator), {"code": 200, "data": {"taskId": task_id}}).status_code == 200
        (job,) = late.claim_due(10)
        assert late.claim_due(10) == []
        late.look(job)

    job = UpstreamJob.objects.get()
    assert (job.status, job.upstream_id, job.late_at is not None, job.watch_at) == (Status.FAILED, task_id, True, None)
    generation.refresh_from_db()
    assert (generation.status, generation.credits_refunded) == ("failed", 20)
    customer.credit_account.refresh_from_db()
    stranger.credit_account.refresh_from_db()
    assert (customer.credit_account.available, stranger.credit_account.available) == (100, 100)


def test_a_job_that_never_left_the_queue_is_cancelled_at_its_deadline():
    with provider("ark", pace=Pace(queued=600, running=1)) as (emulator, _):
        generation = create_generation(funded_organization(100))
        submit_and_reach_the_deadline()
        run_until_ended(generation)
        job = UpstreamJob.objects.get()
        emulator.skip(700)
        UpstreamJob.objects.update(watch_at=clock.now())
        for row in late.claim_due(10):
            late.look(row)

    assert generation.error_code == "generation_timeout"
    assert job.calls.order_by("id").last().kind == "cancel"
    job.refresh_from_db()
    assert (job.status, job.late_at, job.watch_at) == (Status.EXPIRED, None, None)


def submit_and_reach_the_deadline():
    pipeline.run("submit")
    now = clock.now()
    UpstreamJob.objects.update(deadline_at=now, due_at=now)
    Generation.objects.update(deadline_at=now)


def test_a_job_that_outlives_its_deadline_is_watched():
    with provider("ark", pace=Pace(queued=0, running=600)) as (emulator, _):
        generation = create_generation(funded_organization(100))
        submit_and_reach_the_deadline()
        run_until_ended(generation)
        assert generation.error_code == "generation_timeout"
        job = UpstreamJob.objects.get()
        assert job.watch_at is not None

        UpstreamJob.objects.update(watch_at=clock.now())
        for row in late.claim_due(10):
            late.look(row)
        emulator.skip(700)
        UpstreamJob.objects.update(watch_at=clock.now())
        for row in late.claim_due(10):
            late.look(row)

    job.refresh_from_db()
    assert (job.status, job.late_at is not None) == (Status.EXPIRED, True)
