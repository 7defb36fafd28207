"""The emulated Replicate against its sheet, over real sockets."""

import base64
import hashlib
import hmac
import json
import re
import threading
import time
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
import requests

from providers import media_probe
from providers.emulators.replicate import ReplicateEmulator
from providers.emulators.replicate.webhooks import signature
from providers.emulators.server import Pace

PRO = "bytedance/seedance-2.0"
HOUR = 3600
# So slow that a test moves the clock itself.
QUEUED, RUNNING = 100.0, 1000.0
PATIENCE_SECONDS = 10.0
TIMESTAMP = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z")
IMAGE, FRAME, VIDEO, AUDIO = (f"https://cdn.example/{name}" for name in ("a.png", "b.png", "move.mp4", "beat.mp3"))
SENSITIVE = "The input or output was flagged as sensitive. Please try again with different inputs. (E005)"
PROBLEM_KEYS = {"title", "detail", "status", "type", "instance"}


class Receiver:
    """Takes webhooks: answers with `statuses` one after the other, then with 200."""

    def __init__(self) -> None:
        self.received: list[tuple[dict[str, str], bytes]] = []
        self.statuses: list[int] = []
        self.url = ""

    def bodies(self) -> list[dict]:
        return [json.loads(body) for _, body in list(self.received)]

    def statuses_of(self, prediction_id: str) -> list[str]:
        return [body["status"] for body in self.bodies() if body["id"] == prediction_id]


@pytest.fixture
def receiver() -> Iterator[Receiver]:
    receiver = Receiver()

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["Content-Length"]))
            self.send_response(receiver.statuses.pop(0) if receiver.statuses else 200)
            self.send_header("Content-Length", "0")
            self.end_headers()
            receiver.received.append(({name.lower(): value for name, value in self.headers.items()}, body))

        def log_message(self, *_: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    receiver.url = f"http://127.0.0.1:{server.server_address[1]}/wh/token"
    thread = threading.Thread(target=server.serve_forever, args=(0.005,), daemon=True)
    thread.start()
    yield receiver
    server.shutdown()
    server.server_close()
    thread.join()


@pytest.fixture
def emulator() -> Iterator[ReplicateEmulator]:
    emulator = ReplicateEmulator(key="r8_test", pace=Pace(QUEUED, RUNNING))
    with emulator.serving():
        yield emulator


class FrozenEmulator(ReplicateEmulator):
    """One whose time only ever moves by `skip`."""

    def now(self) -> float:
        return 1_800_000_000.0 + self._skipped_seconds


@pytest.fixture
def frozen() -> Iterator[FrozenEmulator]:
    emulator = FrozenEmulator(key="r8_test", pace=Pace(QUEUED, RUNNING))
    with emulator.serving():
        yield emulator


def until(condition: Callable[[], object]) -> None:
    deadline = time.monotonic() + PATIENCE_SECONDS
    while not condition():
        assert time.monotonic() < deadline, "it did not come about"
        time.sleep(0.01)


def call(emulator, method: str, path: str, timeout: float = PATIENCE_SECONDS, **options) -> requests.Response:
    headers = {"Authorization": "Bearer r8_test"} | options.pop("headers", {})
    return requests.request(method, f"{emulator.origin}/v1{path}", headers=headers, timeout=timeout, **options)


def post(emulator: ReplicateEmulator, given: dict, model: str = PRO, headers: dict | None = None, **body):
    path = f"/models/{model}/predictions"
    return call(emulator, "POST", path, json={"input": given, **body}, headers=headers or {})


def create(emulator: ReplicateEmulator, prompt: str = "A lighthouse", headers: dict | None = None, **body) -> dict:
    reply = post(emulator, {"prompt": prompt, "duration": 4, "resolution": "480p"} | body.pop("given", {}), **body)
    assert reply.status_code == 201, reply.text
    return reply.json()


def get(emulator: ReplicateEmulator, prediction: dict) -> dict:
    reply = call(emulator, "GET", f"/predictions/{prediction['id']}")
    assert reply.status_code == 200, reply.text
    return reply.json()


def ended(emulator: ReplicateEmulator, prompt: str = "A lighthouse", **body) -> dict:
    prediction = create(emulator, prompt, **body)
    emulator.skip(QUEUED + RUNNING)
    return get(emulator, prediction)


def assert_problem(reply: requests.Response, status: int) -> dict:
    assert reply.status_code == status, reply.text
    assert reply.headers["Content-Type"] == "application/json"
    body = reply.json()
    assert set(body) - {"invalid_fields"} == PROBLEM_KEYS
    assert body["status"] == status
    assert body["detail"]
    return body


# Authentication and paths


@pytest.mark.parametrize("authorization", ["", "Bearer wrong", "Token r8_test", "r8_test", "Key r8_test"])
@pytest.mark.parametrize(
    ("method", "path"),
    [
        ("POST", f"/models/{PRO}/predictions"),
        ("GET", "/predictions"),
        ("GET", "/predictions/abc"),
        ("GET", "/webhooks/default/secret"),
        ("GET", "/nowhere"),
    ],
)
def test_without_a_valid_token_everything_is_401(emulator, authorization, method, path):
    assert_problem(call(emulator, method, path, headers={"Authorization": authorization}, json={}), 401)
    assert emulator.submissions == []


@pytest.mark.parametrize(
    ("method", "path"),
    [
        ("GET", "/nowhere"),
        ("GET", "/predictions/unknown"),
        ("POST", "/predictions/unknown/cancel"),
        ("DELETE", "/predictions/unknown"),
        ("POST", "/models/bytedance/seedance-9/predictions"),
        ("POST", "/models/somebody/seedance-2.0/predictions"),
    ],
)
def test_what_does_not_exist_is_404(emulator, method, path):
    body = assert_problem(call(emulator, method, path, json={"input": {"prompt": "x"}}), 404)
    assert body["instance"] == f"/v1{path}"
    assert emulator.submissions == []


# Creating


def test_create_answers_201_with_the_documented_object(emulator, receiver):
    given = {
        "prompt": "[Image1] walks through [Image2], camera like [Video1]",
        "reference_images": [IMAGE, FRAME],
        "reference_videos": [VIDEO],
        "reference_audios": [AUDIO],
        "duration": 5,
        "resolution": "720p",
        "aspect_ratio": "16:9",
        "generate_audio": True,
        "seed": 42,
    }
    reply = post(emulator, given, webhook=receiver.url, webhook_events_filter=["start", "completed"])
    assert reply.status_code == 201
    body = reply.json()
    assert re.fullmatch("[0-9a-z]{26}", body["id"])
    assert TIMESTAMP.fullmatch(body["created_at"])
    address = f"{emulator.origin}/v1/predictions/{body['id']}"
    assert set(body["urls"]) == {"get", "cancel", "web", "stream"}
    assert body["urls"]["get"] == address
    assert body["urls"]["cancel"] == f"{address}/cancel"
    assert body["urls"]["web"] == f"https://replicate.com/p/{body['id']}"
    assert {name: body[name] for name in body if name not in ("id", "created_at", "urls")} == {
        "model": PRO,
        "version": "hidden",
        "input": given,
        "logs": "",
        "output": None,
        "error": None,
        "status": "starting",
        "data_removed": False,
        "started_at": None,
        "completed_at": None,
        "metrics": {},
        "webhook": receiver.url,
        "webhook_events_filter": ["start", "completed"],
    }
    [submission] = emulator.submissions
    assert submission.task_id == body["id"]
    assert submission.model == PRO
    assert submission.prompt == given["prompt"]
    assert submission.callback_url == receiver.url


@pytest.mark.parametrize("model", [PRO, f"{PRO}-fast", f"{PRO}-mini"])
def test_every_model_of_the_family_is_served(emulator, model):
    assert create(emulator, model=model)["model"] == model


def test_mini_can_be_absent(emulator):
    emulator.knobs = {"mini": "absent"}
    assert_problem(post(emulator, {"prompt": "x"}, f"{PRO}-mini"), 404)
    assert create(emulator, model=f"{PRO}-fast")["model"] == f"{PRO}-fast"


@pytest.mark.parametrize("body", [b"", b"{", b"[]", b'"x"', b"null"])
def test_what_is_no_json_object_is_400(emulator, body):
    assert_problem(call(emulator, "POST", f"/models/{PRO}/predictions", data=body), 400)
    assert emulator.submissions == []


@pytest.mark.parametrize(
    ("field", "given"),
    [
        ("input", {}),
        ("input.prompt", {"prompt": 1}),
        ("input.prompt", {"prompt": None}),
        ("input.image", {"image": "a.png"}),
        ("input.image", {"image": [IMAGE]}),
        ("input.last_frame_image", {"image": IMAGE, "last_frame_image": "ftp://cdn.example/a.png"}),
        ("input.reference_images", {"reference_images": IMAGE}),
        ("input.reference_images", {"reference_images": [IMAGE] * 10}),
        ("input.reference_images.1", {"reference_images": [IMAGE, 7]}),
        ("input.reference_videos", {"reference_videos": [VIDEO] * 4}),
        ("input.reference_audios", {"reference_images": [IMAGE], "reference_audios": [AUDIO] * 4}),
        ("input.duration", {"duration": "5"}),
        ("input.duration", {"duration": 5.0}),
        ("input.duration", {"duration": True}),
        ("input.duration", {"duration": 16}),
        ("input.duration", {"duration": -2}),
        ("input.resolution", {"resolution": "1080p"}),
        ("input.resolution", {"resolution": 720}),
        ("input.aspect_ratio", {"aspect_ratio": "auto"}),
        ("input.aspect_ratio", {"aspect_ratio": "9:21"}),
        ("input.generate_audio", {"generate_audio": "true"}),
        ("input.seed", {"seed": "42"}),
        ("input.seed", {"seed": None}),
        ("input", {"watermark": False}),
        ("input", {"return_last_frame": False}),
    ],
)
def test_an_input_against_the_schema_is_422(emulator, field, given):
    given = given if given == {} else {"prompt": "x"} | given
    body = assert_problem(post(emulator, given), 422)
    assert [fault["field"] for fault in body["invalid_fields"]] == [field]
    assert body["detail"].startswith(f"- {field}: ")
    assert emulator.submissions == []
    assert call(emulator, "GET", "/predictions").json()["results"] == []


@pytest.mark.parametrize(
    ("field", "body"),
    [
        ("(root)", {}),
        ("input", {"input": "x"}),
        ("webhook", {"input": {"prompt": "x"}, "webhook": "http://api.example/wh"}),
        ("webhook", {"input": {"prompt": "x"}, "webhook": "nowhere"}),
        ("webhook_events_filter", {"input": {"prompt": "x"}, "webhook_events_filter": "start"}),
        ("webhook_events_filter", {"input": {"prompt": "x"}, "webhook_events_filter": ["start", "end"]}),
        ("(root)", {"input": {"prompt": "x"}, "callback_url": "https://api.example/wh"}),
    ],
)
def test_a_request_against_the_schema_is_422(emulator, field, body):
    answer = assert_problem(call(emulator, "POST", f"/models/{PRO}/predictions", json=body), 422)
    assert [fault["field"] for fault in answer["invalid_fields"]] == [field]
    assert emulator.submissions == []


BROKEN_RULES = [
    ({"image": IMAGE, "reference_images": [FRAME]}, "image cannot be used together with reference_images"),
    ({"image": IMAGE, "reference_videos": [VIDEO]}, "image cannot be used together with reference_videos"),
    ({"last_frame_image": FRAME}, "last_frame_image needs image"),
    ({"reference_audios": [AUDIO]}, "reference_audios needs a reference image or a reference video"),
    ({"duration": 3}, "duration must be -1 or between 4 and 15"),
    ({"duration": 0}, "duration must be -1 or between 4 and 15"),
]


@pytest.mark.parametrize(("given", "sentence"), BROKEN_RULES)
def test_what_the_schema_lets_pass_fails_when_the_model_runs(emulator, given, sentence):
    prediction = create(emulator, given=given)
    emulator.skip(QUEUED + 1)
    failed = get(emulator, prediction)
    assert (failed["status"], failed["error"]) == ("failed", f"Input validation error: {sentence}")
    assert failed["output"] is None


@pytest.mark.parametrize(("given", "sentence"), BROKEN_RULES)
def test_rules_can_belong_to_the_schema(emulator, given, sentence):
    emulator.knobs = {"rules": "schema"}
    assert sentence in assert_problem(post(emulator, {"prompt": "x"} | given), 422)["detail"]
    assert emulator.submissions == []


@pytest.mark.parametrize(
    "given",
    [
        {"prompt": ""},
        {"image": IMAGE, "last_frame_image": FRAME},
        {"image": "data:image/png;base64,AAAA"},
        {"image": IMAGE, "reference_images": [], "reference_videos": [], "reference_audios": []},
        {"reference_images": [IMAGE] * 9, "reference_videos": [VIDEO] * 3, "reference_audios": [AUDIO] * 3},
        {"reference_videos": [VIDEO], "reference_audios": [AUDIO]},
        {"duration": -1},
        {"duration": 15, "aspect_ratio": "adaptive", "generate_audio": False, "seed": 0},
    ],
)
def test_inputs_in_order_succeed(emulator, given):
    assert ended(emulator, given=given)["status"] == "succeeded"


def test_full_hd_and_unknown_fields_can_be_allowed(emulator):
    emulator.knobs = {"full-hd": "yes", "unknown-fields": "ignore"}
    assert create(emulator, given={"resolution": "1080p", "watermark": True})["input"]["watermark"] is True
    assert_problem(post(emulator, {"prompt": "x", "resolution": "1080p"}, f"{PRO}-fast"), 422)


def test_a_pinned_version_is_taken_and_an_unknown_one_refused(emulator):
    version = "90388a62" + "0" * 56
    reply = call(emulator, "POST", "/predictions", json={"version": version, "input": {"prompt": "x"}})
    assert reply.status_code == 201
    assert (reply.json()["model"], reply.json()["version"]) == (f"{PRO}-fast", version)
    for unknown in ("f" * 64, "90388a62", None):
        assert_problem(call(emulator, "POST", "/predictions", json={"version": unknown, "input": {"prompt": "x"}}), 422)
    assert len(emulator.submissions) == 1


# The life of a prediction


def test_a_prediction_starts_runs_and_succeeds(emulator):
    prediction = create(emulator)
    emulator.skip(QUEUED - 50)
    assert get(emulator, prediction) == prediction
    emulator.skip(50)
    running = get(emulator, prediction)
    assert (running["status"], running["output"], running["error"]) == ("processing", None, None)
    assert TIMESTAMP.fullmatch(running["started_at"])
    assert running["logs"] != ""
    assert running["metrics"] == {}
    emulator.skip(RUNNING)
    done = get(emulator, prediction)
    assert (done["status"], done["error"], done["data_removed"]) == ("succeeded", None, False)
    assert re.fullmatch(rf"{emulator.origin}/files/xezq/[\w-]+/tmp\w+\.mp4", done["output"])
    assert done["metrics"] == {"predict_time": RUNNING, "video_output_duration_seconds": 4}
    assert done["created_at"] < done["started_at"] < done["completed_at"]
    emulator.skip(60)
    assert get(emulator, prediction) == done


@pytest.mark.parametrize(
    ("code", "sentence"),
    [
        ("E005", SENSITIVE),
        ("sensitive", "sensitive"),
        ("content-policy", "content policy"),
        ("real-person", "real person"),
        ("copyright", "copyright"),
        ("validation", "Input validation error"),
        ("download", f"could not download {IMAGE}"),
        ("fetch", f"failed to fetch {IMAGE}"),
        ("image", "Invalid image"),
        ("403", f"403 Client Error: Forbidden for url: {IMAGE}"),
        ("404", f"404 Client Error: Not Found for url: {IMAGE}"),
        ("director", "Director: unexpected error"),
        ("E1000", "E1000"),
        ("E1999", "E1999"),
        ("interrupted", "Prediction interrupted"),
        ("cuda", "CUDA"),
        ("timeout", "timed out"),
        ("queue-full", "queue is full"),
        ("high-demand", "high demand"),
        ("Free {text} of one's own", "Free {text} of one's own"),
    ],
)
def test_a_failure_is_told_in_the_documented_prose(emulator, code, sentence):
    failed = ended(emulator, f"x [emulate:fail={code}]", given={"image": IMAGE})
    assert (failed["status"], failed["output"]) == ("failed", None)
    assert sentence in failed["error"]
    assert TIMESTAMP.fullmatch(failed["completed_at"])


def test_a_stuck_prediction_never_leaves_processing(emulator):
    prediction = create(emulator, "x [emulate:status=stuck]")
    emulator.skip(QUEUED + 100 * HOUR)
    assert get(emulator, prediction)["status"] == "processing"


def test_an_unknown_status_can_be_had(emulator):
    prediction = create(emulator, "x [emulate:status=unknown]")
    emulator.skip(QUEUED)
    documented = {"starting", "processing", "succeeded", "failed", "canceled", "aborted"}
    assert get(emulator, prediction)["status"] not in documented


@pytest.mark.parametrize("status", ["canceled", "aborted", "failed"])
def test_every_other_terminal_state_can_be_had(emulator, status):
    done = ended(emulator, f"x [emulate:status={status}]")
    assert (done["status"], done["output"]) == (status, None)
    assert ("predict_time" in done["metrics"]) == (status != "aborted")


def test_a_run_of_more_than_30_minutes_times_out(emulator):
    prediction = create(emulator, "x [emulate:running=1900]")
    emulator.skip(QUEUED + 1790)
    assert get(emulator, prediction)["status"] == "processing"
    emulator.skip(10)
    done = get(emulator, prediction)
    assert done["status"] == "failed"
    assert "timed out" in done["error"]


def test_a_task_has_a_pace_of_its_own(emulator):
    prediction = create(emulator, "x [emulate:queued=0][emulate:running=10]")
    assert get(emulator, prediction)["status"] == "processing"
    emulator.skip(10)
    assert get(emulator, prediction)["status"] == "succeeded"


@pytest.mark.parametrize(
    ("header", "seconds", "status"),
    [("90s", 90, "aborted"), ("1m", 60, "aborted"), ("5m", 300, "canceled"), ("1m60s", 120, "canceled")],
)
def test_cancel_after_aborts_before_the_start_and_cancels_after_it(emulator, header, seconds, status):
    reply = post(emulator, {"prompt": "x"}, headers={"Cancel-After": header})
    assert reply.status_code == 201
    emulator.skip(seconds - 10)
    assert get(emulator, reply.json())["status"] in ("starting", "processing")
    emulator.skip(10)
    assert get(emulator, reply.json())["status"] == status


def test_cancel_after_does_not_touch_what_is_done(emulator):
    reply = post(emulator, {"prompt": "x"}, headers={"Cancel-After": "1h"})
    emulator.skip(HOUR + 1)
    assert get(emulator, reply.json())["status"] == "succeeded"


@pytest.mark.parametrize("header", ["", "soon", "1s", "30", "5d", "-5m"])
def test_an_unusable_cancel_after_is_422(emulator, header):
    assert_problem(post(emulator, {"prompt": "x"}, headers={"Cancel-After": header}), 422)
    assert emulator.submissions == []


def test_prefer_wait_holds_the_connection_until_it_is_done(emulator):
    reply = post(emulator, {"prompt": "x [emulate:queued=0][emulate:running=0.3]"}, headers={"Prefer": "wait"})
    assert (reply.status_code, reply.json()["status"]) == (201, "succeeded")
    started = time.monotonic()
    reply = post(emulator, {"prompt": "x"}, headers={"Prefer": "wait=1"})
    assert (reply.status_code, reply.json()["status"]) == (201, "starting")
    assert time.monotonic() - started >= 1
    emulator.knobs = {"prefer": "ignore"}
    reply = post(emulator, {"prompt": "x [emulate:running=0.3]"}, headers={"Prefer": "wait"})
    assert (reply.status_code, reply.json()["status"]) == (201, "starting")


# Cancelling


def cancel(emulator: ReplicateEmulator, prediction: dict) -> dict:
    reply = call(emulator, "POST", f"/predictions/{prediction['id']}/cancel")
    assert reply.status_code == 200
    return reply.json()


def test_cancel_while_it_waits(emulator):
    prediction = create(emulator)
    canceled = cancel(emulator, prediction)
    assert (canceled["status"], canceled["started_at"], canceled["metrics"]) == ("canceled", None, {})
    emulator.skip(QUEUED + RUNNING)
    assert get(emulator, prediction) == canceled


def test_cancel_while_it_runs(emulator):
    prediction = create(emulator)
    emulator.skip(QUEUED + 50)
    canceled = cancel(emulator, prediction)
    assert (canceled["status"], canceled["output"]) == ("canceled", None)
    assert canceled["metrics"]["predict_time"] == pytest.approx(50, abs=5)
    emulator.skip(RUNNING)
    assert get(emulator, prediction) == canceled


@pytest.mark.parametrize("word", ["status=canceled", "status=aborted", "fail=E005", "queued=0"])
def test_cancel_after_the_end_changes_nothing(emulator, word):
    done = ended(emulator, f"x [emulate:{word}]")
    assert done["status"] in ("canceled", "aborted", "failed", "succeeded")
    assert cancel(emulator, done) == done


@pytest.mark.parametrize("word", ["stuck", "unknown"])
def test_cancel_ends_what_would_never_end(emulator, word):
    prediction = create(emulator, f"x [emulate:status={word}]")
    emulator.skip(QUEUED)
    assert cancel(emulator, prediction)["status"] == "canceled"


def test_cancel_can_take_a_while_or_be_ignored(emulator):
    slow = create(emulator, "x [emulate:cancel=slow]")
    ignored = create(emulator, "x [emulate:cancel=ignored]")
    emulator.skip(QUEUED)
    assert [cancel(emulator, prediction)["status"] for prediction in (slow, ignored)] == ["processing"] * 2
    emulator.skip(1)
    assert [get(emulator, prediction)["status"] for prediction in (slow, ignored)] == ["canceled", "processing"]
    emulator.skip(RUNNING)
    assert [get(emulator, prediction)["status"] for prediction in (slow, ignored)] == ["canceled", "succeeded"]


# Listing


def test_list_goes_from_the_newest_back_by_cursor(emulator):
    emulator.knobs = {"page-size": "2"}
    ids = [create(emulator)["id"] for _ in range(5)]
    pages, address = [], f"{emulator.origin}/v1/predictions"
    while address:
        page = requests.get(address, headers={"Authorization": "Bearer r8_test"}, timeout=5).json()
        pages.append(page)
        address = page["next"]
        create(emulator)  # What comes later does not move the pages.
    assert [[row["id"] for row in page["results"]] for page in pages] == [
        [ids[4], ids[3]],
        [ids[2], ids[1]],
        [ids[0]],
    ]
    assert pages[0]["previous"] is None
    previous = requests.get(pages[1]["previous"], headers={"Authorization": "Bearer r8_test"}, timeout=5).json()
    assert [row["id"] for row in previous["results"]] == [ids[4], ids[3]]


def test_list_shows_whole_predictions_a_hundred_at_a_time(emulator):
    for number in range(101):
        last = create(emulator, str(number), webhook="https://api.example/wh/8mZ")
    page = call(emulator, "GET", "/predictions").json()
    assert len(page["results"]) == 100
    assert page["next"]
    assert page["results"][0] == get(emulator, last)
    assert page["results"][0]["webhook"] == "https://api.example/wh/8mZ"
    emulator.knobs = {"webhook-echo": "no"}
    assert "webhook" not in call(emulator, "GET", "/predictions").json()["results"][0]
    assert_problem(call(emulator, "GET", "/predictions?cursor=nonsense"), 404)


# Results


def video_of(tmp_path: Path, prediction: dict) -> media_probe.MediaInfo:
    reply = requests.get(prediction["output"], timeout=60)
    assert (reply.status_code, reply.headers["Content-Type"]) == (200, "video/mp4")
    path = tmp_path / "video.mp4"
    path.write_bytes(reply.content)
    return media_probe.probe(path)


@pytest.mark.parametrize(
    ("given", "size", "seconds", "has_audio"),
    [
        ({}, (864, 496), 4, True),
        ({"duration": -1, "aspect_ratio": "9:16", "generate_audio": False}, (496, 864), 5, False),
        ({"duration": 6, "aspect_ratio": "adaptive"}, (864, 496), 6, True),
    ],
)
def test_the_output_is_a_video_as_it_was_asked_for(emulator, tmp_path, given, size, seconds, has_audio):
    info = video_of(tmp_path, ended(emulator, given=given))
    assert (info.width, info.height, info.has_audio) == (*size, has_audio)
    assert info.duration_ms == pytest.approx(seconds * 1000, abs=100)


def test_the_defaults_are_720p_and_5_seconds(emulator, tmp_path):
    prediction = post(emulator, {"prompt": "x"}).json()
    emulator.skip(QUEUED + RUNNING)
    info = video_of(tmp_path, get(emulator, prediction))
    assert (info.width, info.height, info.has_audio) == (1280, 720, True)
    assert info.duration_ms == pytest.approx(5000, abs=100)


def test_an_hour_after_the_end_all_data_are_removed(emulator):
    done = ended(emulator, webhook="https://api.example/wh/8mZ")
    emulator.skip(HOUR - 60)
    assert get(emulator, done) == done
    assert requests.head(done["output"], timeout=60).status_code == 200
    emulator.skip(60)
    removed = get(emulator, done)
    assert removed == done | {"input": {}, "output": None, "logs": "", "data_removed": True}
    assert requests.get(done["output"], timeout=5).status_code == 404
    assert call(emulator, "GET", "/predictions").json()["results"] == [removed]


def test_a_file_is_not_there_before_its_time(emulator):
    prediction = create(emulator)
    key = emulator._predictions[prediction["id"]].file_key
    assert requests.get(f"{emulator.origin}/files/xezq/{key}/out.mp4", timeout=5).status_code == 404
    assert requests.get(f"{emulator.origin}/files/xezq/nothing/out.mp4", timeout=5).status_code == 404


@pytest.mark.parametrize(
    ("word", "output", "is_removed"),
    [("no-url", None, False), ("empty-list", [], False), ("removed", None, True)],
)
def test_a_success_without_a_video(emulator, word, output, is_removed):
    done = ended(emulator, f"x [emulate:result={word}]")
    assert (done["status"], done["output"], done["data_removed"]) == ("succeeded", output, is_removed)


def test_other_shapes_of_a_result(emulator):
    done = ended(emulator, "x [emulate:result=list]")
    assert len(done["output"]) == 1
    assert requests.head(done["output"][0], timeout=60).status_code == 200
    assert ended(emulator, "x [emulate:result=no-metrics]")["metrics"] == {}


def test_faulty_files(emulator, tmp_path):
    whole = requests.get(ended(emulator)["output"], timeout=60).content
    outputs = {
        word: ended(emulator, f"A lighthouse [emulate:result={word}]")["output"]
        for word in ("gone", "truncated", "not-video", "redirect", "foreign")
    }
    replies = {word: requests.get(url, timeout=60, allow_redirects=False) for word, url in outputs.items()}
    assert replies["gone"].status_code == 404
    assert replies["truncated"].status_code == 200
    assert 0 < len(replies["truncated"].content) < len(whole)
    (tmp_path / "cut.mp4").write_bytes(replies["truncated"].content)
    with pytest.raises(media_probe.UnusableMedia):
        media_probe.probe(tmp_path / "cut.mp4")
    assert (replies["not-video"].status_code, replies["not-video"].headers["Content-Type"]) == (200, "text/html")
    assert replies["redirect"].status_code == 302
    elsewhere = emulator.origin.replace("127.0.0.1", "localhost")
    assert replies["redirect"].headers["Location"].startswith(elsewhere)
    assert requests.get(outputs["redirect"], timeout=60).headers["Content-Type"] == "video/mp4"
    assert outputs["foreign"].startswith(elsewhere)
    assert replies["foreign"].headers["Content-Type"] == "video/mp4"
    short = video_of(tmp_path, ended(emulator, "x [emulate:result=short]"))
    assert short.duration_ms == pytest.approx(2000, abs=100)


# Faults on submitting and polling


@pytest.mark.parametrize(("word", "is_stored"), [("drop", True), ("drop-before", False)])
def test_a_dropped_submission(emulator, word, is_stored):
    with pytest.raises(requests.ConnectionError):
        post(emulator, {"prompt": f"x [emulate:submit={word}]"})
    assert len(emulator.submissions) == is_stored
    results = call(emulator, "GET", "/predictions").json()["results"]
    assert [row["id"] for row in results] == [submission.task_id for submission in emulator.submissions]


def test_a_submission_that_hangs_is_stored(emulator):
    body = {"input": {"prompt": "x [emulate:submit=hang]"}}
    with pytest.raises(requests.ReadTimeout):
        call(emulator, "POST", f"/models/{PRO}/predictions", json=body, timeout=0.5)
    assert len(emulator.submissions) == 1


def test_a_gateway_page_stands_for_nothing_stored(emulator):
    reply = post(emulator, {"prompt": "x [emulate:submit=html]"})
    assert (reply.status_code, reply.headers["Content-Type"]) == (502, "text/html")
    assert emulator.submissions == []


def test_a_late_500_stands_for_something_stored(emulator):
    assert_problem(post(emulator, {"prompt": "x [emulate:submit=late-5xx]"}), 500)
    assert len(emulator.submissions) == 1


def test_an_answer_without_an_id_stands_for_something_stored(emulator):
    reply = post(emulator, {"prompt": "x [emulate:submit=no-id]"})
    assert reply.status_code == 201
    assert "id" not in reply.json()
    assert emulator.submissions[0].task_id not in reply.text
    assert len(emulator.submissions) == 1


@pytest.mark.parametrize(
    ("code", "status"),
    [
        *((str(status), status) for status in (400, 401, 402, 403, 404, 422, 500, 502, 503, 504)),
        ("402/spending-limit", 402),
        ("422/url", 422),
        ("418", 418),
    ],
)
def test_every_documented_error_can_be_had(emulator, code, status):
    body = assert_problem(post(emulator, {"prompt": f"x [emulate:submit=error:{code}]"}), status)
    assert ("invalid_fields" in body) == (status == 422)
    assert emulator.submissions == []


@pytest.mark.parametrize(
    ("code", "retry_after", "words"),
    [
        ("429", "30", "Your rate limit resets in ~30s."),
        ("429/no-retry-after", None, "Your rate limit resets in ~30s."),
        ("429/low-credit", "10", "in credit"),
    ],
)
def test_throttling_with_and_without_retry_after(emulator, code, retry_after, words):
    reply = post(emulator, {"prompt": f"x [emulate:submit=error:{code}]"})
    assert reply.status_code == 429
    assert set(reply.json()) == {"detail"}
    assert reply.json()["detail"].startswith("Request was throttled. ")
    assert words in reply.json()["detail"]
    assert reply.headers.get("Retry-After") == retry_after
    assert emulator.submissions == []


@pytest.mark.parametrize(("word", "status"), [("html", 502), ("5xx", 503), ("429", 429), ("404", 404), ("401", 401)])
def test_a_faulty_poll(emulator, word, status):
    faulty, sound = create(emulator, f"x [emulate:poll={word}]"), create(emulator)
    assert call(emulator, "GET", f"/predictions/{faulty['id']}").status_code == status
    assert get(emulator, sound) == sound


def test_an_empty_and_a_dropped_poll(emulator):
    reply = call(emulator, "GET", f"/predictions/{create(emulator, 'x [emulate:poll=empty]')['id']}")
    assert (reply.status_code, reply.content) == (200, b"")
    dropped = create(emulator, "x [emulate:poll=drop]")
    with pytest.raises(requests.ConnectionError):
        get(emulator, dropped)


def test_the_list_the_secret_and_cancel_can_be_faulty(emulator):
    prediction = create(emulator)
    emulator.knobs = {"list": "5xx", "secret": "html", "cancel": "404"}
    assert_problem(call(emulator, "GET", "/predictions"), 503)
    assert call(emulator, "GET", "/webhooks/default/secret").headers["Content-Type"] == "text/html"
    assert_problem(call(emulator, "POST", f"/predictions/{prediction['id']}/cancel"), 404)
    assert get(emulator, prediction)["status"] == "starting"


# Limits


def test_a_rate_limit_counts_creations_and_other_requests_apart(frozen):
    frozen.knobs = {"rate-limit": "2"}
    create(frozen)
    frozen.skip(20)
    prediction = create(frozen)
    frozen.skip(10)
    refused = post(frozen, {"prompt": "x"})
    assert (refused.status_code, refused.headers["Retry-After"]) == (429, "30")
    assert refused.json() == {"detail": "Request was throttled. Your rate limit resets in ~30s."}
    assert len(frozen.submissions) == 2
    replies = [call(frozen, "GET", f"/predictions/{prediction['id']}").status_code for _ in range(11)]
    assert replies == [200] * 10 + [429]
    frozen.skip(30)
    create(frozen)
    assert post(frozen, {"prompt": "x"}).headers["Retry-After"] == "20"


def test_low_credit_allows_one_a_second_and_six_a_minute(frozen):
    frozen.knobs = {"rate-limit": "low-credit"}
    create(frozen)
    refused = post(frozen, {"prompt": "x"})
    assert (refused.status_code, refused.headers["Retry-After"]) == (429, "1")
    assert "in credit" in refused.json()["detail"]
    for _ in range(5):
        frozen.skip(1)
        create(frozen)
    frozen.skip(1)
    assert post(frozen, {"prompt": "x"}).headers["Retry-After"] == "54"
    assert len(frozen.submissions) == 6


def test_beyond_the_concurrency_limit_predictions_wait_their_turn(emulator):
    emulator.knobs = {"max-concurrent": "2"}
    predictions = [create(emulator) for _ in range(4)]

    def statuses() -> list[str]:
        return [get(emulator, prediction)["status"] for prediction in predictions]

    emulator.skip(QUEUED)
    assert statuses() == ["processing", "processing", "starting", "starting"]
    cancel(emulator, predictions[0])
    until(lambda: statuses() == ["canceled", "processing", "processing", "starting"])
    cancel(emulator, predictions[3])
    emulator.skip(RUNNING)
    assert statuses() == ["canceled", "succeeded", "succeeded", "canceled"]
    last = create(emulator)
    emulator.skip(QUEUED)
    assert get(emulator, last)["status"] == "processing"


def test_a_deadline_passes_while_waiting_for_a_place(emulator):
    emulator.knobs = {"max-concurrent": "1"}
    create(emulator, "x [emulate:status=stuck]")
    waiting = post(emulator, {"prompt": "x"}, headers={"Cancel-After": "5m"}).json()
    emulator.skip(300)
    assert get(emulator, waiting)["status"] == "aborted"


# Webhooks


def signature_by_hand(secret: str, headers: dict[str, str], body: bytes) -> str:
    """The scheme, written out once more from the sheet's steps 4 and 5."""
    signed = headers["webhook-id"].encode() + b"." + headers["webhook-timestamp"].encode() + b"." + body
    key = base64.b64decode(secret.split("_", 1)[1])
    return base64.b64encode(hmac.new(key, signed, hashlib.sha256).digest()).decode()


def is_signed(secret: str, headers: dict[str, str], body: bytes) -> bool:
    expected = signature_by_hand(secret, headers, body)
    return f"v1,{expected}" in headers["webhook-signature"].split(" ")


VECTOR_BODY = (
    '{"id": "7tq2v0w8e5rmr0cvm9hbe4xzj8", "model": "bytedance/seedance-2.0", "status": "succeeded", '
    '"output": "https://replicate.delivery/xezq/EXAMPLE/out.mp4", "error": null, "logs": "", '
    '"metrics": {"predict_time": 143.2}, "input": {"prompt": "x"}, "created_at": "2026-11-22T10:00:00.000Z", '
    '"completed_at": "2026-11-22T10:02:25.000Z"}'
)


@pytest.mark.parametrize(
    ("secret", "message_id", "timestamp", "body", "expected"),
    [
        (
            "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw",
            "msg_p5jXN8AQM9LWM0D4loKWxJek",
            "1614265330",
            '{"test": 2432232314}',
            "g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE=",
        ),
        (
            "whsec_AwoRGB8mLTQ7QklQV15lbHN6gYiPlp2k",
            "msg_2EXAMPLEreplicate0001",
            "1795350200",
            VECTOR_BODY,
            "ZMzyCbwxVxpZctfRVwrc2FPixMW2p0Q3Uv7k2miob0M=",
        ),
    ],
)
def test_signatures_are_those_of_the_published_vectors(secret, message_id, timestamp, body, expected):
    headers = {"webhook-id": message_id, "webhook-timestamp": timestamp}
    assert signature_by_hand(secret, headers, body.encode()) == expected
    assert signature(secret, message_id, timestamp, body.encode()) == f"v1,{expected}"


def secret_of(emulator: ReplicateEmulator) -> str:
    reply = call(emulator, "GET", "/webhooks/default/secret")
    assert reply.status_code == 200
    assert set(reply.json()) == {"key"}
    assert reply.json()["key"].startswith("whsec_")
    return reply.json()["key"]


def test_start_and_completed_carry_the_prediction_and_are_signed(emulator, receiver):
    prediction = create(emulator, webhook=receiver.url, webhook_events_filter=["start", "completed"])
    emulator.skip(QUEUED)
    until(lambda: len(receiver.received) == 1)
    assert receiver.bodies()[0] == get(emulator, prediction)
    assert receiver.bodies()[0]["status"] == "processing"
    emulator.skip(RUNNING)
    until(lambda: len(receiver.received) == 2)
    assert receiver.bodies()[1] == get(emulator, prediction)
    assert receiver.bodies()[1]["status"] == "succeeded"
    secret = secret_of(emulator)
    for headers, body in receiver.received:
        assert is_signed(secret, headers, body)
        assert not is_signed(secret, headers, body + b" ")
        assert abs(int(headers["webhook-timestamp"]) - time.time()) < 60
        assert headers["webhook-id"].startswith("msg_")
        assert headers["content-type"] == "application/json"
    assert len({headers["webhook-id"] for headers, _ in receiver.received}) == 2


def test_without_a_filter_every_event_comes(frozen, receiver):
    create(frozen, webhook=receiver.url)
    for seconds, count in [(QUEUED, 1), (1, 2), (RUNNING, 4)]:  # start, logs, output with completed
        frozen.skip(seconds)
        until(lambda count=count: len(receiver.received) == count)
    bodies = receiver.bodies()
    assert sorted(body["status"] for body in bodies) == ["processing"] * 3 + ["succeeded"]
    assert sum(body["output"] is not None for body in bodies) == 2
    assert sum(body["completed_at"] is not None for body in bodies) == 1


@pytest.mark.parametrize(
    ("words", "headers", "status"),
    [
        ("", {}, "succeeded"),
        ("[emulate:fail=E005]", {}, "failed"),
        ("[emulate:status=canceled]", {}, "canceled"),
        ("[emulate:status=aborted]", {}, "aborted"),
        ("", {"Cancel-After": "1m"}, "aborted"),
        ("", {"Cancel-After": "5m"}, "canceled"),
    ],
)
def test_completed_comes_once_for_every_terminal_state(emulator, receiver, words, headers, status):
    body = {"webhook": receiver.url, "webhook_events_filter": ["completed"]}
    reply = post(emulator, {"prompt": f"x {words}"}, headers=headers, **body)
    emulator.skip(QUEUED + RUNNING)
    until(lambda: receiver.received)
    # By the second's end all is sent that was due before.
    second = create(emulator, "x [emulate:queued=0][emulate:running=0]", **body)
    until(lambda: receiver.statuses_of(second["id"]) == ["succeeded"])
    assert receiver.statuses_of(reply.json()["id"]) == [status]


def test_a_cancelled_prediction_is_announced_at_once_and_once(emulator, receiver):
    prediction = create(emulator, webhook=receiver.url, webhook_events_filter=["start", "completed"])
    cancel(emulator, prediction)
    until(lambda: receiver.received)
    cancel(emulator, prediction)
    emulator.skip(QUEUED + RUNNING)
    second = create(emulator, "[emulate:queued=0][emulate:running=0]", webhook=receiver.url)
    until(lambda: "succeeded" in receiver.statuses_of(second["id"]))
    assert receiver.statuses_of(prediction["id"]) == ["canceled"]


def test_a_failed_delivery_of_the_end_is_repeated_with_the_same_id(emulator, receiver):
    receiver.statuses = [500, 503]
    create(emulator, webhook=receiver.url, webhook_events_filter=["completed"])
    emulator.skip(QUEUED + RUNNING)
    until(lambda: [sent.status for sent in emulator.callbacks.sent] == [500, 503, 200])
    assert len({headers["webhook-id"] for headers, _ in receiver.received}) == 1
    assert len({body for _, body in receiver.received}) == 1


def delivered(emulator: ReplicateEmulator, receiver: Receiver, word: str, count: int = 1) -> list:
    body = {"webhook": receiver.url, "webhook_events_filter": ["completed"]}
    ended(emulator, f"x [emulate:callback={word}]", **body)
    until(lambda: len(receiver.received) == count)
    return receiver.received


def test_no_webhook(emulator, receiver):
    body = {"webhook": receiver.url, "webhook_events_filter": ["completed"]}
    silent = ended(emulator, "x [emulate:callback=none]", **body)
    loud = ended(emulator, **body)
    until(lambda: receiver.statuses_of(loud["id"]) == ["succeeded"])
    assert receiver.statuses_of(silent["id"]) == []


def test_a_webhook_twice_has_one_id(emulator, receiver):
    first, second = delivered(emulator, receiver, "twice", 2)
    assert first == second
    assert is_signed(secret_of(emulator), *first)


def test_webhooks_out_of_order(frozen, receiver):
    body = {"webhook": receiver.url, "webhook_events_filter": ["start", "completed"]}
    prediction = ended(frozen, "x [emulate:callback=reordered]", **body)
    until(lambda: receiver.statuses_of(prediction["id"]) == ["succeeded"])
    frozen.skip(1)
    until(lambda: receiver.statuses_of(prediction["id"]) == ["succeeded", "processing"])


def test_a_late_webhook_comes_five_seconds_after_the_end(frozen, receiver):
    body = {"webhook": receiver.url, "webhook_events_filter": ["completed"]}
    done = ended(frozen, "x [emulate:callback=late]", **body)
    for seconds, statuses in [(0, []), (4, []), (1, ["succeeded"])]:
        frozen.skip(seconds)
        other = create(frozen, "x [emulate:queued=0][emulate:running=0]", **body)
        until(lambda other=other: receiver.statuses_of(other["id"]) == ["succeeded"])
        until(lambda statuses=statuses: receiver.statuses_of(done["id"]) == statuses)


def test_an_unsigned_webhook_has_none_of_the_headers(emulator, receiver):
    [(headers, _)] = delivered(emulator, receiver, "unsigned")
    assert [name for name in headers if name.startswith("webhook-")] == []


@pytest.mark.parametrize(("word", "offset"), [("stale", -600), ("future", 600)])
def test_a_webhook_of_another_time_is_validly_signed(emulator, receiver, word, offset):
    [(headers, body)] = delivered(emulator, receiver, word)
    assert int(headers["webhook-timestamp"]) - time.time() == pytest.approx(offset, abs=60)
    assert is_signed(secret_of(emulator), headers, body)


@pytest.mark.parametrize("word", ["bad-signature", "tampered", "re-serialised"])
def test_a_webhook_whose_signature_does_not_fit(emulator, receiver, word):
    [(headers, body)] = delivered(emulator, receiver, word)
    assert not is_signed(secret_of(emulator), headers, body)
    if word == "re-serialised":  # Only the spaces differ.
        assert is_signed(secret_of(emulator), headers, json.dumps(json.loads(body)).encode())


def test_the_right_signature_may_come_second(emulator, receiver):
    [(headers, body)] = delivered(emulator, receiver, "second-signature")
    first, second = headers["webhook-signature"].split(" ")
    assert first == "v1,AAAA"
    assert second == "v1," + signature_by_hand(secret_of(emulator), headers, body)


def test_a_rotated_secret_signs_what_comes_after(emulator, receiver):
    old = secret_of(emulator)
    new = emulator.rotate_secret()
    assert secret_of(emulator) == new != old
    [(headers, body)] = delivered(emulator, receiver, "")
    assert is_signed(new, headers, body)
    assert not is_signed(old, headers, body)
