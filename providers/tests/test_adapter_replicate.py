"""What the Replicate adapter sends, and how it reads what a submission comes to."""

import json
from collections.abc import Iterator
from typing import Any

import pytest

from providers.adapters import replicate_errors
from providers.adapters.base import Accepted, ErrorClass, JobRequest, Reason, Refused, Ticket, Unknown
from providers.adapters.replicate import ReplicateAdapter
from providers.emulators.replicate import ReplicateEmulator
from providers.emulators.replicate.problems import PROBLEMS
from providers.emulators.server import Pace
from providers.tests.replicate_channel import (
    CREATE,
    ID,
    KEY,
    MODELS,
    PRO,
    REQUEST,
    TICKET,
    asking,
    called_back,
    calls,
    replicate,
    send,
    taken,
)
from tests.receivers import Answer, Receiver

IMAGES = tuple(f"https://cdn.example/{number}.png?X-Amz-Signature=s{number}" for number in range(1, 10))
VIDEOS = tuple(f"https://cdn.example/{number}.mp4" for number in range(1, 4))
AUDIOS = tuple(f"https://cdn.example/{number}.mp3" for number in range(1, 4))
FRAMES = {"first_frame_url": IMAGES[0], "last_frame_url": IMAGES[1]}
SENT_FRAMES = {"image": IMAGES[0], "last_frame_image": IMAGES[1]}
RATIOS = ("16:9", "4:3", "1:1", "3:4", "9:16", "21:9", "adaptive")
TIERS = [(model, resolution) for model in MODELS for resolution in ("480p", "720p")]
USUAL = {
    "prompt": REQUEST.prompt,
    "duration": 4,
    "resolution": "480p",
    "aspect_ratio": "16:9",
    "generate_audio": True,
}
# What a customer may ask for, and in what `input` then differs from the usual one.
MATRIX: list[tuple[dict[str, Any], dict[str, Any]]] = [
    ({}, {}),
    ({"image_urls": IMAGES[:1]}, {"reference_images": [IMAGES[0]]}),
    ({"video_urls": VIDEOS[:2]}, {"reference_videos": list(VIDEOS[:2])}),
    (
        {"image_urls": IMAGES[:1], "audio_urls": AUDIOS[:1]},
        {"reference_images": [IMAGES[0]], "reference_audios": [AUDIOS[0]]},
    ),
    (
        {"video_urls": VIDEOS[:1], "audio_urls": AUDIOS},
        {"reference_videos": [VIDEOS[0]], "reference_audios": list(AUDIOS)},
    ),
    (
        {"image_urls": IMAGES, "video_urls": VIDEOS, "audio_urls": AUDIOS},
        {"reference_images": list(IMAGES), "reference_videos": list(VIDEOS), "reference_audios": list(AUDIOS)},
    ),
    ({"first_frame_url": IMAGES[0]}, {"image": IMAGES[0]}),
    (FRAMES, SENT_FRAMES),
    ({**FRAMES, "aspect_ratio": "adaptive"}, {**SENT_FRAMES, "aspect_ratio": "adaptive"}),
    *(({"aspect_ratio": ratio}, {"aspect_ratio": ratio}) for ratio in RATIOS),
    *(({"model": model, "resolution": resolution}, {"resolution": resolution}) for model, resolution in TIERS),
    *(({"duration": duration}, {"duration": duration}) for duration in (4, 15)),
    ({"generate_audio": False}, {"generate_audio": False}),
    ({"seed": 0}, {"seed": 0}),
    ({"seed": 42}, {"seed": 42}),
    ({"seed": 2**53 - 1}, {"seed": 2**31 - 1}),
    ({"seed": -1}, {}),
    # Neither is in the published schema; both are made here.
    ({"watermark": True}, {}),
    ({"return_last_frame": True}, {}),
]

ACCOUNT, BUG, INPUT = ErrorClass.OUR_ACCOUNT, ErrorClass.OUR_BUG, ErrorClass.CUSTOMER_INPUT
# Every status of the sheet's §4 that is a certain refusal, as the emulator's word: class and pause.
REFUSALS: list[tuple[str, ErrorClass, float | None]] = [
    ("400", BUG, None),
    ("401", ACCOUNT, None),
    ("402", ACCOUNT, None),
    ("402/spending-limit", ACCOUNT, None),
    ("403", ACCOUNT, None),
    ("404", BUG, None),
    ("422", BUG, None),
    ("422/url", INPUT, None),
    ("429", ErrorClass.CAPACITY, 30.0),
    ("429/no-retry-after", ErrorClass.CAPACITY, 30.0),
    ("429/low-credit", ACCOUNT, 10.0),
    # Statuses of which the sheet knows nothing.
    ("405", ErrorClass.UNKNOWN, None),
    ("409", ErrorClass.UNKNOWN, None),
    ("418", ErrorClass.UNKNOWN, None),
]
SERVER_ERRORS = ("500", "502", "503", "504")


@pytest.fixture(autouse=True)
def _loopback(settings: Any) -> None:
    settings.OUTBOUND_ALLOWED_HOSTS = ["127.0.0.1"]


@pytest.fixture
def emulator() -> Iterator[ReplicateEmulator]:
    emulator = ReplicateEmulator(key=KEY, pace=Pace(1_000, 1_000))
    # What the model would refuse once it runs is refused at once, so that a mistake of ours is seen.
    emulator.knobs["rules"] = "schema"
    with emulator.serving():
        yield emulator


@pytest.fixture
def adapter(emulator: ReplicateEmulator) -> ReplicateAdapter:
    return replicate(emulator.origin + emulator.base_path)


def sent(request: JobRequest, *, ticket: Ticket = TICKET, **options: Any) -> tuple[dict[str, Any], dict[str, str]]:
    """Submit once; return the body and the headers that came."""
    path = f"/v1/models/{MODELS[request.model]}/predictions"
    with Receiver() as receiver:
        receiver.plan(path, Answer(201, json.dumps({"id": ID, "status": "starting"}).encode()))
        outcome = send(replicate(receiver.url("/v1"), **options), request, ticket=ticket)
        assert outcome == Accepted(ID)
        (received,) = receiver.requests
    assert (received.method, received.path) == ("POST", path)
    body: dict[str, Any] = json.loads(received.body)
    return body, dict(received.headers)


@pytest.mark.parametrize(("changes", "expected"), MATRIX)
def test_body_says_everything_and_the_provider_takes_it(
    adapter: ReplicateAdapter, emulator: ReplicateEmulator, changes: dict[str, Any], expected: dict[str, Any]
) -> None:
    request = asking(**changes)
    assert adapter.capabilities.lacks(request) == ""
    body, headers = sent(request)
    assert body == {"input": USUAL | expected}
    assert headers["authorization"] == f"Bearer {KEY}"
    assert headers["content-type"] == "application/json"
    assert headers["cancel-after"] == "1h"
    assert "prefer" not in headers

    taken(adapter, request)
    assert [(one.model, one.prompt) for one in emulator.submissions] == [(MODELS[request.model], REQUEST.prompt)]


def test_callback_url_and_options_stand_in_the_request() -> None:
    ticket = called_back("https://us.example")
    body, _ = sent(REQUEST, ticket=ticket)
    assert body == {"input": USUAL, "webhook": ticket.callback_url, "webhook_events_filter": ["start", "completed"]}
    assert sent(REQUEST, cancel_after="30m")[1]["cancel-after"] == "30m"
    assert "cancel-after" not in sent(REQUEST, cancel_after="")[1]
    named = asking("@Image1, @Image2", image_urls=IMAGES[:1])
    assert sent(named, reference_tag="<{kind} {number}>")[0]["input"]["prompt"] == "<Image 1>, @Image2"


@pytest.mark.parametrize(
    ("prompt", "expected"),
    [
        ("@image1 meets @Image 2, like @VIDEO1", "[Image1] meets [Image2], like [Video1]"),
        ("@Image3 and me@image1.example", "@Image3 and me@image1.example"),
        ("@Audio1 stays", "@Audio1 stays"),
        ("A run --dur 15 --resolution 1080p", "A run —dur 15 —resolution 1080p"),
        ("Well -- a pause", "Well -- a pause"),
        ("跟着@Image1走", "跟着[Image1]走"),
    ],
)
def test_prompt_names_references_and_cannot_change_what_was_priced(prompt: str, expected: str) -> None:
    request = asking(prompt, image_urls=IMAGES[:2], video_urls=VIDEOS[:1])
    assert sent(request)[0]["input"]["prompt"] == expected


def test_capabilities_are_those_of_the_sheet() -> None:
    capabilities = ReplicateAdapter.capabilities
    assert capabilities.resolutions is not None
    tiers = {(model, resolution) for model, found in capabilities.resolutions.items() for resolution in found}
    assert tiers == set(TIERS)
    assert capabilities.aspect_ratios == set(RATIOS)
    assert capabilities.has_watermark is False
    assert (capabilities.max_images, capabilities.max_videos, capabilities.max_audios) == (9, 3, 3)
    assert capabilities.lacks(asking("x" * 2_000)) == ""
    assert capabilities.lacks(asking("x" * 2_001)) == "2001 prompt characters, more than 2000"
    assert capabilities.lacks(asking(image_urls=(*IMAGES, IMAGES[0]))) == "10 images, more than 9"
    # What is not proven there is for a route to allow, and then sent as asked for.
    full_hd = asking(resolution="1080p")
    assert capabilities.lacks(full_hd) == "the resolution 1080p of pro"
    assert capabilities.lacks(full_hd, resolutions=["480p", "720p", "1080p"]) == ""
    assert sent(full_hd)[0]["input"]["resolution"] == "1080p"


def test_what_would_be_cut_or_refused_there_is_not_sent(adapter: ReplicateAdapter, emulator: ReplicateEmulator) -> None:
    outcome = send(adapter, asking(audio_urls=AUDIOS[:1]))
    assert outcome == Refused(INPUT, "Audio cannot be the only reference.", Reason.AUDIO_ALONE)
    # Brackets around a reference make a prompt longer than the customer's.
    prompt = "@Image1 " + "x" * 1_992
    outcome = send(adapter, asking(prompt, image_urls=IMAGES[:1]))
    assert outcome == Refused(BUG, "The prompt has more than 2000 characters.")
    assert (emulator.requests, adapter.exchanges) == ([], [])
    taken(adapter, asking(prompt[:-1], image_urls=IMAGES[:1]))
    assert [len(one.prompt) for one in emulator.submissions] == [2_000]


# --- Refusals. ---


def test_every_status_of_the_table_is_tested() -> None:
    assert {word for word, *_ in REFUSALS} | set(SERVER_ERRORS) >= set(PROBLEMS)
    assert {int(word[:3]) for word, *_ in REFUSALS} >= replicate_errors.DOCUMENTED


@pytest.mark.parametrize(("word", "error_class", "retry_after"), REFUSALS)
def test_refusal_has_its_class(
    adapter: ReplicateAdapter,
    emulator: ReplicateEmulator,
    word: str,
    error_class: ErrorClass,
    retry_after: float | None,
) -> None:
    emulator.knobs["submit"] = f"error:{word}"
    outcome = send(adapter)
    assert isinstance(outcome, Refused)
    assert (outcome.error_class, outcome.reason, outcome.retry_after) == (error_class, None, retry_after)
    assert outcome.is_model_only is (word == "404")
    assert f"HTTP {word[:3]} {{" in outcome.detail
    assert '"detail": "' in outcome.detail
    is_account = word[:3] in ("401", "402", "403") or word == "429/low-credit"
    assert outcome.detail.startswith("Our account is refused: ") is is_account
    assert emulator.submissions == []
    assert calls(emulator) == [("POST", CREATE)]


@pytest.mark.parametrize(("limit", "error_class"), [("1", ErrorClass.CAPACITY), ("low-credit", ACCOUNT)])
def test_refusal_of_a_provider_that_limits_us_has_its_class(
    adapter: ReplicateAdapter, emulator: ReplicateEmulator, limit: str, error_class: ErrorClass
) -> None:
    emulator.knobs["rate-limit"] = limit
    taken(adapter)
    outcome = send(adapter)
    assert isinstance(outcome, Refused)
    assert outcome.error_class is error_class
    assert outcome.retry_after is not None
    assert 0 < outcome.retry_after <= 60
    assert len(emulator.submissions) == 1


def test_wrong_key_and_wrong_path_and_wrong_model_are_refused(emulator: ReplicateEmulator) -> None:
    base_url = emulator.origin + emulator.base_path
    for adapter, model, error_class, is_model_only in (
        (replicate(base_url, key="another"), PRO, ACCOUNT, False),
        (replicate(emulator.origin + "/v9"), PRO, BUG, True),
        (replicate(base_url), "bytedance/seedance-1", BUG, True),
    ):
        outcome = send(adapter, model=model)
        assert isinstance(outcome, Refused)
        assert (outcome.error_class, outcome.is_model_only) == (error_class, is_model_only)
    emulator.knobs["mini"] = "absent"
    outcome = send(replicate(base_url), asking(model="mini"))
    assert isinstance(outcome, Refused)
    assert (outcome.error_class, outcome.is_model_only) == (BUG, True)
    assert emulator.submissions == []


@pytest.mark.parametrize(
    ("changes", "error_class"),
    [
        ({"image_urls": ("no address",)}, INPUT),
        ({"first_frame_url": "no address"}, INPUT),
        ({"resolution": "1080p"}, BUG),
        ({"aspect_ratio": "2:1"}, BUG),
        ({"duration": 3}, BUG),
        ({"duration": 16}, BUG),
        ({"image_urls": (*IMAGES, IMAGES[0])}, BUG),
        ({"last_frame_url": IMAGES[0]}, BUG),
        ({**FRAMES, "video_urls": VIDEOS}, BUG),
    ],
)
def test_validation_is_the_customer_s_where_it_is_about_their_address(
    adapter: ReplicateAdapter, emulator: ReplicateEmulator, changes: dict[str, Any], error_class: ErrorClass
) -> None:
    outcome = send(adapter, asking(**changes))
    assert isinstance(outcome, Refused)
    assert outcome.error_class is error_class
    assert emulator.submissions == []


@pytest.mark.parametrize(
    ("problem", "error_class"),
    [
        ({"detail": "- input.reference_videos.1: Does not match format 'uri'\n"}, INPUT),
        ({"detail": "The URL in last_frame_image could not be read"}, INPUT),
        ({"detail": "Could not download https://cdn.example/1.png?X-Amz-Signature=s1"}, INPUT),
        ({"detail": "No.", "invalid_fields": [{"loc": "input.image", "why": "must be a valid url"}]}, INPUT),
        ({"detail": "No.", "invalid_fields": ["reference_audios.0: not a uri"]}, INPUT),
        ({"detail": "The input was flagged as sensitive. (E005)"}, ErrorClass.CUSTOMER_MODERATION),
        ({"detail": "- webhook: Must be an HTTPS URL"}, BUG),
        ({"detail": "- input.reference_images: Array must have at most 9 items"}, BUG),
        ({"detail": "- input: Additional property image is not allowed"}, BUG),
        # Words of an address are the customer's own.
        ({"detail": "- input.image: Wrong type: https://cdn.example/url/copyright.png"}, BUG),
        # Two faults do not make one.
        ({"detail": "- input.image: Wrong type\n- webhook: Does not match format 'uri'"}, BUG),
        ({"detail": "No.", "invalid_fields": [{"field": "input.image"}, {"field": "uri"}, 5, None]}, BUG),
        ({"detail": "No.", "invalid_fields": {"field": "input.image uri"}}, BUG),
        ({"detail": ""}, BUG),
    ],
)
def test_sentence_of_a_validation_tells_whose_fault_it_is(problem: dict[str, Any], error_class: ErrorClass) -> None:
    outcome, _ = answered(Answer(422, json.dumps(problem).encode()))
    assert isinstance(outcome, Refused)
    assert (outcome.error_class, outcome.is_model_only) == (error_class, False)


def answered(answer: Answer) -> tuple[Any, int]:
    """Submit once to a provider that answers so; return the outcome and how many requests came."""
    with Receiver() as receiver:
        receiver.plan(CREATE, answer)
        outcome = send(replicate(receiver.url("/v1")))
        return outcome, len(receiver.requests)


def test_detail_is_cut_and_the_header_goes_before_the_sentence() -> None:
    body = json.dumps({"detail": "Your rate limit resets in ~30s. " + "x" * 9_000}).encode()
    outcome, _ = answered(Answer(429, body, {"Retry-After": "7"}))
    assert (outcome.error_class, outcome.retry_after, len(outcome.detail)) == (ErrorClass.CAPACITY, 7.0, 500)
    outcome, _ = answered(Answer(429, b'{"detail": "Request was throttled."}'))
    assert (outcome.error_class, outcome.retry_after) == (ErrorClass.CAPACITY, None)


# --- What nobody can tell. ---


@pytest.mark.parametrize(
    ("word", "stored_count"),
    [
        *((word, 1) for word in ("drop", "hang", "no-id", "late-5xx")),
        *((word, 0) for word in ("drop-before", "html", "error:408", *(f"error:{code}" for code in SERVER_ERRORS))),
    ],
)
def test_outcome_is_unknown_and_nothing_is_sent_twice(
    adapter: ReplicateAdapter,
    emulator: ReplicateEmulator,
    monkeypatch: pytest.MonkeyPatch,
    word: str,
    stored_count: int,
) -> None:
    if word == "hang":
        monkeypatch.setattr(ReplicateAdapter, "submit_seconds", 0.5)
    emulator.knobs["submit"] = word
    assert isinstance(send(adapter), Unknown)
    assert len(emulator.submissions) == stored_count
    assert calls(emulator) == [("POST", CREATE)]


@pytest.mark.parametrize(
    "answer",
    [
        *(Answer(status, b'{"detail": "No."}') for status in (300, 302, 408, 499, 500, 503)),
        # Who refuses in another shape is not the provider.
        *(Answer(status, b'{"error": "no"}') for status in (400, 401, 404, 429)),
        *(Answer(403, body) for body in (b'{"detail": null}', b'{"detail": ["no"]}')),
        # A refusal that names a prediction is none.
        Answer(402, json.dumps({"id": ID, "detail": "No."}).encode()),
        Answer(503, json.dumps({"id": ID}).encode()),
        *(Answer(201, body) for body in (b"", b"[]", b"null", b"{}", b'{"detail": "No."}')),
        *(Answer(201, json.dumps({"id": name}).encode()) for name in (None, "", 5, ["x"], "../x", "a b", "x" * 201)),
        Answer(201, b'{"id": "7tq2"', has_length=False),
        Answer(is_reset=True),
        Answer(raw=b"HTTP/1.1 201 Created\r\nContent-Length: 99\r\n\r\n{"),
    ],
)
def test_answer_that_is_neither_an_id_nor_a_refusal_is_unknown(answer: Answer) -> None:
    outcome, request_count = answered(answer)
    assert isinstance(outcome, Unknown)
    assert request_count == 1


def test_prediction_that_is_taken_may_have_ended_already() -> None:
    for status in (200, 201, 202):
        outcome, _ = answered(Answer(status, json.dumps({"id": ID, "status": "failed", "error": "No."}).encode()))
        assert outcome == Accepted(ID)


def test_what_never_left_is_certainly_refused(settings: Any) -> None:
    with Receiver() as receiver:
        closed = receiver.url("/v1")
    outcome = send(replicate(closed))
    assert isinstance(outcome, Refused)
    assert outcome.error_class is ErrorClass.TRANSIENT
    settings.OUTBOUND_ALLOWED_HOSTS = []
    outcome = send(replicate(closed))
    assert isinstance(outcome, Refused)
    assert outcome.error_class is ACCOUNT
