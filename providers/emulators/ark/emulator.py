"""Ark's routes: what each request does to the tasks."""

import contextlib
import dataclasses
import hmac
import secrets
import string
import threading
import time
from collections import deque
from collections.abc import Iterator, Mapping
from typing import Any, Literal

from providers.emulators.ark import rules, tasks
from providers.emulators.ark.documents import Documents
from providers.emulators.ark.errors import Refused, failure
from providers.emulators.ark.notices import Notices
from providers.emulators.ark.tasks import Lane, Task
from providers.emulators.server import (
    DROPPED,
    HTML,
    HUNG,
    MAX_BODY_BYTES,
    Emulator,
    Pace,
    Request,
    Response,
    Submission,
    json_response,
)

_PREFIXES = {"byteplus": "dreamina-", "volcengine": "doubao-"}
_ENDED = (tasks.SUCCEEDED, tasks.FAILED, tasks.EXPIRED)
_STATUSES = (tasks.QUEUED, tasks.RUNNING, *_ENDED, tasks.CANCELLED)
_POLL_CODES = {
    "5xx": "InternalServiceError",
    "429": "AccountRateLimitExceeded",
    "404": "NotFound",
    "401": "AuthenticationError",
}
_POLL_ANSWERS = {"html": dataclasses.replace(HTML, status=200), "empty": Response(200), "drop": DROPPED}
_LATE_ANSWERS = {"drop": DROPPED, "hang": HUNG, "late-html": HTML, "no-id": json_response({})}
_TICK_SECONDS = 0.02
_LETTERS = string.ascii_lowercase + string.digits


class ArkEmulator(Emulator):
    """Ark in one cloud, which decides the prefix of the model ids; `endpoints` maps `ep-…` ids to model ids."""

    name = "ark"
    base_path = "/api/v3"

    def __init__(
        self,
        *,
        key: str = "emulator-key",
        pace: Pace | None = None,
        cloud: Literal["byteplus", "volcengine"] = "byteplus",
        endpoints: Mapping[str, str] | None = None,
    ) -> None:
        super().__init__(key=key, pace=pace)
        self._models = {_PREFIXES[cloud] + name: model for name, model in rules.MODELS.items()}
        self._endpoints = dict(endpoints or {})
        self._tasks: dict[str, Task] = {}
        self._media: dict[str, Task] = {}
        self._lanes = {model_id: Lane() for model_id in self._models}
        self._creates: dict[str, deque[float]] = {model_id: deque() for model_id in self._models}
        self._documents = Documents(self)
        self._notices = Notices(self, self._documents)

    @contextlib.contextmanager
    def serving(self, host: str = "127.0.0.1", port: int = 0) -> Iterator[str]:
        """Serve as every emulator does, and send callbacks."""
        stopping = threading.Event()
        thread = threading.Thread(target=self._tell_changes, args=(stopping,), daemon=True)
        with super().serving(host, port) as base_url:
            thread.start()
            try:
                yield base_url
            finally:
                stopping.set()
                thread.join()

    def handle(self, request: Request) -> Response:
        """Answer one request under /api/v3; every answer carries a request id."""
        request_id = self._media_name()
        try:
            response = self._route(request, request_id)
        except Refused as refused:
            response = json_response(refused.body(request_id), refused.status)
        return dataclasses.replace(response, headers={**response.headers, "X-Request-Id": request_id})

    def _route(self, request: Request, request_id: str) -> Response:
        if not hmac.compare_digest(request.headers.get("authorization", "").encode(), f"Bearer {self.key}".encode()):
            raise Refused("AuthenticationError")
        root = f"{self.base_path}/contents/generations/tasks"
        task_id = request.path.removeprefix(f"{root}/")
        if request.method == "POST" and (request.path == root or task_id != request.path):
            # Also below a task: there is no /cancel, such a POST creates (§6).
            return self._create(request, request_id)
        if request.method == "GET" and request.path == root:
            return self._list(request.query)
        if request.method == "GET" and request.path == f"{self.base_path}/models":
            # Not all of them, as with Ark (§1).
            known = [{"id": model_id, "object": "model"} for model_id in self._models if "mini" not in model_id]
            return json_response({"object": "list", "data": known})
        if task_id != request.path and request.method == "GET":
            return self._get(task_id)
        if task_id != request.path and request.method == "DELETE":
            return self._delete(task_id)
        raise Refused("NotFound")

    # Create

    def _create(self, request: Request, request_id: str) -> Response:
        if int(request.headers.get("content-length") or 0) > MAX_BODY_BYTES:
            fault = Refused("InvalidParameter", "The size of the request body exceeds 64 MB.")
            return json_response(fault.body(request_id), fault.status, {"Connection": "close"})
        body = request.json()
        if not isinstance(body, dict):
            raise Refused("InvalidParameter", "The request body is not a valid JSON object.")
        prompt = rules.prompt_of(body)
        fault_word = self.knob("submit", prompt)
        if fault_word.startswith("error:"):
            raise Refused(fault_word.removeprefix("error:"))
        if fault_word in ("drop-before", "html"):
            return DROPPED if fault_word == "drop-before" else HTML
        model_id = self._model_id(body.get("model"))
        self._count_create(model_id)
        order = rules.check(
            body,
            model=self._models[model_id],
            model_id=model_id,
            max_seed=int(self.knob("max-seed", prompt, str(2**31 - 1))),
            is_audio_usual=self.knob("default-audio", prompt, "true") == "true",
        )
        task = self._store(order)
        answer = json_response({"id": task.id})
        if fault_word.startswith("delay:"):
            return dataclasses.replace(answer, delay=float(fault_word.removeprefix("delay:")))
        if fault_word == "late-5xx":
            raise Refused("InternalServiceError")
        return _LATE_ANSWERS.get(fault_word, answer)

    def _model_id(self, asked: Any) -> str:
        if asked is None or asked == "":
            raise Refused("MissingParameter", "", "model")
        if not isinstance(asked, str):
            raise Refused("InvalidParameter", "must be a string", "model")
        model_id = self._endpoints.get(asked, asked)
        if model_id not in self._models:
            text = f"The model or endpoint {asked} does not exist or you do not have access to it."
            raise Refused("InvalidEndpointOrModel.NotFound", text)
        return model_id

    def _count_create(self, model_id: str) -> None:
        limit = int(self.knob("rate-limit", default="0"))
        if not limit:
            return
        with self.lock:
            created, now = self._creates[model_id], self.now()
            while created and created[0] <= now - 60:
                created.popleft()
            if len(created) >= limit:
                raise Refused("ModelAccountRpmRateLimitExceeded")
            created.append(now)

    def _store(self, order: rules.Order) -> Task:
        wish = self.knob("fail", order.prompt)
        with self.lock:
            now, lane = self.now(), self._lanes[order.model_id]
            self._advance()
            if lane.queued_count >= float(self.knob("max-queued", default="inf")):
                raise Refused("QuotaExceeded")
            task = Task(
                id=self._new_id(now),
                order=order,
                created_at=now,
                queued_seconds=float(self.knob("queued", order.prompt, str(self.pace.queued))),
                running_seconds=float(self.knob("running", order.prompt, str(self.pace.running))),
                failure=failure(wish) if wish else None,
                oddity=self.knob("status", order.prompt),
                notice=self.knob("callback", order.prompt),
                media_name=self._media_name(),
                wishes=order.prompt if "[emulate:" in order.prompt else "",
            )
            self._tasks[task.id] = self._media[task.media_name] = task
            lane.join(task)
            self._notices.watch(task, task.created_at, task.expires_at)
            self.record(Submission(task.id, order.asked_model, order.prompt, order.callback_url, now))
        return task

    def _new_id(self, now: float) -> str:
        while True:
            tail = "".join(secrets.choice(_LETTERS) for _ in range(5))
            task_id = f"cgt-{time.strftime('%Y%m%d%H%M%S', time.gmtime(now))}-{tail}"
            if task_id not in self._tasks:
                return task_id

    def _media_name(self) -> str:
        return f"02{int(self.now() * 1000)}{secrets.token_hex(16)}"

    # Read

    def _advance(self) -> None:
        now, limit = self.now(), float(self.knob("max-concurrent", default="inf"))
        with self.lock:
            for lane in self._lanes.values():
                for task in lane.advance(now, limit):
                    self._notices.watch(task, task.starts_at, task.ends_at)

    def _find(self, task_id: str) -> Task:
        self._advance()
        task = self._tasks.get(task_id)
        if task is None or not task.is_kept(self.now()):
            raise Refused("NotFound", f"The specified task {task_id} is not found.")
        return task

    def _get(self, task_id: str) -> Response:
        known = self._tasks.get(task_id)
        broken = self._poll_fault(known.wishes if known else "")
        if broken:
            return broken
        task = self._find(task_id)
        return json_response(self._documents.show(task, self.now()))

    def _poll_fault(self, wishes: str) -> Response | None:
        word = self.knob("poll", wishes)
        code = _POLL_CODES.get(word) or (word.startswith("error:") and word.removeprefix("error:"))
        if code:
            raise Refused(code)
        return _POLL_ANSWERS.get(word)

    def _list(self, query: Mapping[str, list[str]]) -> Response:
        broken = self._poll_fault("")
        if broken:
            return broken
        page, size = _whole(query, "page_num", 1, 1, 10**9), _whole(query, "page_size", 10, 1, 500)
        status, model, tier = (query.get(f"filter.{name}", [""])[0] for name in ("status", "model", "service_tier"))
        if status not in ("", *_STATUSES):
            raise Refused("InvalidParameter", "unknown status", "filter.status")
        now, ids = self.now(), query.get("filter.task_ids")
        self._advance()
        with self.lock:
            found = list(self._tasks.values()) if ids is None else [self._tasks.get(task_id) for task_id in set(ids)]
        # Every task here is of the default tier; those of the flex tier were made by older models (§3.4).
        kept = [
            task
            for task in found
            if task is not None
            and task.is_kept(now)
            and (not status or task.state(now)[0] == status)
            and model in ("", task.order.asked_model)
            and tier in ("", "default")
        ]
        kept.sort(key=lambda task: (task.created_at, task.id), reverse=True)
        shown = kept[(page - 1) * size : page * size]
        return json_response(
            {"items": [self._documents.show(task, now, is_polled=False) for task in shown], "total": len(kept)}
        )

    # Delete

    def _delete(self, task_id: str) -> Response:
        word = self.knob("delete")
        if word.startswith("error:"):
            raise Refused(word.removeprefix("error:"))
        if word == "html":
            return HTML
        with self.lock:
            task = self._find(task_id)
            status = task.state(self.now())[0]
            if status == tasks.QUEUED:
                task.cancelled_at = self.now()
                self._lanes[task.order.model_id].leave(task)
            elif status in _ENDED:
                del self._tasks[task.id], self._media[task.media_name]
            elif status in (tasks.RUNNING, tasks.UNDOCUMENTED_STATUS):
                raise Refused("InvalidAction.RunningTaskDeletion")
            else:
                raise Refused("InvalidAction", f"The task is {status} and cannot be deleted.")
        return DROPPED if word == "drop" else Response(200)

    def _tell_changes(self, stopping: threading.Event) -> None:
        while not stopping.wait(_TICK_SECONDS):
            with self.lock:
                self._advance()
                self._notices.tell()

    def file(self, request: Request) -> Response:
        """Answer a link to a video or a last frame."""
        media_name = request.path.rpartition("/")[2].partition(".")[0].removesuffix("_last")
        return self._documents.file(self._media.get(media_name), request)


def _whole(query: Mapping[str, list[str]], name: str, default: int, low: int, high: int) -> int:
    text = query.get(name, [str(default)])[0]
    if not text.isdecimal() or not low <= int(text) <= high:
        raise Refused("InvalidParameter", f"must be a whole number from {low} to {high}", name)
    return int(text)
