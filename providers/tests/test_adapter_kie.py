"""What the Kie adapter sends, and how it reads what a submission comes to."""

import datetime as dt
import json
from collections.abc import Iterator
from typing import Any

import pytest

from providers.adapters import kie_errors
from providers.adapters.base import Accepted, ErrorClass, JobRequest, Lost, Reason, Refused, Ticket, Unknown
from providers.adapters.kie import KieAdapter
from providers.emulators.kie import KieEmulator
from providers.emulators.server import Pace
from providers.tests.kie_channel import CREATE, KEY, MODELS, PRO, REQUEST, TICKET, asking, calls, kie, send, taken
from tests.receivers import Answer, Receiver

IMAGES = tuple(f"https://cdn.example/{number}.png?X-Amz-Signature=s{number}" for number in range(1, 10))
VIDEOS = tuple(f"https://cdn.example/{number}.mp4" for number in range(1, 4))
AUDIOS = tuple(f"https://cdn.example/{number}.mp3" for number in range(1, 4))
FRAMES = {"first_frame_url": IMAGES[0], "last_frame_url": IMAGES[1]}
RATIOS = ("16:9", "4:3", "1:1", "3:4", "9:16", "21:9", "adaptive")
TIERS = [("pro", "480p"), ("pro", "720p"), ("pro", "1080p")] + [
    (model, resolution) for model in ("fast", "mini") for resolution in ("480p", "720p")
]
USUAL = {
    "prompt": REQUEST.prompt,
    "resolution": "480p",
    "aspect_ratio": "16:9",
    "duration": 4,
    "generate_audio": True,
    "return_last_frame": False,
    "web_search": False,
}
# What a customer may ask for, and in what `input` then differs from the usual one.
MATRIX: list[tuple[dict[str, Any], dict[str, Any]]] = [
    ({}, {}),
    ({"image_urls": IMAGES[:1]}, {"reference_image_urls": [IMAGES[0]]}),
    ({"video_urls": VIDEOS[:2]}, {"reference_video_urls": list(VIDEOS[:2])}),
    (
        {"image_urls": IMAGES[:1], "audio_urls": AUDIOS[:1]},
        {"reference_image_urls": [IMAGES[0]], "reference_audio_urls": [AUDIOS[0]]},
    ),
    (
        {"video_urls": VIDEOS[:1], "audio_urls": AUDIOS},
        {"reference_video_urls": [VIDEOS[0]], "reference_audio_urls": list(AUDIOS)},
    ),
    (
        {"image_urls": IMAGES, "video_urls": VIDEOS, "audio_urls": AUDIOS},
        {
            "reference_image_urls": list(IMAGES),
            "reference_video_urls": list(VIDEOS),
            "reference_audio_urls": list(AUDIOS),
        },
    ),
    (FRAMES, FRAMES),
    ({**FRAMES, "aspect_ratio": "adaptive"}, {**FRAMES, "aspect_ratio": "adaptive"}),
    *(({"aspect_ratio": ratio}, {"aspect_ratio": ratio}) for ratio in RATIOS),
    *(({"model": model, "resolution": resolution}, {"resolution": resolution}) for model, resolution in TIERS),
    *(({"duration": duration}, {"duration": duration}) for duration in (4, 15)),
    ({"generate_audio": False}, {"generate_audio": False}),
    ({"return_last_frame": True}, {"return_last_frame": True}),
    # Neither is in the published schema.
    ({"watermark": True}, {}),
    ({"seed": 42}, {}),
]

ACCOUNT, BUG, INPUT = ErrorClass.OUR_ACCOUNT, ErrorClass.OUR_BUG, ErrorClass.CUSTOMER_INPUT
# Every code of the sheet's §4 that is a certain refusal, as the emulator's word, and codes of which it knows nothing.
REFUSALS: list[tuple[str, ErrorClass]] = [
    ("400", BUG),
    ("401", ACCOUNT),
    ("402", ACCOUNT),
    ("404", BUG),
    ("422", BUG),
    ("422/url", INPUT),
    ("422/format", INPUT),
    ("422/size", INPUT),
    ("422/duration", INPUT),
    ("429", ErrorClass.CAPACITY),
    ("429/rate", ErrorClass.CAPACITY),
    ("429/concurrent", ErrorClass.CAPACITY),
    ("433", ACCOUNT),
    ("455", ErrorClass.TRANSIENT),
    ("505", ACCOUNT),
    ("403", ErrorClass.UNKNOWN),
    ("418", ErrorClass.UNKNOWN),
]


@pytest.fixture(autouse=True)
def _loopback(settings: Any) -> None:
    settings.OUTBOUND_ALLOWED_HOSTS = ["127.0.0.1"]


@pytest.fixture
def emulator() -> Iterator[KieEmulator]:
    emulator = KieEmulator(key=KEY, pace=Pace(1_000, 1_000))
    # A key that Kie does not know is a mistake of ours, although it may not refuse it (Kie sheet §8.6).
    emulator.knobs["extra-keys"] = "refused"
    with emulator.serving():
        yield emulator


@pytest.fixture
def adapter(emulator: KieEmulator) -> KieAdapter:
    return kie(emulator.origin)


def sent_body(request: JobRequest, *, ticket: Ticket = TICKET, **options: Any) -> dict[str, Any]:
    with Receiver() as receiver:
        receiver.plan(CREATE, Answer(body=b'{"code": 200, "msg": "success", "data": {"taskId": "task_1"}}'))
        adapter = kie(receiver.url(""), **options)
        outcome = adapter.submit(request, upstream_model=MODELS[request.model], ticket=ticket)
        assert outcome == Accepted("task_1")
        (received,) = receiver.requests
    assert (received.method, received.path) == ("POST", CREATE)
    assert received.headers["authorization"] == f"Bearer {KEY}"
    assert received.headers["content-type"] == "application/json"
    body: dict[str, Any] = json.loads(received.body)
    return body


@pytest.mark.parametrize(("changes", "expected"), MATRIX)
def test_body_says_everything_and_the_provider_takes_it(
    adapter: KieAdapter, emulator: KieEmulator, changes: dict[str, Any], expected: dict[str, Any]
) -> None:
    request = asking(**changes)
    assert adapter.capabilities.lacks(request) == ""
    assert sent_body(request) == {"model": MODELS[request.model], "input": USUAL | expected}

    taken(adapter, request)
    assert [(one.model, one.prompt) for one in emulator.submissions] == [(MODELS[request.model], REQUEST.prompt)]


def test_callback_url_and_options_stand_in_the_body() -> None:
    assert sent_body(REQUEST, ticket=Ticket("t", "https://us.example/c/t", "tag")) == {
        "model": PRO,
        "callBackUrl": "https://us.example/c/t",
        "input": USUAL,
    }
    adaptive = asking(aspect_ratio="adaptive")
    assert sent_body(adaptive, adaptive="auto")["input"] == USUAL | {"aspect_ratio": "auto"}
    without_ratio = {name: value for name, value in USUAL.items() if name != "aspect_ratio"}
    assert sent_body(adaptive, adaptive="")["input"] == without_ratio
    assert sent_body(REQUEST, adaptive="")["input"] == USUAL
    named = asking("@Image1, @Image2", image_urls=IMAGES[:1])
    assert sent_body(named, reference_tag="[{kind} {number}]")["input"]["prompt"] == "[Image 1], @Image2"


@pytest.mark.parametrize(
    ("prompt", "expected"),
    [
        ("@image1 meets @Image 2, like @VIDEO1", "@Image1 meets @Image2, like @Video1"),
        ("@Image10 and me@image1.example", "@Image10 and me@image1.example"),
        ("@Audio1 stays", "@Audio1 stays"),
        ("A run --dur 15 --resolution 1080p", "A run —dur 15 —resolution 1080p"),
        ("Well -- a pause", "Well -- a pause"),
        ("跟着@Image1走", "跟着@Image1走"),
    ],
)
def test_prompt_names_references_and_cannot_change_what_was_priced(prompt: str, expected: str) -> None:
    request = asking(prompt, image_urls=IMAGES[:2], video_urls=VIDEOS[:1])
    assert sent_body(request)["input"]["prompt"] == expected


def test_capabilities_are_those_of_the_sheet() -> None:
    capabilities = KieAdapter.capabilities
    assert capabilities.resolutions is not None
    tiers = {(model, resolution) for model, found in capabilities.resolutions.items() for resolution in found}
    assert tiers == set(TIERS)
    assert capabilities.aspect_ratios == set(RATIOS)
    assert capabilities.has_watermark is False
    assert (capabilities.max_images, capabilities.max_videos, capabilities.max_audios) == (9, 3, 3)
    assert capabilities.max_files == 15
    assert capabilities.lacks(asking(model="fast", resolution="1080p")) == "the resolution 1080p of fast"
    assert capabilities.lacks(asking(image_urls=(*IMAGES, IMAGES[0]))) == "10 images, more than 9"


def test_audio_alone_is_refused_without_a_call(adapter: KieAdapter, emulator: KieEmulator) -> None:
    outcome = send(adapter, asking(audio_urls=AUDIOS[:1]))
    assert isinstance(outcome, Refused)
    assert (outcome.error_class, outcome.reason) == (INPUT, Reason.AUDIO_ALONE)
    assert (emulator.requests, adapter.exchanges) == ([], [])


# --- Refusals. ---


def test_every_code_of_the_table_is_tested() -> None:
    codes = {int(word[:3]) for word, _ in REFUSALS}
    assert kie_errors.DOCUMENTED - codes == {200, 500, 501}


@pytest.mark.parametrize(("word", "error_class"), REFUSALS)
def test_refusal_has_its_class(adapter: KieAdapter, emulator: KieEmulator, word: str, error_class: ErrorClass) -> None:
    emulator.knobs["submit"] = f"error:{word}"
    outcome = send(adapter)
    assert isinstance(outcome, Refused)
    assert (outcome.error_class, outcome.reason) == (error_class, None)
    assert outcome.is_model_only is (word == "505")
    assert outcome.retry_after == (10.0 if word.startswith("429") else None)
    assert f'HTTP 200 {{"code": {word[:3]}, "message": "' in outcome.detail
    assert outcome.detail.startswith("Our account is refused") is (word in ("401", "402", "403", "433", "505"))
    assert emulator.submissions == []
    assert calls(emulator) == [("POST", CREATE)]


def test_refusal_of_a_provider_that_limits_us_has_its_class(adapter: KieAdapter, emulator: KieEmulator) -> None:
    for name in ("rate-limit", "max-concurrent"):
        emulator.submissions.clear()
        emulator.knobs = {}
        taken(adapter)
        emulator.knobs = {name: "1"}
        outcome = send(adapter)
        assert isinstance(outcome, Refused)
        assert (outcome.error_class, outcome.retry_after) == (ErrorClass.CAPACITY, 10.0)
        assert len(emulator.submissions) == 1
        emulator.skip(10)


def test_wrong_key_and_wrong_path_and_wrong_model_are_refused(emulator: KieEmulator) -> None:
    emulator.key = "another"
    outcome = send(kie(emulator.origin))
    assert isinstance(outcome, Refused)
    assert outcome.error_class is ACCOUNT
    outcome = send(kie(emulator.origin + "/v9"))
    assert isinstance(outcome, Refused)
    assert (outcome.error_class, outcome.detail[:8]) == (BUG, "HTTP 404")
    emulator.key = KEY
    outcome = send(kie(emulator.origin), model="bytedance/seedance-1")
    assert isinstance(outcome, Refused)
    assert outcome.error_class is BUG
    assert emulator.submissions == []


def test_references_that_play_too_long_are_the_customer_s(adapter: KieAdapter, emulator: KieEmulator) -> None:
    outcome = send(adapter, asking(video_urls=("https://cdn.example/a.mp4?seconds=16",)))
    assert isinstance(outcome, Refused)
    assert outcome.error_class is INPUT
    assert emulator.submissions == []


@pytest.mark.parametrize(
    ("sentence", "error_class"),
    [
        ("reference_image_urls: the image width must be at least 300 pixels", INPUT),
        ("Failed to download the file", INPUT),
        ("first_frame_url: file size exceeds 30MB", INPUT),
        ("The reference image may contain a real person", ErrorClass.CUSTOMER_MODERATION),
        ("prompt violates our policy", ErrorClass.CUSTOMER_MODERATION),
        # Our own fields, although some sound like a file's.
        ("duration must be an integer from 4 to 15", BUG),
        ("resolution must be one of 480p, 720p", BUG),
        ("aspect_ratio has a wrong format", BUG),
        ("callBackUrl must be a URL", BUG),
        ("last_frame_url requires first_frame_url", BUG),
        ("first_frame_url, last_frame_url and the reference arrays are mutually exclusive", BUG),
        ("reference_image_urls must be an array of at most 9 URLs", BUG),
        ("prompt is too large", BUG),
        ("The model is not supported", BUG),
        ("", BUG),
    ],
)
def test_sentence_of_a_validation_tells_whose_fault_it_is(sentence: str, error_class: ErrorClass) -> None:
    outcome, _ = answered(Answer(body=reply(422, sentence)))
    assert (outcome.error_class, outcome.is_model_only) == (error_class, False)


def reply(code: Any, message: str = "No", data: Any = None, *, key: str = "msg") -> bytes:
    return json.dumps({"code": code, key: message, "data": data}).encode()


def answered(answer: Answer, **options: Any) -> tuple[Any, int]:
    """Submit once to a provider that answers so; return the outcome and how many requests came."""
    with Receiver() as receiver:
        receiver.plan(CREATE, answer)
        outcome = send(kie(receiver.url(""), **options))
        return outcome, len(receiver.requests)


def test_refusal_is_read_in_all_its_spellings() -> None:
    for body in (reply(402), reply("402"), reply(402, key="message"), b'{"code": 402, "msg": "No"}'):
        outcome, _ = answered(Answer(body=body))
        assert (outcome.error_class, '"message": "No"' in outcome.detail) == (ACCOUNT, True)
    outcome, _ = answered(Answer(429, reply(429, "x" * 9_000), {"Retry-After": "7"}))
    assert (outcome.error_class, outcome.retry_after, len(outcome.detail)) == (ErrorClass.CAPACITY, 7.0, 500)


def test_real_status_counts_where_the_body_has_no_code() -> None:
    expected = {404: BUG, 401: ACCOUNT, 429: ErrorClass.CAPACITY, 418: ErrorClass.UNKNOWN}
    for status, error_class in expected.items():
        outcome, _ = answered(Answer(status, b'{"error": "no"}'))
        assert isinstance(outcome, Refused)
        assert outcome.error_class is error_class


def test_failed_generation_is_certain_only_where_the_customer_is_to_blame() -> None:
    # What is refused so is never sent again; anything else might be, and be paid twice.
    for sentence, error_class in (
        ("The input image may contain real person.", ErrorClass.CUSTOMER_MODERATION),
        ("Failed to download the reference image.", INPUT),
    ):
        outcome, _ = answered(Answer(body=reply(501, sentence)))
        assert (type(outcome), outcome.error_class) == (Refused, error_class)
    for sentence in ("The service is busy.", "The muse did not come.", ""):
        outcome, _ = answered(Answer(body=reply(501, sentence)))
        assert isinstance(outcome, Unknown)


def test_words_of_a_channel_stand_beside_ours() -> None:
    body = reply(501, "A likeness was found.")
    for words in ({}, {"customer_moderation": [""]}, {"our_bug": ["likeness"]}):
        assert isinstance(answered(Answer(body=body), words=words)[0], Unknown)
    outcome, _ = answered(Answer(body=body), words={"customer_moderation": ["Likeness"]})
    assert outcome.error_class is ErrorClass.CUSTOMER_MODERATION


# --- What nobody can tell. ---


@pytest.mark.parametrize(
    ("word", "stored_count"),
    [
        *((word, 1) for word in ("drop", "hang", "no-id", "no-data", "empty", "late-html", "late-5xx")),
        *((word, 0) for word in ("drop-before", "html", "error:500", "error:501", "error:408", "error:502")),
    ],
)
def test_outcome_is_unknown_and_nothing_is_sent_twice(
    adapter: KieAdapter, emulator: KieEmulator, monkeypatch: pytest.MonkeyPatch, word: str, stored_count: int
) -> None:
    if word == "hang":
        monkeypatch.setattr(KieAdapter, "submit_seconds", 0.5)
    emulator.knobs["submit"] = word
    assert isinstance(send(adapter), Unknown)
    assert len(emulator.submissions) == stored_count
    assert calls(emulator) == [("POST", CREATE)]


ODD_CODES: tuple[Any, ...] = (0, -1, 1, 201, 1001, None, "ok", [], 408, 499)
ODD_DATA: tuple[Any, ...] = (None, [], "task_1", {}, {"taskId": ""}, {"taskId": 5})


@pytest.mark.parametrize(
    "answer",
    [
        Answer(500, reply(402)),
        Answer(503, reply(200, data={"taskId": "task_1"})),
        Answer(408, b"{}"),
        Answer(302, b"{}", {"Location": "http://127.0.0.1:1/"}),
        *(Answer(body=body) for body in (b"", b"[]", b"null", b"{}", b'{"data": {"taskId": "task_1"}}')),
        *(Answer(body=reply(code)) for code in ODD_CODES),
        *(Answer(body=reply(200, data=data)) for data in ODD_DATA),
        *(Answer(body=reply(200, data={"taskId": name})) for name in ("../x", "a b", "x" * 201)),
        # A refusal that names a task is none.
        Answer(body=reply(402, data={"taskId": "task_1"})),
        Answer(body=b'{"code": 200, "data": {"taskId": "task_1"}', has_length=False),
        Answer(is_reset=True),
        Answer(raw=b"HTTP/1.1 200 OK\r\nContent-Length: 99\r\n\r\n{"),
    ],
)
def test_answer_that_is_neither_an_id_nor_a_refusal_is_unknown(answer: Answer) -> None:
    outcome, request_count = answered(answer)
    assert isinstance(outcome, Unknown)
    assert request_count == 1


def test_id_is_read_under_both_of_its_keys() -> None:
    for key in ("taskId", "task_id"):
        outcome, _ = answered(Answer(body=reply("200", data={key: "task_1"})))
        assert outcome == Accepted("task_1")


def test_what_never_left_is_certainly_refused(settings: Any) -> None:
    with Receiver() as receiver:
        closed = receiver.url("")
    outcome = send(kie(closed))
    assert isinstance(outcome, Refused)
    assert outcome.error_class is ErrorClass.TRANSIENT
    settings.OUTBOUND_ALLOWED_HOSTS = []
    outcome = send(kie(closed))
    assert isinstance(outcome, Refused)
    assert outcome.error_class is ACCOUNT


def test_there_is_no_way_to_look_for_a_lost_task(adapter: KieAdapter, emulator: KieEmulator) -> None:
    emulator.knobs["submit"] = "drop"
    send(adapter)
    lost = Lost(REQUEST, PRO, tag=TICKET.tag, token_digest=b"x", started_at=dt.datetime.now(dt.UTC))
    assert adapter.recover(lost) is None
    assert calls(emulator) == [("POST", CREATE)]


@pytest.mark.parametrize(
    ("status", "error_class"),
    [(401, ErrorClass.OUR_ACCOUNT), (403, ErrorClass.OUR_ACCOUNT), (429, ErrorClass.CAPACITY)],
)
def test_what_a_gateway_refuses_without_json_is_certain(status: int, error_class: ErrorClass) -> None:
    outcome, request_count = answered(Answer(status, b"<html>"))
    assert isinstance(outcome, Refused)
    assert (outcome.error_class, request_count) == (error_class, 1)
