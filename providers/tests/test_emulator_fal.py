"""The fal emulator, spoken to as the fal sheet says; times are made to pass with `skip`, not waited for."""

import base64
import contextlib
import hashlib
import json
import threading
import time
import timeit
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import quote, urlsplit

import pytest
import requests
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey

from providers import emulators, media_probe
from providers.emulators.fal import STARTING_CONCURRENCY, FalEmulator, errors, webhooks
from providers.emulators.server import Pace, Request

KEY = "key-id:key-secret"
AUTH = {"Authorization": f"Key {KEY}"}
APP = "/bytedance/seedance-2.0"
TEXT = f"{APP}/fast/text-to-video"
FRAMES = f"{APP}/image-to-video"
REFERENCES = f"{APP}/reference-to-video"
TEXT_INPUT = {"prompt": "A lighthouse", "duration": "4", "resolution": "480p", "aspect_ratio": "1:1"}
# Made with the documented scheme and the seed bytes 00 01 02 … 1f.
SEED = bytes(range(32))
REQUEST_ID = "8b6c1c0e-3d0f-4b1e-9c57-6f3f5f0a1d11"
VECTORS = {
    "ok": (
        1795350000,
        f'{{"request_id": "{REQUEST_ID}", "gateway_request_id": "{REQUEST_ID}", "status": "OK", "payload": {{'
        '"video": {"url": "https://v3b.fal.media/files/b/0a1b2c3d/out.mp4", "content_type": "video/mp4", '
        '"file_name": "out.mp4", "file_size": 4351022}, "seed": 1183504421}}',
        "11b38d226c32350bb677f13b8726fca03deeb0c8b27cabce97eeb5e609fa78fe"
        "446c5e26a22fdab68f587a06262d23b95b2de419b1c13d7fe68c34f548716b0d",
    ),
    "error_422": (
        1795350100,
        f'{{"request_id": "{REQUEST_ID}", "gateway_request_id": "{REQUEST_ID}", "status": "ERROR", "error": "Invalid '
        'status code: 422", "payload": {"detail": [{"loc": ["body", "prompt"], "msg": "The content could not be '
        'processed because it was flagged by a content checker.", "type": "content_policy_violation"}]}}',
        "bd58f3cdcf5043a3860abc7ca3b9cebbf84ec089820fd3acc4f8c4626d2ef945"
        "9356f17b7cc766e38dc80f0ce66282f6533772e25f574ce584cf81684c15ef0d",
    ),
}


@contextlib.contextmanager
def served(**options):
    emulator = FalEmulator(key=KEY, **{"pace": Pace(queued=10, running=100), **options})
    with emulator.serving():
        yield emulator


@pytest.fixture
def fal():
    with served() as emulator:
        yield emulator


class Inbox:
    """A webhook receiver that keeps what it gets and answers with `statuses`, the last of them for ever."""

    def __init__(self):
        self.received = []
        self.statuses = [200]
        self._changed = threading.Condition()

    @contextlib.contextmanager
    def serving(self):
        inbox = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self):
                body = self.rfile.read(int(self.headers["Content-Length"]))
                with inbox._changed:
                    status = inbox.statuses.pop(0) if len(inbox.statuses) > 1 else inbox.statuses[0]
                    inbox.received.append((self.path, dict(self.headers), body))
                    inbox._changed.notify_all()
                self.send_response(status)
                self.send_header("Content-Length", "0")
                self.end_headers()

            def log_message(self, *args):
                pass

        server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        thread = threading.Thread(target=server.serve_forever, args=(0.005,), daemon=True)
        thread.start()
        self.url = f"http://127.0.0.1:{server.server_address[1]}/hooks/fal?job=7&t=abc"
        try:
            yield self
        finally:
            server.shutdown()
            server.server_close()
            thread.join()

    def wait(self, count):
        with self._changed:
            assert self._changed.wait_for(lambda: len(self.received) >= count, timeout=20), self.received
            return self.received[count - 1]


@pytest.fixture
def inbox():
    with Inbox().serving() as receiver:
        yield receiver


def post(fal, path=TEXT, body=None, *, headers=AUTH, query=""):
    return requests.post(
        fal.origin + path + query, json=TEXT_INPUT if body is None else body, headers=headers, timeout=20
    )


def get(url, headers=AUTH):
    return requests.get(url, headers=headers, timeout=20, allow_redirects=False)


def submitted(fal, *knobs, path=TEXT, query="", headers=AUTH, **fields):
    prompt = "A lighthouse" + "".join(f" [emulate:{knob}]" for knob in knobs)
    response = post(fal, path, {**TEXT_INPUT, "prompt": prompt, **fields}, query=query, headers=headers)
    assert response.status_code == 200, response.text
    return response.json()


def finished(fal, *knobs, **options):
    job = submitted(fal, *knobs, **options)
    fal.skip(110.1)
    return job


def with_webhook(inbox):
    return f"?fal_webhook={quote(inbox.url, safe='')}"


def is_signed(fal, headers, body):
    """Check a signature as a receiver would, with nothing of the emulator but its published keys."""
    names = ("Request-Id", "User-Id", "Timestamp", "Signature")
    request_id, user_id, timestamp, signature = (headers[f"X-Fal-Webhook-{name}"] for name in names)
    message = "\n".join([request_id, user_id, timestamp, hashlib.sha256(body).hexdigest()]).encode()
    for key in requests.get(f"{fal.origin}/.well-known/jwks.json", timeout=20).json()["keys"]:
        assert (key["kty"], key["crv"]) == ("OKP", "Ed25519")
        raw = base64.urlsafe_b64decode(key["x"] + "=" * (-len(key["x"]) % 4))
        with contextlib.suppress(InvalidSignature):
            Ed25519PublicKey.from_public_bytes(raw).verify(bytes.fromhex(signature), message)
            return True
    return False


def test_it_is_found_by_name():
    assert emulators.find("fal") is FalEmulator


# §1, §2: authentication, submission


@pytest.mark.parametrize(
    "headers",
    [
        {},
        {"Authorization": f"Bearer {KEY}"},
        {"Authorization": f"key {KEY}"},
        {"Authorization": KEY},
        {"Authorization": "Key key-id:wrong"},
    ],
)
def test_only_the_word_key_and_the_right_key_are_let_in(fal, headers):
    for response in (post(fal, headers=headers), get(f"{fal.origin}{APP}/requests/x/status", headers)):
        assert response.status_code == 401
        assert isinstance(response.json()["detail"], str)
    assert fal.submissions == []


def test_a_submission_is_answered_with_the_documented_body(fal):
    response = post(fal)
    body = response.json()
    request_id = body["request_id"]
    url = f"{fal.origin}{APP}/requests/{request_id}"
    assert response.status_code == 200
    assert body == {
        "status": "IN_QUEUE",
        "request_id": request_id,
        "gateway_request_id": request_id,
        "queue_position": 0,
        "response_url": url,
        "status_url": f"{url}/status",
        "cancel_url": f"{url}/cancel",
    }
    assert response.headers["x-fal-request-id"] == request_id
    [submission] = fal.submissions
    assert (submission.task_id, submission.model, submission.prompt, submission.callback_url) == (
        request_id,
        TEXT[1:],
        "A lighthouse",
        "",
    )


def test_the_response_url_may_end_in_response_and_both_forms_work(fal):
    job = finished(fal, "response-url=suffixed")
    assert job["response_url"].endswith(f"/requests/{job['request_id']}/response")
    assert get(job["response_url"]).json() == get(job["response_url"].removesuffix("/response")).json()


@pytest.mark.parametrize("tier", ["", "/fast", "/mini"])
@pytest.mark.parametrize("form", ["text-to-video", "image-to-video", "reference-to-video"])
def test_all_nine_endpoints_take_requests(fal, tier, form):
    body = {"prompt": "x", "image_url": "https://cdn.example/a.png", "image_urls": ["https://cdn.example/a.png"]}
    assert post(fal, f"{APP}{tier}/{form}", body).status_code == 200
    assert fal.submissions[0].model == f"{APP}{tier}/{form}"[1:]


@pytest.mark.parametrize(
    "path",
    [
        "/fal-ai/bytedance/seedance-2.0/text-to-video",
        f"{APP}/text-to-image",
        f"{APP}/flash/text-to-video",
        f"{TEXT}/",
        "/",
    ],
)
def test_an_unknown_application_is_not_found(fal, path):
    response = post(fal, path)
    assert (response.status_code, response.json()) == (404, {"detail": "Application not found"})
    assert fal.submissions == []


def refusal(response, field, kind):
    """Check a refusal by the schema; the field's name stands last in `loc`."""
    [fault] = response.json()["detail"]
    assert response.status_code == 422
    assert fault["loc"] == (["body", field] if field else ["body"])
    assert fault["type"] == kind
    assert fault["url"] == f"https://docs.fal.ai/errors#{kind}"
    assert {"msg", "input"} <= fault.keys()
    assert response.headers["X-Fal-Error-Type"] == kind
    return True


@pytest.mark.parametrize("value", [5, "5s", "3", "16", "-1", None, True, ["5"]])
def test_a_duration_that_is_no_text_of_the_list_is_refused(fal, value):
    assert refusal(post(fal, body={**TEXT_INPUT, "duration": value}), "duration", "literal_error")
    assert fal.submissions == []


@pytest.mark.parametrize("value", ["auto", *(str(seconds) for seconds in range(4, 16))])
def test_every_duration_of_the_list_is_taken(fal, value):
    assert post(fal, body={**TEXT_INPUT, "duration": value}).status_code == 200


@pytest.mark.parametrize(
    ("field", "value", "kind"),
    [
        ("aspect_ratio", "adaptive", "literal_error"),
        ("aspect_ratio", "2:1", "literal_error"),
        ("resolution", "1080p", "literal_error"),
        ("resolution", 720, "literal_error"),
        ("bitrate_mode", "low", "literal_error"),
        ("generate_audio", "yes", "value_error"),
        ("prompt", 5, "value_error"),
        ("prompt", None, "value_error"),
        ("end_user_id", 5, "value_error"),
    ],
)
def test_fields_have_types_and_values(fal, field, value, kind):
    assert refusal(post(fal, body={**TEXT_INPUT, field: value}), field, kind)
    assert fal.submissions == []


@pytest.mark.parametrize(
    ("tier", "resolutions"),
    [("", {"480p", "720p", "1080p", "4k"}), ("/fast", {"480p", "720p"}), ("/mini", {"480p", "720p"})],
)
def test_resolutions_belong_to_tiers(fal, tier, resolutions):
    taken = {
        resolution
        for resolution in ("360p", "480p", "720p", "1080p", "4k")
        if post(fal, f"{APP}{tier}/text-to-video", {"prompt": "x", "resolution": resolution}).status_code == 200
    }
    assert taken == resolutions


def test_mini_knows_no_bitrate_and_so_ignores_it(fal):
    assert post(fal, f"{APP}/mini/text-to-video", {"prompt": "x", "bitrate_mode": "low"}).status_code == 200


def test_unknown_fields_are_ignored(fal):
    body = {**TEXT_INPUT, "seed": 42, "watermark": True, "return_last_frame": True, "image_urls": "of another endpoint"}
    assert post(fal, body=body).status_code == 200


def test_what_is_required_is_missed(fal):
    assert refusal(post(fal, body={"duration": "5"}), "prompt", "missing")
    assert refusal(post(fal, FRAMES, {"prompt": "x"}), "image_url", "missing")
    assert refusal(post(fal, FRAMES, {"prompt": "x", "image_url": None}), "image_url", "value_error")
    assert refusal(post(fal, body=[1]), "", "value_error")
    assert fal.submissions == []


def test_all_faults_are_told_at_once(fal):
    faults = post(fal, body={"duration": 5, "resolution": "8k"}).json()["detail"]
    assert [(fault["loc"][-1], fault["type"]) for fault in faults] == [
        ("prompt", "missing"),
        ("duration", "literal_error"),
        ("resolution", "literal_error"),
    ]


def test_a_body_that_is_no_json_is_a_bad_request(fal):
    response = requests.post(fal.origin + TEXT, data=b"prompt=x", headers=AUTH, timeout=20)
    assert (response.status_code, response.json()["error_type"]) == (400, "bad_request")


def urls(count, suffix):
    return [f"https://cdn.example/{index}.{suffix}" for index in range(count)]


@pytest.mark.parametrize(
    ("images", "videos", "audios", "field", "kind"),
    [
        (10, 0, 0, "image_urls", "value_error"),
        (0, 4, 0, "video_urls", "value_error"),
        (1, 0, 4, "audio_urls", "value_error"),
        (9, 3, 1, "", "value_error"),
        (0, 0, 1, "audio_urls", "value_error"),
    ],
)
def test_references_have_limits(fal, images, videos, audios, field, kind):
    body = {
        "prompt": "x",
        "image_urls": urls(images, "png"),
        "video_urls": urls(videos, "mp4"),
        "audio_urls": urls(audios, "mp3"),
    }
    assert refusal(post(fal, REFERENCES, body), field, kind)
    assert fal.submissions == []


def test_twelve_references_are_taken_and_a_text_is_no_list(fal):
    body = {"prompt": "x", "image_urls": urls(6, "png"), "video_urls": urls(3, "mp4"), "audio_urls": urls(3, "mp3")}
    assert post(fal, REFERENCES, body).status_code == 200
    assert refusal(post(fal, REFERENCES, {**body, "image_urls": "a.png"}), "image_urls", "value_error")


@pytest.mark.parametrize(
    ("path", "field", "value", "kind"),
    [
        (REFERENCES, "image_urls", ["https://cdn.example/a.bmp"], "unsupported_image_format"),
        (REFERENCES, "video_urls", ["https://cdn.example/a.webm"], "unsupported_video_format"),
        (REFERENCES, "audio_urls", ["https://cdn.example/a.m4a"], "unsupported_audio_format"),
        (REFERENCES, "image_urls", ["ftp://cdn.example/a.png"], "file_download_error"),
        (FRAMES, "image_url", "https://cdn.example/a.GIF?x=1", "unsupported_image_format"),
        (FRAMES, "end_image_url", "https://cdn.example/a.tiff", "unsupported_image_format"),
        (FRAMES, "end_image_url", "http://[", "file_download_error"),
    ],
)
def test_references_that_cannot_be_read_fail_in_the_task(fal, path, field, value, kind):
    fields = {"image_url": "https://cdn.example/ok.png", "image_urls": ["https://cdn.example/ok.png"], field: value}
    job = finished(fal, path=path, **fields)
    assert get(job["status_url"]).json()["status"] == "COMPLETED"
    assert refusal(get(job["response_url"]), field, kind)


def test_a_broken_input_may_be_found_by_the_task_only(fal):
    fal.knobs["validation"] = "job"
    job = post(fal, FRAMES, {"prompt": "x", "image_url": 5, "duration": "5"}).json()
    fal.skip(110.1)
    assert refusal(get(job["response_url"]), "image_url", "value_error")
    assert len(fal.submissions) == 1


@pytest.mark.parametrize(
    "header",
    [
        {"X-Fal-Request-Timeout": "1"},
        {"X-Fal-Request-Timeout": "soon"},
        {"X-Fal-Queue-Priority": "high"},
        {"X-Fal-Object-Lifecycle-Preference": "week"},
    ],
)
def test_headers_that_make_no_sense_are_bad_requests(fal, header):
    response = post(fal, headers={**AUTH, **header})
    assert (response.status_code, response.json()["error_type"]) == (400, "bad_request")
    assert fal.submissions == []


def test_a_webhook_has_to_be_a_url(fal):
    assert post(fal, query="?fal_webhook=hooks").status_code == 400
    assert fal.submissions == []


# §3, §4: status and result


def test_a_request_waits_runs_and_completes(fal):
    job = submitted(fal)
    urls_of_job = {name: job[name] for name in ("response_url", "status_url", "cancel_url")}
    status = get(f"{job['status_url']}?logs=1")
    assert status.status_code == 202
    assert status.headers["x-fal-request-id"] == job["request_id"]
    assert status.json() == {
        "status": "IN_QUEUE",
        "request_id": job["request_id"],
        "queue_position": 0,
        **urls_of_job,
    }
    result = get(job["response_url"])
    assert (result.status_code, result.json()) == (400, {"detail": "Request is still in progress"})

    fal.skip(10.1)
    status = get(f"{job['status_url']}?logs=1")
    assert status.status_code == 202
    assert status.json() == {"status": "IN_PROGRESS", "request_id": job["request_id"], "logs": [], **urls_of_job}
    assert get(job["response_url"]).status_code == 400

    fal.skip(100)
    status = get(f"{job['status_url']}?logs=1")
    assert status.status_code == 200
    assert status.json() == {
        "status": "COMPLETED",
        "request_id": job["request_id"],
        "logs": [],
        "metrics": {"inference_time": 100.0},
        **urls_of_job,
    }
    assert "logs" not in get(job["status_url"]).json()


def test_older_deployments_answer_200_always(fal):
    job = submitted(fal, "pending-code=200")
    response = get(job["status_url"])
    assert (response.status_code, response.json()["status"]) == (200, "IN_QUEUE")


def test_only_owner_and_app_are_in_the_paths_of_a_request(fal):
    job = submitted(fal)
    path = f"/requests/{job['request_id']}/status"
    assert get(fal.origin + TEXT + path).status_code == 405
    assert get(fal.origin + TEXT).status_code == 405
    assert get(f"{fal.origin}/bytedance/seedance-2.5{path}").status_code == 404
    assert get(f"{fal.origin}{APP}/requests/{job['request_id']}/other").status_code == 404
    assert requests.post(job["status_url"], headers=AUTH, timeout=20).status_code == 405
    for suffix in ("", "/status", "/response"):
        response = get(f"{fal.origin}{APP}/requests/unknown{suffix}")
        assert (response.status_code, response.json()) == (404, {"detail": "Request not found"})


def test_the_result_is_a_real_video_of_what_was_asked(fal, tmp_path):
    job = finished(fal, generate_audio=False)
    result = get(job["response_url"])
    body = result.json()
    assert result.status_code == 200
    assert result.headers["x-fal-request-id"] == job["request_id"]
    assert float(result.headers["X-Fal-Billable-Units"]) == 4
    assert body.keys() == {"video", "seed"}
    assert isinstance(body["seed"], int)
    video = body["video"]
    assert video["content_type"] == "video/mp4"
    assert urlsplit(video["url"]).path.startswith("/files/b/")
    assert video["url"].endswith(f"/{video['file_name']}")
    assert video["file_name"].endswith("_out.mp4")

    download = get(video["url"], headers={})
    assert (download.status_code, download.headers["Content-Type"]) == (200, "video/mp4")
    assert len(download.content) == video["file_size"]
    path = tmp_path / "out.mp4"
    path.write_bytes(download.content)
    info = media_probe.probe(path)
    assert (info.duration_ms, info.width, info.height, info.has_audio) == (4000, 640, 640, False)
    assert get(job["response_url"]).json() == body


def test_files_live_seven_days_or_as_long_as_the_header_says(fal):
    kept = finished(fal)
    short = finished(fal, headers={**AUTH, "X-Fal-Object-Lifecycle-Preference": '{"expiration_duration_seconds":3600}'})
    kept_url, short_url = (get(job["response_url"]).json()["video"]["url"] for job in (kept, short))
    fal.skip(3500)
    assert get(short_url, {}).status_code == 200
    fal.skip(101)
    assert get(short_url, {}).status_code == 404
    assert get(kept_url, {}).status_code == 200
    fal.skip(7 * 86400)
    assert get(kept_url, {}).status_code == 404
    assert get(kept["response_url"]).status_code == 200


def test_a_record_vanishes_after_thirty_days(fal):
    job = finished(fal)
    fal.skip(29 * 86400)
    assert get(job["status_url"]).status_code == 200
    fal.skip(86400)
    assert get(job["status_url"]).status_code == 404
    assert get(job["response_url"]).status_code == 404
    assert requests.put(job["cancel_url"], headers=AUTH, timeout=20).json() == {"status": "NOT_FOUND"}


def test_what_was_not_to_be_stored_has_an_empty_result(fal):
    headers = {**AUTH, "X-Fal-Store-IO": "0"}
    result = get(finished(fal, headers=headers)["response_url"])
    assert (result.status_code, result.content) == (200, b"")
    assert get(finished(fal, "store-io=kept", headers=headers)["response_url"]).json()["video"]


# §5: failures


@pytest.mark.parametrize("kind", sorted(errors.MODEL))
def test_a_models_failure_completes_and_shows_in_the_result_only(fal, kind):
    job = finished(fal, f"fail={kind}")
    status = get(job["status_url"])
    assert (status.status_code, status.json()["status"]) == (200, "COMPLETED")
    assert not {"error", "error_type"} & status.json().keys()
    result = get(job["response_url"])
    documented = {
        "internal_server_error": 500,
        "generation_timeout": 504,
        "downstream_service_error": 400,
        "downstream_service_unavailable": 500,
    }
    assert result.status_code == documented.get(kind, 422)
    [fault] = result.json()["detail"]
    assert fault["type"] == kind
    assert result.headers["X-Fal-Error-Type"] == kind
    assert result.headers["X-Fal-Retryable"] in ("true", "false")
    assert result.headers["x-fal-request-id"] == job["request_id"]
    assert "X-Fal-Billable-Units" not in result.headers


DOCUMENTED_INFRASTRUCTURE = {
    "request_timeout": 504,
    "startup_timeout": 504,
    "runner_scheduling_failure": 503,
    "runner_connection_timeout": 503,
    "runner_disconnected": 503,
    "runner_connection_refused": 503,
    "runner_connection_error": 503,
    "runner_incomplete_response": 502,
    "runner_server_error": 500,
    "internal_error": 500,
    "client_disconnected": 499,
    "client_cancelled": 499,
    "bad_request": 400,
}


@pytest.mark.parametrize(("kind", "code"), DOCUMENTED_INFRASTRUCTURE.items())
def test_a_failure_of_the_platform_shows_in_the_status_too(fal, kind, code):
    job = finished(fal, f"fail={kind}")
    status = get(job["status_url"])
    words = status.json()
    assert status.status_code == 200
    sentence = words["error"]
    assert words == {
        "status": "COMPLETED",
        "request_id": job["request_id"],
        "error": sentence,
        "error_type": kind,
        "metrics": {},
    }
    result = get(job["response_url"])
    assert (result.status_code, result.json()) == (code, {"detail": sentence, "error_type": kind})


def test_the_documented_sentences(fal):
    assert get(finished(fal, "fail=request_timeout")["status_url"]).json()["error"] == "Request timed out"
    assert get(finished(fal, "fail=runner_disconnected")["response_url"]).json()["detail"] == "Runner disconnected"


def test_the_likeness_of_a_person_reads_as_documented(fal):
    image_urls = ["https://cdn.example/ref1.png"]
    job = finished(fal, "fail=content_policy_violation/person", path=REFERENCES, image_urls=image_urls)
    assert get(job["response_url"]).json() == {
        "detail": [
            {
                "loc": ["body", "image_urls"],
                "msg": "The image could not be processed because it was flagged by a content checker.",
                "type": "content_policy_violation",
                "url": "https://docs.fal.ai/errors#content_policy_violation",
                "ctx": {"extra_info": {"reason": "partner_validation_failed"}},
                "input": image_urls,
            }
        ]
    }


def test_detail_comes_in_many_shapes(fal):
    kind = "content_policy_violation"
    sentence = errors.MODEL[kind][1]
    assert get(finished(fal, f"fail={kind}/string")["response_url"]).json() == {"detail": sentence}
    assert get(finished(fal, f"fail={kind}/object")["response_url"]).json()["detail"]["type"] == kind
    assert get(finished(fal, f"fail={kind}/no-detail")["response_url"]).json() == {}
    prose = get(finished(fal, "fail=Something went wrong: retry / later")["response_url"])
    assert (prose.status_code, prose.json()) == (422, {"detail": "Something went wrong: retry / later"})
    located = get(finished(fal, f"fail={kind}/audio_urls")["response_url"])
    assert located.json()["detail"][0]["loc"] == ["body", "audio_urls"]
    assert get(finished(fal, "fail=unsupported_moon")["response_url"]).json()["detail"][0]["type"] == "unsupported_moon"


@pytest.mark.parametrize(
    ("variant", "header", "value"),
    [
        ("", "X-Fal-Retryable", "true"),
        ("/retryable", "X-Fal-Retryable", "true"),
        ("/not-retryable", "X-Fal-Retryable", "false"),
        ("/older", "X-Fal-Needs-Retry", "true"),
        ("/no-header", "X-Fal-Retryable", None),
    ],
)
def test_the_header_that_says_whether_to_retry(fal, variant, header, value):
    result = get(finished(fal, f"fail=downstream_service_error{variant}")["response_url"])
    assert (result.status_code, result.headers.get(header)) == (400, value)


def test_a_refusal_may_come_early(fal):
    job = submitted(fal, "fail=content_policy_violation/early")
    fal.skip(15)
    assert get(job["status_url"]).json()["status"] == "IN_PROGRESS"
    fal.skip(5.1)
    assert get(job["response_url"]).status_code == 422


def test_a_request_that_does_not_start_in_time_is_given_up(fal):
    job = submitted(fal, headers={**AUTH, "X-Fal-Request-Timeout": "5"})
    in_time = submitted(fal, headers={**AUTH, "X-Fal-Request-Timeout": "30"})
    fal.skip(5.1)
    status = get(job["status_url"]).json()
    assert (status["status"], status["error"], status["error_type"]) == (
        "COMPLETED",
        "Request timed out",
        "request_timeout",
    )
    result = get(job["response_url"])
    assert (result.status_code, result.headers["X-Fal-Request-Timeout-Type"]) == (504, "user")
    fal.skip(30)
    assert get(in_time["status_url"]).json()["status"] == "IN_PROGRESS"


@pytest.mark.parametrize(
    ("code", "status", "text"),
    [
        (
            "403",
            403,
            "User is locked. Reason: Exhausted balance. Top up your balance at fal.ai/dashboard/billing.",
        ),
        ("403/access", 403, None),
        ("403/abuse", 403, None),
        ("401", 401, None),
        ("404", 404, None),
        ("429", 429, None),
        ("429/rate", 429, None),
    ],
)
def test_account_and_gateway_refuse_before_queueing(fal, code, status, text):
    response = post(fal, body={"prompt": f"x [emulate:submit=error:{code}]"})
    assert response.status_code == status
    assert response.json().keys() == {"detail"}
    assert text is None or response.json()["detail"] == text
    assert fal.submissions == []


def test_any_documented_error_may_come_at_submission(fal):
    response = post(fal, body={"prompt": "x [emulate:submit=error:content_policy_violation]"})
    assert refusal(response, "prompt", "content_policy_violation")
    response = post(fal, body={"prompt": "x [emulate:submit=error:runner_scheduling_failure]"})
    assert (response.status_code, response.json()["error_type"]) == (503, "runner_scheduling_failure")
    assert fal.submissions == []


# Knobs of submission, polling and results


@pytest.mark.parametrize(("word", "count"), [("drop", 1), ("drop-before", 0)])
def test_a_connection_may_break(fal, word, count):
    fal.knobs["submit"] = word
    with pytest.raises(requests.ConnectionError):
        post(fal)
    assert len(fal.submissions) == count


def test_an_answer_may_never_come(fal):
    with pytest.raises(requests.ReadTimeout):
        requests.post(fal.origin + TEXT, json={"prompt": "x [emulate:submit=hang]"}, headers=AUTH, timeout=(5, 0.3))
    assert len(fal.submissions) == 1


@pytest.mark.parametrize(("word", "status", "count"), [("html", 502, 0), ("late-5xx", 504, 1)])
def test_the_ingress_may_fail_before_or_after_the_fact(fal, word, status, count):
    response = post(fal, body={"prompt": f"x [emulate:submit={word}]"})
    assert (response.status_code, response.headers["Content-Type"]) == (status, "text/html")
    assert "nginx" in response.text
    assert "x-fal-request-id" not in response.headers
    assert len(fal.submissions) == count


def test_a_5xx_after_the_fact_may_name_the_request(fal):
    response = post(fal, body={"prompt": "x [emulate:submit=late-5xx/with-id]"})
    assert response.status_code == 500
    assert response.headers["x-fal-request-id"] == fal.submissions[0].task_id


def test_the_id_may_be_missing(fal):
    response = post(fal, body={"prompt": "x [emulate:submit=no-id]"})
    assert (response.status_code, response.json()) == (200, {"status": "IN_QUEUE"})
    assert fal.submissions[0].task_id not in str(response.headers)


@pytest.mark.parametrize(
    ("word", "status", "start"),
    [
        ("html", 502, b"<html>"),
        ("html-200", 200, b"<html>"),
        ("empty", 200, b""),
        ("5xx", 500, b'{"detail"'),
        ("429", 429, b'{"detail"'),
        ("404", 404, b'{"detail"'),
        ("401", 401, b'{"detail"'),
    ],
)
def test_polling_may_be_disturbed(fal, word, status, start):
    job = finished(fal)
    for knob, url in (("poll", "status_url"), ("response", "response_url")):
        fal.knobs[knob] = word
        response = get(job[url])
        assert response.status_code == status
        assert response.content.startswith(start)
        assert bool(response.content) == bool(start)
        fal.knobs.clear()
        assert get(job[url]).json()


def test_polling_may_break_the_connection(fal):
    job = submitted(fal, "poll=drop")
    with pytest.raises(requests.ConnectionError):
        get(job["status_url"])


def test_the_result_may_lag_behind_the_status(fal):
    job = finished(fal, "response=race")
    assert get(job["status_url"]).json()["status"] == "COMPLETED"
    first, second = get(job["response_url"]), get(job["response_url"])
    assert (first.status_code, first.json()) == (400, {"detail": "Request is still in progress"})
    assert second.status_code == 200


@pytest.mark.parametrize(
    ("word", "state"), [("stuck", "IN_PROGRESS"), ("unknown", "PREEMPTED"), ("queued", "IN_QUEUE")]
)
def test_a_request_may_never_end(fal, word, state):
    job = submitted(fal, f"status={word}")
    fal.skip(20 * 86400)
    response = get(job["status_url"])
    assert (response.status_code, response.json()["status"]) == (202, state)
    assert get(job["response_url"]).status_code == 400


def test_one_task_may_have_a_pace_of_its_own(fal):
    job = submitted(fal, "queued=200", "running=300")
    for seconds, state in ((150, "IN_QUEUE"), (150, "IN_PROGRESS"), (250, "COMPLETED")):
        fal.skip(seconds)
        assert get(job["status_url"]).json()["status"] == state


def test_results_may_be_bad_in_many_ways(fal, tmp_path):
    def video(word):
        return get(finished(fal, f"result={word}")["response_url"]).json()["video"]

    assert "url" not in video("no-url")
    assert get(video("gone")["url"], {}).status_code == 404

    cut = video("truncated")
    assert len(get(cut["url"], {}).content) == cut["file_size"] // 2

    page = get(video("not-video")["url"], {})
    assert (page.status_code, page.headers["Content-Type"]) == (200, "text/html")

    moved = get(video("redirect")["url"], {})
    assert (moved.status_code, urlsplit(moved.headers["Location"]).hostname) == (302, "localhost")
    assert get(moved.headers["Location"], {}).headers["Content-Type"] == "video/mp4"

    foreign = video("foreign")["url"]
    assert urlsplit(foreign).hostname == "localhost"
    assert get(foreign, {}).status_code == 200

    path = tmp_path / "short.mp4"
    path.write_bytes(get(video("short")["url"], {}).content)
    assert media_probe.probe(path).duration_ms == 2000


# §6: cancelling


def cancel(job):
    response = requests.put(job["cancel_url"], headers=AUTH, timeout=20)
    return response.status_code, response.json()


def ends_as_cancelled(job):
    status = get(job["status_url"]).json()
    assert (status["status"], status["error_type"]) == ("COMPLETED", "client_cancelled")
    result = get(job["response_url"])
    assert (result.status_code, result.json()["error_type"]) == (499, "client_cancelled")
    return True


def test_what_waits_is_taken_out_of_the_queue(fal):
    job = submitted(fal)
    assert cancel(job) == (200, {"status": "OK"})
    assert ends_as_cancelled(job)
    assert cancel(job) == (400, {"status": "ALREADY_COMPLETED"})


def test_what_runs_is_asked_to_stop_and_may_finish_all_the_same(fal):
    obeying, finishing = submitted(fal, "status=stuck"), submitted(fal, "cancel=ignored")
    fal.skip(10.1)
    assert cancel(obeying) == (202, {"status": "CANCELLATION_REQUESTED"})
    assert cancel(finishing) == (202, {"status": "CANCELLATION_REQUESTED"})
    assert ends_as_cancelled(obeying)
    assert get(finishing["status_url"]).json()["status"] == "IN_PROGRESS"
    fal.skip(100)
    assert get(finishing["response_url"]).status_code == 200


def test_what_is_over_or_unknown_cannot_be_cancelled(fal):
    assert cancel(finished(fal)) == (400, {"status": "ALREADY_COMPLETED"})
    assert cancel({"cancel_url": f"{fal.origin}{APP}/requests/unknown/cancel"}) == (404, {"status": "NOT_FOUND"})
    job = submitted(fal, "cancel=too-late")
    assert cancel(job) == (400, {"status": "ALREADY_COMPLETED"})
    assert cancel(submitted(fal, "cancel=not-found")) == (404, {"status": "NOT_FOUND"})
    assert requests.post(job["cancel_url"], headers=AUTH, timeout=20).status_code == 405
    assert requests.delete(job["cancel_url"], headers=AUTH, timeout=20).status_code == 405
    assert requests.put(job["cancel_url"], timeout=20).status_code == 401
    assert get(job["status_url"]).json()["status"] == "IN_QUEUE"


# §8: concurrency and rate


def states(jobs):
    return [get(job["status_url"]).json()["status"] for job in jobs]


def test_two_run_and_the_rest_wait():
    with served(max_concurrent=STARTING_CONCURRENCY) as fal:
        jobs = [submitted(fal) for _ in range(4)]
        assert [job["queue_position"] for job in jobs] == [0, 1, 2, 3]
        fal.skip(60)
        assert states(jobs) == ["IN_PROGRESS", "IN_PROGRESS", "IN_QUEUE", "IN_QUEUE"]
        assert [get(job["status_url"]).json()["queue_position"] for job in jobs[2:]] == [0, 1]
        assert cancel(jobs[0])[0] == 202
        assert states(jobs) == ["COMPLETED", "IN_PROGRESS", "IN_PROGRESS", "IN_QUEUE"]
        fal.skip(70)
        assert states(jobs) == ["COMPLETED", "COMPLETED", "IN_PROGRESS", "IN_PROGRESS"]
        fal.skip(100)
        assert states(jobs) == ["COMPLETED"] * 4


def test_all_run_at_once_unless_limited(fal):
    jobs = [submitted(fal) for _ in range(5)]
    fal.skip(11)
    assert states(jobs) == ["IN_PROGRESS"] * 5


def test_the_knob_wins_over_the_constructor():
    with served(max_concurrent=1) as fal:
        fal.knobs["max-concurrent"] = "0"
        jobs = [submitted(fal) for _ in range(3)]
        fal.skip(11)
        assert states(jobs) == ["IN_PROGRESS"] * 3
        fal.knobs["max-concurrent"] = "2"
        late = submitted(fal)
        fal.skip(11)
        assert states([late]) == ["IN_QUEUE"]


def test_time_that_jumps_far_lets_the_line_move_in_order():
    with served(max_concurrent=1) as fal:
        jobs = [submitted(fal) for _ in range(3)]
        fal.skip(10 + 100 + 100 + 50)
        assert states(jobs) == ["COMPLETED", "COMPLETED", "IN_PROGRESS"]
        assert get(jobs[1]["status_url"]).json()["metrics"]["inference_time"] == pytest.approx(100.0)


def test_low_priority_lets_others_pass():
    with served(max_concurrent=1) as fal:
        first = submitted(fal)
        low = submitted(fal, headers={**AUTH, "X-Fal-Queue-Priority": "low"})
        normal = submitted(fal)
        fal.skip(115)
        assert states([first, low, normal]) == ["COMPLETED", "IN_QUEUE", "IN_PROGRESS"]


def test_the_queue_may_be_given_a_longest_length(fal):
    for _ in range(3):
        submitted(fal)
    response = post(fal, query="?fal_max_queue_length=2")
    assert (response.status_code, response.json().keys()) == (429, {"detail"})
    assert len(fal.submissions) == 3
    assert post(fal, query="?fal_max_queue_length=3").status_code == 200


def test_submissions_may_be_limited_by_the_second(fal):
    fal.knobs["rate-limit"] = "10"
    fal.now = lambda: 1_000_000.0
    assert [post(fal).status_code for _ in range(12)] == [200] * 10 + [429] * 2
    assert len(fal.submissions) == 10
    fal.now = lambda: 1_000_001.0
    assert post(fal).status_code == 200


def test_ten_thousand_open_requests_do_not_slow_a_poll():
    with served(pace=Pace(queued=0, running=1000)) as fal:
        job = submitted(fal)
        headers = {"authorization": AUTH["Authorization"]}
        poll = Request("GET", urlsplit(job["status_url"]).path, {}, headers, b"")
        submission = Request("POST", TEXT, {}, headers, json.dumps(TEXT_INPUT).encode())

        def seconds():
            return min(timeit.repeat(lambda: fal.handle(poll), number=200, repeat=7))

        alone = seconds()
        for _ in range(10_000):
            assert fal.handle(submission).status == 200
        assert len(fal.submissions) == 10_001
        assert fal.handle(poll).status == 202
        assert seconds() < 5 * alone


# §7: webhooks


def test_a_webhook_tells_of_a_success(fal, inbox):
    job = finished(fal, query=with_webhook(inbox))
    path, headers, body = inbox.wait(1)
    assert path == "/hooks/fal?job=7&t=abc"
    assert json.loads(body) == {
        "request_id": job["request_id"],
        "gateway_request_id": job["request_id"],
        "status": "OK",
        "payload": get(job["response_url"]).json(),
    }
    assert headers["X-Fal-Webhook-Request-Id"] == job["request_id"]
    assert headers["X-Fal-Webhook-User-Id"] == "user_01EMULATOR"
    assert abs(time.time() - int(headers["X-Fal-Webhook-Timestamp"])) < 30
    assert len(bytes.fromhex(headers["X-Fal-Webhook-Signature"])) == 64
    assert is_signed(fal, headers, body)
    assert fal.submissions[0].callback_url == inbox.url


@pytest.mark.parametrize(
    ("kind", "error"),
    [
        ("content_policy_violation", "Invalid status code: 422"),
        ("runner_disconnected", "Invalid status code: 503"),
    ],
)
def test_a_webhook_tells_of_a_failure(fal, inbox, kind, error):
    job = finished(fal, f"fail={kind}", query=with_webhook(inbox))
    _, headers, body = inbox.wait(1)
    told = json.loads(body)
    assert (told["request_id"], told["status"], told["error"]) == (job["request_id"], "ERROR", error)
    assert told["payload"] == get(job["response_url"]).json()
    assert is_signed(fal, headers, body)


def test_a_webhook_comes_after_a_cancellation(fal, inbox):
    job = submitted(fal, query=with_webhook(inbox))
    cancel(job)
    told = json.loads(inbox.wait(1)[2])
    assert (told["status"], told["payload"]["error_type"]) == ("ERROR", "client_cancelled")


def test_a_webhook_may_lack_its_payload(fal, inbox):
    job = finished(fal, "callback=payload-error", query=with_webhook(inbox))
    told = json.loads(inbox.wait(1)[2])
    assert told.pop("payload_error").startswith("Response payload is not JSON serializable")
    assert told == {
        "request_id": job["request_id"],
        "gateway_request_id": job["request_id"],
        "status": "OK",
        "payload": None,
    }
    assert get(job["response_url"]).status_code == 200


def test_the_gateway_id_differs_after_a_retry_of_the_providers_own(fal, inbox):
    finished(fal, "retried=1", query=with_webhook(inbox))
    told = json.loads(inbox.wait(1)[2])
    assert told["request_id"] != told["gateway_request_id"]
    finished(fal, "retried=1", query=with_webhook(inbox), headers={**AUTH, "X-Fal-No-Retry": "1"})
    told = json.loads(inbox.wait(2)[2])
    assert told["request_id"] == told["gateway_request_id"]


@pytest.mark.parametrize(("timestamp", "body", "signature"), VECTORS.values(), ids=VECTORS)
def test_signatures_equal_the_vectors(timestamp, body, signature):
    with served(signing_seed=SEED) as fal:
        [key] = requests.get(f"{fal.origin}/.well-known/jwks.json", timeout=20).json()["keys"]
        assert key == {"kty": "OKP", "crv": "Ed25519", "x": "A6EHv_POEL4dcN0Y50vAmWfk1jCbpQ1fHdyGZBJVMbg"}
        headers = webhooks.headers(
            Ed25519PrivateKey.from_private_bytes(SEED),
            request_id=REQUEST_ID,
            user_id="user_01EXAMPLE",
            timestamp=timestamp,
            body=body.encode(),
        )
        assert headers == {
            "X-Fal-Webhook-Request-Id": REQUEST_ID,
            "X-Fal-Webhook-User-Id": "user_01EXAMPLE",
            "X-Fal-Webhook-Timestamp": str(timestamp),
            "X-Fal-Webhook-Signature": signature,
        }
        assert is_signed(fal, headers, body.encode())
        assert not is_signed(fal, {**headers, "X-Fal-Webhook-User-Id": "other"}, body.encode())
        assert not is_signed(fal, headers, body.replace("request_id", "Request_id").encode())


def test_webhooks_may_be_forged(fal, inbox):
    for count, word in enumerate(["bad-signature", "foreign-key", "tampered"], start=1):
        job = finished(fal, f"callback={word}", query=with_webhook(inbox))
        _, headers, body = inbox.wait(count)
        assert headers["X-Fal-Webhook-Request-Id"] == json.loads(body)["request_id"] == job["request_id"]
        assert not is_signed(fal, headers, body), word
    assert "//localhost:" in json.loads(body)["payload"]["video"]["url"]


def test_webhooks_may_be_unsigned(fal, inbox):
    finished(fal, "callback=unsigned", query=with_webhook(inbox))
    assert not [name for name in inbox.wait(1)[1] if name.lower().startswith("x-fal")]


@pytest.mark.parametrize(("word", "seconds"), [("stale", -600), ("future", 600)])
def test_webhooks_may_be_out_of_time(fal, inbox, word, seconds):
    finished(fal, f"callback={word}", query=with_webhook(inbox))
    _, headers, body = inbox.wait(1)
    assert int(headers["X-Fal-Webhook-Timestamp"]) - time.time() == pytest.approx(seconds, abs=30)
    assert is_signed(fal, headers, body)


def test_webhooks_may_name_another_request(fal, inbox):
    job = finished(fal, "callback=mismatched-id", query=with_webhook(inbox))
    _, headers, body = inbox.wait(1)
    assert headers["X-Fal-Webhook-Request-Id"] == job["request_id"] != json.loads(body)["request_id"]
    assert is_signed(fal, headers, body)
    job = finished(fal, "callback=unknown-id", query=with_webhook(inbox))
    _, headers, body = inbox.wait(2)
    assert headers["X-Fal-Webhook-Request-Id"] == json.loads(body)["request_id"] != job["request_id"]
    assert is_signed(fal, headers, body)


def test_webhooks_may_be_absent_or_come_twice_or_late(fal, inbox):
    silent, late, twice = (
        submitted(fal, f"callback={word}", query=with_webhook(inbox)) for word in ("none", "late", "twice")
    )
    fal.skip(110.1)
    inbox.wait(2)
    fal.skip(5)
    inbox.wait(3)
    told = [json.loads(body)["request_id"] for _, _, body in inbox.received]
    assert told == [twice["request_id"], twice["request_id"], late["request_id"]]
    assert get(silent["status_url"]).json()["status"] == "COMPLETED"


@pytest.mark.parametrize("word", ["early", "reordered"])
def test_a_webhook_may_come_before_the_end(fal, inbox, word):
    job = submitted(fal, f"callback={word}", query=with_webhook(inbox))
    fal.skip(10.1)
    told = json.loads(inbox.wait(1)[2])
    assert (told["request_id"], told["status"]) == (job["request_id"], "OK")
    assert get(job["status_url"]).json()["status"] == "IN_PROGRESS"
    assert get(told["payload"]["video"]["url"], {}).status_code == 404
    fal.skip(100)
    assert get(told["payload"]["video"]["url"], {}).status_code == 200
    assert len(inbox.received) == 1


def pauses(fal, count):
    """Wait until so many attempts were made and weighed; return what is still planned."""
    deadline = time.monotonic() + 20
    while time.monotonic() < deadline:
        with fal.lock:
            if fal._courier._heard_count >= count:
                return [at - fal.now() for at, _, _ in fal._line._events]
        time.sleep(0.01)
    raise AssertionError(f"{fal._courier._heard_count} attempts")


def test_a_webhook_that_is_not_taken_comes_ten_times_in_two_hours(fal, inbox):
    inbox.statuses = [500]
    finished(fal, query=with_webhook(inbox))
    total = 0.0
    for attempt in range(1, 10):
        inbox.wait(attempt)
        [pause] = pauses(fal, attempt)
        assert pause == pytest.approx(15 * 2 ** (attempt - 1), abs=5)
        fal.skip(pause)
        total += pause
    _, headers, body = inbox.wait(10)
    assert pauses(fal, 10) == []
    assert total == pytest.approx(2 * 3600, rel=0.1)
    assert is_signed(fal, headers, body)
    assert len({body for _, _, body in inbox.received}) == 1


def test_a_webhook_that_is_taken_at_last_comes_no_more(fal, inbox):
    inbox.statuses = [500, 302, 204]
    fal.knobs["callback-retry"] = "0.05"
    finished(fal, query=with_webhook(inbox))
    inbox.wait(3)
    assert pauses(fal, 3) == []
    assert [sent.status for sent in fal.callbacks.sent] == [500, 302, 204]


def published(fal):
    return [key["x"] for key in requests.get(f"{fal.origin}/.well-known/jwks.json", timeout=20).json()["keys"]]


def test_keys_can_be_rotated(fal, inbox):
    [first] = published(fal)
    fal.rotate_key(is_old_kept=True)
    kept, second = published(fal)
    assert kept == first != second
    finished(fal, "callback=rotated-key", query=with_webhook(inbox))
    _, headers, body = inbox.wait(1)
    [third] = published(fal)
    assert third not in (first, second)
    assert is_signed(fal, headers, body)
    fal.rotate_key()
    assert not is_signed(fal, headers, body)


def test_a_knob_from_outside_rotates_the_key_too(fal, inbox):
    before = published(fal)
    requests.put(f"{fal.origin}/_emulator/knobs", json={"signing-key": "two"}, timeout=20)
    assert published(fal) != before
    finished(fal, query=with_webhook(inbox))
    _, headers, body = inbox.wait(1)
    assert is_signed(fal, headers, body)
    fal.knobs["jwks"] = "5xx"
    assert requests.get(f"{fal.origin}/.well-known/jwks.json", timeout=20).status_code == 500
