"""The server: createTask, recordInfo, result files and callbacks."""

import base64
import collections
import dataclasses
import functools
import hashlib
import heapq
import hmac
import json
import math
import time
from typing import Any, ClassVar
from urllib.parse import urlsplit

from providers.emulators import files
from providers.emulators.kie import faults, schema
from providers.emulators.server import (
    DROPPED,
    HTML,
    HUNG,
    Emulator,
    Pace,
    Request,
    Response,
    Submission,
    json_response,
    video_response,
)

MEDIA_SECONDS = 14 * 86_400.0
RECORD_SECONDS = 60 * 86_400.0
RATE_WINDOW_SECONDS = 10.0
LATE_URL_SECONDS = 2.0
LATE_CALLBACK_SECONDS = 5.0
REORDER_SECONDS = 1.0
STALE_SECONDS = 3600.0
CREDITS_PER_SECOND = 41
_STATES = ("waiting", "queuing", "generating")
_ENDLESS = {"stuck", "waiting", "queuing", "unknown", "missing", "no-data"}
_EVIL_RESULT = json.dumps({"resultUrls": ["https://attacker.example/evil.mp4"]})


@dataclasses.dataclass(frozen=True, slots=True)
class Task:
    """One task, with times in seconds of the emulator; `input` has the defaults filled in, `param` is as received."""

    id: str
    model: str
    param: str
    input: dict[str, Any]
    created_at: float
    queued: float
    running: float
    failure: tuple[str, str] | None
    token: str

    @property
    def prompt(self) -> str:
        """Return the prompt as received."""
        return str(self.input["prompt"])

    @property
    def ends_at(self) -> float:
        """Return when it succeeds or fails."""
        return self.created_at + self.queued + self.running

    def state(self, at: float, last: str = "") -> tuple[str, float]:
        """Return the state at that time and since when; `last` is one that it never leaves."""
        begins = (self.created_at, self.created_at + self.queued / 2, self.created_at + self.queued)
        for state, begin, end in zip(_STATES, begins, (*begins[1:], self.ends_at), strict=True):
            if at < end or state == last:
                return state, begin
        return "fail" if self.failure else "success", self.ends_at


class KieEmulator(Emulator):
    """Kie.ai on loopback; `hmac_key` is the console's `webhookHmacKey`, callbacks are unsigned while it is empty."""

    name: ClassVar[str] = "kie"

    def __init__(self, *, key: str = "emulator-key", pace: Pace | None = None, hmac_key: str = "") -> None:
        super().__init__(key=key, pace=pace)
        self.hmac_key = hmac_key
        self._tasks: dict[str, Task] = {}
        self._tasks_by_token: dict[str, Task] = {}
        self._last_number = 0
        self._recent: collections.deque[float] = collections.deque()
        self._open: list[float] = []
        """A heap of the times at which open tasks end."""

    def handle(self, request: Request) -> Response:
        """Answer createTask and recordInfo; there is nothing else."""
        action = {
            ("POST", "/api/v1/jobs/createTask"): self._create,
            ("GET", "/api/v1/jobs/recordInfo"): self._show,
        }.get((request.method, request.path))
        if action is None:
            return self._refusal(404, status=404)
        if request.headers.get("authorization") != f"Bearer {self.key}":
            return self._refusal(401)
        return action(request)

    def file(self, request: Request) -> Response:
        """Answer for a result: anybody may fetch it, for 14 days."""
        token, _, name = request.path.removeprefix("/files/").partition("/")
        task = self._tasks_by_token.get(token)
        now = self.now()
        if task is None or request.method not in ("GET", "HEAD"):
            return Response(404)
        result = self.knob("result", task.prompt)
        if task.state(now)[0] != "success" or now >= task.ends_at + MEDIA_SECONDS or result == "gone":
            return Response(404)
        if name == "last.png":
            return self._picture(task)
        if name == "elsewhere.mp4":
            return _video(task)
        if name not in ("out", "out.mp4"):
            return Response(404)
        if result == "redirect":
            return Response(302, headers={"Location": f"{self._other_origin()}/files/{token}/elsewhere.mp4"})
        if result == "not-video":
            return Response(200, b"<html><body>Not here</body></html>", {"Content-Type": "text/html"})
        video = _video(task, duration=task.input["duration"] // (2 if result == "short" else 1))
        if result == "truncated":
            return dataclasses.replace(video, body=video.body[: len(video.body) // 2])
        return video

    def _create(self, request: Request) -> Response:
        body = request.json()
        given = body.get("input") if isinstance(body, dict) else None
        prompt = str(given.get("prompt", "")) if isinstance(given, dict) else ""
        how = self.knob("submit", prompt)
        if how in ("drop-before", "html"):
            return DROPPED if how == "drop-before" else HTML
        if how.startswith("error:"):
            variant = how.removeprefix("error:")
            return self._refusal(int(variant[:3]), faults.text_of(variant), prompt=prompt)
        if not isinstance(body, dict):
            return self._refusal(400)
        try:
            schema.check(
                body,
                accepts_adaptive=self.knob("adaptive", prompt) != "refused",
                accepts_extra_keys=self.knob("extra-keys", prompt) != "refused",
            )
        except schema.Invalid as error:
            return self._refusal(422, str(error), prompt=prompt)
        task = self._admit(body, prompt)
        if isinstance(task, Response):
            return task
        self._schedule_callbacks(task, body.get("callBackUrl", ""))
        return self._acknowledge(task, how)

    def _admit(self, body: dict[str, Any], prompt: str) -> Task | Response:
        queued = float(self.knob("queued", prompt) or self.pace.queued)
        running = float(self.knob("running", prompt) or self.pace.running)
        with self.lock:
            now = self.now()
            while self._recent and self._recent[0] <= now - RATE_WINDOW_SECONDS:
                self._recent.popleft()
            while self._open and self._open[0] <= now:
                heapq.heappop(self._open)
            if len(self._recent) >= float(self.knob("rate-limit") or math.inf):
                return self._refusal(429, faults.text_of("429/rate"), prompt=prompt)
            if len(self._open) >= float(self.knob("max-concurrent") or math.inf):
                return self._refusal(429, faults.text_of("429/concurrent"), prompt=prompt)
            self._last_number = max(self._last_number + 1, int(now * 1000))
            task_id = f"task_bytedance_{self._last_number}"
            task = Task(
                id=task_id,
                model=body["model"],
                param=json.dumps({"model": body["model"], "input": body["input"]}),
                input=schema.DEFAULTS | body["input"],
                created_at=now,
                queued=queued,
                running=running,
                failure=faults.failure_of(self.knob("fail", prompt)),
                token=hashlib.sha256(f"{self.key}.{task_id}".encode()).hexdigest()[:32],
            )
            self._tasks[task_id] = self._tasks_by_token[task.token] = task
            self._recent.append(now)
            heapq.heappush(self._open, math.inf if self.knob("status", prompt) in _ENDLESS else task.ends_at)
        self.record(Submission(task_id, task.model, prompt, body.get("callBackUrl", ""), now))
        return task

    def _acknowledge(self, task: Task, how: str) -> Response:
        replies = {
            "drop": DROPPED,
            "hang": HUNG,
            "late-5xx": self._refusal(500, prompt=task.prompt),
            "late-html": HTML,
            "empty": Response(),
            "no-id": json_response({"code": 200, "msg": "success", "data": {}}),
            "no-data": json_response({"code": 200, "msg": "success", "data": None}),
        }
        return replies.get(how) or json_response({"code": 200, "msg": "success", "data": {"taskId": task.id}})

    def _show(self, request: Request) -> Response:
        task_id = request.query.get("taskId", [""])[0]
        task = self._tasks.get(task_id)
        now = self.now()
        if task is not None and now >= task.created_at + RECORD_SECONDS:
            task = None
        prompt = task.prompt if task else ""
        how = self.knob("poll", prompt)
        replies = {"drop": DROPPED, "hang": HUNG, "html": HTML, "empty": Response()}
        if how in replies:
            return replies[how]
        if how == "html-200":
            return dataclasses.replace(HTML, status=200)
        if how == "5xx" or how.isdecimal():
            return self._refusal(500 if how == "5xx" else int(how), prompt=prompt)
        if not task_id:
            return self._refusal(422, "taskId is required")
        unseen = json_response({"code": 200, "msg": "success", "data": None})
        if task is None:
            word = self.knob("unknown-id", default="404")
            return unseen if word == "null" else self._refusal(int(word), "recordInfo is null")
        status = self.knob("status", prompt)
        if status == "no-data" or now < task.created_at + float(self.knob("lag", prompt, "0")):
            return unseen
        data = self._data(task, now, "generating" if status == "stuck" else status)
        if status == "unknown":
            data["state"] = "paused"
        if status == "missing":
            del data["state"]
        return json_response({"code": 200, "msg": "success", "data": data})

    def _data(self, task: Task, at: float, last: str = "") -> dict[str, Any]:
        state, since = task.state(at, last)
        param = self.knob("param", task.prompt)
        data: dict[str, Any] = {
            "taskId": task.id,
            "model": task.model,
            "state": state,
            "param": {"empty": "", "null": None}.get(param, task.param),
            "resultJson": "",
            "failCode": "",
            "failMsg": "",
            "costTime": 0,
            "completeTime": 0,
            "createTime": _milliseconds(task.created_at),
            "updateTime": _milliseconds(since),
        }
        if state not in ("success", "fail"):
            return data
        data["completeTime"] = data["updateTime"]
        credit_count = self.knob("credits", task.prompt)
        if task.failure:
            code, data["failMsg"] = task.failure
            data["failCode"] = int(code) if self.knob("fail-code", task.prompt) == "int" else code
        else:
            data["costTime"] = data["completeTime"] - data["createTime"]
            data["resultJson"] = self._result(task, at)
            credit_count = credit_count or str(CREDITS_PER_SECOND * task.input["duration"])
        return data | ({"creditsConsumed": int(credit_count)} if credit_count else {})

    def _result(self, task: Task, at: float) -> str | None:
        how = self.knob("result", task.prompt)
        if how == "no-url" or (how == "late-url" and at < task.ends_at + LATE_URL_SECONDS):
            return ""
        if how == "null-json":
            return None
        if how == "empty-list":
            return json.dumps({"resultUrls": []})
        origin = self._other_origin() if how == "foreign" else self.origin
        folder = f"{origin}/files/{task.token}"
        result: dict[str, Any] = {"resultUrls": [f"{folder}/out" if how == "bare" else f"{folder}/out.mp4"]}
        place = self.knob("last-frame", task.prompt, "second-url")
        if task.input.get("return_last_frame") and place != "missing":
            picture_url = f"{self.file_url(task.token)}/last.png"
            if place in ("first-url", "second-url"):
                result["resultUrls"].insert(0 if place == "first-url" else 1, picture_url)
            else:
                result[place] = picture_url
        text = json.dumps(result)
        return text[: len(text) // 2] if how == "bad-json" else text

    def _schedule_callbacks(self, task: Task, url: str) -> None:
        words = set(self.knob("callback", task.prompt).split(","))
        if not url or "none" in words or self.knob("status", task.prompt) in _ENDLESS:
            return
        data = self._data(task, task.ends_at)
        if "tampered" in words:
            data |= {"state": "success", "resultJson": _EVIL_RESULT, "failCode": "", "failMsg": ""}
        if "other-id" in words:
            data["taskId"] += "0"
        if "task_id" in words:
            data = {"task_id": data.pop("taskId"), **data}
        code, text = (501, data["failMsg"]) if data["state"] == "fail" else (200, "success")
        body = json.dumps({"code": code, "msg": text, "data": data}).encode()
        delay = 0.0 if "early" in words else task.queued + task.running
        delay += LATE_CALLBACK_SECONDS if "late" in words else 0.0
        send = functools.partial(self.callbacks.send, url)
        send(body, self._signature(task.id, delay, words), delay=delay)
        if "twice" in words:
            send(body, self._signature(task.id, delay, words), delay=delay)
        if "reordered" in words:
            old = {"code": 200, "msg": "success", "data": self._data(task, task.created_at + task.queued, "generating")}
            send(json.dumps(old).encode(), self._signature(task.id, delay, words), delay=delay + REORDER_SECONDS)

    def _signature(self, task_id: str, delay: float, words: set[str]) -> dict[str, str]:
        """Return the headers of Kie sheet §6 for a callback that leaves in `delay` seconds of the real clock."""
        key = self.hmac_key
        if "bad-signature" in words:
            key += "-of-somebody-else"
        if not key or "unsigned" in words:
            return {}
        timestamp = str(int(time.time() + delay - (STALE_SECONDS if "stale" in words else 0.0)))
        digest = hmac.digest(key.encode(), f"{task_id}.{timestamp}".encode(), "sha256")
        headers = {"X-Webhook-Timestamp": timestamp, "X-Webhook-Signature": base64.b64encode(digest).decode()}
        return {name: value for name, value in headers.items() if f"no-{name.rpartition('-')[2].lower()}" not in words}

    def _picture(self, task: Task) -> Response:
        if not task.input.get("return_last_frame"):
            return Response(404)
        given = task.input
        body = files.last_frame(
            prompt=task.prompt,
            duration=given["duration"],
            resolution=given["resolution"],
            ratio=given["aspect_ratio"],
        )
        return Response(200, body, {"Content-Type": "image/png"})

    def _other_origin(self) -> str:
        """Return an origin that is not the provider's and yet answers, so that a test sees who goes there."""
        parts = urlsplit(self.origin)
        return f"http://{'127.0.0.1' if parts.hostname == 'localhost' else 'localhost'}:{parts.port}"

    def _refusal(self, code: int, text: str = "", *, prompt: str = "", status: int = 200) -> Response:
        return faults.refusal(code, text, text_key=self.knob("text-key", prompt), status=status)


def _video(task: Task, duration: int | None = None) -> Response:
    given = task.input
    return video_response(
        prompt=task.prompt,
        duration=duration or given["duration"],
        resolution=given["resolution"],
        ratio=given["aspect_ratio"],
        has_audio=given["generate_audio"],
        has_mark=False,
    )


def _milliseconds(seconds: float) -> int:
    return int(seconds * 1000)
