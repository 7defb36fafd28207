"""The emulated Kie: it behaves as Kie's sheet says, over real sockets."""

import base64
import hashlib
import hmac
import io
import json
import queue
import threading
import time
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from types import SimpleNamespace
from typing import Any

import pytest
import requests
from PIL import Image

from providers import media_probe
from providers.emulators.kie import KieEmulator, emulator, faults
from providers.emulators.server import Pace

HMAC_KEY = "kie_test_hmac_key"
START = 1795341600
AUTH = {"Authorization": "Bearer secret"}
EXAMPLE = {
    "prompt": "@Image1 walks through @Image2, camera like @Video1",
    "reference_image_urls": ["https://cdn.example/ref1.png", "https://cdn.example/ref2.jpg"],
    "reference_video_urls": ["https://cdn.example/move.mp4"],
    "reference_audio_urls": ["https://cdn.example/beat.mp3"],
    "resolution": "720p",
    "aspect_ratio": "16:9",
    "duration": 5,
    "generate_audio": True,
    "return_last_frame": True,
    "web_search": False,
}
SMALL = {
    "prompt": "A fox",
    "resolution": "480p",
    "aspect_ratio": "1:1",
    "duration": 4,
    "generate_audio": False,
}
IMAGE = "https://cdn.example/1.png"
DAY = 86_400


class Client:
    """A customer of the emulated provider, whose time stands still until `skip`."""

    def __init__(self, kie: KieEmulator) -> None:
        self.kie = kie
        self.at = float(START)
        kie.now = lambda: self.at  # type: ignore[method-assign]

    def skip(self, seconds: float) -> None:
        self.at += seconds

    def post(self, body: object, headers: dict[str, str] = AUTH) -> requests.Response:
        return requests.post(f"{self.kie.origin}/api/v1/jobs/createTask", json=body, headers=headers, timeout=10)

    def create(self, given: object = SMALL, model: str = "bytedance/seedance-2", **more: Any) -> dict:
        response = self.post({"model": model, "input": given, **more})
        assert response.status_code == 200
        return response.json()

    def task(self, *, prompt: str = "A fox", **more: Any) -> str:
        created = self.create(SMALL | {"prompt": prompt}, **more)
        assert (created["code"], created["msg"]) == (200, "success")
        return created["data"]["taskId"]

    def get(self, task_id: str, headers: dict[str, str] = AUTH) -> requests.Response:
        url = f"{self.kie.origin}/api/v1/jobs/recordInfo"
        return requests.get(url, params={"taskId": task_id}, headers=headers, timeout=10)

    def show(self, task_id: str) -> dict:
        response = self.get(task_id)
        assert response.status_code == 200
        return response.json()

    def result(self, task_id: str) -> dict:
        return json.loads(self.show(task_id)["data"]["resultJson"])


@pytest.fixture
def kie() -> Iterator[Client]:
    provider = KieEmulator(key="secret", pace=Pace(queued=40, running=112), hmac_key=HMAC_KEY)
    with provider.serving():
        yield Client(provider)


@pytest.fixture
def receiver() -> Iterator[SimpleNamespace]:
    """A customer's endpoint for callbacks: its URL, and a queue of the requests that came."""
    arrived: queue.Queue[SimpleNamespace] = queue.Queue()

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            raw = self.rfile.read(int(self.headers["Content-Length"]))
            arrived.put(SimpleNamespace(path=self.path, raw=raw, body=json.loads(raw), headers=self.headers))
            self.send_response(200)
            self.send_header("Content-Length", "0")
            self.end_headers()

        def log_message(self, *args: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, args=(0.005,))
    thread.start()
    url = f"http://127.0.0.1:{server.server_address[1]}/internal/upstreams/kie/cb/8mZ"
    yield SimpleNamespace(url=url, arrived=arrived, next=lambda: arrived.get(timeout=10))
    server.shutdown()
    server.server_close()
    thread.join()


def error(code: int, text: str) -> dict:
    return {"code": code, "msg": text, "data": None}


def signature(task_id: str, timestamp: str, key: str = HMAC_KEY) -> str:
    """Sheet §6.3, by RFC 2104 itself instead of a library's HMAC."""
    padded = key.encode().ljust(64, b"\0")
    message = f"{task_id}.{timestamp}".encode()
    inner = hashlib.sha256(bytes(byte ^ 0x36 for byte in padded) + message).digest()
    return base64.b64encode(hashlib.sha256(bytes(byte ^ 0x5C for byte in padded) + inner).digest()).decode()


def is_signed(callback: SimpleNamespace, key: str = HMAC_KEY) -> bool:
    data = callback.body["data"]
    task_id = data.get("taskId") or data["task_id"]
    expected = signature(task_id, callback.headers["X-Webhook-Timestamp"], key)
    return hmac.compare_digest(expected, callback.headers["X-Webhook-Signature"])


# --- Creating ---


def test_create_answers_with_a_task_id_and_writes_it_into_the_books(kie):
    created = kie.create(EXAMPLE)

    assert created == {"code": 200, "msg": "success", "data": {"taskId": "task_bytedance_1795341600000"}}
    [submission] = kie.kie.submissions
    assert submission.task_id == "task_bytedance_1795341600000"
    assert submission.model == "bytedance/seedance-2"
    assert submission.prompt == EXAMPLE["prompt"]
    assert submission.callback_url == ""
    assert submission.at == START


def test_task_ids_differ_within_one_millisecond(kie):
    assert [kie.task(), kie.task()] == ["task_bytedance_1795341600000", "task_bytedance_1795341600001"]


@pytest.mark.parametrize(
    "headers", [{}, {"Authorization": "Bearer wrong"}, {"Authorization": "secret"}, {"X-API-Key": "secret"}]
)
def test_without_the_key_everything_is_refused_with_http_200(kie, headers):
    for response in (kie.post({"model": "bytedance/seedance-2", "input": SMALL}, headers), kie.get("task_1", headers)):
        assert response.status_code == 200
        assert response.json() == error(401, "You do not have access permissions")
    assert kie.kie.submissions == []


def test_unknown_routes_are_a_real_404(kie):
    for method, path in [
        ("GET", "/api/v1/jobs/createTask"),
        ("POST", "/api/v1/jobs/recordInfo"),
        ("POST", "/api/v1/jobs/cancel"),
        ("DELETE", "/api/v1/jobs/recordInfo"),
        ("GET", "/api/v1/jobs"),
        ("GET", "/"),
    ]:
        response = requests.request(method, kie.kie.origin + path, headers=AUTH, timeout=10)
        assert response.status_code == 404
        assert response.json() == error(404, "The requested resource does not exist")


@pytest.mark.parametrize("body", [b"", b"{", b"[]", b'"x"'])
def test_a_malformed_body_is_400(kie, body):
    url = f"{kie.kie.origin}/api/v1/jobs/createTask"
    response = requests.post(url, data=body, headers=AUTH, timeout=10)

    assert (response.status_code, response.json()) == (200, error(400, "The request is malformed"))
    assert kie.kie.submissions == []


@pytest.mark.parametrize(
    ("changes", "text"),
    [
        ({"prompt": None}, "prompt is required"),
        ({"prompt": " "}, "prompt is required"),
        ({"prompt": 5}, "prompt is required"),
        ({"last_frame_url": IMAGE}, "last_frame_url requires first_frame_url"),
        ({"first_frame_url": ""}, "first_frame_url must be a URL"),
        ({"first_frame_url": None}, "first_frame_url must be a URL"),
        ({"first_frame_url": "data:image/png;base64,AAAA"}, "first_frame_url must be a URL"),
        ({"reference_image_urls": IMAGE}, "reference_image_urls must be an array of at most 9 URLs"),
        ({"reference_image_urls": [IMAGE] * 10}, "reference_image_urls must be an array of at most 9 URLs"),
        ({"reference_image_urls": [5]}, "reference_image_urls must be a URL"),
        ({"reference_video_urls": [IMAGE] * 4}, "reference_video_urls must be an array of at most 3 URLs"),
        ({"reference_audio_urls": [IMAGE] * 4}, "reference_audio_urls must be an array of at most 3 URLs"),
        ({"reference_audio_urls": [IMAGE]}, "reference_audio_urls requires a reference image or video"),
        (
            {"reference_video_urls": ["https://cdn.example/1.mp4?seconds=8", "https://cdn.example/2.mp4?seconds=7.5"]},
            "The total duration of the videos must not exceed 15 seconds",
        ),
        (
            {"reference_image_urls": [IMAGE], "reference_audio_urls": ["https://cdn.example/1.mp3?a=b&seconds=16"]},
            "The total duration of the audios must not exceed 15 seconds",
        ),
        ({"resolution": "4k"}, "resolution must be one of 480p, 720p, 1080p"),
        ({"resolution": 720}, "resolution must be one of 480p, 720p, 1080p"),
        ({"aspect_ratio": 1.7778}, "aspect_ratio must be one of 16:9, 4:3, 1:1, 3:4, 9:16, 21:9, adaptive"),
        ({"aspect_ratio": "2:1"}, "aspect_ratio must be one of 16:9, 4:3, 1:1, 3:4, 9:16, 21:9, adaptive"),
        ({"duration": 3}, "duration must be an integer from 4 to 15"),
        ({"duration": 16}, "duration must be an integer from 4 to 15"),
        ({"duration": "5"}, "duration must be an integer from 4 to 15"),
        ({"duration": 5.0}, "duration must be an integer from 4 to 15"),
        ({"duration": True}, "duration must be an integer from 4 to 15"),
        ({"generate_audio": "true"}, "generate_audio must be a boolean"),
        ({"return_last_frame": 1}, "return_last_frame must be a boolean"),
        ({"web_search": None}, "web_search must be a boolean"),
        ({"nsfw_checker": "no"}, "nsfw_checker must be a boolean"),
    ],
)
def test_parameters_against_the_rules_are_422(kie, changes, text):
    assert kie.create(SMALL | changes) == error(422, text)
    assert kie.kie.submissions == []


EXCLUSIVE = "first_frame_url, last_frame_url and the reference arrays are mutually exclusive"


@pytest.mark.parametrize("frames", [{}, {"last_frame_url": IMAGE}])
@pytest.mark.parametrize("references", ["reference_image_urls", "reference_video_urls", "reference_audio_urls"])
def test_frames_and_references_exclude_each_other(kie, frames, references):
    mixed = SMALL | {"first_frame_url": IMAGE, references: [IMAGE]} | frames

    assert kie.create(mixed) == error(422, EXCLUSIVE)
    assert kie.kie.submissions == []


@pytest.mark.parametrize(
    ("model", "changes", "code"),
    [
        ("bytedance/seedance-2", {"resolution": "1080p", "duration": 15}, 200),
        ("bytedance/seedance-2-fast", {"resolution": "720p", "duration": 15}, 200),
        ("bytedance/seedance-2-fast", {"resolution": "1080p"}, 422),
        ("bytedance/seedance-2-mini", {"resolution": "720p", "duration": 4}, 200),
        ("bytedance/seedance-2-mini", {"resolution": "1080p"}, 422),
        ("bytedance/seedance-2-5", {"resolution": "1080p", "duration": 30}, 200),
        ("bytedance/seedance-2-5", {"duration": 31}, 422),
        ("bytedance/seedance-1-pro", {}, 422),
        ("", {}, 422),
    ],
)
def test_every_model_has_its_limits(kie, model, changes, code):
    assert kie.create(SMALL | changes, model)["code"] == code
    assert len(kie.kie.submissions) == (code == 200)


@pytest.mark.parametrize(
    "given",
    [
        {"prompt": "Only this"},
        SMALL | {"first_frame_url": IMAGE},
        SMALL | {"first_frame_url": IMAGE, "last_frame_url": IMAGE, "reference_image_urls": []},
        SMALL | {"reference_image_urls": [IMAGE] * 9, "reference_audio_urls": [IMAGE] * 3},
        SMALL | {"reference_image_urls": ["asset://abc"], "reference_video_urls": ["https://a.example/?seconds=15"]},
        SMALL | {"aspect_ratio": "adaptive", "nsfw_checker": True},
        SMALL | {"seed": 1, "watermark": True, "reference_video_urls ": ["a key with a blank"]},
    ],
)
def test_all_that_the_rules_allow_is_accepted(kie, given):
    assert kie.create(given)["code"] == 200
    assert len(kie.kie.submissions) == 1


def test_what_is_only_believed_can_be_switched(kie):
    kie.kie.knobs = {"adaptive": "refused", "extra-keys": "refused", "text-key": "message"}

    text = "aspect_ratio must be one of 16:9, 4:3, 1:1, 3:4, 9:16, 21:9"
    assert kie.create(SMALL | {"aspect_ratio": "adaptive"}) == {"code": 422, "message": text, "data": None}
    assert kie.create(SMALL | {"seed": 1})["message"] == "seed is not a known parameter"
    assert kie.kie.submissions == []


def test_model_input_and_callback_url_are_checked(kie):
    assert kie.post({"input": SMALL}).json() == error(422, "The model is not supported")
    assert kie.post({"model": "bytedance/seedance-2"}).json() == error(422, "input must be an object")
    assert kie.create(callBackUrl="ftp://x.example") == error(422, "callBackUrl must be a URL")
    assert kie.kie.submissions == []


@pytest.mark.parametrize("code", [400, 401, 402, 404, 422, 429, 433, 455, 500, 501, 505])
def test_every_code_of_the_table_can_be_had(kie, code):
    answer = kie.create(SMALL | {"prompt": f"A fox [emulate:submit=error:{code}]"})

    assert answer == error(code, faults.MESSAGES[code])
    assert kie.kie.submissions == []


def test_credits_run_out_in_the_words_of_the_sheet(kie):
    kie.kie.knobs = {"submit": "error:402"}
    assert kie.create() == {"code": 402, "msg": "Credits insufficient", "data": None}


@pytest.mark.parametrize("variant", sorted(faults.VARIANTS))
def test_codes_with_several_meanings_have_variants(kie, variant):
    answer = kie.create(SMALL | {"prompt": f"A fox [emulate:submit=error:{variant}]"})

    assert answer == error(int(variant[:3]), faults.VARIANTS[variant])
    assert kie.kie.submissions == []


@pytest.mark.parametrize(("how", "stored_count"), [("drop", 1), ("drop-before", 0)])
def test_the_connection_closes_without_an_answer(kie, how, stored_count):
    kie.kie.knobs = {"submit": how}
    with pytest.raises(requests.ConnectionError):
        kie.create()
    assert len(kie.kie.submissions) == stored_count


def test_a_hanging_submit_is_stored_and_never_answered(kie):
    url = f"{kie.kie.origin}/api/v1/jobs/createTask"
    body = {"model": "bytedance/seedance-2", "input": SMALL | {"prompt": "A fox [emulate:submit=hang]"}}
    with pytest.raises(requests.ReadTimeout):
        requests.post(url, json=body, headers=AUTH, timeout=2)
    assert len(kie.kie.submissions) == 1
    assert kie.show(kie.kie.submissions[0].task_id)["data"]["state"] == "waiting"


@pytest.mark.parametrize(("how", "stored_count"), [("html", 0), ("late-html", 1)])
def test_a_gateway_answers_with_html(kie, how, stored_count):
    kie.kie.knobs = {"submit": how}
    response = kie.post({"model": "bytedance/seedance-2", "input": SMALL})

    assert (response.status_code, response.headers["Content-Type"]) == (502, "text/html")
    assert len(kie.kie.submissions) == stored_count


@pytest.mark.parametrize(
    ("how", "answer"),
    [
        ("late-5xx", error(500, "Server exception, please try again later")),
        ("no-id", {"code": 200, "msg": "success", "data": {}}),
        ("no-data", {"code": 200, "msg": "success", "data": None}),
    ],
)
def test_a_task_is_stored_though_the_answer_does_not_say_so(kie, how, answer):
    kie.kie.knobs = {"submit": how}

    assert kie.create() == answer
    [submission] = kie.kie.submissions
    assert kie.show(submission.task_id)["data"]["state"] == "waiting"


def test_a_stored_task_may_be_answered_with_nothing(kie):
    kie.kie.knobs = {"submit": "empty"}
    response = kie.post({"model": "bytedance/seedance-2", "input": SMALL})

    assert (response.status_code, response.content) == (200, b"")
    assert len(kie.kie.submissions) == 1


def test_above_20_creations_in_10_seconds_the_rest_is_refused_not_queued(kie):
    kie.kie.knobs = {"rate-limit": "20"}
    for _ in range(20):
        kie.task()

    assert kie.create() == error(429, "More than 20 new tasks in 10 seconds")
    kie.skip(9.9)
    assert kie.create()["code"] == 429
    assert len(kie.kie.submissions) == 20
    kie.skip(0.2)
    assert kie.create()["code"] == 200


def test_the_rate_is_not_limited_unless_asked(kie):
    for _ in range(21):
        kie.task()
    assert len(kie.kie.submissions) == 21


def test_too_many_open_tasks_are_refused_until_one_ends(kie):
    kie.kie.knobs = {"max-concurrent": "2"}
    kie.task()
    kie.task(prompt="A fox [emulate:status=stuck]")

    assert kie.create() == error(429, "Too many concurrent tasks")
    kie.skip(152)
    kie.task()
    assert kie.create()["code"] == 429
    assert len(kie.kie.submissions) == 3


# --- Looking ---


def test_a_task_goes_through_the_states_of_the_sheet(kie):
    given = EXAMPLE
    task_id = kie.create(given)["data"]["taskId"]
    first = {
        "taskId": task_id,
        "model": "bytedance/seedance-2",
        "state": "waiting",
        "param": json.dumps({"model": "bytedance/seedance-2", "input": given}),
        "resultJson": "",
        "failCode": "",
        "failMsg": "",
        "costTime": 0,
        "completeTime": 0,
        "createTime": 1795341600000,
        "updateTime": 1795341600000,
    }

    assert kie.show(task_id) == {"code": 200, "msg": "success", "data": first}
    kie.skip(20)
    assert kie.show(task_id)["data"] == first | {"state": "queuing", "updateTime": 1795341620000}
    kie.skip(20)
    assert kie.show(task_id)["data"] == first | {"state": "generating", "updateTime": 1795341640000}
    kie.skip(112)
    last = kie.show(task_id)["data"]
    result = json.loads(last.pop("resultJson"))
    assert last == {key: value for key, value in first.items() if key != "resultJson"} | {
        "state": "success",
        "costTime": 152000,
        "completeTime": 1795341752000,
        "updateTime": 1795341752000,
        "creditsConsumed": 205,
    }
    assert list(result) == ["resultUrls"]
    video_url, picture_url = result["resultUrls"]
    assert video_url.startswith(f"{kie.kie.origin}/files/")
    assert video_url.endswith("/out.mp4")
    assert picture_url.endswith("/last.png")


def test_a_task_fails_as_in_the_sheet(kie):
    task_id = kie.task(prompt="A fox [emulate:fail=real-person][emulate:queued=40][emulate:running=60]")
    kie.skip(99.9)
    assert kie.show(task_id)["data"]["state"] == "generating"
    kie.skip(0.1)

    shown = kie.show(task_id)
    assert shown["data"].pop("param")
    assert shown == {
        "code": 200,
        "msg": "success",
        "data": {
            "taskId": task_id,
            "model": "bytedance/seedance-2",
            "state": "fail",
            "resultJson": "",
            "failCode": "500",
            "failMsg": "The request failed because the input image may contain real person.",
            "costTime": 0,
            "completeTime": 1795341700000,
            "createTime": 1795341600000,
            "updateTime": 1795341700000,
        },
    }


# Sheet §4: the substrings that tell the classes apart, in its order: "information" has "format" in it.
SUBSTRINGS = {
    "sensitive": "sensitive",
    "copyright": "copyright",
    "real-person": "real person",
    "policy": "policy",
    "violation": "violat",
    "inappropriate": "inappropriate",
    "moderation": "moderation",
    "safety": "safety",
    "download": "download",
    "unreachable": "unreachable",
    "format": "format",
    "too-large": "too large",
    "resolution": "resolution of",
    "pixel": "pixel",
    "duration": "duration of",
    "timeout": "timeout",
    "internal": "internal",
    "try-again": "try again",
    "busy": "busy",
}


def test_every_substring_of_the_sheet_has_its_sentence(kie):
    def first_in(text: str) -> str:
        return next((name for name, substring in SUBSTRINGS.items() if substring in text), "unheard-of")

    for name in faults.SENTENCES:
        task_id = kie.task(prompt=f"A fox [emulate:fail={name}]")
        kie.skip(152)
        data = kie.show(task_id)["data"]
        assert (data["state"], data["failCode"]) == ("fail", faults.SENTENCES[name][0])
        assert first_in(data["failMsg"]) == name
    assert faults.SENTENCES.keys() == SUBSTRINGS.keys() | {"unheard-of"}


@pytest.mark.parametrize(
    ("word", "code", "text"),
    [
        ("505", "505", "This feature is disabled"),
        ("The dog ate it.", "501", "The dog ate it."),
        ("422:Too dark", "422", "Too dark"),
    ],
)
def test_a_failure_may_have_any_code_and_text(kie, word, code, text):
    kie.kie.knobs = {"fail": word}
    task_id = kie.task()
    kie.kie.knobs = {}
    kie.skip(152)

    data = kie.show(task_id)["data"]
    assert (data["state"], data["failCode"], data["failMsg"]) == ("fail", code, text)


def test_fields_come_in_the_types_that_were_seen(kie):
    task_id = kie.task(prompt="A fox [emulate:fail=busy]")
    kie.skip(152)
    kie.kie.knobs = {"fail-code": "int", "param": "null", "credits": "205"}
    data = kie.show(task_id)["data"]
    assert (data["failCode"], data["param"], data["creditsConsumed"]) == (500, None, 205)
    kie.kie.knobs = {"param": "empty"}
    assert kie.show(task_id)["data"]["param"] == ""


@pytest.mark.parametrize(
    ("word", "state"), [("stuck", "generating"), ("waiting", "waiting"), ("queuing", "queuing"), ("unknown", "paused")]
)
def test_a_task_may_never_end(kie, word, state):
    task_id = kie.task(prompt=f"A fox [emulate:status={word}]")
    kie.skip(10 * DAY)
    data = kie.show(task_id)["data"]
    assert data["state"] == state
    if word != "unknown":
        assert (data["resultJson"], data["completeTime"]) == ("", 0)


def test_a_stuck_task_waits_like_others_before(kie):
    task_id = kie.task(prompt="A fox [emulate:status=stuck]")
    assert kie.show(task_id)["data"]["state"] == "waiting"


def test_state_or_data_may_be_missing(kie):
    task_id = kie.task()
    kie.kie.knobs = {"status": "missing"}
    assert "state" not in kie.show(task_id)["data"]
    kie.kie.knobs = {"status": "no-data"}
    assert kie.show(task_id) == {"code": 200, "msg": "success", "data": None}


def test_a_new_task_may_be_invisible_for_a_while(kie):
    task_id = kie.task(prompt="A fox [emulate:lag=30]")
    assert kie.show(task_id) == {"code": 200, "msg": "success", "data": None}
    kie.skip(30)
    assert kie.show(task_id)["data"]["state"] == "queuing"


@pytest.mark.parametrize(
    ("word", "answer"),
    [
        ("", error(404, "recordInfo is null")),
        ("422", error(422, "recordInfo is null")),
        ("null", {"code": 200, "msg": "success", "data": None}),
    ],
)
def test_unknown_tasks_are_answered_in_one_of_three_ways(kie, word, answer):
    kie.kie.knobs = {"unknown-id": word} if word else {}
    assert kie.show("task_bytedance_1") == answer


def test_a_task_id_is_required(kie):
    assert kie.show("") == error(422, "taskId is required")


@pytest.mark.parametrize(
    ("how", "code"), [("5xx", 500), ("429", 429), ("404", 404), ("401", 401), ("402", 402), ("455", 455)]
)
def test_a_poll_may_be_refused_with_http_200(kie, how, code):
    task_id = kie.task()
    kie.kie.knobs = {"poll": how}
    assert kie.show(task_id) == error(code, faults.MESSAGES[code])
    kie.kie.knobs = {}
    assert kie.show(task_id)["data"]["state"] == "waiting"


def test_a_poll_may_be_unreadable(kie):
    task_id = kie.task()
    seen = {}
    for how in ("html", "html-200", "empty"):
        kie.kie.knobs = {"poll": how}
        response = kie.get(task_id)
        seen[how] = (response.status_code, response.content[:6])
    assert seen == {"html": (502, b"<html>"), "html-200": (200, b"<html>"), "empty": (200, b"")}
    kie.kie.knobs = {"poll": "drop"}
    with pytest.raises(requests.ConnectionError):
        kie.get(task_id)


def test_records_vanish_after_two_months(kie):
    task_id = kie.task()
    kie.skip(60 * DAY - 1)
    assert kie.show(task_id)["data"]["state"] == "success"
    kie.skip(1)
    assert kie.show(task_id)["code"] == 404


# --- Results ---


@pytest.mark.parametrize(
    ("how", "text"), [("no-url", ""), ("null-json", None), ("empty-list", '{"resultUrls": []}'), ("late-url", "")]
)
def test_success_may_come_without_a_url(kie, how, text):
    task_id = kie.task(prompt=f"A fox [emulate:result={how}]")
    kie.skip(152)
    data = kie.show(task_id)["data"]
    assert (data["state"], data["resultJson"]) == ("success", text)


def test_result_json_may_be_cut_or_late(kie):
    task_id = kie.task()
    kie.skip(153.9)
    kie.kie.knobs = {"result": "bad-json"}
    with pytest.raises(json.JSONDecodeError):
        kie.result(task_id)
    kie.kie.knobs = {"result": "late-url"}
    assert kie.show(task_id)["data"]["resultJson"] == ""
    kie.skip(0.2)
    assert len(kie.result(task_id)["resultUrls"]) == 1


@pytest.mark.parametrize(
    ("changes", "size", "duration_ms", "has_audio"),
    [
        (SMALL, (640, 640), 4000, False),
        (SMALL | {"duration": 7, "aspect_ratio": "21:9", "generate_audio": True}, (992, 432), 7000, True),
        ({"prompt": "Only this"}, (1280, 720), 5000, True),
    ],
)
def test_the_video_is_what_was_ordered(kie, tmp_path, changes, size, duration_ms, has_audio):
    task_id = kie.create(changes)["data"]["taskId"]
    kie.skip(152)
    [url] = kie.result(task_id)["resultUrls"]
    response = requests.get(url, timeout=30)

    assert (response.status_code, response.headers["Content-Type"]) == (200, "video/mp4")
    path = tmp_path / "video.mp4"
    path.write_bytes(response.content)
    info = media_probe.probe(path)
    assert ((info.width, info.height), info.duration_ms, info.has_audio) == (size, duration_ms, has_audio)


def test_the_video_is_there_from_success_on_for_14_days(kie):
    task_id = kie.task()
    kie.skip(152)
    [url] = kie.result(task_id)["resultUrls"]
    kie.skip(-1)
    assert requests.get(url, timeout=30).status_code == 404
    kie.skip(1)
    assert requests.get(url, timeout=30).status_code == 200
    kie.skip(14 * DAY - 1)
    assert requests.get(url, timeout=30).status_code == 200
    kie.skip(1)
    assert requests.get(url, timeout=30).status_code == 404
    assert kie.result(task_id)["resultUrls"] == [url]


@pytest.mark.parametrize("place", ["first-url", "second-url", "lastFrameUrl", "last_frame_url", "firstFrameUrl"])
def test_the_last_frame_may_be_anywhere(kie, place):
    prompt = "A fox" if place == "second-url" else f"A fox [emulate:last-frame={place}]"
    task_id = kie.create(SMALL | {"prompt": prompt, "return_last_frame": True})["data"]["taskId"]
    kie.skip(152)
    result = kie.result(task_id)

    video_url = next(url for url in result["resultUrls"] if url.endswith("/out.mp4"))
    picture_url = video_url.replace("out.mp4", "last.png")
    expected = {
        "first-url": {"resultUrls": [picture_url, video_url]},
        "second-url": {"resultUrls": [video_url, picture_url]},
    }.get(place, {"resultUrls": [video_url], place: picture_url})
    assert result == expected
    picture = requests.get(picture_url, timeout=30)
    assert picture.headers["Content-Type"] == "image/png"
    assert Image.open(io.BytesIO(picture.content)).size == (640, 640)


def test_the_last_frame_may_be_missing_though_asked_for_and_is_never_there_unasked(kie):
    asked = kie.create(SMALL | {"return_last_frame": True, "prompt": "A fox [emulate:last-frame=missing]"})
    unasked = kie.task()
    kie.skip(152)
    for task_id in (asked["data"]["taskId"], unasked):
        [video_url] = kie.result(task_id)["resultUrls"]
        assert video_url.endswith("/out.mp4")
    assert requests.get(video_url.replace("out.mp4", "last.png"), timeout=10).status_code == 404


def test_results_go_wrong_as_asked(kie, tmp_path):
    task_id = kie.task()
    kie.skip(152)
    [url] = kie.result(task_id)["resultUrls"]
    whole = requests.get(url, timeout=30).content

    def fetch(how: str) -> requests.Response:
        kie.kie.knobs = {"result": how}
        return requests.get(url, timeout=30, allow_redirects=False)

    assert fetch("gone").status_code == 404
    assert fetch("truncated").content == whole[: len(whole) // 2]
    page = fetch("not-video")
    assert (page.status_code, page.headers["Content-Type"]) == (200, "text/html")
    (tmp_path / "short.mp4").write_bytes(fetch("short").content)
    assert media_probe.probe(tmp_path / "short.mp4").duration_ms == 2000
    redirect = fetch("redirect")
    assert redirect.status_code == 302
    elsewhere = redirect.headers["Location"]
    assert elsewhere.startswith(kie.kie.origin.replace("127.0.0.1", "localhost") + "/files/")
    assert requests.get(elsewhere, timeout=30).content == whole


def test_the_video_may_be_on_a_foreign_host_or_without_a_suffix(kie):
    task_id = kie.task()
    kie.skip(152)
    kie.kie.knobs = {"result": "foreign"}
    [url] = kie.result(task_id)["resultUrls"]
    assert url.startswith(kie.kie.origin.replace("127.0.0.1", "localhost") + "/files/")
    kie.kie.knobs = {"result": "bare"}
    [url] = kie.result(task_id)["resultUrls"]
    assert url.endswith("/out")
    assert requests.get(url, timeout=30).headers["Content-Type"] == "video/mp4"


def test_unknown_files_are_404(kie):
    for path in ("", "x/out.mp4", f"{kie.task()}/out.mp4"):
        assert requests.get(f"{kie.kie.origin}/files/{path}", timeout=10).status_code == 404


# --- Callbacks ---

NOW = "[emulate:queued=0.01][emulate:running=0.01]"


def test_the_independent_signature_agrees_with_the_vector():
    assert signature("task_bytedance_1795350300001", "1795350300") == "tzX7t3kKrEXIVeKObX2VSqXSdEW1Fi9IHXf+cS6IxH4="


def test_a_callback_says_what_record_info_says(kie, receiver):
    task_id = kie.task(prompt=f"A fox {NOW}", callBackUrl=receiver.url)
    callback = receiver.next()
    kie.skip(1)

    assert callback.path == "/internal/upstreams/kie/cb/8mZ"
    assert callback.body == kie.show(task_id)
    assert callback.body["data"]["state"] == "success"
    assert is_signed(callback)
    assert abs(int(callback.headers["X-Webhook-Timestamp"]) - time.time()) < 10


def test_a_failure_is_called_back_with_501(kie, receiver):
    task_id = kie.task(prompt=f"A fox {NOW}[emulate:fail=copyright]", callBackUrl=receiver.url)
    callback = receiver.next()
    kie.skip(1)

    text = "The request failed because the input may be related to copyright restrictions."
    assert callback.body == {"code": 501, "msg": text, "data": kie.show(task_id)["data"]}
    assert callback.body["data"]["state"] == "fail"
    assert is_signed(callback)


def test_without_a_key_callbacks_are_unsigned(receiver):
    with (provider := KieEmulator(key="secret")).serving():
        Client(provider).task(prompt=f"A fox {NOW}", callBackUrl=receiver.url)
        callback = receiver.next()
    assert not [name for name in callback.headers if name.lower().startswith("x-webhook-")]


@pytest.mark.parametrize(
    ("words", "names"),
    [
        ("unsigned", []),
        ("no-timestamp", ["X-Webhook-Signature"]),
        ("no-signature", ["X-Webhook-Timestamp"]),
        ("bad-signature", ["X-Webhook-Signature", "X-Webhook-Timestamp"]),
    ],
)
def test_headers_may_be_missing_or_wrong(kie, receiver, words, names):
    kie.task(prompt=f"A fox {NOW}[emulate:callback={words}]", callBackUrl=receiver.url)
    callback = receiver.next()

    assert sorted(name for name in callback.headers if name.startswith("X-Webhook-")) == names
    if words == "bad-signature":
        assert not is_signed(callback)


def test_a_stale_callback_is_signed_validly(kie, receiver):
    kie.task(prompt=f"A fox {NOW}[emulate:callback=stale]", callBackUrl=receiver.url)
    callback = receiver.next()

    assert is_signed(callback)
    assert time.time() - int(callback.headers["X-Webhook-Timestamp"]) > 300


def test_a_tampered_body_still_verifies(kie, receiver):
    task_id = kie.task(prompt=f"A fox {NOW}[emulate:callback=tampered][emulate:fail=busy]", callBackUrl=receiver.url)
    callback = receiver.next()
    kie.skip(1)

    assert is_signed(callback)
    assert callback.body["code"] == 200
    assert callback.body["data"]["state"] == "success"
    assert json.loads(callback.body["data"]["resultJson"]) == {"resultUrls": ["https://attacker.example/evil.mp4"]}
    assert kie.show(task_id)["data"]["state"] == "fail"


def test_the_id_may_be_under_its_other_name(kie, receiver):
    task_id = kie.task(prompt=f"A fox {NOW}[emulate:callback=task_id]", callBackUrl=receiver.url)
    callback = receiver.next()

    assert callback.body["data"]["task_id"] == task_id
    assert "taskId" not in callback.body["data"]
    assert is_signed(callback)


def test_an_exchanged_id_does_not_verify(kie, receiver):
    task_id = kie.task(prompt=f"A fox {NOW}[emulate:callback=other-id]", callBackUrl=receiver.url)
    callback = receiver.next()

    assert callback.body["data"]["taskId"] != task_id
    assert not is_signed(callback)


def test_callbacks_come_twice(kie, receiver):
    kie.task(prompt=f"A fox {NOW}[emulate:callback=twice]", callBackUrl=receiver.url)
    first, second = receiver.next(), receiver.next()
    assert first.raw == second.raw
    assert is_signed(first)
    assert is_signed(second)


def test_an_older_callback_comes_after_the_last(kie, receiver):
    kie.task(prompt=f"A fox {NOW}[emulate:callback=reordered,task_id]", callBackUrl=receiver.url)
    last, older = receiver.next(), receiver.next()
    assert [last.body["data"]["state"], older.body["data"]["state"]] == ["success", "generating"]
    assert is_signed(older)


def test_a_callback_may_come_early_and_late(kie, receiver, monkeypatch):
    task_id = kie.task(prompt="A fox [emulate:callback=early]", callBackUrl=receiver.url)
    assert receiver.next().body["data"]["state"] == "success"
    assert kie.show(task_id)["data"]["state"] == "waiting"

    assert emulator.LATE_CALLBACK_SECONDS == 5.0
    monkeypatch.setattr(emulator, "LATE_CALLBACK_SECONDS", 0.5)
    begin = time.monotonic()
    kie.task(prompt=f"A fox {NOW}[emulate:callback=late]", callBackUrl=receiver.url)
    assert receiver.next().body["data"]["state"] == "success"
    assert time.monotonic() - begin >= 0.5


@pytest.mark.parametrize("knob", ["callback=none", "status=stuck", "status=unknown"])
def test_no_callback_when_asked_and_for_what_never_ends(kie, receiver, knob):
    kie.task(prompt=f"A fox {NOW}[emulate:{knob}]", callBackUrl=receiver.url)
    other = kie.task(prompt=f"A fox {NOW}", callBackUrl=receiver.url)

    assert receiver.next().body["data"]["taskId"] == other
    assert receiver.arrived.empty()


def test_a_lost_task_is_still_called_back(kie, receiver):
    with pytest.raises(requests.ConnectionError):
        kie.create(SMALL | {"prompt": f"A fox {NOW}[emulate:submit=drop]"}, callBackUrl=receiver.url)

    [submission] = kie.kie.submissions
    assert receiver.next().body["data"]["taskId"] == submission.task_id
    assert submission.callback_url == receiver.url
