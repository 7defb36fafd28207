"""How the fal adapter follows requests: asking for status and result, and cancelling."""

import json
from collections.abc import Iterator
from typing import Any

import pytest

from providers.adapters.base import Cancellation, ErrorClass, Failed, Pending, Ref, Running, Succeeded, Unreadable
from providers.adapters.fal import FalAdapter
from providers.emulators.fal import FalEmulator
from providers.emulators.server import Pace
from providers.tests.fal_channel import (
    APP,
    BUG,
    KEY,
    PRO,
    SHAPES,
    TOLD,
    TRANSIENT,
    TYPES,
    UNKNOWN,
    asking,
    calls,
    fal,
    taken,
)
from tests.receivers import Answer, Receiver

ID = "8b6c1c0e-3d0f-4b1e-9c57-6f3f5f0a1d11"
REF = Ref(ID, PRO)
RESULT = f"{APP}/requests/{ID}"
STATUS = f"{RESULT}/status"
CANCEL = f"{RESULT}/cancel"
VIDEO = "https://v3b.fal.media/files/b/0a1b2c3d/xyz_out.mp4"
# The sheet's own examples.
DONE: dict[str, Any] = {
    "video": {"url": VIDEO, "content_type": "video/mp4", "file_name": "xyz_out.mp4", "file_size": 4351022},
    "seed": 1183504421,
}
COMPLETED: dict[str, Any] = {
    "status": "COMPLETED",
    "request_id": ID,
    "logs": [],
    "metrics": {"inference_time": 131.2},
    "response_url": "…",
}
BROKEN: dict[str, Any] = {
    "status": "COMPLETED",
    "request_id": ID,
    "error": "Request timed out",
    "error_type": "request_timeout",
    "metrics": {},
}
MODERATED = {"detail": [{"loc": ["body", "prompt"], "msg": "No.", "type": "content_policy_violation"}]}


@pytest.fixture(autouse=True)
def _loopback(settings: Any) -> None:
    settings.OUTBOUND_ALLOWED_HOSTS = ["127.0.0.1"]


@pytest.fixture
def emulator() -> Iterator[FalEmulator]:
    # Time passes by `skip` alone: no test waits for it.
    emulator = FalEmulator(key=KEY, pace=Pace(1_000, 1_000))
    with emulator.serving():
        yield emulator


@pytest.fixture
def adapter(emulator: FalEmulator) -> FalAdapter:
    return fal(emulator.origin)


@pytest.fixture
def receiver() -> Iterator[Receiver]:
    with Receiver() as receiver:
        yield receiver


def answer_of(document: Any, status: int = 200, headers: dict[str, str] | None = None) -> Answer:
    body = document if isinstance(document, bytes) else json.dumps(document).encode()
    return Answer(status, body, headers or {})


def replied(receiver: Receiver, document: Any, result: Answer | None = None, *, status: int = 200) -> Any:
    """Ask for a request where the provider answers with this status document, and so for the result."""
    receiver.plan(STATUS, answer_of(document, status))
    receiver.plan(RESULT, result or Answer(404, b'{"detail": "Request not found"}'))
    return fal(receiver.url("")).fetch(REF)


# --- Asking. ---


def test_request_is_followed_to_its_video(adapter: FalAdapter, emulator: FalEmulator) -> None:
    ref = taken(adapter)
    path = f"{APP}/requests/{ref.upstream_id}"
    emulator.requests.clear()
    assert adapter.fetch(ref) == Pending()
    emulator.skip(1_000)
    assert adapter.fetch(ref) == Running()
    assert calls(emulator) == [("GET", f"{path}/status")] * 2
    emulator.skip(1_000)
    outcome = adapter.fetch(ref)
    assert calls(emulator)[2:] == [("GET", f"{path}/status"), ("GET", path)]
    assert isinstance(outcome, Succeeded)
    assert outcome.video_url.startswith(f"{emulator.origin}/files/b/")
    assert outcome.last_frame_url is None
    seed = outcome.meta["seed"]
    assert outcome.meta == {"seed": seed, "inference_seconds": 1_000, "billable_units": 4.0}
    assert isinstance(seed, int)
    assert adapter.fetch_many([ref]) == {ref.upstream_id: outcome}

    # All the same by the id alone, as after a webhook for a submission that was lost.
    assert adapter.fetch(Ref(ref.upstream_id, f"{PRO}/fast")) == outcome
    emulator.knobs = {"response-url": "suffixed", "pending-code": "200"}
    emulator.requests.clear()
    assert adapter.fetch(Ref(ref.upstream_id, PRO)) == outcome
    assert calls(emulator) == [("GET", f"{path}/status"), ("GET", f"{path}/response")]


def test_status_counts_and_not_its_http_status(adapter: FalAdapter, emulator: FalEmulator, receiver: Receiver) -> None:
    emulator.knobs["pending-code"] = "200"
    ref = taken(adapter)
    assert adapter.fetch(ref) == Pending()
    for status in (200, 202):
        assert (
            replied(receiver, {"status": "IN_QUEUE", "request_id": ID, "queue_position": 3}, status=status) == Pending()
        )
        assert replied(receiver, {"status": "IN_PROGRESS", "request_id": ID}, status=status) == Running()
        outcome = replied(receiver, COMPLETED, answer_of(DONE), status=status)
        assert outcome == Succeeded(VIDEO, None, {"seed": 1183504421, "inference_seconds": 131.2})


@pytest.mark.parametrize(
    ("word", "expected"),
    [
        ("unknown", Unreadable("The status 'PREEMPTED' is not documented.", is_new=True)),
        ("stuck", Running()),
        ("queued", Pending()),
    ],
)
def test_status_has_its_meaning(adapter: FalAdapter, emulator: FalEmulator, word: str, expected: Any) -> None:
    emulator.knobs["status"] = word
    ref = taken(adapter)
    emulator.skip(1_500)
    assert adapter.fetch(ref) == expected


def test_answer_about_another_request_or_none_tells_nothing(receiver: Receiver) -> None:
    for change in ({"request_id": "another"}, {"request_id": None}, {"request_id": [ID]}):
        assert replied(receiver, COMPLETED | change) == Unreadable("The answer is about another request.")
    assert receiver.received(RESULT) == []
    for document in (b"[]", b'"COMPLETED"', b"", b"{", b"[" * 100_000):
        assert replied(receiver, document) == Unreadable("HTTP 200 without a JSON object.")
    odd: list[Any] = [None, 5, [], "FAILED", "completed"]
    for status in odd:
        outcome = replied(receiver, {"status": status, "request_id": ID})
        assert outcome == Unreadable(f"The status {str(status)!r} is not documented.", is_new=True)


def test_request_that_waits_too_long_ends_there(adapter: FalAdapter, emulator: FalEmulator) -> None:
    ref = taken(adapter, asking("[emulate:queued=99999]"))
    emulator.skip(1_795)
    assert adapter.fetch(ref) == Pending()
    emulator.skip(5)
    outcome = adapter.fetch(ref)
    # Our own limit: the same request is not sent there again (fal sheet §2, §5.2).
    assert isinstance(outcome, Failed)
    assert (outcome.error_class, outcome.detail[:30]) == (BUG, 'HTTP 504 {"type": "request_tim')


# --- Results. ---


@pytest.mark.parametrize("video", [None, {}, [], VIDEO, {"url": None}, {"url": ""}, {"url": 5}, {"url": "file:///x"}])
def test_success_without_a_video_is_asked_again(receiver: Receiver, video: Any) -> None:
    outcome = replied(receiver, COMPLETED, answer_of(DONE | {"video": video}))
    assert outcome == Unreadable("The request succeeded without a video URL.", is_done=True)


def test_success_without_a_video_of_the_emulator_too(adapter: FalAdapter, emulator: FalEmulator) -> None:
    emulator.knobs["result"] = "no-url"
    ref = taken(adapter)
    emulator.skip(2_000)
    assert adapter.fetch(ref) == Unreadable("The request succeeded without a video URL.", is_done=True)


def test_odd_extras_of_a_success_are_left_out(receiver: Receiver) -> None:
    for odd, units in ((b"1e999", "inf"), (b'"x"', "many"), (b"null", ""), (b"NaN", "nan"), (b"[1]", "1,5")):
        body = b'{"video": {"url": "%s"}, "seed": %s}' % (VIDEO.encode(), odd)
        result = answer_of(body, headers={"X-Fal-Billable-Units": units})
        assert replied(receiver, COMPLETED | {"metrics": [5]}, result) == Succeeded(VIDEO)


def test_result_that_is_not_there_yet_is_waited_for(
    adapter: FalAdapter, emulator: FalEmulator, receiver: Receiver
) -> None:
    emulator.knobs["response"] = "race"
    ref = taken(adapter)
    emulator.skip(2_000)
    assert adapter.fetch(ref) == Running()
    assert isinstance(adapter.fetch(ref), Succeeded)
    early = {"detail": "Request is still in progress"}
    for headers in ({}, {"X-Fal-Error-Type": "bad_request", "x-fal-request-id": ID}):
        assert replied(receiver, COMPLETED, answer_of(early, 400, headers)) == Running()
    assert replied(receiver, COMPLETED, answer_of(early, 422)).error_class is UNKNOWN


@pytest.mark.parametrize(
    ("word", "status", "error_class"),
    [*TYPES, *((f"{kind}/no-header", status, error_class) for kind, status, error_class in TYPES)],
)
def test_failure_has_its_class(
    adapter: FalAdapter, emulator: FalEmulator, word: str, status: int, error_class: ErrorClass
) -> None:
    emulator.knobs["fail"] = word
    ref = taken(adapter)
    emulator.skip(2_000)
    outcome = adapter.fetch(ref)
    assert isinstance(outcome, Failed)
    assert (outcome.error_class, outcome.reason, outcome.is_model_only) == (error_class, None, False)
    assert outcome.detail.startswith(f'HTTP {status} {{"type": "{word.partition("/")[0]}", "at": "')
    assert ("partner_validation_failed" in outcome.detail) is ("/person" in word)


@pytest.mark.parametrize(
    ("word", "error_class"),
    [*TOLD, *SHAPES, ("internal_server_error/string", TRANSIENT), ("Something quite new.", UNKNOWN)],
)
def test_failure_is_read_in_all_its_shapes(
    adapter: FalAdapter, emulator: FalEmulator, word: str, error_class: ErrorClass
) -> None:
    emulator.knobs["fail"] = word
    ref = taken(adapter)
    emulator.skip(2_000)
    outcome = adapter.fetch(ref)
    assert isinstance(outcome, Failed)
    assert outcome.error_class is error_class


def test_failure_comes_early_too(adapter: FalAdapter, emulator: FalEmulator) -> None:
    emulator.knobs["fail"] = "content_policy_violation/early"
    ref = taken(adapter)
    emulator.skip(1_100)
    assert isinstance(adapter.fetch(ref), Failed)


def test_undocumented_failure_is_unknown(receiver: Receiver) -> None:
    new = {"detail": [{"loc": ["body"], "msg": "No.", "type": "brand_new", "ctx": 5}]}
    detail = '{"type": "brand_new", "at": "body", "message": "No.", "cause": ""}'
    for status in (400, 418, 422, 500):
        assert replied(receiver, COMPLETED, answer_of(new, status)) == Failed(UNKNOWN, f"HTTP {status} {detail}")
    untold: list[Any] = [{}, {"detail": None}, {"detail": "No."}, {"detail": []}]
    for document in untold:
        outcome = replied(receiver, COMPLETED, answer_of(document, 422))
        assert (type(outcome), outcome.error_class) == (Failed, UNKNOWN)
    outcome = replied(receiver, COMPLETED, answer_of({"detail": "x" * 9_000}, 422))
    assert len(outcome.detail) == 500


def test_error_that_may_be_about_our_asking_fails_no_request(receiver: Receiver) -> None:
    internal = {"detail": "Internal error", "error_type": "internal_error"}
    for headers in ({}, {"x-fal-request-id": "another"}, {"X-Fal-Error-Type": "internal_error"}):
        outcome = replied(receiver, COMPLETED, answer_of(internal, 500, headers))
        assert isinstance(outcome, Unreadable)
        assert (outcome.is_new, outcome.is_done) == (False, False)
    outcome = replied(receiver, COMPLETED, answer_of(internal, 500, {"x-fal-request-id": ID}))
    assert (type(outcome), outcome.error_class) == (Failed, TRANSIENT)
    # Without a type there are only words, and 400 may be said of what has not ended.
    for status, is_new in ((400, True), (405, True), (503, False), (302, False), (201, False)):
        headers = {"x-fal-request-id": ID}
        outcome = replied(receiver, COMPLETED, answer_of({"detail": "Well."}, status, headers))
        assert isinstance(outcome, Unreadable)
        assert (outcome.is_new, outcome.is_done) == (is_new, False)


def test_platform_s_failure_stands_in_the_status(receiver: Receiver) -> None:
    detail = 'HTTP 200 {"type": "request_timeout", "at": "", "message": "Request timed out", "cause": ""}'
    assert replied(receiver, BROKEN) == Failed(TRANSIENT, detail)
    outcome = replied(receiver, COMPLETED | {"error": "Gone.", "error_type": None})
    assert (type(outcome), outcome.error_class) == (Failed, UNKNOWN)
    outcome = replied(receiver, COMPLETED | {"error": {"a": 1}, "error_type": "client_cancelled"})
    assert (type(outcome), outcome.error_class) == (Failed, BUG)
    # What the result tells counts more: why it timed out, and that there is a video after all.
    user = answer_of(
        {"error_type": "request_timeout"}, 504, {"X-Fal-Request-Timeout-Type": "user", "x-fal-request-id": ID}
    )
    assert replied(receiver, BROKEN, user).error_class is BUG
    assert replied(receiver, BROKEN, answer_of(MODERATED, 422)).error_class is ErrorClass.CUSTOMER_MODERATION
    assert isinstance(replied(receiver, BROKEN, answer_of(DONE)), Succeeded)
    assert isinstance(replied(receiver, COMPLETED | {"error": None, "error_type": ""}), Unreadable)


@pytest.mark.parametrize("knob", ["poll", "response"])
@pytest.mark.parametrize("word", ["html", "html-200", "empty", "5xx", "429", "drop", "hang", "404", "401"])
def test_answer_that_tells_nothing_leaves_the_request_as_it_is(
    adapter: FalAdapter, emulator: FalEmulator, monkeypatch: pytest.MonkeyPatch, knob: str, word: str
) -> None:
    if word == "hang":
        monkeypatch.setattr(FalAdapter, "ask_seconds", 0.5)
    ref = taken(adapter)
    emulator.skip(2_000)
    emulator.knobs[knob] = word
    outcome = adapter.fetch(ref)
    assert isinstance(outcome, Unreadable)
    assert (outcome.is_new, outcome.is_done) == (False, False)
    assert outcome.detail.startswith("Our account is refused: HTTP 401") is (word == "401")
    emulator.knobs.clear()
    assert isinstance(adapter.fetch(ref), Succeeded)


@pytest.mark.parametrize("word", ["401", "403", "403/abuse", "403/access", "404", "429"])
def test_account_s_fault_fails_no_running_request(adapter: FalAdapter, emulator: FalEmulator, word: str) -> None:
    emulator.knobs["fail"] = word
    ref = taken(adapter)
    emulator.skip(2_000)
    outcome = adapter.fetch(ref)
    assert isinstance(outcome, Unreadable)
    assert outcome.detail.startswith("Our account is refused: ") is word.startswith(("401", "403"))


# --- Addresses. ---


def test_addresses_that_came_are_used_as_they_are_and_no_other_host_gets_our_key(receiver: Receiver) -> None:
    receiver.plan("/s?x=1", answer_of(COMPLETED))
    receiver.plan("/r?y=2", answer_of(DONE))
    own = {"status": receiver.url("/s?x=1"), "response": receiver.url("/r?y=2"), "cancel": receiver.url("/c")}
    adapter = fal(receiver.url(""))
    assert isinstance(adapter.fetch(Ref(ID, PRO, own)), Succeeded)
    adapter.cancel(Ref(ID, PRO, own))
    assert [one.path for one in receiver.requests] == ["/s?x=1", "/r?y=2", "/c"]
    assert {one.headers["authorization"] for one in receiver.requests} == {f"Key {KEY}"}

    with Receiver() as other:
        foreign = {name: other.url(f"/{name}") for name in own}
        receiver.plan(STATUS, answer_of(COMPLETED | {"response_url": other.url("/r")}))
        receiver.plan(RESULT, answer_of(DONE))
        assert isinstance(adapter.fetch(Ref(ID, PRO, foreign)), Succeeded)
        adapter.cancel(Ref(ID, PRO, foreign))
        assert other.requests == []
    assert [one.path for one in receiver.requests[3:]] == [STATUS, RESULT, CANCEL]


def test_ids_cannot_leave_their_place_in_the_path(receiver: Receiver) -> None:
    fal(receiver.url("")).fetch(Ref("../../models?x=1#y", f"{PRO}/fast"))
    assert [one.path for one in receiver.requests] == [f"{APP}/requests/..%2F..%2Fmodels%3Fx%3D1%23y/status"]


# --- Cancelling. ---


def test_waiting_request_is_taken_out_for_good(adapter: FalAdapter, emulator: FalEmulator) -> None:
    ref = taken(adapter)
    emulator.requests.clear()
    assert adapter.cancel(ref) is Cancellation.DONE
    assert calls(emulator) == [("PUT", f"{APP}/requests/{ref.upstream_id}/cancel")]
    outcome = adapter.fetch(ref)
    assert isinstance(outcome, Failed)
    assert (outcome.error_class, '"client_cancelled"' in outcome.detail) == (BUG, True)
    assert adapter.cancel(ref) is Cancellation.TOO_LATE


@pytest.mark.parametrize(("word", "ended_as"), [("", Failed), ("ignored", Succeeded)])
def test_running_request_may_be_stopped(adapter: FalAdapter, emulator: FalEmulator, word: str, ended_as: type) -> None:
    emulator.knobs["cancel"] = word
    ref = taken(adapter)
    emulator.skip(1_000)
    assert adapter.cancel(ref) is Cancellation.MAYBE
    emulator.skip(1_000)
    assert isinstance(adapter.fetch(ref), ended_as)
    assert adapter.cancel(ref) is Cancellation.TOO_LATE


@pytest.mark.parametrize(
    ("word", "expected"),
    [
        ("too-late", Cancellation.TOO_LATE),
        *((word, Cancellation.MAYBE) for word in ("not-found", "html", "html-200", "empty", "5xx", "429", "drop")),
        *((word, Cancellation.MAYBE) for word in ("404", "401")),
    ],
)
def test_cancelling_promises_no_more_than_was_answered(
    adapter: FalAdapter, emulator: FalEmulator, word: str, expected: Cancellation
) -> None:
    ref = taken(adapter)
    emulator.knobs["cancel"] = word
    assert adapter.cancel(ref) is expected
    emulator.knobs.clear()
    assert adapter.fetch(ref) == Pending()


def test_cancelling_is_believed_only_as_documented(receiver: Receiver) -> None:
    for status, word in ((200, "CANCELLATION_REQUESTED"), (202, "OK"), (200, None), (400, "OK"), (500, "OK")):
        receiver.plan(CANCEL, answer_of({"status": word}, status))
        assert fal(receiver.url("")).cancel(REF) is Cancellation.MAYBE
    assert {(one.method, one.body) for one in receiver.requests} == {("PUT", b"")}
