"""What the Ark adapter sends: every parameter, the customer's references, and their words as Ark reads them."""

import json
import time
from collections.abc import Iterator
from typing import Any

import pytest
import requests

from providers.adapters.ark import ArkAdapter, prompt_text
from providers.adapters.base import Accepted, ErrorClass, JobRequest, Reason, Refused, Succeeded, Ticket
from providers.emulators.ark import ArkEmulator
from providers.emulators.server import Pace
from providers.tests.ark_channel import KEY, MODELS, PATH, PRO, REQUEST, TICKET, ark, asking, send, taken
from tests.receivers import Answer, Receiver

IMAGES = tuple(f"https://cdn.example/{number}.png?X-Amz-Signature=s{number}" for number in range(1, 10))
VIDEOS = tuple(f"https://cdn.example/{number}.mp4" for number in range(1, 4))
AUDIOS = tuple(f"https://cdn.example/{number}.mp3" for number in range(1, 4))
TEXT = {"type": "text", "text": REQUEST.prompt}
USUAL = {
    "model": PRO,
    "content": [TEXT],
    "resolution": "480p",
    "ratio": "16:9",
    "duration": 4,
    "generate_audio": True,
    "watermark": False,
    "return_last_frame": False,
    "execution_expires_after": 3600,
    "safety_identifier": TICKET.tag,
}


def media(kind: str, role: str, *urls: str) -> list[dict[str, Any]]:
    return [{"type": kind, kind: {"url": url}, "role": role} for url in urls]


ALL_MEDIA = [
    *media("image_url", "reference_image", *IMAGES),
    *media("video_url", "reference_video", *VIDEOS),
    *media("audio_url", "reference_audio", *AUDIOS),
]
FRAMES = [*media("image_url", "first_frame", IMAGES[0]), *media("image_url", "last_frame", IMAGES[1])]
RATIOS = ("16:9", "4:3", "1:1", "3:4", "9:16", "21:9", "adaptive")
FRAMES_GIVEN = {"first_frame_url": IMAGES[0], "last_frame_url": IMAGES[1]}
TIERS = [("pro", "480p"), ("pro", "720p"), ("pro", "1080p")] + [
    (model, resolution) for model in ("fast", "mini") for resolution in ("480p", "720p")
]
# What a customer may ask for, and in what the body then differs from the usual one.
MATRIX: list[tuple[dict[str, Any], dict[str, Any]]] = [
    ({}, {}),
    ({"image_urls": IMAGES[:1]}, {"content": [TEXT, *ALL_MEDIA[:1]]}),
    ({"video_urls": VIDEOS[:2]}, {"content": [TEXT, *ALL_MEDIA[9:11]]}),
    ({"image_urls": IMAGES[:1], "audio_urls": AUDIOS[:1]}, {"content": [TEXT, ALL_MEDIA[0], ALL_MEDIA[12]]}),
    ({"video_urls": VIDEOS[:1], "audio_urls": AUDIOS}, {"content": [TEXT, ALL_MEDIA[9], *ALL_MEDIA[12:]]}),
    ({"image_urls": IMAGES, "video_urls": VIDEOS, "audio_urls": AUDIOS}, {"content": [TEXT, *ALL_MEDIA]}),
    (FRAMES_GIVEN, {"content": [TEXT, *FRAMES]}),
    ({**FRAMES_GIVEN, "aspect_ratio": "adaptive"}, {"content": [TEXT, *FRAMES], "ratio": "adaptive"}),
    *(({"aspect_ratio": ratio}, {"ratio": ratio}) for ratio in RATIOS),
    *(
        ({"model": model, "resolution": resolution}, {"model": MODELS[model], "resolution": resolution})
        for model, resolution in TIERS
    ),
    *(({"duration": duration}, {"duration": duration}) for duration in (4, 15)),
    ({"generate_audio": False}, {"generate_audio": False}),
    ({"watermark": True}, {"watermark": True}),
    ({"return_last_frame": True}, {"return_last_frame": True}),
    ({"seed": -1}, {}),
    ({"seed": 0}, {"seed": 0}),
    ({"seed": 42}, {"seed": 42}),
    ({"seed": 2**31 - 1}, {"seed": 2**31 - 1}),
    ({"seed": 2**31 + 7}, {"seed": 7}),
    ({"seed": 2**53 - 1}, {"seed": 2**31 - 1}),
]


@pytest.fixture(autouse=True)
def _loopback(settings: Any) -> None:
    settings.OUTBOUND_ALLOWED_HOSTS = ["127.0.0.1"]


@pytest.fixture
def emulator() -> Iterator[ArkEmulator]:
    emulator = ArkEmulator(key=KEY, pace=Pace(10, 60))
    with emulator.serving():
        yield emulator


@pytest.fixture
def adapter(emulator: ArkEmulator) -> ArkAdapter:
    return ark(emulator.origin + emulator.base_path)


def sent_body(request: JobRequest, *, model: str = "", ticket: Ticket = TICKET, **options: Any) -> dict[str, Any]:
    with Receiver() as receiver:
        receiver.plan(PATH, Answer(body=b'{"id": "cgt-1"}'))
        adapter = ark(receiver.url("/api/v3"), **options)
        outcome = adapter.submit(request, upstream_model=model or MODELS[request.model], ticket=ticket)
        assert outcome == Accepted("cgt-1")
        (received,) = receiver.requests
    assert (received.method, received.path) == ("POST", PATH)
    assert received.headers["authorization"] == f"Bearer {KEY}"
    assert received.headers["content-type"] == "application/json"
    body: dict[str, Any] = json.loads(received.body)
    return body


@pytest.mark.parametrize(("changes", "expected"), MATRIX)
def test_body_says_everything_and_the_provider_takes_it(
    adapter: ArkAdapter, emulator: ArkEmulator, changes: dict[str, Any], expected: dict[str, Any]
) -> None:
    request = asking(**changes)
    assert adapter.capabilities.lacks(request) == ""
    assert sent_body(request) == USUAL | expected

    taken(adapter, request)
    assert [(one.model, one.prompt) for one in emulator.submissions] == [(MODELS[request.model], REQUEST.prompt)]


def test_callback_url_tag_and_options_stand_in_the_body() -> None:
    assert sent_body(REQUEST, ticket=Ticket("t", "https://us.example/c/t", "tag")) == USUAL | {
        "callback_url": "https://us.example/c/t",
        "safety_identifier": "tag",
    }
    untagged = {name: value for name, value in USUAL.items() if name != "safety_identifier"}
    assert sent_body(REQUEST, tag=False) == untagged
    assert sent_body(REQUEST, ticket=Ticket("t", "")) == untagged
    assert sent_body(REQUEST, execution_expires_after=7200) == USUAL | {"execution_expires_after": 7200}
    assert sent_body(asking(seed=5), seed=False) == USUAL
    assert sent_body(REQUEST, frames_adaptive=True) == USUAL
    with_frames = USUAL | {"content": [TEXT, *FRAMES], "ratio": "adaptive"}
    assert sent_body(asking(**FRAMES_GIVEN), frames_adaptive=True) == with_frames
    assert sent_body(REQUEST, model="ep-20261122-abcde")["model"] == "ep-20261122-abcde"


def test_capabilities_are_those_of_the_sheet() -> None:
    capabilities = ArkAdapter.capabilities
    assert capabilities.resolutions is not None
    tiers = {(model, resolution) for model, found in capabilities.resolutions.items() for resolution in found}
    assert tiers == set(TIERS)
    assert capabilities.aspect_ratios == set(RATIOS)
    assert capabilities.has_watermark is True
    assert (capabilities.max_images, capabilities.max_videos, capabilities.max_audios) == (9, 3, 3)
    assert capabilities.lacks(asking(model="fast", resolution="1080p")) == "the resolution 1080p of fast"
    for ending in ("jpg", "jpeg", "png", "webp", "bmp", "tif", "tiff", "gif", "heic", "heif"):
        assert capabilities.lacks(asking(image_urls=(f"https://cdn.example/a.{ending}",))) == ""
    assert capabilities.lacks(asking(image_urls=("https://cdn.example/a.avif",))) == "images of the format avif"
    assert ArkAdapter.bulk_limit == 100
    assert ArkAdapter.submit_seconds >= 120


def test_audio_alone_is_refused_without_a_call(adapter: ArkAdapter, emulator: ArkEmulator) -> None:
    outcome = send(adapter, asking(audio_urls=AUDIOS[:1]))
    assert isinstance(outcome, Refused)
    assert (outcome.error_class, outcome.reason) == (ErrorClass.CUSTOMER_INPUT, Reason.AUDIO_ALONE)
    assert (emulator.requests, adapter.exchanges) == ([], [])


def test_other_cloud_has_other_models() -> None:
    emulator = ArkEmulator(key=KEY, cloud="volcengine")
    with emulator.serving() as base_url:
        taken(ark(base_url), model="doubao-seedance-2-0-260128")
        outcome = send(ark(base_url), model=PRO)
    assert isinstance(outcome, Refused)
    assert (outcome.error_class, outcome.is_model_only) == (ErrorClass.OUR_ACCOUNT, True)
    assert len(emulator.submissions) == 1


# --- The customer's words. ---


@pytest.mark.parametrize(
    ("prompt", "expected"),
    [
        ("A cat --dur 15", "A cat —dur 15"),
        ("A cat --DURATION=15 --rs 1080p", "A cat —DURATION=15 —rs 1080p"),
        ("A cat --dur15", "A cat —dur15"),
        ("A cat---dur 15", "A cat—dur 15"),
        ("--dur 15", "—dur 15"),
        ("A cat\n--dur\t15", "A cat\n—dur\t15"),
        ("A cat -- dur 15", "A cat — dur 15"),
        ("猫--dur十五", "猫—dur十五"),
        ("A cat ----dur 5dur 15", "A cat —dur 5dur 15"),
        ("A --d--dur 5ur 15", "A --d—dur 5ur 15"),
        *(
            (f"A cat --{flag} x", f"A cat —{flag} x")
            for flag in (
                *("rs", "resolution", "rt", "ratio", "dur", "duration", "frames", "fps", "framespersecond"),
                *("wm", "watermark", "seed", "cf", "camerafixed"),
            )
        ),
        # None of these is a flag.
        ("A cat - dur 15, well-dur 5", "A cat - dur 15, well-dur 5"),
        ("The knight -- tired -- walks --during rain --seeds fall", None),
        ("A ratio of 16:9 and a seed, 5 fps", None),
        ("—dur 15 –rs", None),
        ("  spaces and \n lines stay  ", None),
    ],
)
def test_suffix_flags_lose_their_hyphens_and_nothing_else(prompt: str, expected: str | None) -> None:
    assert prompt_text(asking(prompt)) == (prompt if expected is None else expected)


def test_flags_cannot_change_what_was_priced(adapter: ArkAdapter, emulator: ArkEmulator) -> None:
    prompt = "A cat --dur 15 --rs 1080p --rt 1:1 --wm true --seed 1"
    raw = {"model": PRO, "content": [{"type": "text", "text": prompt}], "duration": 4, "resolution": "480p"}
    url = emulator.origin + PATH
    headers = {"Authorization": f"Bearer {KEY}"}
    obeyed_id = requests.post(url, json=raw, headers=headers, timeout=5).json()["id"]
    ref = taken(adapter, asking(prompt, seed=7))
    emulator.skip(100)

    obeyed = requests.get(f"{url}/{obeyed_id}", headers=headers, timeout=5).json()
    assert (obeyed["duration"], obeyed["resolution"], obeyed["seed"]) == (15, "1080p", 1)
    outcome = adapter.fetch(ref)
    assert isinstance(outcome, Succeeded)
    assert {name: outcome.meta[name] for name in ("duration", "resolution", "ratio", "seed")} == {
        "duration": 4,
        "resolution": "480p",
        "ratio": "16:9",
        "seed": 7,
    }


def test_neutralising_takes_linear_time() -> None:
    # Milliseconds, where a pattern that tries again at every hyphen would take minutes.
    began = time.thread_time()
    for prompt in ("-" * 20_000 + " " * 20_000, "--" + " " * 40_000, "-- " * 15_000, "@image" * 8_000):
        assert prompt_text(asking(prompt)) == prompt
    assert time.thread_time() - began < 2


@pytest.mark.parametrize(
    ("prompt", "expected"),
    [
        ("@Image1 walks into @Image2", "Image 1 walks into Image 2"),
        ("@image1, @IMAGE2; @Image 1.", "Image 1, Image 2; Image 1."),
        ("as in @Video1 with @Audio1", "as in Video 1 with Audio 1"),
        ("让@Image1走进@Video1里", "让Image 1走进Video 1里"),
        ("Image 1 and 图片1 stay", None),
        ("@Image3, @Image0, @Image12, @Video2 are not there", None),
        ("mail bob@image1.com or joe@video1", None),
        ("@imagery1 @Image1st @Images1 @Image", None),
    ],
)
def test_references_are_named_as_the_provider_names_them(prompt: str, expected: str | None) -> None:
    request = asking(prompt, image_urls=IMAGES[:2], video_urls=VIDEOS[:1], audio_urls=AUDIOS[:1])
    assert prompt_text(request) == (prompt if expected is None else expected)


def test_frames_count_as_images_and_words_without_references_stay() -> None:
    assert prompt_text(asking("@Image1 to @Image2 to @Image3", **FRAMES_GIVEN)) == "Image 1 to Image 2 to @Image3"
    assert prompt_text(asking("@Image1 @Video1 @Audio1")) == "@Image1 @Video1 @Audio1"
