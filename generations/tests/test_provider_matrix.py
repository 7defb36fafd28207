"""Every provider × what a customer may ask for × what may come of it: over real sockets, and nothing leaks.

What a request looks like on each provider's wire is held in `providers/tests/test_adapter_*`; here the customer's side
is held, byte by byte.
"""

import contextlib
import dataclasses
import datetime as dt
import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import av
import pytest
from django.conf import settings

from billing import ledger
from generations import reconciliation, runner
from generations.models import Generation, OutputAsset
from generations.tests.callers import TASKS, Caller
from generations.tests.emulated import prepare_machine, provider, run_until_ended
from generations.tests.people import Person
from providers import jobs, media_probe, submissions
from providers.emulators.server import Emulator
from providers.models import Channel, UpstreamJob
from webhooks.models import Delivery

pytestmark = pytest.mark.django_db

PROVIDERS = ("ark", "fal", "kie", "replicate")
CDN = "https://cdn.example.com"
INPUTS: dict[str, dict[str, Any]] = {
    "text": {},
    "images": {"image_urls": [f"{CDN}/{n}.png" for n in range(9)]},
    "video": {"video_url": f"{CDN}/a.mp4"},
    "audio and image": {"audio_urls": [f"{CDN}/a.mp3"], "image_urls": [f"{CDN}/a.jpg"]},
    "twelve files": {
        "image_urls": [f"{CDN}/{n}.webp" for n in range(8)],
        "video_urls": [f"{CDN}/{n}.mp4" for n in range(2)],
        "audio_urls": [f"{CDN}/{n}.wav" for n in range(2)],
    },
    "frames": {
        "generation_type": "first_and_last_frames",
        "start_image_url": f"{CDN}/a.png",
        "end_image_url": f"{CDN}/b.png",
    },
    "frames as images": {"generation_type": "first_and_last_frames", "image_urls": [f"{CDN}/a.png", f"{CDN}/b.png"]},
    "silent, marked, seeded, with last frame": {
        "generate_audio": False,
        "watermark": True,
        "seed": 42,
        "return_last_frame": True,
    },
}

# How each provider says it, by its sheet; the knob, and what the customer is told.
MODERATION = {
    "ark": "OutputVideoSensitiveContentDetected",
    "fal": "content_policy_violation",
    "kie": "real-person",
    "replicate": "E005",
}
BAD_REFERENCE = {
    "ark": "InvalidParameter/download",
    "fal": "file_download_error",
    "kie": "download",
    "replicate": "download",
}
BREAKDOWN = {
    "ark": "InternalServiceError",
    "fal": "internal_server_error",
    "kie": "timeout",
    "replicate": "E1000",
}

# Whole words, since `ark` stands in `watermark`; in files only those that chance would not write.
WORDS = {
    "ark": ("ark", "byteplus", "bytepluses", "volces", "volcengine", "modelark", "dreamina", "doubao", "cgt"),
    "fal": ("fal", "queue", "gateway_request_id", "partner_validation_failed"),
    "kie": ("kie", "resultjson", "redpandaai", "aiquickdraw", "taskid"),
    "replicate": ("replicate", "predictions", "prediction", "e005", "cuda"),
}
EVERYWHERE = ("bytedance", "seedance", "emulator", "emulated", "upstream", "lavf", "x264", "channel", "127.0.0.1")


@dataclasses.dataclass
class Scene:
    """One provider behind the public API, a customer, a stranger, and all that the customer got to see."""

    emulator: Emulator
    customer: Caller
    stranger: Caller
    media: Path
    seen: list[bytes] = dataclasses.field(default_factory=list)
    files: list[bytes] = dataclasses.field(default_factory=list)

    def run(self, **values: Any) -> Generation:
        """Make one task through the API and let it end."""
        body = {
            "model": "mini",
            "input": {"prompt": "waves", "duration": 4, "resolution": "480p", "aspect_ratio": "16:9", **values},
            "callback_url": "https://example.com/hook",
        }
        reply = self.customer.create(body)
        assert reply.status_code == 201, reply.content
        self._see(reply)
        generation = Generation.objects.get()
        run_until_ended(generation)
        for path in (f"{TASKS}/{generation.pk}", f"{TASKS}?limit=5", "/v1/usage", "/v1/models"):
            self._see(self.customer.get(path))
        assert self.stranger.get(f"{TASKS}/{generation.pk}").status_code == 404
        self._look_at_the_console(generation)
        for delivery in Delivery.objects.all():
            self.seen.append(f"{delivery.url} {delivery.event} {delivery.delivery_id}".encode() + bytes(delivery.body))
        self.files += [(self.media / asset.path).read_bytes() for asset in OutputAsset.objects.all()]
        return generation

    def assert_nothing_leaks(self) -> None:
        """Search all that the customer saw for the provider's names, hosts, ids and wording."""
        own = [self.emulator.origin, self.emulator.origin.partition("//")[2], self.emulator.key]
        for job in UpstreamJob.objects.all():
            own += [job.upstream_id, str((job.result or {}).get("video_url", ""))]
            own += list(job.upstream_urls.values())
        for text in (seen.decode(errors="replace") for seen in self.seen):
            for word in (*WORDS[self.emulator.name], *EVERYWHERE):
                assert not re.search(rf"(?<![a-z0-9]){re.escape(word)}(?![a-z0-9])", text, re.IGNORECASE), word
            assert not [value for value in own if value and value in text]
        for content in self.files:
            for word in (*WORDS[self.emulator.name], *EVERYWHERE):
                assert len(word) < 6 or word.encode() not in content.lower(), word

    def _look_at_the_console(self, generation: Generation) -> None:
        """Open every page that tells of the task, and save the list."""
        person = Person(self.customer.organization)
        task = f"/console/tasks/{generation.pk}/"
        pages = ["/console/", "/console/tasks/", task, f"{task}delete/", f"/console/playground/?task={generation.pk}"]
        parts = [person.read(path) for path in pages] + [person.read(task, is_part=True)]
        parts.append(person.get("/console/tasks/export.csv").getvalue().decode())
        # Our own address is on loopback here, and stands in the examples.
        self.seen += [part.replace(settings.PUBLIC_BASE_URL, "").encode() for part in parts]

    def _see(self, reply: Any) -> None:
        assert reply.status_code in (200, 201)
        headers = "\n".join(f"{name}: {value}" for name, value in reply.headers.items())
        self.seen.append(headers.encode() + b"\n" + reply.content)


@pytest.fixture
def scene(settings, tmp_path, customer, stranger, monkeypatch) -> Callable[[str], Any]:
    """Set one provider's scene up; its media stays in a folder of the test."""
    prepare_machine(settings, tmp_path)
    monkeypatch.setattr(runner, "RETRY_PAUSE", runner.RETRY_PAUSE / 100)
    monkeypatch.setattr(submissions, "GRACE", submissions.GRACE / 600)
    monkeypatch.setattr(jobs, "SOONEST_POLL", jobs.SOONEST_POLL / 10)

    @contextlib.contextmanager
    def of(name: str) -> Iterator[Scene]:
        with provider(name) as (emulator, _):
            scene = Scene(emulator, customer, stranger, tmp_path)
            yield scene
            scene.assert_nothing_leaks()
            assert reconciliation.discrepancies() == []

    return of


def balance(caller):
    return ledger.balance(organization_id=caller.organization.pk)


@pytest.mark.parametrize("name", PROVIDERS)
@pytest.mark.parametrize("wish", INPUTS)
def test_what_is_asked_for_is_delivered_and_charged_once(scene, name, wish):
    with scene(name) as stage:
        generation = stage.run(**INPUTS[wish])

        assert (generation.status, balance(stage.customer)) == ("completed", (980, 0))
        assert balance(stage.stranger) == (1000, 0)
        assert len(stage.emulator.submissions) == 1
        (delivery,) = Delivery.objects.all()
        assert delivery.event == "video.generation.completed"
        video = stage.media / OutputAsset.objects.get(kind="video").path
        info = media_probe.probe(video)
        assert (info.width, info.height, info.duration_ms) == (864, 496, 4000)
        assert info.has_audio == INPUTS[wish].get("generate_audio", True)
        with av.open(str(video)) as container:
            told = [dict(stream.metadata) for stream in container.streams]
            assert not {"comment", "title", "artist", "encoder"} & set(container.metadata), container.metadata
            assert not [stream for stream in told if "encoder" in stream]
        kinds = set(OutputAsset.objects.values_list("kind", flat=True))
        assert ("last_frame" in kinds) == INPUTS[wish].get("return_last_frame", False)


@pytest.mark.parametrize("name", PROVIDERS)
@pytest.mark.parametrize(
    ("words", "code"),
    [
        (MODERATION, "content_policy_violation"),
        (BAD_REFERENCE, "invalid_reference"),
        (BREAKDOWN, "generation_failed"),
    ],
    ids=["moderation", "bad reference", "breakdown"],
)
def test_what_fails_is_told_in_our_words_and_refunded(scene, name, words, code):
    with scene(name) as stage:
        stage.emulator.knobs["fail"] = words[name]
        generation = stage.run(image_urls=[f"{CDN}/a.png"])

        assert (generation.status, generation.error_code) == ("failed", code)
        assert (balance(stage.customer), balance(stage.stranger)) == ((1000, 0), (1000, 0))
        assert len(stage.emulator.submissions) == (runner.MAX_FAILURES if code == "generation_failed" else 1)
        (delivery,) = Delivery.objects.all()
        assert delivery.event == "video.generation.failed"


@pytest.mark.parametrize("name", PROVIDERS)
@pytest.mark.parametrize("status", ["stuck", "unknown"])
def test_what_never_ends_is_a_timeout_and_refunded(scene, settings, name, status):
    settings.TASK_DEADLINE_SECONDS = 2
    with scene(name) as stage:
        stage.emulator.knobs["status"] = status
        generation = stage.run()

        assert (generation.status, generation.error_code) == ("failed", "generation_timeout")
        assert balance(stage.customer) == (1000, 0)
        assert len(stage.emulator.submissions) == 1
        assert UpstreamJob.objects.get().watch_at is not None


@pytest.mark.parametrize("name", PROVIDERS)
@pytest.mark.parametrize("fault", ["html", "5xx", "empty", "drop", "429", "401"])
def test_answers_that_tell_nothing_change_nothing(scene, name, fault):
    with scene(name) as stage:
        stage.emulator.knobs["poll"] = fault
        original = stage.emulator.handle
        asked = []

        def heal(request: Any) -> Any:
            """Answer well from the third question on."""
            if request.method == "GET":
                asked.append(request.path)
                if len(asked) > 2:
                    stage.emulator.knobs.pop("poll", None)
            return original(request)

        stage.emulator.handle = heal
        generation = stage.run()

        assert (generation.status, balance(stage.customer)) == ("completed", (980, 0))
        assert len(stage.emulator.submissions) == 1


@pytest.mark.parametrize("name", PROVIDERS)
@pytest.mark.parametrize("loss", ["drop", "late-5xx", "no-id"])
def test_a_lost_answer_is_never_followed_by_a_second_submission(scene, name, loss):
    with scene(name) as stage:
        Channel.objects.filter(adapter=name).update(unknown_grace_seconds=1)
        stage.emulator.knobs |= {"submit": loss, "callback": "none"}
        generation = stage.run()

        assert len(stage.emulator.submissions) == 1
        # Where there is a list the job is found in it; elsewhere the channel's policy refunds.
        is_found = name in ("ark", "replicate")
        assert generation.status == ("completed" if is_found else "failed")
        assert balance(stage.customer) == ((980, 0) if is_found else (1000, 0))


def test_a_request_that_no_provider_can_serve_waits_and_is_refunded_at_its_deadline(scene, settings):
    settings.TASK_DEADLINE_SECONDS = 1
    with scene("fal") as stage:
        generation = stage.run(
            image_urls=[f"{CDN}/{n}.png" for n in range(9)],
            video_urls=[f"{CDN}/{n}.mp4" for n in range(3)],
            audio_urls=[f"{CDN}/{n}.mp3" for n in range(3)],
        )

        assert (generation.error_code, stage.emulator.submissions) == ("generation_timeout", [])
        assert balance(stage.customer) == (1000, 0)
        assert generation.finished_at - generation.created_at < dt.timedelta(seconds=30)
