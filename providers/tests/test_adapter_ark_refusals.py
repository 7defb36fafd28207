"""How the Ark adapter reads what a submission or a failed task comes to: whose fault, or nobody can tell."""

import json
from collections.abc import Iterator
from typing import Any

import pytest

from providers.adapters import ark_errors
from providers.adapters.ark import ArkAdapter
from providers.adapters.base import ErrorClass, Failed, Reason, Refused, Unknown
from providers.emulators.ark import ArkEmulator
from providers.emulators.server import Pace
from providers.tests.ark_channel import KEY, PATH, ark, asking, send, taken
from tests.receivers import Answer, Receiver

MODERATION, ACCOUNT = ErrorClass.CUSTOMER_MODERATION, ErrorClass.OUR_ACCOUNT
CAPACITY, BUG, INPUT = ErrorClass.CAPACITY, ErrorClass.OUR_BUG, ErrorClass.CUSTOMER_INPUT
# Every code of the sheet's §5: its word for the emulator, its class, and whether it is about one model only.
CODES: list[tuple[str, ErrorClass, bool]] = [
    ("MissingParameter", BUG, False),
    ("MissingParameter.content", BUG, False),
    ("InvalidParameter", BUG, False),
    ("InvalidParameter/download", INPUT, False),
    ("InvalidParameter/url", INPUT, False),
    ("InvalidParameter/format", INPUT, False),
    ("InvalidParameter/size", INPUT, False),
    ("InvalidParameter/duration", INPUT, False),
    ("InvalidParameter/must-be-empty", BUG, False),
    ("InvalidParameter/role", BUG, False),
    ("InvalidParameter/mixed", BUG, False),
    ("InvalidParameter.SomethingElse", BUG, False),
    ("InvalidParameter.TaskTypeConstraint", BUG, False),
    ("InvalidImageURL.EmptyURL", INPUT, False),
    ("InvalidImageURL.InvalidFormat", INPUT, False),
    ("InvalidEndpoint.ClosedEndpoint", ACCOUNT, True),
    ("InputTextSensitiveContentDetected", MODERATION, False),
    ("InputTextSensitiveContentDetected.PolicyViolation", MODERATION, False),
    ("InputTextRiskDetection", MODERATION, False),
    ("InputImageSensitiveContentDetected", MODERATION, False),
    ("InputImageSensitiveContentDetected.PolicyViolation", MODERATION, False),
    ("InputImageSensitiveContentDetected.PrivacyInformation", MODERATION, False),
    ("InputImageRiskDetection", MODERATION, False),
    ("InputVideoSensitiveContentDetected", MODERATION, False),
    ("InputVideoSensitiveContentDetected.PrivacyInformation", MODERATION, False),
    ("InputAudioSensitiveContentDetected", MODERATION, False),
    ("InputAudioSensitiveContentDetected.PolicyViolation", MODERATION, False),
    ("SensitiveContentDetected", MODERATION, False),
    ("SensitiveContentDetected.SevereViolation", MODERATION, False),
    ("SensitiveContentDetected.Violence", MODERATION, False),
    ("OutputVideoSensitiveContentDetected", MODERATION, False),
    ("OutputVideoSensitiveContentDetected.PolicyViolation", MODERATION, False),
    ("OutputImageSensitiveContentDetected", MODERATION, False),
    ("OutputImageSensitiveContentDetected.DeepFake", MODERATION, False),
    ("OutputTextRiskDetection", MODERATION, False),
    ("OutputTextSensitiveContentDetected", MODERATION, False),
    ("OutputAudioSensitiveContentDetected", MODERATION, False),
    ("OutputAudioSensitiveContentDetected.PolicyViolation", MODERATION, False),
    ("ContentSecurityDetectionError", ErrorClass.TRANSIENT, False),
    ("AuthenticationError", ACCOUNT, False),
    ("InvalidAccountStatus", ACCOUNT, False),
    ("AccountOverdueError", ACCOUNT, False),
    ("OperationDenied.ServiceOverdue", ACCOUNT, False),
    ("OperationDenied.ServiceNotOpen", ACCOUNT, False),
    ("OperationDenied.PermissionDenied", ACCOUNT, False),
    ("AccessDenied", ACCOUNT, False),
    ("ModelNotOpen", ACCOUNT, True),
    ("InvalidEndpointOrModel.NotFound", ACCOUNT, True),
    ("InvalidEndpointOrModel.ModelIDAccessDisabled", ACCOUNT, True),
    ("RateLimitExceeded.EndpointRPMExceeded", CAPACITY, True),
    ("RateLimitExceeded.EndpointTPMExceeded", CAPACITY, True),
    ("RateLimitExceeded.FoundationModelRPMExceeded", CAPACITY, True),
    ("ModelAccountRpmRateLimitExceeded", CAPACITY, True),
    ("ModelAccountTpmRateLimitExceeded", CAPACITY, True),
    ("ModelAccountIpmRateLimitExceeded", CAPACITY, True),
    ("APIAccountRpmRateLimitExceeded", CAPACITY, False),
    ("AccountRateLimitExceeded", CAPACITY, False),
    ("RequestBurstTooFast", CAPACITY, False),
    ("InflightBatchsizeExceeded", CAPACITY, False),
    ("ServerOverloaded", CAPACITY, False),
    ("QuotaExceeded", CAPACITY, False),
    ("QuotaExceeded/trial", ACCOUNT, False),
    ("QuotaExceeded/period", ACCOUNT, False),
    ("SetLimitExceeded", ACCOUNT, False),
    # Of these the sheet knows nothing, or only with another tail or in another place.
    ("BrandNewCode", ErrorClass.UNKNOWN, False),
    ("BrandNewCode.WithTail", ErrorClass.UNKNOWN, False),
    ("InvalidImageURL", ErrorClass.UNKNOWN, False),
    ("OperationDenied", ErrorClass.UNKNOWN, False),
    ("RateLimitExceeded", ErrorClass.UNKNOWN, False),
    ("NotFound", ErrorClass.UNKNOWN, False),
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


def test_every_code_we_know_is_tested() -> None:
    assert set(ark_errors.FAULTS) - {word.partition("/")[0] for word, _, _ in CODES} == {"InternalServiceError"}


@pytest.mark.parametrize(("word", "error_class", "is_model_only"), CODES)
def test_refusal_has_its_class(
    adapter: ArkAdapter, emulator: ArkEmulator, word: str, error_class: ErrorClass, is_model_only: bool
) -> None:
    emulator.knobs["submit"] = f"error:{word}"
    outcome = send(adapter)
    assert isinstance(outcome, Refused)
    assert (outcome.error_class, outcome.is_model_only, outcome.reason) == (error_class, is_model_only, None)
    assert f'"code": "{word.partition("/")[0]}"' in outcome.detail
    assert "Request id: " in outcome.detail
    assert emulator.submissions == []
    assert len(emulator.requests) == 1


@pytest.mark.parametrize(("word", "error_class", "is_model_only"), CODES)
def test_failed_task_has_the_same_class(
    adapter: ArkAdapter, emulator: ArkEmulator, word: str, error_class: ErrorClass, is_model_only: bool
) -> None:
    emulator.knobs["fail"] = word
    ref = taken(adapter)
    emulator.skip(100)
    outcome = adapter.fetch(ref)
    assert isinstance(outcome, Failed)
    assert (outcome.error_class, outcome.is_model_only, outcome.reason) == (error_class, is_model_only, None)
    assert f'"code": "{word.partition("/")[0]}"' in outcome.detail
    assert adapter.fetch_many([ref, ref])[ref.upstream_id] == outcome


def test_internal_error_of_a_task_passes(adapter: ArkAdapter, emulator: ArkEmulator) -> None:
    for word in ("InternalServiceError", "Something broke on the way."):
        emulator.knobs["fail"] = word
        ref = taken(adapter)
        emulator.skip(100)
        outcome = adapter.fetch(ref)
        assert isinstance(outcome, Failed)
        assert outcome.error_class is ErrorClass.TRANSIENT


@pytest.mark.parametrize(
    ("sentence", "param", "error_class"),
    [
        ("first/last frame content cannot be mixed with reference media content", "content", BUG),
        ("reference media mode requires video role to be reference_video", "content", BUG),
        ("reference media mode requires audio role to be reference_audio", "content", BUG),
        ("last frame image content cannot be mixed with first frame or reference image content", "content", BUG),
        ("invalid role specified for image content", "content", BUG),
        ("role must be specified for image contents", "content", BUG),
        ("expected at most one first frame image content but got 2", "content", BUG),
        ("camera_fixed is not supported for model x and must be empty", "camera_fixed", BUG),
        ("resource download failed", "content[1].image_url", INPUT),
        ("resource download failed", "", INPUT),
        ("reference_video must be provided as a web url", "content[1].video_url", INPUT),
        ("the duration of the video must be between 2 and 15 seconds", "content[1].video_url", INPUT),
        ("the duration of the reference video is too long", "", INPUT),
        ("the image width must be at least 300 pixels", "content[2].image_url", INPUT),
        # Our own fields, although they sound like a file's.
        ("the parameter `duration` specified in the request is not valid", "duration", BUG),
        ("the parameter `duration` specified in the request is not valid", "", BUG),
        ("the url cannot be reached", "callback_url", BUG),
        ("The parameter `content[1].image_url` is not valid: image_url must be an object", "content[1].image_url", BUG),
        ("The parameter `content[1].image_url` is not valid: image_url must be an object", "", BUG),
        ("The parameter `content[1].url` is not valid: must be a string", "content[1].url", BUG),
        ("The parameter `callback_url` is not valid: the url cannot be reached", "", BUG),
        ("The parameter `content[1].video_url` is not valid: the duration must be 2 to 15 seconds", "", INPUT),
    ],
)
def test_sentences_of_invalid_parameter_tell_whose_fault_it_is(
    sentence: str, param: str, error_class: ErrorClass
) -> None:
    fault = ark_errors.classify("InvalidParameter", f"{sentence}. Request id: 0217", param)
    assert fault == ark_errors.Fault(error_class)


def test_audio_alone_is_told_to_the_customer_where_the_provider_says_it() -> None:
    message = "The parameter `content` specified is not valid: reference_audio cannot be the only reference input."
    assert ark_errors.classify("InvalidParameter", message, "content").reason is Reason.AUDIO_ALONE


def test_references_of_customers_are_to_blame(adapter: ArkAdapter, emulator: ArkEmulator) -> None:
    cases = {
        "https://cdn.example/404.png": INPUT,
        "https://cdn.example/real-person.png": MODERATION,
        "https://cdn.example/page.html": INPUT,
    }
    for url, error_class in cases.items():
        outcome = send(adapter, asking(image_urls=(f"{url}?X-Amz-Signature=secret",)))
        assert isinstance(outcome, Refused)
        assert outcome.error_class is error_class
        assert "secret" not in outcome.detail
    outcome = send(adapter, asking("forbidden-text"))
    assert isinstance(outcome, Refused)
    assert outcome.error_class is MODERATION
    assert emulator.submissions == []


def test_full_queue_and_full_minute_are_capacity(adapter: ArkAdapter, emulator: ArkEmulator) -> None:
    emulator.knobs["max-queued"] = "1"
    taken(adapter)
    outcome = send(adapter)
    assert isinstance(outcome, Refused)
    assert outcome.error_class is CAPACITY
    emulator.knobs = {"rate-limit": "1"}
    taken(adapter)
    outcome = send(adapter)
    assert isinstance(outcome, Refused)
    assert (outcome.error_class, outcome.is_model_only) == (CAPACITY, True)
    assert len(emulator.submissions) == 2


def error_body(code: str, message: str = "No. Request id: 0217") -> bytes:
    return json.dumps({"error": {"code": code, "message": message, "param": "", "type": "x"}}).encode()


def answered(answer: Answer) -> tuple[Any, int]:
    """Submit once to a provider that answers so; return the outcome and how many requests came."""
    with Receiver() as receiver:
        receiver.plan(PATH, answer)
        outcome = send(ark(receiver.url("/api/v3")))
        return outcome, len(receiver.requests)


def test_refusal_carries_the_wait_that_was_asked_for_and_a_bounded_detail() -> None:
    outcome, _ = answered(Answer(429, error_body("ServerOverloaded", "x" * 9_000), {"Retry-After": "7"}))
    assert (outcome.error_class, outcome.retry_after, len(outcome.detail)) == (CAPACITY, 7.0, 500)
    outcome, _ = answered(Answer(429, error_body("ServerOverloaded")))
    assert outcome == Refused(
        CAPACITY, 'HTTP 429 {"code": "ServerOverloaded", "at": "", "message": "No. Request id: 0217"}'
    )


# --- What nobody can tell. ---


@pytest.mark.parametrize(
    ("word", "stored_count"),
    [
        *(("drop", 1), ("hang", 1), ("no-id", 1), ("late-html", 1), ("late-5xx", 1)),
        *(("drop-before", 0), ("html", 0), ("error:InternalServiceError", 0)),
    ],
)
def test_outcome_is_unknown_and_nothing_is_sent_twice(
    adapter: ArkAdapter, emulator: ArkEmulator, monkeypatch: pytest.MonkeyPatch, word: str, stored_count: int
) -> None:
    if word == "hang":
        monkeypatch.setattr(ArkAdapter, "submit_seconds", 0.5)
    emulator.knobs["submit"] = word
    assert isinstance(send(adapter), Unknown)
    assert len(emulator.submissions) == stored_count
    assert [(method, path) for _, method, path in emulator.requests] == [("POST", PATH)]


@pytest.mark.parametrize(
    "answer",
    [
        Answer(500, error_body("InvalidParameter")),
        Answer(503, error_body("ServerOverloaded")),
        Answer(400, error_body("InternalServiceError")),
        Answer(400, b'{"message": "no"}'),
        Answer(400, b'{"error": "no"}'),
        Answer(400, b'{"error": {"code": 17}}'),
        Answer(404, b"<html>"),
        Answer(302, b"{}", {"Location": "http://127.0.0.1:1/"}),
        Answer(200, b""),
        Answer(200, b"[]"),
        Answer(200, b"null"),
        Answer(200, b'{"id": ""}'),
        Answer(200, b'{"id": 5}'),
        Answer(200, b'{"id": "../../models"}'),
        Answer(200, b'{"id": "' + b"x" * 201 + b'"}'),
        Answer(200, error_body("InvalidParameter")),
        Answer(200, b'{"id": "cgt-1"', has_length=False),
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
        closed = receiver.url("/api/v3")
    outcome = send(ark(closed))
    assert isinstance(outcome, Refused)
    assert outcome.error_class is ErrorClass.TRANSIENT
    settings.OUTBOUND_ALLOWED_HOSTS = []
    outcome = send(ark(closed))
    assert isinstance(outcome, Refused)
    assert outcome.error_class is ACCOUNT
