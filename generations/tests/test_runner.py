"""The pipeline, driven lane by lane with a clock that the test turns."""

import contextlib
import datetime as dt
import json
from collections.abc import Iterator
from pathlib import Path

import pytest
import time_machine
from django.core.files.storage import FileSystemStorage

from billing import ledger
from generations import lifecycle, media, payloads, reconciliation, runner, tasks
from generations.models import Generation, OutputAsset
from generations.tests.factories import create_generation, funded_organization
from generations.tests.pipeline import route_live_traffic_to_sandbox, run, run_to_end
from providers import media_probe
from providers.adapters.base import DownloadError, ErrorClass, Refused
from providers.adapters.sandbox import SandboxAdapter
from providers.models import SandboxRun, UpstreamJob
from webhooks.models import Delivery

pytestmark = pytest.mark.django_db

CALLBACK = "https://example.com/webhooks/seedancee2"


@pytest.fixture(autouse=True)
def media_folder(settings, tmp_path) -> Path:
    """Media goes to a folder of this test."""
    settings.STORAGES = {
        **settings.STORAGES,
        "default": {
            "BACKEND": "django.core.files.storage.FileSystemStorage",
            "OPTIONS": {"location": str(tmp_path), "allow_overwrite": True},
        },
    }
    settings.MEDIA_BASE_URL = "https://media.example.com"
    return Path(tmp_path)


@pytest.fixture(autouse=True)
def live_routes() -> None:
    """Live traffic runs on the sandbox."""
    route_live_traffic_to_sandbox()


@pytest.fixture
def turned() -> Iterator[time_machine.Traveller]:
    """A clock that stands still until the test moves it."""
    with time_machine.travel(dt.datetime(2026, 6, 29, 10, tzinfo=dt.UTC), tick=False) as traveller:
        yield traveller


def test_a_task_ends_with_files_a_charge_and_a_webhook(turned, media_folder):
    organization, stranger = funded_organization(100), funded_organization(100)
    generation = create_generation(organization, callback_url=CALLBACK, metadata={"job": "1"}, return_last_frame=True)
    assert ledger.balance(organization_id=organization.pk) == (80, 20)

    generation = run_to_end(turned, generation)

    assert generation.status == "completed"
    assert generation.started_at is not None
    assert ledger.balance(organization_id=organization.pk) == (80, 0)
    assert ledger.balance(organization_id=stranger.pk) == (100, 0)
    day = "2026/06/29"
    paths = {asset.kind: asset.path for asset in OutputAsset.objects.all()}
    assert paths == {
        "video": f"videos/{day}/{generation.public_id}.mp4",
        "thumbnail": f"video-posters/{day}/{generation.public_id}.jpg",
        "last_frame": f"video-posters/{day}/{generation.public_id}_last.jpg",
    }
    info = media_probe.probe(media_folder / paths["video"])
    assert (info.width, info.height, info.duration_ms, info.has_audio) == (864, 496, 4000, True)
    (delivery,) = Delivery.objects.all()
    assert delivery.event == "video.generation.completed"
    assert json.loads(bytes(delivery.body))["data"] == {
        "id": generation.public_id,
        "status": "completed",
        "model": "mini",
        "created_at": "2026-06-29T10:00:00.000Z",
        "completed_at": generation.finished_at.strftime("%Y-%m-%dT%H:%M:%S.000Z"),
        "credits_charged": 20,
        "output": {
            "video_url": f"https://media.example.com/{paths['video']}",
            "thumbnail_url": f"https://media.example.com/{paths['thumbnail']}",
            "last_frame_url": f"https://media.example.com/{paths['last_frame']}",
        },
        "metadata": {"job": "1"},
    }
    assert reconciliation.discrepancies() == []
    assert SandboxRun.objects.count() == 1


@pytest.mark.parametrize(
    ("directive", "code"),
    [
        ("fail", "generation_failed"),
        ("moderation", "content_policy_violation"),
        ("bad-reference", "invalid_reference"),
    ],
)
def test_a_failed_task_is_refunded_and_told(turned, directive, code):
    organization = funded_organization(100)
    generation = create_generation(organization, prompt=f"waves [sandbox:{directive}]", callback_url=CALLBACK)

    generation = run_to_end(turned, generation)

    assert (generation.status, generation.error_code) == ("failed", code)
    assert ledger.balance(organization_id=organization.pk) == (100, 0)
    (delivery,) = Delivery.objects.all()
    data = json.loads(bytes(delivery.body))["data"]
    assert (delivery.event, data["credits_charged"], data["credits_refunded"]) == ("video.generation.failed", 0, 20)
    assert data["error"] == {"code": code, "message": generation.error_message, "type": "generation_error"}
    assert SandboxRun.objects.count() == 1
    assert reconciliation.discrepancies() == []


def test_a_stuck_task_times_out_at_its_deadline(turned, settings):
    settings.TASK_DEADLINE_SECONDS = 20
    organization = funded_organization(100)
    generation = create_generation(organization, prompt="waves [sandbox:stuck]")

    generation = run_to_end(turned, generation)

    assert (generation.status, generation.error_code) == ("failed", "generation_timeout")
    assert 20 <= (generation.finished_at - generation.created_at).total_seconds() <= 23
    assert ledger.balance(organization_id=organization.pk) == (100, 0)


def test_a_test_task_moves_no_credits(turned):
    organization = funded_organization(100)
    generation = create_generation(organization, is_test=True)

    generation = run_to_end(turned, generation)

    assert (generation.status, generation.credits) == ("completed", 20)
    assert ledger.balance(organization_id=organization.pk) == (100, 0)
    assert reconciliation.discrepancies() == []


def test_a_refusal_for_the_providers_fault_is_tried_again_and_charged_once(turned, monkeypatch):
    organization = funded_organization(100)
    generation = create_generation(organization)
    real_submit = SandboxAdapter.submit
    refusals = iter([Refused(ErrorClass.CAPACITY, "busy"), Refused(ErrorClass.TRANSIENT, "oops")])
    monkeypatch.setattr(
        SandboxAdapter,
        "submit",
        lambda self, *args, **kwargs: next(refusals, None) or real_submit(self, *args, **kwargs),
    )

    generation = run_to_end(turned, generation)

    assert generation.status == "completed"
    assert list(UpstreamJob.objects.order_by("number").values_list("number", "status")) == [
        (1, "failed"),
        (2, "failed"),
        (3, "succeeded"),
    ]
    assert SandboxRun.objects.count() == 1
    assert ledger.balance(organization_id=organization.pk) == (80, 0)


def test_submissions_end_after_a_few_refusals(turned, monkeypatch):
    monkeypatch.setattr(SandboxAdapter, "submit", lambda *_, **__: Refused(ErrorClass.TRANSIENT, "oops"))
    organization = funded_organization(100)
    generation = create_generation(organization)

    generation = run_to_end(turned, generation, seconds=120)

    assert (generation.status, generation.error_code) == ("failed", "generation_failed")
    assert UpstreamJob.objects.count() == runner.MAX_FAILURES
    assert ledger.balance(organization_id=organization.pk) == (100, 0)


def test_a_download_that_fails_for_a_while_only_delays(turned, monkeypatch):
    organization = funded_organization(100)
    generation = create_generation(organization)
    real_download = SandboxAdapter.download
    failures = iter([DownloadError("reset"), DownloadError("reset")])

    def flaky(self, *args, **kwargs):
        if error := next(failures, None):
            raise error
        real_download(self, *args, **kwargs)

    monkeypatch.setattr(SandboxAdapter, "download", flaky)

    assert run_to_end(turned, generation).status == "completed"
    assert SandboxRun.objects.count() == 1


@pytest.mark.parametrize("content", [b"", b"<html>gone</html>"])
def test_an_output_that_is_no_video_is_refunded(turned, monkeypatch, content):
    monkeypatch.setattr(
        SandboxAdapter, "download", lambda self, url, destination, **_: destination.write_bytes(content)
    )
    organization = funded_organization(100)
    generation = create_generation(organization)

    generation = run_to_end(turned, generation)

    assert (generation.status, generation.error_code) == ("failed", "generation_failed")
    assert ledger.balance(organization_id=organization.pk) == (100, 0)
    assert not OutputAsset.objects.exists()


def test_a_worker_killed_while_storing_is_repeated_without_harm(turned, monkeypatch):
    organization = funded_organization(100)
    generation = create_generation(organization)
    real_complete = lifecycle.complete

    class Killed(BaseException):
        pass

    def die(**_):
        raise Killed

    monkeypatch.setattr(lifecycle, "complete", die)
    with pytest.raises(Killed):
        run_to_end(turned, generation)
    monkeypatch.setattr(lifecycle, "complete", real_complete)
    assert ledger.balance(organization_id=organization.pk) == (80, 20)

    generation = run_to_end(turned, generation, seconds=70)

    assert generation.status == "completed"
    assert (OutputAsset.objects.count(), SandboxRun.objects.count()) == (2, 1)
    assert ledger.balance(organization_id=organization.pk) == (80, 0)


def test_a_success_after_the_refund_is_never_charged(turned):
    organization = funded_organization(100)
    generation = create_generation(organization)
    run("submit")
    lifecycle.fail(public_id=generation.public_id, code=Generation.ErrorCode.CANCELED, actor="user:staff")
    for _ in range(5):
        turned.shift(1)
        run("poll")
        run("settle")

    generation.refresh_from_db()
    assert (generation.status, generation.error_code) == ("failed", "canceled")
    assert UpstreamJob.objects.get().status == "succeeded"
    assert UpstreamJob.objects.get().due_at is None
    assert ledger.balance(organization_id=organization.pk) == (100, 0)


def test_an_open_task_far_past_its_deadline_is_ended_whatever_its_job_does(turned):
    organization = funded_organization(100)
    generation = create_generation(organization)
    turned.shift(3600 + 61)

    (overdue,) = runner.overdue(10)
    runner.end_overdue(overdue)

    generation.refresh_from_db()
    assert (generation.status, generation.error_code) == ("failed", "generation_timeout")
    assert runner.overdue(10) == []


def test_transitions_repeat_without_effect(turned):
    organization = funded_organization(100)
    generation = create_generation(organization, callback_url=CALLBACK)
    code = Generation.ErrorCode.GENERATION_FAILED

    lifecycle.fail(public_id=generation.public_id, code=code)
    lifecycle.fail(public_id=generation.public_id, code=code)
    lifecycle.start(public_ids=[generation.public_id])
    with pytest.raises(lifecycle.AlreadyEnded):
        lifecycle.complete(public_id=generation.public_id, assets=[])

    generation.refresh_from_db()
    assert generation.status == "failed"
    assert Delivery.objects.count() == 1
    assert ledger.balance(organization_id=organization.pk) == (100, 0)


def test_paths_use_the_day_of_creation(turned):
    generation = create_generation(funded_organization(), is_test=True)

    assert media.path_for(generation, OutputAsset.Kind.VIDEO) == f"videos/2026/06/29/{generation.public_id}.mp4"


def test_a_later_refund_is_told_beside_the_charge(turned):
    organization = funded_organization(100)
    generation = run_to_end(turned, create_generation(organization))

    lifecycle.refund(public_id=generation.public_id, amount=5, actor="user:staff", reason="goodwill")
    with pytest.raises(ValueError, match="cannot be refunded"):
        lifecycle.refund(public_id=generation.public_id, amount=16, actor="user:staff", reason="goodwill")

    generation.refresh_from_db()
    body = payloads.task(generation, [])
    assert (body["credits_charged"], body["credits_refunded"]) == (20, 5)
    assert ledger.balance(organization_id=organization.pk) == (85, 0)
    assert reconciliation.discrepancies() == []


def test_storage_that_is_away_only_delays(turned, monkeypatch):
    organization = funded_organization(100)
    generation = create_generation(organization)
    real_save = FileSystemStorage.save

    def away(*_, **__):
        raise OSError("No route to the storage.")

    monkeypatch.setattr(FileSystemStorage, "save", away)
    for _ in range(40):
        for lane in ("submit", "poll", "settle"):
            run(lane)
        turned.shift(5)
    generation.refresh_from_db()
    assert generation.status == "processing"

    monkeypatch.setattr(FileSystemStorage, "save", real_save)
    assert run_to_end(turned, generation).status == "completed"
    assert ledger.balance(organization_id=organization.pk) == (80, 0)


@pytest.mark.parametrize("broken", ["submit", "fetch_many"])
def test_a_job_that_kills_every_worker_is_parked_failed_and_refunded(turned, monkeypatch, broken):
    class Killed(BaseException):
        pass

    def die(*_, **__):
        raise Killed

    organization = funded_organization(100)
    generation = create_generation(organization)
    monkeypatch.setattr(SandboxAdapter, broken, die)
    if broken == "submit":
        # The outcome of a submission that killed its worker is unknown, so what follows is the recovery.
        monkeypatch.setattr(SandboxAdapter, "recover", die)
    for _ in range(200):
        for lane in ("submit", "poll", "settle"):
            with contextlib.suppress(Killed):
                run(lane)
        turned.shift(5)
        generation.refresh_from_db()
        if not generation.is_open:
            break

    assert (generation.status, generation.error_code) == ("failed", "generation_failed")
    assert (generation.finished_at - generation.created_at).total_seconds() < 20 * 60
    assert UpstreamJob.objects.get().error_class == ErrorClass.OUR_BUG
    assert ledger.balance(organization_id=organization.pk) == (100, 0)


def test_audio_as_the_only_reference_fails_at_once_and_says_why(turned):
    organization = funded_organization(100)
    generation = create_generation(organization, audio_urls=("https://example.com/beat.mp3",))

    generation = run_to_end(turned, generation, seconds=2)

    assert (generation.status, generation.error_code) == ("failed", "invalid_reference")
    assert generation.error_message.startswith("Audio cannot be the only reference.")
    assert ledger.balance(organization_id=organization.pk) == (100, 0)


def test_a_task_that_was_canceled_in_time_is_not_sent(turned):
    generation = create_generation(funded_organization(100))
    lifecycle.fail(public_id=generation.public_id, code=Generation.ErrorCode.CANCELED, actor="user:staff")

    run("submit")

    assert SandboxRun.objects.count() == 0
    assert (UpstreamJob.objects.get().status, UpstreamJob.objects.get().due_at) == ("failed", None)


def test_an_overdue_task_that_cannot_be_ended_keeps_no_other_open(turned):
    broken, sound = create_generation(funded_organization(100)), create_generation(funded_organization(100))
    ledger.release(reference=broken.public_id, actor="t")
    turned.shift(3600 + 61)

    tasks.deadlines()

    sound.refresh_from_db()
    assert sound.status == "failed"
