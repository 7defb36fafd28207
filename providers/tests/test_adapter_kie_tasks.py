"""How the Kie adapter reads what became of a task."""

import json
from collections.abc import Iterator
from typing import Any

import pytest

from providers.adapters import kie_errors
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
from providers.adapters.kie import KieAdapter
from providers.emulators.kie import KieEmulator
from providers.emulators.kie.faults import SENTENCES
from providers.emulators.server import Pace
from providers.tests.kie_channel import CREATE, KEY, PRO, RECORD, REQUEST, asking, calls, kie, taken
from tests.receivers import Answer, Receiver

ID = "task_bytedance_1795341600001"
VIDEO = "https://tempfile.aiquickdraw.com/k/out.mp4?sig=s1"
PICTURE = "https://tempfile.aiquickdraw.com/k/last.png?sig=s2"
MODERATION, INPUT, TRANSIENT = ErrorClass.CUSTOMER_MODERATION, ErrorClass.CUSTOMER_INPUT, ErrorClass.TRANSIENT
ACCOUNT, BUG, UNKNOWN = ErrorClass.OUR_ACCOUNT, ErrorClass.OUR_BUG, ErrorClass.UNKNOWN
CODES = {
    *(("400", BUG), ("401", ACCOUNT), ("402", ACCOUNT), ("404", BUG), ("422", BUG), ("429", ErrorClass.CAPACITY)),
    *(("433", ACCOUNT), ("455", TRANSIENT), ("500", TRANSIENT), ("501", UNKNOWN), ("505", ACCOUNT)),
    # Numbers of which the sheet knows nothing.
    *(("403", UNKNOWN), ("418", UNKNOWN), ("999", UNKNOWN)),
}
# Every substring of the sheet's §4, in the order of the emulator's sentences.
CLASSES = [MODERATION] * 8 + [INPUT] * 7 + [TRANSIENT] * 4 + [UNKNOWN]


@pytest.fixture(autouse=True)
def _loopback(settings: Any) -> None:
    settings.OUTBOUND_ALLOWED_HOSTS = ["127.0.0.1"]


@pytest.fixture
def emulator() -> Iterator[KieEmulator]:
    # Time passes by `skip` alone: no test waits for it.
    emulator = KieEmulator(key=KEY, pace=Pace(1_000, 1_000))
    with emulator.serving():
        yield emulator


@pytest.fixture
def adapter(emulator: KieEmulator) -> KieAdapter:
    return kie(emulator.origin)


def ended(adapter: KieAdapter, emulator: KieEmulator, **changes: Any) -> Progress:
    ref = taken(adapter, asking(**changes))
    emulator.skip(2_000)
    return adapter.fetch(ref)


def record(**changes: Any) -> dict[str, Any]:
    return {
        "taskId": ID,
        "model": PRO,
        "state": "success",
        "param": "{}",
        "resultJson": json.dumps({"resultUrls": [VIDEO]}),
        "failCode": "",
        "failMsg": "",
        **changes,
    }


def read(answer: Answer, *, model: str = PRO, **options: Any) -> Progress:
    """Ask a provider that answers so about a task, and check what was asked."""
    with Receiver() as receiver:
        path = f"{RECORD}?taskId={ID}"
        receiver.plan(path, answer)
        outcome = kie(receiver.url(""), **options).fetch(Ref(ID, model))
        (received,) = receiver.received(path)
    assert (received.method, received.body) == ("GET", b"")
    assert received.headers["authorization"] == f"Bearer {KEY}"
    return outcome


def read_record(code: Any = 200, **changes: Any) -> Progress:
    return read(Answer(body=json.dumps({"code": code, "msg": "success", "data": record(**changes)}).encode()))


def read_result(result: Any, **options: Any) -> Progress:
    body = {"code": 200, "msg": "success", "data": record(resultJson=result)}
    return read(Answer(body=json.dumps(body).encode()), **options)


# --- States. ---


def test_states_follow_one_another(adapter: KieAdapter, emulator: KieEmulator) -> None:
    ref = taken(adapter)
    seen = [adapter.fetch(ref)]
    for seconds in (600, 600, 1_000):
        emulator.skip(seconds)
        seen.append(adapter.fetch(ref))
    assert seen[:3] == [Pending(), Pending(), Running()]
    assert isinstance(seen[3], Succeeded)
    assert calls(emulator) == [("POST", CREATE), *[("GET", RECORD)] * 4]


def test_tasks_are_asked_for_one_by_one(adapter: KieAdapter, emulator: KieEmulator) -> None:
    refs = [taken(adapter), taken(adapter)]
    assert adapter.bulk_limit == 1
    assert adapter.fetch_many(refs) == {ref.upstream_id: Pending() for ref in refs}


@pytest.mark.parametrize(
    ("state", "expected"), [("waiting", Pending()), ("queuing", Pending()), ("generating", Running())]
)
def test_documented_states(state: str, expected: Progress) -> None:
    assert read_record(state=state, resultJson=None, param=None) == expected


@pytest.mark.parametrize("state", ["paused", "SUCCESS", "", None, 5, ["waiting"], {}])
def test_other_states_are_news_and_change_nothing(state: Any) -> None:
    outcome = read_record(state=state)
    assert outcome == Unreadable(f"The state {str(state)!r} is not documented.", is_new=True)


@pytest.mark.parametrize(
    ("word", "is_new"), [("stuck", None), ("unknown", True), ("missing", True), ("no-data", False)]
)
def test_odd_states_of_the_emulator(adapter: KieAdapter, emulator: KieEmulator, word: str, is_new: bool | None) -> None:
    emulator.knobs["status"] = word
    outcome = ended(adapter, emulator)
    if is_new is None:
        assert outcome == Running()
    else:
        assert isinstance(outcome, Unreadable)
        assert outcome.is_new is is_new


def test_new_task_that_is_not_known_yet_is_asked_for_again(adapter: KieAdapter, emulator: KieEmulator) -> None:
    emulator.knobs["lag"] = "60"
    ref = taken(adapter)
    assert adapter.fetch(ref) == Unreadable("The answer has no record of the task.")
    emulator.skip(60)
    assert adapter.fetch(ref) == Pending()


@pytest.mark.parametrize("word", ["404", "422", "null"])
def test_unknown_task_is_no_end(adapter: KieAdapter, emulator: KieEmulator, word: str) -> None:
    emulator.knobs["unknown-id"] = word
    outcome = adapter.fetch(Ref(ID, PRO))
    assert isinstance(outcome, Unreadable)
    assert (outcome.is_new, outcome.is_done) == (False, False)


# --- Answers that tell nothing. ---


@pytest.mark.parametrize(
    ("word", "is_new"),
    [
        *((word, False) for word in ("html", "html-200", "empty", "5xx", "drop", "hang")),
        *((str(code), False) for code in sorted(kie_errors.DOCUMENTED - {200})),
        *((word, True) for word in ("403", "418", "999")),
    ],
)
def test_trouble_with_asking_is_no_trouble_of_the_task(
    adapter: KieAdapter, emulator: KieEmulator, monkeypatch: pytest.MonkeyPatch, word: str, is_new: bool
) -> None:
    monkeypatch.setattr(KieAdapter, "ask_seconds", 0.5 if word == "hang" else 20.0)
    ref = taken(adapter)
    emulator.knobs["poll"] = word
    outcome = adapter.fetch(ref)
    assert isinstance(outcome, Unreadable)
    assert (outcome.is_new, outcome.is_done) == (is_new, False)
    is_account = word in ("401", "402", "403", "433", "505")
    assert outcome.detail.startswith("Our account is refused: HTTP 200") is is_account
    emulator.knobs = {}
    assert adapter.fetch(ref) == Pending()


@pytest.mark.parametrize(
    ("answer", "is_new"),
    [
        *((Answer(status, b'{"code": 200, "data": null}'), False) for status in (400, 401, 403, 404, 500, 503)),
        *((Answer(body=body), False) for body in (b"", b"[]", b"null", b"5", b'{"code": 200, "data": null}')),
        *((Answer(body=body), True) for body in (b"{}", b'{"code": 200}', b'{"code": 200, "data": []}')),
        *((Answer(body=body), True) for body in (b'{"code": 201, "data": {}}', b'{"code": null, "data": {}}')),
        (Answer(302, b"{}", {"Location": "http://127.0.0.1:1/"}), False),
        (Answer(is_reset=True), False),
    ],
)
def test_answers_without_a_record_change_nothing(answer: Answer, is_new: bool) -> None:
    outcome = read(answer)
    assert isinstance(outcome, Unreadable)
    assert (outcome.is_new, outcome.is_done) == (is_new, False)
    assert ("Our account is refused" in outcome.detail) is (answer.status in (401, 403))


@pytest.mark.parametrize("found", [f"{ID}0", "", None, 5])
def test_answer_about_another_task_is_not_believed(found: Any) -> None:
    assert read_record(taskId=found) == Unreadable("The answer is about another task.")


def test_answer_about_another_model_is_not_believed_where_that_is_checked() -> None:
    answer = Answer(body=json.dumps({"code": "200", "data": record(model="bytedance/seedance-1")}).encode())
    assert read(answer) == Unreadable("The task is of the model 'bytedance/seedance-1'.", is_new=True)
    assert isinstance(read(answer, model=""), Succeeded)
    assert isinstance(read(answer, check_model=False), Succeeded)
    assert isinstance(read_record(model=None), Succeeded)


def test_id_is_read_under_both_of_its_keys() -> None:
    data = record()
    data["task_id"] = data.pop("taskId")
    assert isinstance(read(Answer(body=json.dumps({"code": 200, "data": data}).encode())), Succeeded)


# --- Success. ---


def test_success_has_its_video_and_what_it_cost(adapter: KieAdapter, emulator: KieEmulator) -> None:
    outcome = ended(adapter, emulator)
    assert isinstance(outcome, Succeeded)
    assert outcome.video_url.startswith(f"{emulator.origin}/files/")
    assert outcome.video_url.endswith("/out.mp4")
    assert outcome.last_frame_url is None
    assert outcome.meta == {"credits": 41 * REQUEST.duration, "milliseconds": 2_000_000}


@pytest.mark.parametrize(
    ("place", "has_picture"),
    [
        *((place, True) for place in ("second-url", "first-url", "lastFrameUrl", "last_frame_url", "firstFrameUrl")),
        ("missing", False),
    ],
)
def test_last_frame_is_found_wherever_it_is(
    adapter: KieAdapter, emulator: KieEmulator, place: str, has_picture: bool
) -> None:
    emulator.knobs["last-frame"] = place
    outcome = ended(adapter, emulator, return_last_frame=True)
    assert isinstance(outcome, Succeeded)
    assert outcome.video_url.endswith("/out.mp4")
    assert (outcome.last_frame_url or "").endswith("/last.png") is has_picture


def test_channel_says_where_the_last_frame_is() -> None:
    result = json.dumps({"resultUrls": [VIDEO, PICTURE], "poster": "https://cdn.example/poster"})
    for keys, expected in (((), None), (("poster",), "https://cdn.example/poster"), (("no", "resultUrls"), PICTURE)):
        assert read_result(result, last_frame_keys=keys) == Succeeded(VIDEO, expected, {})


@pytest.mark.parametrize(
    ("result", "expected"),
    [
        ({"resultUrls": [VIDEO]}, VIDEO),
        ({"resultUrls": VIDEO}, VIDEO),
        ({"resultUrls": [PICTURE, "https://h.example/play", VIDEO]}, VIDEO),
        ({"resultUrls": [PICTURE, "https://h.example/OUT.MOV"]}, "https://h.example/OUT.MOV"),
        ({"resultUrls": [PICTURE, "https://h.example/play?a=b.png"]}, "https://h.example/play?a=b.png"),
        ({"resultUrls": [None, 5, "", "ftp://h/x.mp4", "https://h/\x00.mp4", "https://[", VIDEO]}, VIDEO),
    ],
)
def test_video_is_found_among_the_results(result: Any, expected: str) -> None:
    for told in (json.dumps(result), result):
        outcome = read_result(told, last_frame_keys=())
        assert outcome == Succeeded(expected, None, {})


@pytest.mark.parametrize(
    "result",
    [
        *("", None, "null", "[]", "{}", "5", 5, [], "{", '"x"', "[" * 100_000, {"resultUrls": {"a": VIDEO}}),
        *({"resultUrls": urls} for urls in (None, [], [""], [5], [PICTURE], ["javascript:x.mp4"], [[VIDEO]])),
    ],
)
def test_success_without_a_video_is_asked_for_again(result: Any) -> None:
    assert read_result(result) == Unreadable("The task succeeded without a video URL.", is_done=True)


@pytest.mark.parametrize("word", ["no-url", "null-json", "bad-json", "empty-list"])
def test_success_of_the_emulator_without_a_video(adapter: KieAdapter, emulator: KieEmulator, word: str) -> None:
    emulator.knobs["result"] = word
    outcome = ended(adapter, emulator)
    assert isinstance(outcome, Unreadable)
    assert (outcome.is_done, outcome.is_new) == (True, False)


def test_late_url_and_url_without_an_ending_are_found(
    adapter: KieAdapter, emulator: KieEmulator, monkeypatch: pytest.MonkeyPatch
) -> None:
    # So long that a slow machine cannot miss it.
    monkeypatch.setattr("providers.emulators.kie.emulator.LATE_URL_SECONDS", 100.0)
    emulator.knobs["result"] = "late-url"
    ref = taken(adapter)
    emulator.skip(2_000)
    assert isinstance(adapter.fetch(ref), Unreadable)
    emulator.skip(100)
    assert isinstance(adapter.fetch(ref), Succeeded)
    emulator.knobs["result"] = "bare"
    outcome = adapter.fetch(ref)
    assert isinstance(outcome, Succeeded)
    assert outcome.video_url.endswith("/out")


def test_numbers_that_no_column_takes_are_left_out() -> None:
    for told in (b"1e999", b"-1e999", b"NaN", b'"205"', b"null", b"[]"):
        body = json.dumps({"code": 200, "data": record(costTime=7, creditsConsumed=0)}).encode()
        outcome = read(Answer(body=body.replace(b'"creditsConsumed": 0', b'"creditsConsumed": ' + told)))
        assert isinstance(outcome, Succeeded)
        assert outcome.meta == {"milliseconds": 7}


# --- Failures. ---


@pytest.mark.parametrize(("word", "error_class"), sorted(CODES))
@pytest.mark.parametrize("spelling", ["", "int"])
def test_failed_task_has_the_class_of_its_code(
    adapter: KieAdapter, emulator: KieEmulator, word: str, error_class: ErrorClass, spelling: str
) -> None:
    emulator.knobs = {"fail": word, "fail-code": spelling}
    outcome = ended(adapter, emulator)
    assert isinstance(outcome, Failed)
    assert (outcome.error_class, outcome.reason, outcome.is_model_only) == (error_class, None, word == "505")
    assert f'"code": {word}' in outcome.detail.replace(f'"{word}"', word)


def test_every_code_of_the_table_is_tested() -> None:
    assert {str(code) for code in kie_errors.DOCUMENTED} - {word for word, _ in CODES} == {"200"}


@pytest.mark.parametrize(("word", "error_class"), list(zip(SENTENCES, CLASSES, strict=True)))
def test_failed_task_has_the_class_of_its_sentence(
    adapter: KieAdapter, emulator: KieEmulator, word: str, error_class: ErrorClass
) -> None:
    emulator.knobs["fail"] = word
    outcome = ended(adapter, emulator)
    assert isinstance(outcome, Failed)
    assert (outcome.error_class, outcome.is_model_only) == (error_class, False)
    code, sentence = SENTENCES[word]
    assert outcome.detail == json.dumps({"code": code, "message": sentence})


@pytest.mark.parametrize(
    ("code", "sentence", "error_class"),
    [
        # What names the customer's words comes before what names their files.
        ("500", "The input image may contain sensitive information.", MODERATION),
        ("422", "Download of the video failed: it may violate the policy.", MODERATION),
        ("400", "The INPUT may contain a REAL PERSON.", MODERATION),
        (None, "The output was inappropriate.", MODERATION),
        ("E1001", "The pixel format of the image is wrong.", INPUT),
        ("422", "The image was not accepted: duration of the clip.", INPUT),
        ("501", "The download ended with a timeout.", INPUT),
        # "Information" and "transformation" are no formats.
        ("501", "See the documentation for more information.", UNKNOWN),
        ("500", "The transformation went wrong.", UNKNOWN),
        ("500", "A sentence that nobody knows.", UNKNOWN),
        ("501", "", UNKNOWN),
        ("500", "", TRANSIENT),
        (500, None, TRANSIENT),
        ("422", None, BUG),
        # The number settles what is ours, whatever words come with it.
        ("402", "Your account violates our policy, please try again.", ACCOUNT),
        ("429", "Busy, please try again.", ErrorClass.CAPACITY),
        *((None, None, UNKNOWN), ("", "", UNKNOWN), ("x", 5, UNKNOWN), ([], {}, UNKNOWN), ("200", "success", UNKNOWN)),
    ],
)
def test_failure_is_read_by_number_and_sentence(code: Any, sentence: Any, error_class: ErrorClass) -> None:
    outcome = read_record(state="fail", resultJson="", failCode=code, failMsg=sentence)
    assert isinstance(outcome, Failed)
    assert outcome.error_class is error_class


def test_failure_keeps_what_was_said_and_what_it_cost(adapter: KieAdapter, emulator: KieEmulator) -> None:
    emulator.knobs = {
        "fail": "501:The muse did not come to https://cdn.example/a.png?X-Amz-Signature=secret",
        "credits": "205",
    }
    outcome = ended(adapter, emulator)
    assert isinstance(outcome, Failed)
    assert outcome.detail == (
        '205 credits consumed: {"code": "501", "message": "The muse did not come to https://cdn.example/a.png?…"}'
    )
    long = read_record(state="fail", failCode="501", failMsg="x" * 9_000)
    assert isinstance(long, Failed)
    assert len(long.detail) == 500


# --- Cancelling. ---


@pytest.mark.parametrize("seconds", [0, 600, 1_200, 2_000])
def test_nothing_can_be_cancelled(adapter: KieAdapter, emulator: KieEmulator, seconds: int) -> None:
    ref = taken(adapter)
    emulator.skip(seconds)
    assert adapter.cancel(ref) is Cancellation.UNSUPPORTED
    assert calls(emulator) == [("POST", CREATE)]
