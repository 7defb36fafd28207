"""The Ark emulator over real sockets, held against the tables and examples of the Ark sheet."""

import contextlib
import io
import json
import re
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import parse_qs, urlsplit

import av
import pytest
import requests
from PIL import Image

from providers.emulators import find
from providers.emulators.ark import ArkEmulator, notices
from providers.emulators.ark.errors import SENTENCES
from providers.emulators.server import Pace, Request

PRO = "dreamina-seedance-2-0-260128"
FAST = "dreamina-seedance-2-0-fast-260128"
MINI = "dreamina-seedance-2-0-mini-260615"
NEXT = "dreamina-seedance-2-5-260628"
DAY = 86_400
TASKS = "/contents/generations/tasks"
REQUEST_ID = r"Request id: 02\d{13}[0-9a-f]{32}$"


class Ark:
    """A client of one emulator that is being served."""

    def __init__(self, emulator, base_url):
        self.emulator, self.base_url = emulator, base_url
        self.session = requests.Session()
        self.session.headers["Authorization"] = f"Bearer {emulator.key}"

    def call(self, method, path="", **options):
        return self.session.request(method, self.base_url + TASKS + path, timeout=30, allow_redirects=False, **options)

    def post(self, prompt="A cat", *, media=(), path="", **fields):
        content = ([{"type": "text", "text": prompt}] if prompt else []) + list(media)
        return self.call("POST", path, json={"model": PRO, "content": content, **fields})

    def create(self, prompt="A cat", **fields):
        reply = self.post(prompt, **fields)
        assert reply.status_code == 200, reply.text
        assert set(reply.json()) == {"id"}
        return reply.json()["id"]

    def get(self, task_id):
        return self.call("GET", f"/{task_id}").json()

    def done(self, prompt="A cat", **fields):
        """Create a task and let its time pass."""
        task_id = self.create(prompt, **fields)
        self.emulator.skip(120)
        return self.get(task_id)

    @property
    def bill(self):
        return [submission.task_id for submission in self.emulator.submissions]


@contextlib.contextmanager
def serving(**options):
    emulator = ArkEmulator(pace=options.pop("pace", Pace(60, 60)), **options)
    with emulator.serving() as base_url:
        client = Ark(emulator, base_url)
        with client.session:
            yield client


@pytest.fixture
def ark():
    with serving() as client:
        yield client


def image(url="https://cdn.example/a.png", role="reference_image"):
    return {"type": "image_url", "image_url": {"url": url}} | ({"role": role} if role else {})


def video(url="https://cdn.example/a.mp4", role="reference_video"):
    return {"type": "video_url", "video_url": {"url": url}} | ({"role": role} if role else {})


def audio(url="https://cdn.example/a.mp3", role="reference_audio"):
    return {"type": "audio_url", "audio_url": {"url": url}} | ({"role": role} if role else {})


def error(reply, status, code, param=None):
    """Check an error's documented shape and return its sentence."""
    assert reply.status_code == status, reply.text
    assert set(reply.json()) == {"error"}
    found = reply.json()["error"]
    assert set(found) == {"code", "message", "param", "type"}
    assert found["code"] == code
    assert re.search(REQUEST_ID, found["message"])
    assert reply.headers["X-Request-Id"] in found["message"]
    if param is not None:
        assert found["param"] == param
    return found["message"]


def wait_for(condition, seconds=20):
    end = time.monotonic() + seconds
    while not (found := condition()):
        assert time.monotonic() < end, "it did not come"
        time.sleep(0.01)
    return found


# Access and addresses


def test_find_gives_the_class():
    assert find("ark") is ArkEmulator
    assert (ArkEmulator.name, ArkEmulator.base_path) == ("ark", "/api/v3")


def test_a_wrong_bearer_is_refused_before_anything_else(ark):
    for header in (None, "Bearer wrong", "emulator-key", "Basic emulator-key", "Bearer schlüssel"):
        headers = {"Authorization": header.encode("latin-1") if header else None}
        for method, path in (("POST", ""), ("GET", ""), ("GET", "/cgt-1"), ("DELETE", "/cgt-1")):
            reply = ark.call(method, path, json={"model": "nonsense"}, headers=headers)
            error(reply, 401, "AuthenticationError", "")
            assert reply.json()["error"]["type"] == "Unauthorized"
    assert ark.bill == []


@pytest.mark.parametrize("path", ["", "/api/v3", "/api/v3/contents", "/api/v2/contents/generations/tasks"])
def test_an_unknown_path_is_not_found(ark, path):
    error(ark.session.get(ark.emulator.origin + path, timeout=30), 404, "NotFound")


def test_models_are_listed_but_not_all(ark):
    reply = ark.session.get(ark.base_url + "/models", timeout=30)
    assert [model["id"] for model in reply.json()["data"]] == [PRO, FAST, NEXT]


@pytest.mark.parametrize(
    ("cloud", "own", "other"), [("byteplus", "dreamina-", "doubao-"), ("volcengine", "doubao-", "dreamina-")]
)
def test_each_cloud_knows_its_own_model_ids_only(cloud, own, other):
    with serving(cloud=cloud) as ark:
        for name in ("2-0-260128", "2-0-fast-260128", "2-0-mini-260615", "2-5-260628"):
            task_id = ark.create(model=f"{own}seedance-{name}")
            assert ark.get(task_id)["model"] == f"{own}seedance-{name}"
            refused = ark.post(model=f"{other}seedance-{name}")
            error(refused, 404, "InvalidEndpointOrModel.NotFound")
        assert len(ark.bill) == 4
        assert f"/{own}seedance-2-0/" in ark.done(model=f"{own}seedance-2-0-260128")["content"]["video_url"]


def test_an_endpoint_id_stands_for_its_model():
    with serving(endpoints={"ep-20261122-abcde": FAST}) as ark:
        task_id = ark.create(model="ep-20261122-abcde")
        other_id = ark.create(model=FAST)
        assert ark.get(task_id)["model"] == FAST
        found = ark.call("GET", params={"filter.model": "ep-20261122-abcde"}).json()
        assert [item["id"] for item in found["items"]] == [task_id] != [other_id]
        error(ark.post(model="ep-20261122-zzzzz"), 404, "InvalidEndpointOrModel.NotFound")


# The requests of the sheet

REFERENCES = {
    "model": PRO,
    "content": [
        {"type": "text", "text": "The woman in Image 1 walks through the market of Image 2, camera as in Video 1"},
        image("https://cdn.example/ref1.png"),
        image("https://cdn.example/ref2.jpg"),
        video("https://cdn.example/move.mp4"),
        audio("https://cdn.example/beat.mp3"),
    ],
    "resolution": "720p",
    "ratio": "16:9",
    "duration": 5,
    "generate_audio": True,
    "watermark": False,
    "return_last_frame": True,
    "seed": 42,
    "execution_expires_after": 10800,
    "safety_identifier": "u_3f9a",
}
FRAMES = {
    "model": FAST,
    "content": [
        {"type": "text", "text": "Slow push in, dusk to night"},
        image("https://cdn.example/a.png", "first_frame"),
        image("https://cdn.example/b.png", "last_frame"),
    ],
    "resolution": "480p",
    "ratio": "adaptive",
    "duration": 6,
    "generate_audio": False,
    "watermark": False,
}


def test_the_references_example_goes_through_every_state_as_documented(ark):
    reply = ark.call("POST", json=REFERENCES)
    task_id = reply.json()["id"]
    assert reply.json() == {"id": task_id}
    assert re.fullmatch(r"cgt-\d{14}-[a-z0-9]{5}", task_id)
    queued = ark.get(task_id)
    created_at = queued["created_at"]
    assert time.strftime("cgt-%Y%m%d%H%M%S-", time.gmtime(created_at)) == task_id[:19]
    common = {"id": task_id, "model": PRO, "created_at": created_at, "service_tier": "default"}
    common |= {"execution_expires_after": 10800, "safety_identifier": "u_3f9a"}
    assert queued == common | {"status": "queued", "error": None, "updated_at": created_at}

    ark.emulator.skip(60)
    assert ark.get(task_id) == common | {"status": "running", "updated_at": created_at + 60}

    ark.emulator.skip(60)
    document = ark.get(task_id)
    content = document.pop("content")
    assert document == common | {
        "status": "succeeded",
        "usage": {"completion_tokens": 108900, "total_tokens": 108900},
        "updated_at": created_at + 120,
        "seed": 42,
        "resolution": "720p",
        "ratio": "16:9",
        "duration": 5,
        "framespersecond": 24,
        "generate_audio": True,
        "draft": False,
    }
    assert set(content) == {"video_url", "last_frame_url"}
    signed_at = time.strftime("%Y%m%dT%H%M%SZ", time.gmtime(created_at + 120))
    for url, ending in ((content["video_url"], ".mp4"), (content["last_frame_url"], "_last.png")):
        parts = urlsplit(url)
        assert re.fullmatch(rf"/files/dreamina-seedance-2-0/02\d+[0-9a-f]+{re.escape(ending)}", parts.path)
        query = {name: values[0] for name, values in parse_qs(parts.query).items()}
        assert query["X-Tos-Algorithm"] == "TOS4-HMAC-SHA256"
        assert (query["X-Tos-Date"], query["X-Tos-Expires"]) == (signed_at, "86400")
        assert "X-Tos-Signature" in query


def test_the_frames_example_makes_a_silent_film_of_six_seconds(ark):
    task_id = ark.call("POST", json=FRAMES).json()["id"]
    ark.emulator.skip(120)
    document = ark.get(task_id)
    assert (document["duration"], document["resolution"], document["generate_audio"]) == (6, "480p", False)
    assert set(document["content"]) == {"video_url"}
    reply = requests.get(document["content"]["video_url"], timeout=30)
    assert reply.headers["Content-Type"] == "video/mp4"
    with av.open(io.BytesIO(reply.content)) as film:
        assert (film.streams.video[0].width, film.streams.video[0].height) == (864, 496)
        assert film.duration == 6_000_000
        assert not film.streams.audio


def test_what_is_left_open_is_decided_by_the_defaults(ark):
    document = ark.done()
    assert document["duration"] == 5
    assert (document["resolution"], document["ratio"]) == ("720p", "16:9")
    assert document["generate_audio"] is True
    assert document["execution_expires_after"] == 172_800
    assert 0 <= document["seed"] < 2**31
    assert "safety_identifier" not in document
    ark.emulator.knobs["default-audio"] = "false"
    assert ark.done()["generate_audio"] is False


def test_submissions_are_kept_as_received(ark):
    prompt = "A cat --dur 15 [emulate:queued=1]"
    task_id = ark.create(prompt, callback_url="http://127.0.0.1:9/t0ken")
    [submission] = ark.emulator.submissions
    assert (submission.task_id, submission.model, submission.prompt) == (task_id, PRO, prompt)
    assert submission.callback_url == "http://127.0.0.1:9/t0ken"
    assert submission.at == pytest.approx(ark.emulator.now(), abs=30)


def test_the_same_request_twice_makes_two_tasks(ark):
    headers = {"X-Client-Request-Id": "same"}
    ids = {ark.call("POST", json=REFERENCES, headers=headers).json()["id"] for _ in range(2)}
    assert len(ids) == 2
    assert set(ark.bill) == ids


# What is refused


def test_fields_of_older_models_are_rejected(ark):
    values = {"service_tier": "default", "camera_fixed": False, "frames": 29, "draft": False, "file_format": "mp4"}
    for model in (PRO, FAST, MINI, NEXT):
        for name, value in values.items():
            message = error(ark.post(model=model, **{name: value}), 400, "InvalidParameter", name)
            assert message.startswith(f"The parameter `{name}` specified in the request is not valid: ")
            assert "must be empty" in message
    assert ark.bill == []


def test_a_nonsense_frame_rate_starts_a_task_that_is_paid(ark):
    task_id = ark.create(framespersecond="nonsense", anything=[1])
    assert ark.bill == [task_id]


TOO_MANY = [image()] * 10
BAD_CONTENT = [
    ([image(role="first_frame"), video()], "first/last frame content cannot be mixed with reference media content"),
    ([image(role=None), video()], "first/last frame content cannot be mixed with reference media content"),
    (
        [image(role="last_frame"), image()],
        "last frame image content cannot be mixed with first frame or reference image content",
    ),
    ([audio()], "reference_audio cannot be the only reference input"),
    ([video(role=None)], "reference media mode requires video role to be reference_video"),
    ([image(), audio(role="first_frame")], "reference media mode requires audio role to be reference_audio"),
    ([image(role="start")], "invalid role specified for image content"),
    ([image(role=None), image(role=None)], "role must be specified for image contents"),
    ([image(role="first_frame")] * 2, "expected at most one first frame image content but got 2"),
    ([image(role="first_frame"), *[image(role="last_frame")] * 2], "at most one last frame image content but got 2"),
    ([image(role="last_frame")], "last frame image content requires first frame image content"),
    (TOO_MANY, "expected at most 9 reference image contents but got 10"),
    ([video()] * 4, "expected at most 3 reference video contents but got 4"),
    ([image(), *[audio()] * 4], "expected at most 3 reference audio contents but got 4"),
]


@pytest.mark.parametrize(("media", "sentence"), BAD_CONTENT)
def test_modes_and_roles_are_refused_with_the_known_sentences(ark, media, sentence):
    assert sentence in error(ark.post(media=media), 400, "InvalidParameter", "content")
    assert ark.bill == []


@pytest.mark.parametrize(
    ("item", "code", "param"),
    [
        ({"type": "image_url", "image_url": "https://cdn.example/a.png"}, "InvalidParameter", "content[1].image_url"),
        ({"type": "image_url"}, "MissingParameter", "content[1].image_url"),
        ({"type": "image_url", "image_url": {}}, "MissingParameter", "content[1].image_url.url"),
        (image(""), "InvalidImageURL.EmptyURL", "content[1].image_url"),
        (image("asset-20260101-abc"), "InvalidImageURL.InvalidFormat", "content[1].image_url"),
        (image("DATA:image/png;base64,AA=="), "InvalidImageURL.InvalidFormat", "content[1].image_url"),
        (image("data:image/PNG;base64,AA=="), "InvalidImageURL.InvalidFormat", "content[1].image_url"),
        (image("data:image/svg+xml;base64,AA=="), "InvalidImageURL.InvalidFormat", "content[1].image_url"),
        (image("http://["), "InvalidImageURL.InvalidFormat", "content[1].image_url"),
        (image("ftp://cdn.example/a.png"), "InvalidImageURL.InvalidFormat", "content[1].image_url"),
        (video("data:video/mp4;base64,AA=="), "InvalidParameter", "content[1].video_url"),
        (audio("data:audio/ogg;base64,AA=="), "InvalidParameter", "content[1].audio_url"),
        (image("https://cdn.example/404.png?x=1"), "InvalidParameter", "content[1].image_url"),
        (image("https://cdn.example/a.svg"), "InvalidParameter", "content[1].image_url"),
        (video("https://cdn.example/a.webm"), "InvalidParameter", "content[1].video_url"),
        (
            image("https://cdn.example/real-person.png"),
            "InputImageSensitiveContentDetected.PrivacyInformation",
            "content[1].image_url",
        ),
        (
            video("https://cdn.example/real-person.mp4"),
            "InputVideoSensitiveContentDetected.PrivacyInformation",
            "content[1].video_url",
        ),
        ({"type": "text"}, "MissingParameter", "content[1].text"),
        ({"type": "picture"}, "InvalidParameter", "content[1].type"),
        ("text", "InvalidParameter", "content[1]"),
    ],
)
def test_each_item_of_content_is_checked(ark, item, code, param):
    error(ark.post(media=[item]), 400, code, param)
    assert ark.bill == []


def test_sentences_about_references_are_the_known_ones(ark):
    missing = ark.post(media=[image("https://cdn.example/404.png")])
    assert "resource download failed" in missing.json()["error"]["message"]
    inline = ark.post(media=[video("data:video/mp4;base64,AA==")])
    assert "reference_video must be provided as a web url" in inline.json()["error"]["message"]


@pytest.mark.parametrize(
    "media",
    [
        [],
        [image(role=None)],
        [image(role="first_frame")],
        [image(role="first_frame"), image(role="last_frame")],
        [*[image()] * 9, *[video()] * 3, *[audio()] * 3],
        [video(), audio("data:audio/wav;base64,AA==")],
        [image("data:image/png;base64,AA=="), image("asset://asset-1-real-person")],
        [image("https://bucket.example/a.png?X-Amz-Signature=404"), image("https://cdn.example/noextension")],
    ],
)
def test_allowed_content_is_taken(ark, media):
    ark.create(media=media)
    if media:
        ark.create("", media=media)
    assert len(ark.bill) == 1 + bool(media)


def test_too_large_an_inline_picture_is_refused(ark):
    fat = "data:image/png;base64," + "A" * 40_000_100
    assert "size" in error(ark.post(media=[image(fat)]), 400, "InvalidParameter", "content[1].image_url")


@pytest.mark.parametrize(
    ("model", "fields"),
    [
        *[(model, {"resolution": "1080p"}) for model in (FAST, MINI)],
        *[(model, {"resolution": "4k"}) for model in (FAST, MINI, NEXT)],
        (PRO, {"resolution": "2k"}),
        (PRO, {"resolution": 720}),
        (PRO, {"ratio": "2:1"}),
        (PRO, {"ratio": "auto"}),
        *[(PRO, {"duration": value}) for value in (3, 16, 0, -2, "5", 5.0, -1.0, True)],
        (NEXT, {"duration": 31}),
        *[(PRO, {"seed": value}) for value in (-2, 2**31, "42", 1.5)],
        *[(PRO, {name: "true"}) for name in ("watermark", "generate_audio", "return_last_frame")],
        (PRO, {"watermark": 1}),
        *[(PRO, {"callback_url": value}) for value in ("", "ftp://api.example/x", 5, "http://")],
        *[(PRO, {"execution_expires_after": value}) for value in (0, 259_201, "3600")],
        *[(PRO, {"priority": value}) for value in (-1, 10)],
        *[(PRO, {"safety_identifier": value}) for value in ("x" * 65, 7)],
        *[(PRO, {"tools": value}) for value in ([{"type": "other"}], "web_search")],
        (PRO, {"bitrate_mode": "low"}),
        (MINI, {"bitrate_mode": "standard"}),
        (NEXT, {"output_format": "webm"}),
    ],
)
def test_each_field_is_checked(ark, model, fields):
    [name] = fields
    error(ark.post(model=model, **fields), 400, "InvalidParameter", name)
    assert ark.bill == []


@pytest.mark.parametrize(
    ("model", "fields"),
    [
        *[(PRO, {"resolution": value}) for value in ("480p", "720P", "1080p", "4K")],
        *[(MINI, {"resolution": value}) for value in ("480p", "720p")],
        (NEXT, {"resolution": "1080p", "duration": 30, "output_format": "mov"}),
        *[(PRO, {"ratio": value}) for value in ("16:9", "4:3", "1:1", "3:4", "9:16", "21:9", "adaptive")],
        *[(PRO, {"duration": value}) for value in (4, 15, -1)],
        *[(PRO, {"seed": value}) for value in (-1, 0, 2**31 - 1)],
        (PRO, {"execution_expires_after": 1, "priority": 9, "safety_identifier": "x" * 64}),
        (PRO, {"tools": [{"type": "web_search"}], "bitrate_mode": "high", "output_format": "webm"}),
        (PRO, {"resolution": None, "service_tier": None}),
    ],
)
def test_every_documented_value_is_taken(ark, model, fields):
    task_id = ark.create(model=model, **fields)
    assert ark.bill == [task_id]


def test_the_next_family_has_rules_of_its_own(ark):
    frame = [image(role="first_frame")]
    error(ark.post(model=NEXT, media=frame, ratio="16:9"), 400, "InvalidParameter", "ratio")
    ark.create(model=NEXT, media=frame, ratio="adaptive")
    ark.create(model=PRO, media=frame, ratio="16:9")
    ark.create(model=NEXT, media=[audio()])
    ark.create(model=NEXT, media=[*[image()] * 30, *[video()] * 10, *[audio()] * 10])
    assert ark.done(model=NEXT)["duration"] == ark.done(model=PRO, duration=-1)["duration"] == 7


@pytest.mark.parametrize(
    ("body", "status", "code", "param"),
    [
        (b"", 400, "InvalidParameter", ""),
        (b"[]", 400, "InvalidParameter", ""),
        (b"{}", 400, "MissingParameter", "model"),
        (b'{"model": 5}', 400, "InvalidParameter", "model"),
        (b'{"model": "nonsense", "frames": 1}', 404, "InvalidEndpointOrModel.NotFound", ""),
        (f'{{"model": "{PRO}"}}'.encode(), 400, "MissingParameter", "content"),
        (f'{{"model": "{PRO}", "content": []}}'.encode(), 400, "MissingParameter", "content"),
        (f'{{"model": "{PRO}", "content": "A cat"}}'.encode(), 400, "InvalidParameter", "content"),
    ],
)
def test_bodies_that_are_no_request_are_refused(ark, body, status, code, param):
    error(ark.call("POST", data=body), status, code, param)


def test_a_body_of_over_64_mb_is_refused_and_the_connection_closed(ark):
    headers = {"authorization": f"Bearer {ark.emulator.key}", "content-length": str(64 * 1024 * 1024 + 1)}
    answer = ark.emulator.handle(Request("POST", ark.emulator.base_path + TASKS, {}, headers, b"{"))
    assert (answer.status, answer.headers["Connection"]) == (400, "close")
    assert json.loads(answer.body)["error"]["code"] == "InvalidParameter"


def test_checks_come_in_the_documented_order(ark):
    wrong = {
        "model": PRO,
        "frames": 1,
        "content": [{"type": "text", "text": "forbidden-text"}, image("https://cdn.example/404.png", "start")],
        "duration": 99,
    }
    error(ark.call("POST", json=wrong | {"model": "nonsense"}), 404, "InvalidEndpointOrModel.NotFound")
    error(ark.call("POST", json=wrong), 400, "InvalidParameter", "frames")
    del wrong["frames"]
    error(ark.call("POST", json=wrong), 400, "InvalidParameter", "content")
    wrong["content"][1]["role"] = "first_frame"
    error(ark.call("POST", json=wrong), 400, "InvalidParameter", "duration")
    wrong["duration"] = 5
    error(ark.call("POST", json=wrong), 400, "InvalidParameter", "content[1].image_url")
    wrong["content"][1]["image_url"]["url"] = "https://cdn.example/a.png"
    error(ark.call("POST", json=wrong), 400, "InputTextSensitiveContentDetected")
    wrong["content"][0]["text"] = "A cat"
    assert ark.call("POST", json=wrong).status_code == 200
    assert len(ark.bill) == 1


def test_one_parameter_is_named_and_any_of_the_wrong_ones(ark):
    wrong = {"duration": 99, "ratio": "2:1", "seed": -5}
    named = {ark.post(**wrong).json()["error"]["param"] for _ in range(60)}
    assert named == set(wrong)


def test_the_limit_of_seeds_can_be_the_other_documents(ark):
    ark.emulator.knobs["max-seed"] = str(2**32 - 1)
    assert ark.done(seed=2**32 - 1)["seed"] == 2**32 - 1
    error(ark.post(seed=2**32), 400, "InvalidParameter", "seed")


# Flags in the prompt


@pytest.mark.parametrize(
    ("flag", "name", "value"),
    [
        ("--dur 15", "duration", 15),
        ("--duration 15", "duration", 15),
        ("--DUR=15", "duration", 15),
        ("--rs 480p", "resolution", "480p"),
        ("--resolution 1080p", "resolution", "1080p"),
        ("--rt 1:1", "ratio", "1:1"),
        ("--ratio 9:16", "ratio", "9:16"),
        ("--seed 7", "seed", 7),
    ],
)
def test_flags_of_the_prompt_win_over_the_fields(ark, flag, name, value):
    fields = {"duration": 5, "resolution": "720p", "ratio": "16:9", "seed": 42}
    assert fields[name] != value
    document = ark.done(f"A cat {flag}", **fields)
    assert {key: document[key] for key in fields} == fields | {name: value}


def test_a_smuggled_duration_is_in_the_film_and_on_the_bill(ark):
    document = ark.done("A cat --dur 8 --wm true", duration=4, resolution="480p", watermark=False)
    honest = ark.done("A cat", duration=8, resolution="480p")
    assert document["usage"] == honest["usage"]
    film = requests.get(document["content"]["video_url"], timeout=60).content
    with av.open(io.BytesIO(film)) as opened:
        assert opened.duration == 8_000_000


@pytest.mark.parametrize(
    "prompt", ["A cat --dur 99", "A cat --dur long", "A cat--dur 15", "A cat -dur 15", "A --cat 15"]
)
def test_unusable_flags_do_nothing(ark, prompt):
    assert ark.done(prompt, duration=5)["duration"] == 5


# States


def test_cancel_does_in_each_state_what_is_documented(ark):
    queued = ark.create()
    reply = ark.call("DELETE", f"/{queued}")
    assert (reply.status_code, reply.content) == (200, b"")
    assert ark.get(queued)["status"] == "cancelled"
    error(ark.call("DELETE", f"/{queued}"), 409, "InvalidAction")
    ark.emulator.skip(600)
    assert ark.get(queued)["status"] == "cancelled"

    running = ark.create("A cat [emulate:queued=0]")
    error(ark.call("DELETE", f"/{running}"), 409, "InvalidAction.RunningTaskDeletion")
    assert ark.get(running)["status"] == "running"
    ark.emulator.skip(60)
    assert ark.get(running)["status"] == "succeeded"

    for word in ("", "[emulate:fail=InternalServiceError]", "[emulate:status=expired]"):
        document = ark.done(f"A cat {word}")
        assert ark.call("DELETE", f"/{document['id']}").status_code == 200
        error(ark.call("GET", f"/{document['id']}"), 404, "NotFound")
        error(ark.call("DELETE", f"/{document['id']}"), 404, "NotFound")
    error(ark.call("DELETE", "/cgt-20200101000000-aaaaa"), 404, "NotFound")


def test_a_deleted_record_takes_its_files_along(ark):
    document = ark.done()
    ark.call("DELETE", f"/{document['id']}")
    assert requests.get(document["content"]["video_url"], timeout=30).status_code == 404


def test_a_cancelled_record_goes_after_a_day(ark):
    task_id = ark.create()
    ark.call("DELETE", f"/{task_id}")
    ark.emulator.skip(DAY - 60)
    assert ark.get(task_id)["status"] == "cancelled"
    ark.emulator.skip(120)
    error(ark.call("GET", f"/{task_id}"), 404, "NotFound")


@pytest.mark.parametrize("tail", ["cancel", "stop"])
def test_a_post_below_a_task_creates_another(ark, tail):
    task_id = ark.create()
    other_id = ark.create("Another cat", path=f"/{task_id}/{tail}")
    assert ark.bill == [task_id, other_id]
    assert ark.get(task_id)["status"] == "queued"
    error(ark.call("POST", f"/{task_id}/{tail}"), 400, "InvalidParameter")


def test_a_link_lives_for_a_day_and_a_record_for_seven(ark):
    document = ark.done(resolution="480p", duration=4, return_last_frame=True)
    urls = [document["content"][name] for name in ("video_url", "last_frame_url")]
    ark.emulator.skip(DAY - 120)
    assert [requests.get(url, timeout=60).status_code for url in urls] == [200, 200]
    assert ark.get(document["id"])["content"] == document["content"]
    ark.emulator.skip(240)
    assert [requests.get(url, timeout=30).status_code for url in urls] == [403, 403]
    late = ark.get(document["id"])
    assert (late["status"], late["content"]) == ("succeeded", None)
    ark.emulator.skip(6 * DAY - 600)
    assert ark.get(document["id"])["status"] == "succeeded"
    ark.emulator.skip(600)
    error(ark.call("GET", f"/{document['id']}"), 404, "NotFound")
    assert ark.call("GET").json() == {"items": [], "total": 0}


def test_a_link_holds_for_its_own_file_only(ark):
    url = ark.done(return_last_frame=True)["content"]["video_url"]
    assert requests.get(url.partition("?")[0], timeout=30).status_code == 403
    assert requests.get(url.replace(".mp4", "_last.png"), timeout=30).status_code == 403
    assert requests.get(url[:-1] + ("0" if url[-1] != "0" else "1"), timeout=30).status_code == 403
    assert requests.get(ark.emulator.origin + "/files/x/unknown.mp4", timeout=30).status_code == 404


def test_the_last_frame_is_a_picture_of_the_films_size(ark):
    document = ark.done(resolution="480p", ratio="9:16", duration=4, return_last_frame=True)
    picture = Image.open(io.BytesIO(requests.get(document["content"]["last_frame_url"], timeout=60).content))
    assert (picture.format, picture.size) == ("PNG", (496, 864))


def test_a_task_that_takes_too_long_expires(ark):
    slow = "A cat [emulate:queued=600][emulate:running=600]"
    running = ark.create(slow, execution_expires_after=1000)
    queued = ark.create(slow, execution_expires_after=300)
    ark.emulator.skip(500)
    assert (ark.get(running)["status"], ark.get(queued)["status"]) == ("queued", "expired")
    ark.emulator.skip(400)
    assert ark.get(running)["status"] == "running"
    ark.emulator.skip(200)
    expired = ark.get(running)
    assert expired["status"] == "expired"
    assert expired["updated_at"] == expired["created_at"] + 1000
    assert "content" not in expired


# The list


def ids_of(reply):
    return [item["id"] for item in reply.json()["items"]]


def test_the_list_filters_by_repeated_ids(ark):
    ids = [ark.create() for _ in range(4)]
    unknown = "cgt-20200101000000-aaaaa"
    reply = ark.call("GET", params={"filter.task_ids": [ids[0], ids[2], unknown, ids[0]]})
    assert set(ids_of(reply)) == {ids[0], ids[2]}
    assert reply.json()["total"] == 2
    joined = ark.call("GET", params={"filter.task_ids": f"{ids[0]},{ids[1]}"})
    assert joined.json() == {"items": [], "total": 0}


def test_the_list_shows_what_get_shows(ark):
    task_id = ark.create(safety_identifier="u_1", return_last_frame=True)
    for _ in range(3):
        assert ark.call("GET").json() == {"items": [ark.get(task_id)], "total": 1}
        ark.emulator.skip(60)


def test_the_list_has_pages_newest_first(ark):
    ids = []
    for _ in range(5):
        ids.append(ark.create())
        ark.emulator.skip(1)
    ids.reverse()
    assert ids_of(ark.call("GET", params={"page_size": 2})) == ids[:2]
    last = ark.call("GET", params={"page_size": 2, "page_num": 3})
    assert ids_of(last) == ids[4:]
    assert last.json()["total"] == 5
    assert ids_of(ark.call("GET", params={"page_size": 500, "page_num": 2})) == []
    assert ids_of(ark.call("GET")) == ids


@pytest.mark.parametrize(
    ("name", "value"),
    [("page_size", "0"), ("page_size", "501"), ("page_size", "ten"), ("page_num", "0"), ("filter.status", "done")],
)
def test_the_list_refuses_unusable_parameters(ark, name, value):
    error(ark.call("GET", params={name: value}), 400, "InvalidParameter", name)


def test_the_list_filters_by_status_model_and_tier(ark):
    cancelled, queued = ark.create(), ark.create(model=FAST)
    ark.call("DELETE", f"/{cancelled}")
    assert ids_of(ark.call("GET", params={"filter.status": "queued"})) == [queued]
    assert ids_of(ark.call("GET", params={"filter.status": "cancelled"})) == [cancelled]
    assert ids_of(ark.call("GET", params={"filter.status": "expired"})) == []
    assert ids_of(ark.call("GET", params={"filter.model": FAST})) == [queued]
    assert len(ids_of(ark.call("GET", params={"filter.service_tier": "default"}))) == 2
    assert ids_of(ark.call("GET", params={"filter.service_tier": "flex"})) == []
    assert ids_of(ark.call("GET", params={"filter.status": "queued", "filter.task_ids": cancelled})) == []


# Rates and slots


def test_only_so_many_tasks_run_at_once_per_model(ark):
    ark.emulator.knobs["max-concurrent"] = "2"
    ids = [ark.create("A cat [emulate:queued=0]") for _ in range(5)]
    other = ark.create("A cat [emulate:queued=0]", model=FAST)

    def states():
        return [ark.get(task_id)["status"] for task_id in ids]

    assert states() == ["running", "running", "queued", "queued", "queued"]
    assert ark.get(other)["status"] == "running"
    assert ark.call("DELETE", f"/{ids[2]}").status_code == 200
    ark.emulator.skip(60)
    assert states() == ["succeeded", "succeeded", "cancelled", "running", "running"]
    ark.emulator.skip(60)
    assert states() == ["succeeded", "succeeded", "cancelled", "succeeded", "succeeded"]


def test_slots_are_handed_on_however_rarely_one_looks(ark):
    ark.emulator.knobs["max-concurrent"] = "1"
    ids = [ark.create("A cat [emulate:queued=0]") for _ in range(3)]
    ark.emulator.skip(150)
    documents = [ark.get(task_id) for task_id in ids]
    assert [document["status"] for document in documents] == ["succeeded", "succeeded", "running"]
    first, second, third = (document["updated_at"] for document in documents)
    assert second - first in (59, 60, 61)
    assert third == second


def test_a_full_queue_is_refused(ark):
    ark.emulator.knobs |= {"max-concurrent": "1", "max-queued": "2"}
    for _ in range(3):
        ark.create("A cat [emulate:queued=0]")
        ark.call("GET")
    assert "too many queued tasks" in error(ark.post(), 429, "QuotaExceeded")
    assert len(ark.bill) == 3
    ark.create(model=FAST)


def test_creates_are_counted_per_model_and_minute(ark):
    ark.emulator.knobs["rate-limit"] = "2"
    ark.create()
    ark.create()
    reply = ark.post()
    error(reply, 429, "ModelAccountRpmRateLimitExceeded")
    assert "Retry-After" not in reply.headers
    ark.create(model=FAST)
    ark.emulator.skip(61)
    ark.create()
    assert len(ark.bill) == 4


# Knobs


@pytest.mark.parametrize(
    ("word", "stored"), [("drop", 1), ("drop-before", 0), ("html", 0), ("late-html", 1), ("late-5xx", 1), ("no-id", 1)]
)
def test_submits_go_wrong_before_or_after_the_task_is_stored(ark, word, stored):
    prompt = f"A cat [emulate:submit={word}]"
    if word.startswith("drop"):
        with pytest.raises(requests.ConnectionError):
            ark.post(prompt)
    else:
        reply = ark.post(prompt)
        if word == "late-5xx":
            error(reply, 500, "InternalServiceError")
        elif word == "no-id":
            assert (reply.status_code, reply.json()) == (200, {})
        else:
            assert (reply.status_code, reply.headers["Content-Type"]) == (502, "text/html")
    assert len(ark.bill) == stored
    assert ids_of(ark.call("GET")) == ark.bill


@pytest.mark.parametrize("word", ["hang", "delay:30"])
def test_slow_submits_have_stored_the_task(ark, word):
    with pytest.raises(requests.ReadTimeout):
        requests.post(
            ark.base_url + TASKS,
            json={"model": PRO, "content": [{"type": "text", "text": f"A cat [emulate:submit={word}]"}]},
            headers=dict(ark.session.headers),
            timeout=0.5,
        )
    assert ids_of(ark.call("GET")) == ark.bill
    assert len(ark.bill) == 1


def test_a_late_answer_is_a_good_one(ark):
    started = time.monotonic()
    assert ark.create("A cat [emulate:submit=delay:0.3]") == ark.bill[0]
    assert time.monotonic() - started >= 0.3


def test_every_code_can_be_had_at_submit_and_as_an_ending(ark):
    for word, (status, sentence) in SENTENCES.items():
        code, stored_count = word.partition("/")[0], len(ark.bill)
        assert sentence in error(ark.post(f"A cat [emulate:submit=error:{word}]"), status, code)
        assert len(ark.bill) == stored_count
        document = ark.done(f"A cat [emulate:fail={word}]")
        assert ark.bill[stored_count:] == [document["id"]]
        assert document["status"] == "failed"
        assert set(document["error"]) == {"code", "message"}
        assert document["error"]["code"] == code
        assert sentence in document["error"]["message"]
        assert re.search(REQUEST_ID, document["error"]["message"])
        assert "content" not in document


DOCUMENTED = {
    400: "MissingParameter InvalidParameter InvalidParameter.TaskTypeConstraint InvalidImageURL.EmptyURL "
    "InvalidImageURL.InvalidFormat InvalidEndpoint.ClosedEndpoint InputTextSensitiveContentDetected.PolicyViolation "
    "InputTextRiskDetection InputImageSensitiveContentDetected.PrivacyInformation InputImageRiskDetection "
    "InputVideoSensitiveContentDetected.PolicyViolation InputAudioSensitiveContentDetected "
    "SensitiveContentDetected.SevereViolation SensitiveContentDetected.Violence ContentSecurityDetectionError",
    401: "AuthenticationError InvalidAccountStatus",
    403: "AccountOverdueError OperationDenied.ServiceOverdue OperationDenied.ServiceNotOpen "
    "OperationDenied.PermissionDenied AccessDenied",
    404: "ModelNotOpen InvalidEndpointOrModel.NotFound InvalidEndpointOrModel.ModelIDAccessDisabled NotFound "
    "NotFound.Task",
    409: "InvalidAction.RunningTaskDeletion TaskRunningCannotCancel",
    429: "RateLimitExceeded.EndpointRPMExceeded RateLimitExceeded.EndpointTPMExceeded "
    "RateLimitExceeded.FoundationModelRPMExceeded ModelAccountRpmRateLimitExceeded ModelAccountTpmRateLimitExceeded "
    "ModelAccountIpmRateLimitExceeded APIAccountRpmRateLimitExceeded AccountRateLimitExceeded RequestBurstTooFast "
    "InflightBatchsizeExceeded ServerOverloaded QuotaExceeded SetLimitExceeded",
    500: "InternalServiceError",
}


@pytest.mark.parametrize(("status", "codes"), DOCUMENTED.items())
def test_the_table_of_errors_is_the_sheets(ark, status, codes):
    for code in codes.split():
        error(ark.post(f"A cat [emulate:submit=error:{code}]"), status, code)


def test_the_output_failures_example_is_as_documented(ark):
    document = ark.done("A cat [emulate:fail=OutputVideoSensitiveContentDetected]")
    sentence = "The request failed because the output video may contain sensitive information. Request id: 02"
    assert document["error"]["message"].startswith(sentence)


def test_a_task_can_fail_with_a_sentence(ark):
    assert ark.done("A cat [emulate:fail=The GPU melted.]")["error"]["message"].startswith("The GPU melted. Request id")


def test_quota_errors_differ_by_sentence_alone(ark):
    sentences = {
        ark.post(f"A cat [emulate:submit=error:QuotaExceeded{variant}]").json()["error"]["message"].partition(" Req")[0]
        for variant in ("", "/trial", "/period")
    }
    assert len(sentences) == 3


@pytest.mark.parametrize(
    ("word", "while_running", "afterwards"),
    [
        ("stuck", "running", "running"),
        ("unknown", "reviewing", "reviewing"),
        ("unknown-while-running", "reviewing", "succeeded"),
        ("expired", "running", "expired"),
        ("cancelled", "running", "cancelled"),
        ("canceled", "running", "canceled"),
    ],
)
def test_odd_states(ark, word, while_running, afterwards):
    task_id = ark.create(f"A cat [emulate:status={word}]")
    assert ark.get(task_id)["status"] == "queued"
    ark.emulator.skip(60)
    assert ark.get(task_id)["status"] == while_running
    ark.emulator.skip(3 * DAY)
    assert ark.get(task_id)["status"] == afterwards


def test_knobs_of_a_task_hold_from_its_submission(ark):
    ark.emulator.knobs |= {"status": "stuck", "fail": "InternalServiceError"}
    stuck = ark.create()
    ark.emulator.knobs.clear()
    assert ark.done()["status"] == "succeeded"
    assert ark.get(stuck)["status"] == "running"


def test_polls_go_wrong_while_the_knob_is_set(ark):
    task_id = ark.create()
    for path in (f"/{task_id}", ""):
        for word, status, code in (
            ("5xx", 500, "InternalServiceError"),
            ("429", 429, "AccountRateLimitExceeded"),
            ("404", 404, "NotFound"),
            ("401", 401, "AuthenticationError"),
            ("error:AccountOverdueError", 403, "AccountOverdueError"),
        ):
            ark.emulator.knobs["poll"] = word
            error(ark.call("GET", path), status, code)
        ark.emulator.knobs["poll"] = "html"
        reply = ark.call("GET", path)
        assert (reply.status_code, reply.headers["Content-Type"]) == (200, "text/html")
        ark.emulator.knobs["poll"] = "empty"
        reply = ark.call("GET", path)
        assert (reply.status_code, reply.content) == (200, b"")
        ark.emulator.knobs["poll"] = "drop"
        with pytest.raises(requests.ConnectionError):
            ark.call("GET", path)
    ark.emulator.knobs.clear()
    assert ark.get(task_id)["status"] == "queued"
    spoilt = ark.create("A cat [emulate:poll=5xx]")
    error(ark.call("GET", f"/{spoilt}"), 500, "InternalServiceError")


def test_results_go_wrong(ark):
    def result(word, **fields):
        document = ark.done(f"A cat [emulate:result={word}]", duration=6, resolution="480p", **fields)
        assert document["status"] == "succeeded"
        return document.get("content"), document["duration"]

    def fetch(url):
        return requests.get(url, timeout=60, allow_redirects=False)

    assert result("no-url") == (None, 6)
    assert fetch(result("gone")[0]["video_url"]).status_code == 403
    reply = fetch(result("not-video")[0]["video_url"])
    assert (reply.status_code, reply.headers["Content-Type"]) == (200, "text/html")
    reply = fetch(result("redirect")[0]["video_url"])
    assert reply.status_code == 302
    assert urlsplit(reply.headers["Location"]).hostname == "files.elsewhere.example"
    assert urlsplit(result("foreign")[0]["video_url"]).hostname == "files.elsewhere.example"
    content, seconds = result("short")
    with av.open(io.BytesIO(fetch(content["video_url"]).content)) as film:
        assert (seconds, film.duration) == (6, 4_000_000)
    jpeg = fetch(result("jpeg", return_last_frame=True)[0]["last_frame_url"])
    assert Image.open(io.BytesIO(jpeg.content)).format == "JPEG"


def test_a_film_can_be_cut_off_while_the_knob_is_set(ark):
    url = ark.done(duration=4, resolution="480p")["content"]["video_url"]
    whole = requests.get(url, timeout=60).content
    ark.emulator.knobs["result"] = "truncated"
    assert requests.get(url, timeout=60).content == whole[: len(whole) // 2]


def test_numbers_can_be_text_in_get_but_not_in_the_list(ark):
    document = ark.done("A cat [emulate:numbers=text]")
    assert (document["duration"], document["usage"]["completion_tokens"]) == ("5", "108900")
    [item] = ark.call("GET").json()["items"]
    assert (item["duration"], item["usage"]["completion_tokens"]) == (5, 108900)


def test_deletes_go_wrong(ark):
    task_id = ark.create()
    ark.emulator.knobs["delete"] = "error:TaskRunningCannotCancel"
    error(ark.call("DELETE", f"/{task_id}"), 409, "TaskRunningCannotCancel")
    ark.emulator.knobs["delete"] = "html"
    assert ark.call("DELETE", f"/{task_id}").status_code == 502
    assert ark.get(task_id)["status"] == "queued"
    ark.emulator.knobs["delete"] = "drop"
    with pytest.raises(requests.ConnectionError):
        ark.call("DELETE", f"/{task_id}")
    assert ark.get(task_id)["status"] == "cancelled"


# Callbacks


class Listener:
    """A server that keeps what is posted to it and answers with `status`."""

    def __init__(self):
        self.status, self.posts = 200, []
        listener = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self):
                body = self.rfile.read(int(self.headers["Content-Length"]))
                listener.posts.append((self.path, {name.lower() for name in self.headers}, body))
                self.send_response(listener.status)
                self.send_header("Content-Length", "0")
                self.end_headers()

            def log_message(self, *_):
                pass

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.server.server_port}/callback/t0ken"

    def statuses(self):
        return [json.loads(body)["status"] for _, _, body in list(self.posts)]


@pytest.fixture
def listener():
    found = Listener()
    thread = threading.Thread(target=found.server.serve_forever, args=(0.005,))
    thread.start()
    yield found
    found.server.shutdown()
    thread.join()
    found.server.server_close()


def follow(ark, listener, prompt="A cat", **fields):
    """Create a task and let it go on a state at a time, each told of; return its documents by status."""
    task_id = ark.create(prompt, callback_url=listener.url, **fields)
    documents = {}
    for count in (1, 2, 3):
        document = ark.get(task_id)
        documents[document["status"]] = document
        wait_for(lambda count=count: len(listener.posts) >= count)
        if count < 3:
            ark.emulator.skip(60)
    return documents


@pytest.mark.parametrize(
    ("word", "last"),
    [("", "succeeded"), ("[emulate:fail=InternalServiceError]", "failed"), ("[emulate:status=expired]", "expired")],
)
def test_every_change_of_state_is_told_with_the_body_of_get(ark, listener, word, last):
    documents = follow(ark, listener, f"A cat {word}", safety_identifier="u_1")
    assert listener.statuses() == ["queued", "running", last]
    for path, headers, body in listener.posts:
        document = json.loads(body)
        assert document == documents[document["status"]]
        assert path == "/callback/t0ken"
        assert headers == {"host", "accept-encoding", "content-length", "content-type"}


def test_a_task_without_callback_url_tells_nobody(ark, listener):
    ark.done()
    follow(ark, listener)
    assert {json.loads(body)["id"] for _, _, body in listener.posts} == {ark.bill[1]}
    assert all(sent.url == listener.url for sent in ark.emulator.callbacks.sent)


def test_a_task_whose_create_was_never_answered_is_told_of(ark, listener):
    with pytest.raises(requests.ConnectionError):
        ark.post("A cat [emulate:submit=drop]", callback_url=listener.url)
    wait_for(lambda: listener.posts)
    assert json.loads(listener.posts[0][2])["id"] == ark.bill[0]


def test_a_cancelled_task_is_told_of_no_more(ark, listener):
    task_id = ark.create(callback_url=listener.url)
    wait_for(lambda: listener.posts)
    ark.call("DELETE", f"/{task_id}")
    ark.emulator.skip(600)
    other = ark.create("[emulate:queued=0][emulate:running=0] Another cat", callback_url=listener.url)
    wait_for(lambda: len(listener.posts) >= 2)
    told = [(json.loads(body)["id"], json.loads(body)["status"]) for _, _, body in listener.posts]
    assert [status for each, status in told if each == task_id] == ["queued"]
    assert {each for each, _ in told} == {task_id, other}


def test_a_task_that_expires_in_the_queue_is_told_of(ark, listener):
    ark.create(callback_url=listener.url, execution_expires_after=30)
    wait_for(lambda: listener.posts)
    ark.emulator.skip(31)
    wait_for(lambda: len(listener.posts) >= 2)
    assert listener.statuses() == ["queued", "expired"]


def test_a_state_is_told_of_once(ark, listener):
    follow(ark, listener)
    ark.emulator.skip(3 * DAY)
    running_at_once = ark.create("A cat [emulate:queued=0]", callback_url=listener.url, execution_expires_after=30)
    wait_for(lambda: len(listener.posts) >= 4)
    ark.emulator.skip(31)
    wait_for(lambda: len(listener.posts) >= 5)
    ark.create(callback_url=listener.url)
    wait_for(lambda: listener.statuses()[-1] == "queued")
    assert listener.statuses() == ["queued", "running", "succeeded", "running", "expired", "queued"]
    assert ark.get(running_at_once)["status"] == "expired"


def test_notices_of_final_states_are_repeated_three_times(ark, listener, monkeypatch):
    monkeypatch.setattr(notices, "_REPEAT_PAUSES", tuple(pause / 20 for pause in notices._REPEAT_PAUSES))
    listener.status = 500
    follow(ark, listener)
    wait_for(lambda: len(listener.posts) >= 6)
    assert listener.statuses() == ["queued", "running", *["succeeded"] * 4]
    wait_for(lambda: len(ark.emulator.callbacks.sent) == 6)
    assert [sent.status for sent in ark.emulator.callbacks.sent] == [500] * 6


def test_repeating_ends_with_the_first_success(ark, listener):
    listener.status = 500
    follow(ark, listener)
    listener.status = 200
    wait_for(lambda: [sent.status for sent in ark.emulator.callbacks.sent] == [500, 500, 500, 200])
    assert listener.statuses() == ["queued", "running", "succeeded", "succeeded"]


def test_callbacks_come_twice(ark, listener):
    ark.create("A cat [emulate:callback=twice]", callback_url=listener.url)
    wait_for(lambda: len(listener.posts) == 2)
    assert listener.posts[0] == listener.posts[1]


def test_callbacks_come_in_reverse(ark, listener):
    ark.done("A cat [emulate:callback=reordered]", callback_url=listener.url)
    wait_for(lambda: len(listener.posts) == 3)
    assert listener.statuses() == ["succeeded", "running", "queued"]


def test_callbacks_stay_away(ark, listener):
    ark.done("A cat [emulate:callback=none]", callback_url=listener.url)
    follow(ark, listener)
    assert {json.loads(body)["id"] for _, _, body in listener.posts} == {ark.bill[1]}


def test_callbacks_come_late(ark, listener):
    started = time.monotonic()
    ark.create("A cat [emulate:callback=late]", callback_url=listener.url)
    wait_for(lambda: listener.posts)
    assert time.monotonic() - started >= 5
    assert listener.statuses() == ["queued"]


def test_callbacks_lie(ark, listener):
    def first(word):
        task_id = ark.create(f"A cat [emulate:callback={word}]", callback_url=listener.url)
        path, _, body = wait_for(lambda: listener.posts)[0]
        assert ark.get(task_id)["status"] == "queued"
        listener.posts.clear()
        return task_id, path, body

    task_id, _, body = first("tampered")
    document = json.loads(body)
    assert (document["id"], document["status"]) == (task_id, "succeeded")
    assert urlsplit(document["content"]["video_url"]).hostname == "files.elsewhere.example"
    task_id, _, body = first("foreign-id")
    assert json.loads(body)["id"] != task_id
    error(ark.call("GET", f"/{json.loads(body)['id']}"), 404, "NotFound")
    assert first("wrong-token")[1] == "/callback/t0ke0"
    with pytest.raises(ValueError, match="Expecting value"):
        json.loads(first("not-json")[2])
    assert len(first("huge")[2]) > 65_536
