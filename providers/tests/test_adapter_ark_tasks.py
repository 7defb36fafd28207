"""How the Ark adapter follows tasks: asking for one or many, and cancelling."""

import json
from collections.abc import Iterator
from typing import Any
from urllib.parse import urlencode

import pytest

from providers.adapters import ark as ark_module
from providers.adapters.ark import ArkAdapter
from providers.adapters.base import Cancellation, ErrorClass, Failed, Pending, Ref, Running, Succeeded, Unreadable
from providers.emulators.ark import ArkEmulator
from providers.emulators.server import Pace
from providers.tests.ark_channel import FAST, KEY, PATH, PRO, ark, asking, calls, taken
from tests.receivers import Answer, Receiver

DAY = 86_400
ID = "cgt-20261122100001-h5cz9"
REF = Ref(ID, PRO)
# The sheet's own example of a task that succeeded.
VIDEO_URL = (
    "https://ark-acg-ap-southeast-1.tos-ap-southeast-1.volces.com/dreamina-seedance-2-0/0217.mp4?X-Tos-Signature=s"
)
DONE: dict[str, Any] = {
    "id": ID,
    "model": PRO,
    "status": "succeeded",
    "content": {"video_url": VIDEO_URL, "last_frame_url": f"{VIDEO_URL}&last"},
    "usage": {"completion_tokens": 108900, "total_tokens": 108900},
    "created_at": 1795341601,
    "updated_at": 1795341740,
    "seed": 42,
    "resolution": "720p",
    "ratio": "16:9",
    "duration": 5,
    "framespersecond": 24,
    "generate_audio": True,
    "service_tier": "default",
    "execution_expires_after": 10800,
    "draft": False,
    "safety_identifier": "u_3f9a",
}


@pytest.fixture(autouse=True)
def _loopback(settings: Any) -> None:
    settings.OUTBOUND_ALLOWED_HOSTS = ["127.0.0.1"]


@pytest.fixture
def emulator() -> Iterator[ArkEmulator]:
    # Time passes by `skip` alone: no test waits for it.
    emulator = ArkEmulator(key=KEY, pace=Pace(1_000, 1_000))
    with emulator.serving():
        yield emulator


@pytest.fixture
def adapter(emulator: ArkEmulator) -> ArkAdapter:
    return ark(emulator.origin + emulator.base_path)


@pytest.fixture
def receiver() -> Iterator[Receiver]:
    with Receiver() as receiver:
        yield receiver


def replied(receiver: Receiver, document: Any, *, ref: Ref = REF, status: int = 200, **options: Any) -> Any:
    """Ask for a task where the provider answers with this document."""
    body = document if isinstance(document, bytes) else json.dumps(document).encode()
    receiver.plan(f"{PATH}/{ref.upstream_id}", Answer(status, body))
    return ark(receiver.url("/api/v3"), **options).fetch(ref)


def bulk_path(*ids: str) -> str:
    query = [("page_num", "1"), ("page_size", "100"), *(("filter.task_ids", one) for one in ids)]
    return f"{PATH}?{urlencode(query)}"


def listed(*items: Any, total: int | None = None) -> Answer:
    return Answer(body=json.dumps({"items": items, "total": len(items) if total is None else total}).encode())


# --- Asking. ---


def test_task_is_followed_to_its_video(adapter: ArkAdapter, emulator: ArkEmulator) -> None:
    ref = taken(adapter, asking(return_last_frame=True, seed=42))
    assert adapter.fetch(ref) == Pending()
    emulator.skip(1_000)
    assert adapter.fetch(ref) == Running()
    emulator.skip(1_000)
    outcome = adapter.fetch(ref)
    assert isinstance(outcome, Succeeded)
    assert outcome.video_url.startswith(f"{emulator.origin}/files/")
    assert outcome.last_frame_url is not None
    assert "_last.png?" in outcome.last_frame_url
    tokens = outcome.meta["total_tokens"]
    assert outcome.meta == {
        "seed": 42,
        "resolution": "480p",
        "ratio": "16:9",
        "duration": 4,
        "total_tokens": tokens,
    }
    assert tokens > 0

    emulator.knobs["numbers"] = "text"
    assert adapter.fetch(ref) == outcome


def test_examples_of_the_sheet_are_read(receiver: Receiver) -> None:
    meta = {"seed": 42, "resolution": "720p", "ratio": "16:9", "duration": 5, "total_tokens": 108900}
    assert replied(receiver, DONE) == Succeeded(VIDEO_URL, f"{VIDEO_URL}&last", meta)
    queued = {"id": ID, "model": PRO, "status": "queued", "error": None, "created_at": 1795341601}
    assert replied(receiver, queued) == Pending()
    assert replied(receiver, {"id": ID, "model": PRO, "status": "running", "brand_new": {}}) == Running()
    error = {"code": "OutputVideoSensitiveContentDetected", "message": "Request id: 0217"}
    outcome = replied(receiver, {"id": ID, "model": PRO, "status": "failed", "error": error})
    detail = '{"code": "OutputVideoSensitiveContentDetected", "at": "", "message": "Request id: 0217"}'
    assert outcome == Failed(ErrorClass.CUSTOMER_MODERATION, detail)


@pytest.mark.parametrize(
    ("word", "expected"),
    [
        ("expired", Failed(ErrorClass.TRANSIENT, "The task waited until it expired there.")),
        ("cancelled", Failed(ErrorClass.OUR_BUG, "The task was cancelled there.")),
        ("canceled", Unreadable("The status 'canceled' is not documented.", is_new=True)),
        ("unknown", Unreadable("The status 'reviewing' is not documented.", is_new=True)),
        ("stuck", Running()),
    ],
)
def test_status_has_its_meaning(adapter: ArkAdapter, emulator: ArkEmulator, word: str, expected: Any) -> None:
    emulator.knobs["status"] = word
    ref = taken(adapter)
    emulator.skip(3_000)
    assert adapter.fetch(ref) == expected
    assert adapter.fetch_many([ref, ref]) == {ref.upstream_id: expected}


def test_waiting_task_expires_after_an_hour_by_itself(adapter: ArkAdapter, emulator: ArkEmulator) -> None:
    ref = taken(adapter, asking("[emulate:queued=99999]"))
    emulator.skip(3_500)
    assert adapter.fetch(ref) == Pending()
    emulator.skip(100)
    assert adapter.fetch(ref) == Failed(ErrorClass.TRANSIENT, "The task waited until it expired there.")


@pytest.mark.parametrize("error", [None, {}, "boom", {"code": None}, {"message": "boom"}])
def test_failure_without_a_code_is_unknown(receiver: Receiver, error: Any) -> None:
    outcome = replied(receiver, {"id": ID, "model": PRO, "status": "failed", "error": error})
    assert isinstance(outcome, Failed)
    assert outcome.error_class is ErrorClass.UNKNOWN


@pytest.mark.parametrize("content", [None, {}, [], "x", {"video_url": None}, {"video_url": ""}, {"video_url": 5}])
def test_success_without_a_video_is_asked_again(receiver: Receiver, content: Any) -> None:
    outcome = replied(receiver, DONE | {"content": content})
    assert outcome == Unreadable("The task succeeded without a video URL.", is_done=True)


def test_odd_extras_of_a_success_are_left_out(receiver: Receiver) -> None:
    odd = {"usage": "many", "seed": None, "duration": "five", "ratio": ["16:9"], "resolution": "720p"}
    outcome = replied(receiver, DONE | odd | {"content": {"video_url": VIDEO_URL, "last_frame_url": 5}})
    assert outcome == Succeeded(VIDEO_URL, None, {"resolution": "720p"})


def test_links_vanish_after_a_day_and_records_after_a_week(adapter: ArkAdapter, emulator: ArkEmulator) -> None:
    emulator.knobs["result"] = "no-url"
    ref = taken(adapter)
    emulator.skip(2_000)
    untold = Unreadable("The task succeeded without a video URL.", is_done=True)
    assert adapter.fetch(ref) == untold
    emulator.knobs.clear()
    assert isinstance(adapter.fetch(ref), Succeeded)
    emulator.skip(DAY)
    assert adapter.fetch(ref) == untold
    emulator.skip(7 * DAY)
    gone = adapter.fetch(ref)
    assert isinstance(gone, Unreadable)
    assert gone.detail.startswith('HTTP 404 {"code": "NotFound"')
    assert (gone.is_new, gone.is_done) == (False, False)
    assert adapter.fetch_many([ref, ref]).keys() == {ref.upstream_id}


@pytest.mark.parametrize("word", ["html", "empty", "5xx", "429", "drop", "404", "401", "error:AccountOverdueError"])
def test_answer_that_tells_nothing_leaves_the_task_as_it_is(
    adapter: ArkAdapter, emulator: ArkEmulator, word: str
) -> None:
    ref, other = taken(adapter), taken(adapter)
    emulator.requests.clear()
    emulator.knobs["poll"] = word
    outcome = adapter.fetch(ref)
    assert isinstance(outcome, Unreadable)
    assert (outcome.is_new, outcome.is_done) == (False, False)
    is_account = word in ("401", "error:AccountOverdueError")
    assert outcome.detail.startswith("Our account is refused: HTTP 40") == is_account
    # A provider that is away is asked once for all of them.
    found = adapter.fetch_many([ref, other])
    assert [type(progress) for progress in found.values()] == [Unreadable, Unreadable]
    assert calls(emulator) == [f"GET /{ref.upstream_id}", "GET "]

    emulator.knobs.clear()
    assert adapter.fetch(ref) == Pending()


@pytest.mark.parametrize("status", [401, 403])
def test_account_is_named_for_codes_that_nobody_knows_too(receiver: Receiver, status: int) -> None:
    outcome = replied(receiver, {"error": {"code": "BrandNew", "message": "No."}}, status=status)
    detail = f'Our account is refused: HTTP {status} {{"code": "BrandNew", "at": "", "message": "No."}}'
    assert outcome == Unreadable(detail)


def test_answer_about_another_task_or_model_tells_nothing(receiver: Receiver) -> None:
    for change in ({"id": "cgt-other"}, {"id": None}, {"id": [ID]}):
        assert replied(receiver, DONE | change) == Unreadable("The answer is about another task.")
    for document in (b"[]", b'"queued"', b"", b"{", b"[" * 100_000):
        assert replied(receiver, document) == Unreadable("HTTP 200 without a JSON object.")
    assert replied(receiver, {}) == Unreadable("The answer is about another task.")
    assert replied(receiver, DONE | {"model": FAST}) == Unreadable(f"The task is of the model {FAST!r}.", is_new=True)
    assert isinstance(replied(receiver, DONE | {"model": FAST}, check_model=False), Succeeded)
    assert isinstance(replied(receiver, DONE, ref=Ref(ID, "ep-20261122-abcde")), Succeeded)
    assert isinstance(replied(receiver, DONE, ref=Ref(ID)), Succeeded)
    assert isinstance(replied(receiver, DONE | {"model": None}), Succeeded)
    assert replied(receiver, DONE | {"status": None}) == Unreadable("The status 'None' is not documented.", is_new=True)


def test_ids_cannot_leave_their_place_in_the_path(receiver: Receiver) -> None:
    ark(receiver.url("/api/v3")).fetch(Ref("../../models?x=1#y"))
    assert [request.path for request in receiver.requests] == [f"{PATH}/..%2F..%2Fmodels%3Fx%3D1%23y"]


# --- Asking for many. ---


def test_hundred_tasks_take_one_call(adapter: ArkAdapter, emulator: ArkEmulator) -> None:
    prompts = {
        "": Running(),
        "[emulate:queued=9999]": Pending(),
        "[emulate:queued=0][emulate:running=0]": None,
        "[emulate:queued=0][emulate:running=0][emulate:fail=AccessDenied]": None,
    }
    refs = [taken(adapter, asking(f"{number} {prompt}")) for number in range(25) for prompt in prompts]
    emulator.skip(1_000)
    emulator.requests.clear()
    found = adapter.fetch_many(refs)
    assert calls(emulator) == ["GET "]
    assert list(found) == [ref.upstream_id for ref in refs]
    for number, expected in enumerate(prompts.values()):
        outcomes = [found[ref.upstream_id] for ref in refs[number::4]]
        if expected is not None:
            assert outcomes == [expected] * 25
        else:
            assert {type(outcome) for outcome in outcomes} == {Succeeded if number == 2 else Failed}

    more = [*refs, *(taken(adapter) for _ in range(2))]
    emulator.requests.clear()
    assert len(adapter.fetch_many([*more, Ref("cgt-none", PRO)])) == 103
    assert calls(emulator) == ["GET ", "GET ", "GET /cgt-none"]


def test_what_a_list_does_not_tell_is_asked_for_alone(receiver: Receiver, monkeypatch: pytest.MonkeyPatch) -> None:
    ids = ["cgt-a", "cgt-b", "cgt-c", "cgt-d"]
    running = {"id": "cgt-a", "model": PRO, "status": "running"}
    bare = DONE | {"id": "cgt-b", "content": None}
    odd = {"id": "cgt-c", "model": PRO, "status": "reviewing"}
    receiver.plan(bulk_path(*ids), listed(odd, bare, running, running | {"id": "cgt-z"}, {"id": ["x"]}, None, "x"))
    receiver.plan(f"{PATH}/cgt-b", Answer(body=json.dumps(DONE | {"id": "cgt-b"}).encode()))
    missing = Answer(404, b'{"error": {"code": "NotFound", "message": "No."}}')
    receiver.plan(f"{PATH}/cgt-d", missing)
    adapter = ark(receiver.url("/api/v3"))
    refs = [Ref(one, PRO) for one in ids]
    found = adapter.fetch_many(refs)
    assert list(found) == ids
    assert found["cgt-a"] == Running()
    assert isinstance(found["cgt-b"], Succeeded)
    assert found["cgt-c"] == Unreadable("The status 'reviewing' is not documented.", is_new=True)
    assert found["cgt-d"] == Unreadable('HTTP 404 {"code": "NotFound", "at": "", "message": "No."}')
    assert len(receiver.requests) == 3

    monkeypatch.setattr(ark_module, "SINGLES_SECONDS", 0.0)
    found = adapter.fetch_many(refs)
    assert found["cgt-b"] == Unreadable("The task succeeded without a video URL.", is_done=True)
    assert found["cgt-d"] == Unreadable("The list did not tell about the task.")
    assert len(receiver.requests) == 4


@pytest.mark.parametrize("body", [b"{}", b'{"items": null}', b'{"items": {}}', b'{"items": "x", "total": 0}'])
def test_list_without_items_tells_nothing(receiver: Receiver, body: bytes) -> None:
    receiver.plan(bulk_path("cgt-a", "cgt-b"), Answer(body=body))
    found = ark(receiver.url("/api/v3")).fetch_many([Ref("cgt-a"), Ref("cgt-b")])
    assert found == dict.fromkeys(["cgt-a", "cgt-b"], Unreadable("The list has no items."))


def test_one_task_is_asked_for_by_its_own_page_and_none_by_none(adapter: ArkAdapter, emulator: ArkEmulator) -> None:
    ref = taken(adapter)
    emulator.requests.clear()
    assert adapter.fetch_many([ref]) == {ref.upstream_id: Pending()}
    assert adapter.fetch_many([]) == {}
    assert calls(emulator) == [f"GET /{ref.upstream_id}"]


# --- Cancelling. ---


def test_waiting_task_is_cancelled_for_good(adapter: ArkAdapter, emulator: ArkEmulator) -> None:
    ref = taken(adapter)
    assert adapter.cancel(ref) is Cancellation.DONE
    assert adapter.fetch(ref) == Failed(ErrorClass.OUR_BUG, "The task was cancelled there.")
    emulator.requests.clear()
    assert adapter.cancel(ref) is Cancellation.DONE
    assert calls(emulator) == [f"GET /{ref.upstream_id}"]


@pytest.mark.parametrize(
    ("prompt", "seconds", "outcome"),
    [
        ("", 1_000, Running),
        ("", 2_000, Succeeded),
        ("[emulate:fail=AccessDenied]", 2_000, Failed),
        ("[emulate:status=expired]", 2_000, Failed),
    ],
)
def test_no_other_task_is_touched(
    adapter: ArkAdapter, emulator: ArkEmulator, prompt: str, seconds: int, outcome: type
) -> None:
    ref = taken(adapter, asking(f"A fox {prompt}"))
    emulator.skip(seconds)
    emulator.requests.clear()
    assert adapter.cancel(ref) is Cancellation.TOO_LATE
    # DELETE would have destroyed the record of one that has ended.
    assert calls(emulator) == [f"GET /{ref.upstream_id}"]
    assert isinstance(adapter.fetch(ref), outcome)


@pytest.mark.parametrize(
    ("knobs", "expected"),
    [
        ({"poll": "html"}, Cancellation.MAYBE),
        ({"poll": "404"}, Cancellation.MAYBE),
        ({"poll": "drop"}, Cancellation.MAYBE),
        ({"delete": "drop"}, Cancellation.MAYBE),
        ({"delete": "html"}, Cancellation.MAYBE),
        ({"delete": "error:NotFound"}, Cancellation.MAYBE),
        ({"delete": "error:InternalServiceError"}, Cancellation.MAYBE),
        ({"delete": "error:InvalidAction.RunningTaskDeletion"}, Cancellation.TOO_LATE),
        ({"delete": "error:TaskRunningCannotCancel"}, Cancellation.TOO_LATE),
    ],
)
def test_cancelling_promises_no_more_than_was_answered(
    adapter: ArkAdapter, emulator: ArkEmulator, knobs: dict[str, str], expected: Cancellation
) -> None:
    ref = taken(adapter)
    emulator.requests.clear()
    emulator.knobs = dict(knobs)
    assert adapter.cancel(ref) is expected
    deleted = [f"DELETE /{ref.upstream_id}"] if "delete" in knobs else []
    assert calls(emulator) == [f"GET /{ref.upstream_id}", *deleted]


def test_task_of_an_unknown_status_is_not_cancelled(adapter: ArkAdapter, emulator: ArkEmulator) -> None:
    ref = taken(adapter, asking("[emulate:status=unknown]"))
    emulator.skip(1_000)
    emulator.requests.clear()
    assert adapter.cancel(ref) is Cancellation.MAYBE
    assert calls(emulator) == [f"GET /{ref.upstream_id}"]
