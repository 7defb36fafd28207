"""How the Replicate adapter reads what became of a prediction, and how it stops one."""

import json
from collections.abc import Iterator
from typing import Any

import pytest

from providers.adapters import replicate_errors
from providers.adapters.base import (
    Cancellation,
    ErrorClass,
    Failed,
    Pending,
    Progress,
    Ref,
    Running,
    Succeeded,
    Unreadable,
)
from providers.adapters.replicate import ReplicateAdapter
from providers.emulators.replicate import ReplicateEmulator
from providers.emulators.replicate.problems import FAILURES
from providers.emulators.server import Pace
from providers.tests.replicate_channel import (
    CREATE,
    ID,
    KEY,
    PREDICTIONS,
    PRO,
    REQUEST,
    asking,
    calls,
    replicate,
    taken,
)
from tests.receivers import Answer, Receiver

HOUR = 3_600
VIDEO = "https://replicate.delivery/xezq/abc/tmpk1.mp4"
IMAGE = "https://cdn.example/ref1.png?X-Amz-Signature=s1"
MODERATION, INPUT, TRANSIENT = ErrorClass.CUSTOMER_MODERATION, ErrorClass.CUSTOMER_INPUT, ErrorClass.TRANSIENT
UNKNOWN = ErrorClass.UNKNOWN
CLASSES = {
    **dict.fromkeys(("E005", "sensitive", "content-policy", "real-person", "copyright"), MODERATION),
    **dict.fromkeys(("validation", "reference-length", "download", "fetch", "image", "403", "404"), INPUT),
    **dict.fromkeys(("director", "E1000", "E1234", "E1999", "interrupted", "cuda", "timeout"), TRANSIENT),
    **dict.fromkeys(("queue-full", "high-demand"), TRANSIENT),
    **dict.fromkeys(("unknown", "E2000", "E999", "E10000", "The muse did not come."), UNKNOWN),
}
GONE = Failed(TRANSIENT, "The prediction succeeded, but its output was removed before we asked.")


@pytest.fixture(autouse=True)
def _loopback(settings: Any) -> None:
    settings.OUTBOUND_ALLOWED_HOSTS = ["127.0.0.1"]


@pytest.fixture
def emulator() -> Iterator[ReplicateEmulator]:
    # Time passes by `skip` alone: no test waits for it.
    emulator = ReplicateEmulator(key=KEY, pace=Pace(1_000, 1_000))
    with emulator.serving():
        yield emulator


@pytest.fixture
def adapter(emulator: ReplicateEmulator) -> ReplicateAdapter:
    return replicate(emulator.origin + emulator.base_path)


def ended(adapter: ReplicateAdapter, emulator: ReplicateEmulator, **changes: Any) -> Progress:
    ref = taken(adapter, asking(**changes))
    emulator.skip(2_000)
    return adapter.fetch(ref)


def prediction(**changes: Any) -> Answer:
    whole = {
        "id": ID,
        "model": PRO,
        "input": {"prompt": "x", "reference_images": [IMAGE]},
        "logs": "",
        "output": VIDEO,
        "error": None,
        "status": "succeeded",
        "data_removed": False,
        "metrics": {"predict_time": 143.2, "video_output_duration_seconds": 5},
    }
    return Answer(body=json.dumps({**whole, **changes}).encode())


def read(answer: Answer, *, model: str = PRO, **options: Any) -> Progress:
    """Ask a provider that answers so about a prediction, and check what was asked."""
    with Receiver() as receiver:
        path = f"{PREDICTIONS}/{ID}"
        receiver.plan(path, answer)
        outcome = replicate(receiver.url("/v1"), **options).fetch(Ref(ID, model))
        (received,) = receiver.requests
    assert (received.method, received.path, received.body) == ("GET", path, b"")
    assert received.headers["authorization"] == f"Bearer {KEY}"
    return outcome


# --- States. ---


def test_states_follow_one_another(adapter: ReplicateAdapter, emulator: ReplicateEmulator) -> None:
    ref = taken(adapter)
    seen = [adapter.fetch(ref)]
    for _ in range(2):
        emulator.skip(1_000)
        seen.append(adapter.fetch(ref))
    assert seen[:2] == [Pending(), Running()]
    assert isinstance(seen[2], Succeeded)
    assert calls(emulator) == [("POST", CREATE), *[("GET", f"{PREDICTIONS}/{ref.upstream_id}")] * 3]


def test_predictions_are_asked_for_one_by_one(adapter: ReplicateAdapter) -> None:
    refs = [taken(adapter), taken(adapter)]
    assert adapter.bulk_limit == 1
    assert adapter.fetch_many(refs) == {ref.upstream_id: Pending() for ref in refs}


@pytest.mark.parametrize(
    ("status", "expected"),
    [
        ("starting", Pending()),
        ("processing", Running()),
        ("succeeded", Succeeded(VIDEO, None, {"seconds": 143.2, "duration": 5})),
        ("failed", Failed(UNKNOWN, '{"error": null}')),
        ("canceled", Failed(ErrorClass.OUR_BUG, "The prediction was canceled there.")),
        ("aborted", Failed(TRANSIENT, "The prediction waited there until its deadline.")),
    ],
)
def test_documented_states(status: str, expected: Progress) -> None:
    assert read(prediction(status=status)) == expected


@pytest.mark.parametrize("status", ["cancelled", "queued", "SUCCEEDED", "", None, 5, ["starting"], {}])
def test_other_states_are_news_and_change_nothing(status: Any) -> None:
    outcome = read(prediction(status=status))
    assert outcome == Unreadable(f"The status {str(status)!r} is not documented.", is_new=True)


@pytest.mark.parametrize(
    ("word", "expected"),
    [
        ("stuck", Running()),
        ("unknown", Unreadable("The status 'hibernating' is not documented.", is_new=True)),
        ("failed", Failed(UNKNOWN, json.dumps({"error": FAILURES["unknown"]}))),
        ("canceled", Failed(ErrorClass.OUR_BUG, "The prediction was canceled there.")),
        ("aborted", Failed(TRANSIENT, "The prediction waited there until its deadline.")),
    ],
)
def test_odd_states_of_the_emulator(
    adapter: ReplicateAdapter, emulator: ReplicateEmulator, word: str, expected: Progress
) -> None:
    emulator.knobs["status"] = word
    ref = taken(adapter)
    emulator.skip(1_500)
    if word in ("failed", "canceled"):
        assert adapter.fetch(ref) == Running()
        emulator.skip(500)
    assert adapter.fetch(ref) == expected


def test_provider_gives_up_what_waits_or_runs_too_long(emulator: ReplicateEmulator) -> None:
    adapter = replicate(emulator.origin + emulator.base_path, cancel_after="900s")
    waiting = taken(adapter)
    emulator.pace = Pace(100, 1_700)
    running, patient = taken(adapter), taken(replicate(adapter.access.base_url, cancel_after=""))
    emulator.skip(899)
    assert [adapter.fetch(ref) for ref in (waiting, running, patient)] == [Pending(), Running(), Running()]
    emulator.skip(1)
    assert [adapter.fetch(ref) for ref in (waiting, running, patient)] == [
        Failed(TRANSIENT, "The prediction waited there until its deadline."),
        Failed(ErrorClass.OUR_BUG, "The prediction was canceled there."),
        Running(),
    ]


# --- Answers that tell nothing. ---


@pytest.mark.parametrize("word", ["html", "empty", "5xx", "429", "drop", "404", "401"])
def test_trouble_with_asking_is_no_trouble_of_the_prediction(
    adapter: ReplicateAdapter, emulator: ReplicateEmulator, word: str
) -> None:
    ref = taken(adapter)
    emulator.knobs["poll"] = word
    outcome = adapter.fetch(ref)
    assert isinstance(outcome, Unreadable)
    assert (outcome.is_new, outcome.is_done) == (False, False)
    assert outcome.detail.startswith("Our account is refused: HTTP 401") is (word == "401")
    emulator.knobs = {}
    assert adapter.fetch(ref) == Pending()


def test_unknown_prediction_and_slow_answer_are_no_end(
    adapter: ReplicateAdapter, monkeypatch: pytest.MonkeyPatch
) -> None:
    outcome = adapter.fetch(Ref(ID, PRO))
    assert isinstance(outcome, Unreadable)
    assert (outcome.detail[:8], outcome.is_new, outcome.is_done) == ("HTTP 404", False, False)
    monkeypatch.setattr(ReplicateAdapter, "ask_seconds", 0.3)
    assert read(Answer(delay=30)) == Unreadable("No whole reply came: timeout.")


@pytest.mark.parametrize(
    "answer",
    [
        *(
            Answer(status, json.dumps({"id": ID, "status": "failed", "detail": "No."}).encode())
            for status in (201, 302, 400, 402, 403, 404, 429, 500, 503)
        ),
        *(Answer(body=body) for body in (b"", b"[]", b"null", b"5", b"<html>", b"[" * 100_000)),
        Answer(body=b'{"id": "7tq2', has_length=False),
        Answer(is_reset=True),
    ],
)
def test_answers_without_a_prediction_change_nothing(answer: Answer) -> None:
    outcome = read(answer)
    assert isinstance(outcome, Unreadable)
    assert (outcome.is_new, outcome.is_done) == (False, False)
    assert ("Our account is refused" in outcome.detail) is (answer.status in (402, 403))


@pytest.mark.parametrize("found", [f"{ID}0", "", None, 5, [ID]])
def test_answer_about_another_prediction_is_not_believed(found: Any) -> None:
    assert read(prediction(id=found)) == Unreadable("The answer is about another prediction.")


def test_answer_about_another_model_is_not_believed_where_that_is_checked() -> None:
    answer = prediction(model="bytedance/seedance-1")
    assert read(answer) == Unreadable("The prediction is of the model 'bytedance/seedance-1'.", is_new=True)
    assert isinstance(read(answer, model=""), Succeeded)
    assert isinstance(read(answer, check_model=False), Succeeded)
    assert isinstance(read(prediction(model=None)), Succeeded)


# --- Success. ---


@pytest.mark.parametrize("word", ["", "list", "no-metrics"])
def test_success_has_its_video_and_what_it_took(
    adapter: ReplicateAdapter, emulator: ReplicateEmulator, word: str
) -> None:
    emulator.knobs["result"] = word
    outcome = ended(adapter, emulator, return_last_frame=True)
    assert isinstance(outcome, Succeeded)
    assert outcome.video_url.startswith(f"{emulator.origin}/files/xezq/")
    assert outcome.video_url.endswith(".mp4")
    assert outcome.last_frame_url is None
    expected = {} if word == "no-metrics" else {"seconds": 1_000.0, "duration": REQUEST.duration}
    assert outcome.meta == expected


@pytest.mark.parametrize("word", ["no-url", "empty-list"])
def test_success_without_a_video_is_asked_for_again(
    adapter: ReplicateAdapter, emulator: ReplicateEmulator, word: str
) -> None:
    emulator.knobs["result"] = word
    assert ended(adapter, emulator) == Unreadable("The prediction succeeded without one video URL.", is_done=True)


@pytest.mark.parametrize(
    "output",
    [
        *("", [], None),
        *("x.mp4", "ftp://h/x.mp4", "https://h/\x00.mp4", "https://[", "javascript:x", 5, {"video": VIDEO}, [5]),
        *([VIDEO, VIDEO], [[VIDEO]], [None]),
    ],
)
def test_output_that_is_not_one_url_is_asked_for_again(output: Any) -> None:
    outcome = read(prediction(output=output))
    is_new = output not in ("", [], None)
    assert outcome == Unreadable("The prediction succeeded without one video URL.", is_new=is_new, is_done=True)


def test_output_that_was_removed_is_gone(adapter: ReplicateAdapter, emulator: ReplicateEmulator) -> None:
    ref = taken(adapter)
    emulator.skip(2_000 + HOUR - 10)
    assert isinstance(adapter.fetch(ref), Succeeded)
    emulator.skip(10)
    assert adapter.fetch(ref) == GONE
    emulator.knobs["result"] = "removed"
    assert ended(adapter, emulator) == GONE
    # A URL that is told may still be there, and anything else in its place is a riddle.
    assert isinstance(read(prediction(data_removed=True)), Succeeded)
    assert isinstance(read(prediction(data_removed=True, output={"x": 1})), Unreadable)
    assert isinstance(read(prediction(data_removed="true", output=None)), Unreadable)


def test_numbers_that_no_column_takes_are_left_out() -> None:
    for told in (b"1e999", b"-1e999", b"NaN", b'"143.2"', b"null", b"[]"):
        body = prediction().body.replace(b"143.2", told)
        assert read(Answer(body=body)) == Succeeded(VIDEO, None, {"duration": 5})
    assert read(prediction(metrics=[])) == Succeeded(VIDEO, None, {})


# --- Failures. ---


def test_every_sentence_of_the_emulator_is_tested() -> None:
    assert set(CLASSES) >= set(FAILURES)


@pytest.mark.parametrize(("word", "error_class"), sorted(CLASSES.items()))
def test_failed_prediction_has_the_class_of_its_sentence(
    adapter: ReplicateAdapter, emulator: ReplicateEmulator, word: str, error_class: ErrorClass
) -> None:
    emulator.knobs["fail"] = word
    ref = taken(adapter, asking(image_urls=(IMAGE,)))
    emulator.skip(2_000)
    outcome = adapter.fetch(ref)
    assert isinstance(outcome, Failed)
    assert (outcome.error_class, outcome.reason, outcome.is_model_only) == (error_class, None, False)
    assert outcome.detail.startswith('{"error": "')
    assert "Signature" not in outcome.detail
    # Still so when all else is removed.
    emulator.skip(HOUR)
    outcome = adapter.fetch(ref)
    assert isinstance(outcome, Failed)
    assert outcome.error_class is error_class


@pytest.mark.parametrize(("pattern", "error_class"), [(p, c) for c, ps in replicate_errors.WORDS.items() for p in ps])
def test_every_word_of_the_table_is_read_in_any_case(pattern: str, error_class: ErrorClass) -> None:
    word = pattern.replace(r"\b", "").replace("[0-9]{3}", "500")
    for sentence in (f"Oh: {word.upper()}.", f"oh ({word})"):
        outcome = read(prediction(status="failed", error=sentence))
        assert isinstance(outcome, Failed)
        assert outcome.error_class is error_class


@pytest.mark.parametrize(
    ("sentence", "given", "error_class"),
    [
        # The words of an address are its owner's.
        ("could not download https://cdn.example/copyright/sensitive.png?a=CUDA", {"image": IMAGE}, INPUT),
        ("403 Client Error: Forbidden for url: https://cdn.example/ref1.png", {"image": IMAGE}, INPUT),
        ("404 Client Error: Not Found for url: https://CDN.example.", {"reference_videos": [IMAGE]}, INPUT),
        # What they fetch from elsewhere the customer cannot mend.
        ("403 Client Error: Forbidden for url: https://ark.example/api", {"image": IMAGE}, UNKNOWN),
        ("failed to fetch https://weights.example/x: timed out", {"image": IMAGE}, TRANSIENT),
        ("failed to fetch https://[", {"image": IMAGE}, INPUT),
        ("failed to fetch the input", {"reference_audios": [IMAGE]}, INPUT),
        ("failed to fetch weights", {"prompt": "x"}, UNKNOWN),
        # Where nothing is told of the input, nobody else is known to be named.
        ("failed to fetch https://cdn.example/ref1.png", {}, INPUT),
        ("failed to fetch https://cdn.example/ref1.png", None, INPUT),
        ("Input validation error: seed is too large", {"prompt": "x"}, INPUT),
        ("Something of e0051 or xe1500", {}, UNKNOWN),
        ("", {}, UNKNOWN),
        (None, {}, UNKNOWN),
        (["E005"], {}, MODERATION),
        ({"message": "CUDA"}, {}, TRANSIENT),
    ],
)
def test_sentence_of_a_failure_tells_whose_fault_it_is(sentence: Any, given: Any, error_class: ErrorClass) -> None:
    outcome = read(prediction(status="failed", error=sentence, input=given))
    assert isinstance(outcome, Failed)
    assert outcome.error_class is error_class


def test_words_of_a_channel_stand_beside_ours() -> None:
    answer = prediction(status="failed", error="A Likeness (of x) was found.")
    for words, error_class in (
        ({}, UNKNOWN),
        ({"customer_moderation": ["", "likeness (of X)"]}, MODERATION),
        ({"transient": ["likeness"]}, TRANSIENT),
        ({"customer_input": ["likeness"], "transient": ["found"]}, INPUT),
    ):
        outcome = read(answer, words=words)
        assert isinstance(outcome, Failed)
        assert outcome.error_class is error_class


def test_detail_of_a_failure_is_cut() -> None:
    outcome = read(prediction(status="failed", error="x" * 9_000))
    assert isinstance(outcome, Failed)
    assert len(outcome.detail) == 500


# --- Cancelling. ---


@pytest.mark.parametrize(
    ("seconds", "knobs", "expected", "progress"),
    [
        (0, {}, Cancellation.DONE, Failed),
        (1_500, {}, Cancellation.DONE, Failed),
        (1_500, {"cancel": "ignored"}, Cancellation.MAYBE, Running),
        (2_000, {}, Cancellation.TOO_LATE, Succeeded),
        (2_000, {"fail": "cuda"}, Cancellation.TOO_LATE, Failed),
        (2_000, {"result": "no-url"}, Cancellation.TOO_LATE, Unreadable),
        (2_000, {"status": "canceled"}, Cancellation.DONE, Failed),
        (2_000, {"status": "aborted"}, Cancellation.DONE, Failed),
        (2_000, {"status": "unknown", "cancel": "ignored"}, Cancellation.MAYBE, Unreadable),
    ],
)
def test_cancelling_tells_what_it_came_to(
    adapter: ReplicateAdapter,
    emulator: ReplicateEmulator,
    seconds: int,
    knobs: dict[str, str],
    expected: Cancellation,
    progress: type,
) -> None:
    emulator.knobs = knobs
    ref = taken(adapter)
    emulator.skip(seconds)
    assert adapter.cancel(ref) == expected
    assert isinstance(adapter.fetch(ref), progress)
    assert calls(emulator)[1] == ("POST", f"{PREDICTIONS}/{ref.upstream_id}/cancel")


def test_cancelling_may_take_a_while(
    adapter: ReplicateAdapter, emulator: ReplicateEmulator, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("providers.emulators.replicate.emulator.SLOW_CANCEL_SECONDS", 100.0)
    emulator.knobs["cancel"] = "slow"
    ref = taken(adapter)
    emulator.skip(1_200)
    assert adapter.cancel(ref) == Cancellation.MAYBE
    emulator.skip(100)
    assert adapter.cancel(ref) == Cancellation.DONE


@pytest.mark.parametrize("word", ["html", "empty", "5xx", "429", "drop", "404", "401"])
def test_cancelling_without_an_answer_may_have_been_heard(
    adapter: ReplicateAdapter, emulator: ReplicateEmulator, word: str
) -> None:
    ref = taken(adapter)
    emulator.knobs["cancel"] = word
    assert adapter.cancel(ref) == Cancellation.MAYBE
    assert adapter.cancel(Ref("another", PRO)) == Cancellation.MAYBE
    assert adapter.fetch(ref) == Pending()
