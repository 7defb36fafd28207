"""What the fal adapter sends, and how it reads what a submission comes to."""

import datetime as dt
import json
from collections.abc import Iterator, Mapping
from typing import Any
from urllib.parse import urlencode

import pytest

from providers.adapters import fal_errors
from providers.adapters.base import Accepted, ErrorClass, JobRequest, Lost, Reason, Refused, Ticket, Unknown
from providers.adapters.fal import FalAdapter
from providers.emulators.fal import FalEmulator
from providers.emulators.server import Pace
from providers.tests.fal_channel import (
    APP,
    KEY,
    MODELS,
    PRO,
    REQUEST,
    SHAPES,
    TICKET,
    TOLD,
    TYPES,
    asking,
    calls,
    fal,
    send,
    taken,
)
from tests.receivers import Answer, Receiver

IMAGES = tuple(f"https://cdn.example/{number}.png?X-Amz-Signature=s{number}" for number in range(1, 10))
VIDEOS = tuple(f"https://cdn.example/{number}.mp4" for number in range(1, 4))
AUDIOS = tuple(f"https://cdn.example/{number}.mp3" for number in range(1, 4))
FRAMES = {"first_frame_url": IMAGES[0], "last_frame_url": IMAGES[1]}
RATIOS = ("16:9", "4:3", "1:1", "3:4", "9:16", "21:9")
TIERS = [("pro", "480p"), ("pro", "720p"), ("pro", "1080p")] + [
    (model, resolution) for model in ("fast", "mini") for resolution in ("480p", "720p")
]
T2V, I2V, R2V = "text-to-video", "image-to-video", "reference-to-video"
USUAL = {
    "prompt": REQUEST.prompt,
    "resolution": "480p",
    "duration": "4",
    "aspect_ratio": "16:9",
    "generate_audio": True,
    "bitrate_mode": "standard",
}
# What a customer may ask for, the endpoint, and in what the body then differs from the usual one.
MATRIX: list[tuple[dict[str, Any], str, dict[str, Any]]] = [
    ({}, T2V, {}),
    ({"image_urls": IMAGES[:1]}, R2V, {"image_urls": [IMAGES[0]]}),
    ({"video_urls": VIDEOS[:2]}, R2V, {"video_urls": list(VIDEOS[:2])}),
    (
        {"image_urls": IMAGES[:1], "audio_urls": AUDIOS[:1]},
        R2V,
        {"image_urls": [IMAGES[0]], "audio_urls": [AUDIOS[0]]},
    ),
    (
        {"video_urls": VIDEOS[:1], "audio_urls": AUDIOS},
        R2V,
        {"video_urls": [VIDEOS[0]], "audio_urls": list(AUDIOS)},
    ),
    (
        {"image_urls": IMAGES[:6], "video_urls": VIDEOS, "audio_urls": AUDIOS},
        R2V,
        {"image_urls": list(IMAGES[:6]), "video_urls": list(VIDEOS), "audio_urls": list(AUDIOS)},
    ),
    ({"image_urls": IMAGES, "video_urls": VIDEOS}, R2V, {"image_urls": list(IMAGES), "video_urls": list(VIDEOS)}),
    ({"first_frame_url": IMAGES[0]}, I2V, {"image_url": IMAGES[0]}),
    (FRAMES, I2V, {"image_url": IMAGES[0], "end_image_url": IMAGES[1]}),
    (
        {**FRAMES, "aspect_ratio": "adaptive"},
        I2V,
        {"image_url": IMAGES[0], "end_image_url": IMAGES[1], "aspect_ratio": "auto"},
    ),
    *(({"aspect_ratio": ratio}, T2V, {"aspect_ratio": ratio}) for ratio in RATIOS),
    ({"aspect_ratio": "adaptive"}, T2V, {"aspect_ratio": "auto"}),
    *(({"model": model, "resolution": resolution}, T2V, {"resolution": resolution}) for model, resolution in TIERS),
    ({"model": "fast", "image_urls": IMAGES[:1]}, R2V, {"image_urls": [IMAGES[0]]}),
    ({"model": "mini", **FRAMES}, I2V, {"image_url": IMAGES[0], "end_image_url": IMAGES[1]}),
    *(({"duration": duration}, T2V, {"duration": str(duration)}) for duration in (4, 15)),
    ({"generate_audio": False}, T2V, {"generate_audio": False}),
    # The provider has none of these.
    ({"watermark": True, "return_last_frame": True, "seed": 42}, T2V, {}),
]
NO_HEADER = [(f"{kind}/no-header", status, error_class) for kind, status, error_class in TYPES]


@pytest.fixture(autouse=True)
def _loopback(settings: Any) -> None:
    settings.OUTBOUND_ALLOWED_HOSTS = ["127.0.0.1"]


@pytest.fixture
def emulator() -> Iterator[FalEmulator]:
    emulator = FalEmulator(key=KEY, pace=Pace(1_000, 1_000))
    with emulator.serving():
        yield emulator


@pytest.fixture
def adapter(emulator: FalEmulator) -> FalAdapter:
    return fal(emulator.origin)


def sent(
    request: JobRequest, form: str = T2V, *, ticket: Ticket = TICKET, query: str = "", **options: Any
) -> tuple[dict[str, Any], Mapping[str, str]]:
    """Submit to a provider that only listens; return the body and the headers that came."""
    path = f"/{MODELS[request.model]}/{form}{query}"
    with Receiver() as receiver:
        receiver.plan(path, Answer(body=b'{"request_id": "r-1", "status": "IN_QUEUE"}'))
        adapter = fal(receiver.url(""), **options)
        assert adapter.submit(request, upstream_model=MODELS[request.model], ticket=ticket) == Accepted("r-1")
        (received,) = receiver.requests
    assert (received.method, received.path) == ("POST", path)
    return json.loads(received.body), received.headers


def usual(model: str) -> dict[str, Any]:
    return {name: value for name, value in USUAL.items() if (name, model) != ("bitrate_mode", "mini")}


@pytest.mark.parametrize(("changes", "form", "expected"), MATRIX)
def test_body_says_everything_and_the_provider_takes_it(
    adapter: FalAdapter, emulator: FalEmulator, changes: dict[str, Any], form: str, expected: dict[str, Any]
) -> None:
    request = asking(**changes)
    assert adapter.capabilities.lacks(request) == ""
    body, _ = sent(request, form)
    assert body == usual(request.model) | expected

    taken(adapter, request)
    (submission,) = emulator.submissions
    assert (submission.model, submission.prompt) == (f"{MODELS[request.model]}/{form}", REQUEST.prompt)
    assert submission.callback_url == ""


def test_headers_say_who_asks_and_how_long_to_wait() -> None:
    _, headers = sent(REQUEST)
    assert headers["authorization"] == f"Key {KEY}"
    assert headers["content-type"] == "application/json"
    assert headers["x-fal-request-timeout"] == "1800"
    assert json.loads(headers["x-fal-object-lifecycle-preference"]) == {"expiration_duration_seconds": 604800}
    assert {name for name in headers if name.startswith("x-fal")} == {
        "x-fal-request-timeout",
        "x-fal-object-lifecycle-preference",
    }
    _, headers = sent(REQUEST, start_seconds=60, file_seconds=3600)
    assert headers["x-fal-request-timeout"] == "60"
    assert json.loads(headers["x-fal-object-lifecycle-preference"]) == {"expiration_duration_seconds": 3600}


def test_callback_url_stands_in_the_query_and_bitrate_is_an_option(adapter: FalAdapter, emulator: FalEmulator) -> None:
    callback_url = "https://us.example/c/t0ken?x=1&y=ü"
    body, _ = sent(REQUEST, ticket=Ticket("t", callback_url), query=f"?{urlencode({'fal_webhook': callback_url})}")
    assert body == USUAL
    taken(adapter, callback_url=callback_url)
    assert emulator.submissions[0].callback_url == callback_url

    assert sent(REQUEST, bitrate_mode="high")[0] == USUAL | {"bitrate_mode": "high"}
    assert sent(REQUEST, bitrate_mode="")[0] == usual("mini")
    assert sent(asking(model="mini"), bitrate_mode="high")[0] == usual("mini")


def test_prompt_names_references_and_cannot_change_what_was_priced() -> None:
    request = asking("@image1 meets @Image 2 and @image3, like @VIDEO1 --dur 15", image_urls=IMAGES[:2])
    assert sent(request, R2V)[0]["prompt"] == "@Image1 meets @Image2 and @image3, like @VIDEO1 —dur 15"


def test_capabilities_are_those_of_the_sheet() -> None:
    capabilities = FalAdapter.capabilities
    assert capabilities.resolutions is not None
    tiers = {(model, resolution) for model, found in capabilities.resolutions.items() for resolution in found}
    assert tiers == set(TIERS)
    assert capabilities.aspect_ratios == {*RATIOS, "adaptive"}
    assert capabilities.has_watermark is False
    assert (capabilities.max_images, capabilities.max_videos, capabilities.max_audios) == (9, 3, 3)
    too_many = asking(image_urls=IMAGES, video_urls=VIDEOS, audio_urls=AUDIOS)
    assert capabilities.lacks(too_many) == "15 files, more than 12"
    assert capabilities.lacks(asking(image_urls=(*IMAGES, IMAGES[0]))) == "10 images, more than 9"
    assert capabilities.lacks(asking(model="mini", resolution="1080p")) == "the resolution 1080p of mini"
    for ending in ("bmp", "tif", "tiff", "gif", "heic", "heif", "avif"):
        for changes in (
            {"image_urls": (f"https://cdn.example/a.{ending}",)},
            {"first_frame_url": f"https://x/a.{ending}"},
        ):
            assert capabilities.lacks(asking(**changes)) == f"images of the format {ending}"
    for ending in ("jpg", "jpeg", "png", "webp", "php"):
        assert capabilities.lacks(asking(image_urls=(f"https://cdn.example/a.{ending}",))) == ""


def test_audio_alone_is_refused_without_a_call(adapter: FalAdapter, emulator: FalEmulator) -> None:
    outcome = send(adapter, asking(audio_urls=AUDIOS[:1]))
    assert isinstance(outcome, Refused)
    assert (outcome.error_class, outcome.reason) == (ErrorClass.CUSTOMER_INPUT, Reason.AUDIO_ALONE)
    assert (emulator.requests, adapter.exchanges) == ([], [])


def test_addresses_are_kept_as_they_came_if_they_are_the_provider_s_own(
    adapter: FalAdapter, emulator: FalEmulator
) -> None:
    ref = taken(adapter)
    built = f"{emulator.origin}{APP}/requests/{ref.upstream_id}"
    assert ref.urls == {"status": f"{built}/status", "response": built, "cancel": f"{built}/cancel"}
    emulator.knobs["response-url"] = "suffixed"
    assert taken(adapter).urls["response"].endswith("/response")

    with Receiver() as receiver:
        own = receiver.url("/elsewhere/status?x=1")
        urls = {"status_url": own, "response_url": "https://evil.example/r", "cancel_url": f"{own}\x00"}
        receiver.plan(f"{APP}/{T2V}", Answer(body=json.dumps({"request_id": "r-1", **urls}).encode()))
        assert send(fal(receiver.url(""))) == Accepted("r-1", {"status": own})
        for odd in (5, None, "", "status", own.replace("http:", "https:"), own.replace("//", "//key@")):
            answer = Answer(body=json.dumps({"request_id": "r-1", "status_url": odd}).encode())
            receiver.plan(f"{APP}/{T2V}", answer)
            assert send(fal(receiver.url(""))) == Accepted("r-1")


# --- Refusals. ---


def test_every_type_of_the_table_is_tested() -> None:
    kinds = {kind.partition("/")[0] for kind, _, _ in TYPES}
    assert fal_errors.FAULTS.keys() - kinds == set()


@pytest.mark.parametrize(("word", "status", "error_class"), [*TYPES, *NO_HEADER])
def test_refusal_has_its_class_and_nothing_else_is_certain(
    adapter: FalAdapter, emulator: FalEmulator, word: str, status: int, error_class: ErrorClass
) -> None:
    emulator.knobs["submit"] = f"error:{word}"
    outcome = send(adapter)
    if status < 499:
        assert isinstance(outcome, Refused)
        assert (outcome.error_class, outcome.reason) == (error_class, None)
        assert (outcome.retry_after, outcome.is_model_only) == (None, False)
    else:
        assert isinstance(outcome, Unknown)
    assert outcome.detail.startswith(f'HTTP {status} {{"type": "{word.partition("/")[0]}", "at": "')
    assert ("partner_validation_failed" in outcome.detail) is ("/person" in word)
    assert (emulator.submissions, calls(emulator)) == ([], [("POST", f"{APP}/{T2V}")])


@pytest.mark.parametrize(("word", "error_class"), [*TOLD, *SHAPES])
def test_refusal_is_read_in_all_its_shapes(
    adapter: FalAdapter, emulator: FalEmulator, word: str, error_class: ErrorClass
) -> None:
    emulator.knobs["submit"] = f"error:{word}"
    outcome = send(adapter)
    is_certain = not word.startswith(("internal", "runner", "request", "client"))
    assert isinstance(outcome, Refused if is_certain else Unknown)
    if isinstance(outcome, Refused):
        assert outcome.error_class is error_class


@pytest.mark.parametrize(
    ("word", "error_class", "is_model_only"),
    [
        ("401", ErrorClass.OUR_ACCOUNT, False),
        ("403", ErrorClass.OUR_ACCOUNT, False),
        ("403/abuse", ErrorClass.OUR_ACCOUNT, False),
        ("403/access", ErrorClass.OUR_ACCOUNT, True),
        ("404", ErrorClass.OUR_BUG, False),
        ("429", ErrorClass.CAPACITY, False),
        ("429/rate", ErrorClass.CAPACITY, False),
        ("brand new words", ErrorClass.UNKNOWN, False),
    ],
)
def test_gateway_s_refusal_has_its_class(
    adapter: FalAdapter, emulator: FalEmulator, word: str, error_class: ErrorClass, is_model_only: bool
) -> None:
    emulator.knobs["submit"] = f"error:{word}"
    outcome = send(adapter)
    assert isinstance(outcome, Refused)
    assert (outcome.error_class, outcome.is_model_only) == (error_class, is_model_only)
    assert outcome.detail.startswith("Our account is refused: ") is word.startswith(("401", "403"))
    assert (emulator.submissions, calls(emulator)) == ([], [("POST", f"{APP}/{T2V}")])


def test_wrong_key_path_and_input_are_refused(emulator: FalEmulator) -> None:
    outcomes = [
        send(fal(emulator.origin + "/v9")),
        send(fal(emulator.origin), model="bytedance/seedance-9"),
        send(fal(emulator.origin), asking(duration=3)),
    ]
    for outcome in outcomes:
        assert isinstance(outcome, Refused)
        assert outcome.error_class is ErrorClass.OUR_BUG
    emulator.key = "another"
    outcome = send(fal(emulator.origin))
    assert isinstance(outcome, Refused)
    assert outcome.error_class is ErrorClass.OUR_ACCOUNT
    assert emulator.submissions == []


def answered(answer: Answer) -> tuple[Any, int]:
    """Submit once to a provider that answers so; return the outcome and how many requests came."""
    with Receiver() as receiver:
        receiver.plan(f"{APP}/{T2V}", answer)
        return send(fal(receiver.url(""))), len(receiver.requests)


def test_undocumented_refusal_is_certain_and_unknown() -> None:
    new = [{"loc": ["body", "prompt"], "msg": "No", "type": "brand_new"}]
    for status, body in ((422, {"detail": new}), (402, {"detail": "Pay."}), (418, {}), (413, {"error": {"a": 1}})):
        outcome, _ = answered(Answer(status, json.dumps(body).encode(), {"X-Fal-Retryable": "true"}))
        assert isinstance(outcome, Refused)
        assert outcome.error_class is ErrorClass.UNKNOWN
    # Only 403 speaks of what our key may do.
    for status, is_model_only in ((403, True), (401, False), (422, False)):
        outcome, _ = answered(Answer(status, b'{"detail": "No access to the model."}'))
        assert outcome.is_model_only is is_model_only
    outcome, _ = answered(Answer(429, b'{"detail": "%s"}' % (b"x" * 9_000), {"Retry-After": "7"}))
    assert (outcome.error_class, outcome.retry_after, len(outcome.detail)) == (ErrorClass.CAPACITY, 7.0, 500)


@pytest.mark.parametrize(
    "detail", [[], [5, None], [[]], [{"type": 5}], {"loc": "prompt"}, {"ctx": {"extra_info": []}, "loc": [1]}, 5, None]
)
def test_detail_of_any_shape_is_read(detail: Any) -> None:
    body = json.dumps({"detail": detail}).encode()
    outcome, _ = answered(Answer(422, body, {"X-Fal-Error-Type": "missing"}))
    assert (type(outcome), outcome.error_class) == (Refused, ErrorClass.OUR_BUG)
    outcome, _ = answered(Answer(422, body))
    assert (type(outcome), outcome.error_class) == (Refused, ErrorClass.UNKNOWN)


def test_type_that_is_known_counts_before_one_that_is_not() -> None:
    body = b'{"detail": [{"msg": "a"}, {"type": "string_too_long", "msg": "b", "loc": ["body", "prompt"]}]}'
    outcome, _ = answered(Answer(422, body, {"X-Fal-Error-Type": "value_error"}))
    assert outcome.error_class is ErrorClass.OUR_BUG
    assert outcome.detail == 'HTTP 422 {"type": "value_error", "at": "prompt", "message": "b", "cause": ""}'
    outcome, _ = answered(Answer(422, body))
    assert (outcome.error_class, '"type": "string_too_long"' in outcome.detail) == (ErrorClass.UNKNOWN, True)


# --- What nobody can tell. ---


@pytest.mark.parametrize(
    ("word", "stored_count"),
    [
        *((word, 1) for word in ("drop", "hang", "no-id", "late-5xx", "late-5xx/with-id")),
        *((word, 0) for word in ("drop-before", "html")),
    ],
)
def test_outcome_is_unknown_and_nothing_is_sent_twice(
    adapter: FalAdapter, emulator: FalEmulator, monkeypatch: pytest.MonkeyPatch, word: str, stored_count: int
) -> None:
    if word == "hang":
        monkeypatch.setattr(FalAdapter, "submit_seconds", 0.5)
    emulator.knobs["submit"] = word
    assert isinstance(send(adapter), Unknown)
    assert len(emulator.submissions) == stored_count
    assert calls(emulator) == [("POST", f"{APP}/{T2V}")]
    # There is no list to look through: only the webhook can tell.
    assert adapter.recover(Lost(REQUEST, PRO, TICKET.tag, b"", dt.datetime.now(dt.UTC))) is None
    assert len(emulator.requests) == 1


@pytest.mark.parametrize(
    "answer",
    [
        Answer(500, b'{"detail": "No."}'),
        Answer(503, b'{"request_id": "r-1"}'),
        Answer(408, b'{"detail": "No."}'),
        Answer(302, b'{"request_id": "r-1"}', {"Location": "http://127.0.0.1:1/"}),
        # A refusal that names a request is none.
        Answer(422, b'{"request_id": "r-1", "detail": "No."}'),
        *(Answer(body=body) for body in (b"", b"[]", b"null", b"{}", b'"r-1"', b'{"status": "IN_QUEUE"}')),
        *(Answer(body=json.dumps({"request_id": one}).encode()) for one in (None, "", 5, ["x"], "../x", "x" * 201)),
        Answer(body=b'{"request_id": "r-1"', has_length=False),
        Answer(is_reset=True),
        Answer(raw=b"HTTP/1.1 200 OK\r\nContent-Length: 99\r\n\r\n{"),
    ],
)
def test_answer_that_is_neither_an_id_nor_a_refusal_is_unknown(answer: Answer) -> None:
    outcome, request_count = answered(answer)
    assert isinstance(outcome, Unknown)
    assert request_count == 1


def test_what_never_left_is_certainly_refused(settings: Any) -> None:
    with Receiver() as receiver:
        closed = receiver.url("")
    outcome = send(fal(closed))
    assert isinstance(outcome, Refused)
    assert outcome.error_class is ErrorClass.TRANSIENT
    settings.OUTBOUND_ALLOWED_HOSTS = []
    outcome = send(fal(closed))
    assert isinstance(outcome, Refused)
    assert outcome.error_class is ErrorClass.OUR_ACCOUNT
