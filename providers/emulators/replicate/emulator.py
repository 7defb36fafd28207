"""The HTTP side of the emulated Replicate: creating, reading, listing and cancelling predictions, and their videos."""

import base64
import collections
import contextlib
import time
from collections.abc import Iterator, Mapping
from typing import Any

from providers.emulators.callbacks import unix_time
from providers.emulators.replicate import inputs, limits, problems, webhooks
from providers.emulators.replicate.predictions import NEVER, UNKNOWN_STATUS, Prediction
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

LATE_SECONDS = 5.0
REORDERED_SECONDS = 0.3
SLOW_CANCEL_SECONDS = 1.0
MAX_WAIT_SECONDS = 60
RULE_CHECK_SECONDS = 0.05
"""How long a model runs until it finds its input wrong."""


class ReplicateEmulator(Emulator):
    """Replicate on loopback."""

    name = "replicate"
    base_path = "/v1"

    def __init__(self, *, key: str = "emulator-key", pace: Pace | None = None) -> None:
        super().__init__(key=key, pace=pace)
        self.secret = webhooks.new_secret()
        self._predictions: dict[str, Prediction] = {}
        self._in_order: list[Prediction] = []
        self._by_file: dict[str, Prediction] = {}
        self._waiting: collections.deque[Prediction] = collections.deque()
        self._admitted: list[Prediction] = []
        self._rate_limit = limits.RateLimit()
        self._schedule = webhooks.Schedule(self.now)

    @contextlib.contextmanager
    def serving(self, host: str = "127.0.0.1", port: int = 0) -> Iterator[str]:
        """Serve in the background and yield the base URL."""
        self._schedule.start()
        try:
            with super().serving(host, port) as base_url:
                yield base_url
        finally:
            self._schedule.stop()

    def skip(self, seconds: float) -> None:
        """Let the provider's time jump ahead; what falls due meanwhile is sent."""
        super().skip(seconds)
        self._schedule.wake()

    def rotate_secret(self) -> str:
        """Sign from now on with a new secret, and return it."""
        self.secret = webhooks.new_secret()
        return self.secret

    def handle(self, request: Request) -> Response:
        """Answer one request; whoever has no valid key learns nothing else."""
        if request.headers.get("authorization") != f"Bearer {self.key}":
            return problems.problem("401", request.path)
        parts = request.path.strip("/").split("/")
        is_creation = request.method == "POST" and parts[-1:] == ["predictions"]
        if limit := self.knob("rate-limit"):
            with self.lock:
                pause = self._rate_limit.take(self.now(), limit, is_creation=is_creation)
            if pause:
                return problems.throttled(pause, has_low_credit=is_creation and limit == limits.LOW_CREDIT)
        match (request.method, parts):
            case ("POST", ["v1", "models", owner, model, "predictions"]):
                return self._create(request, f"{owner}/{model}")
            case ("POST", ["v1", "predictions"]):
                return self._create(request, None)
            case ("GET", ["v1", "predictions"]):
                return self._broken("list", "", request) or self._list(request)
            case ("GET", ["v1", "predictions", prediction_id]):
                prediction = self._predictions.get(prediction_id)
                broken = self._broken("poll", prediction.prompt if prediction else "", request)
                return broken or self._shown(prediction, request)
            case ("POST", ["v1", "predictions", prediction_id, "cancel"]):
                return self._cancel(self._predictions.get(prediction_id), request)
            case ("GET", ["v1", "webhooks", "default", "secret"]):
                return self._broken("secret", "", request) or json_response({"key": self.secret})
        return problems.problem("404", request.path)

    # Creating

    def _create(self, request: Request, model: str | None) -> Response:
        body = request.json()
        if not isinstance(body, dict):
            return problems.problem("400", request.path)
        version = "hidden"
        if model is None:
            model, version = inputs.model_of(body.get("version")), str(body.get("version"))
            if model is None:
                return problems.invalid([("version", "The specified version does not exist")], request.path)
        given = body.get("input")
        prompt = given.get("prompt") if isinstance(given, dict) else ""
        word = self.knob("submit", prompt if isinstance(prompt, str) else "")
        if word == "drop-before":
            return DROPPED
        if word == "html":
            return HTML
        if word.startswith("error:"):
            return problems.problem(word.removeprefix("error:"), request.path)
        if model not in inputs.MODELS or (model == inputs.MINI and self.knob("mini") == "absent"):
            return problems.problem("404", request.path)
        if refusal := self._refusal(body, model, request):
            return refusal
        prediction = self._store(body, model, version, request.headers.get("cancel-after", ""))
        if word in ("drop", "hang"):
            return DROPPED if word == "drop" else HUNG
        if word == "late-5xx":
            return problems.problem("500", request.path)
        self._wait(prediction, request.headers.get("prefer", ""))
        view = self._view(prediction, self.now())
        if word == "no-id":
            view = {name: value for name, value in view.items() if name not in ("id", "urls")}
        return json_response(view, 201)

    def _refusal(self, body: Mapping[str, Any], model: str, request: Request) -> Response | None:
        found = inputs.faults(
            body,
            model=model,
            are_others_taken=self.knob("unknown-fields") == "ignore",
            has_full_hd=self.knob("full-hd") == "yes",
        )
        if not found and self.knob("rules") == "schema" and (fault := inputs.rule_fault(body["input"])):
            found.append(fault)
        header = request.headers.get("cancel-after")
        if header is not None and inputs.cancel_after(header) is None:
            found.append(("Cancel-After", "Must be a duration of 5 seconds or more, such as 90s, 5m or 1h"))
        return problems.invalid(found, request.path) if found else None

    def _store(self, body: Mapping[str, Any], model: str, version: str, cancel_after: str) -> Prediction:
        given: dict[str, Any] = body["input"]
        prompt = given["prompt"]
        now = self.now()
        queued = float(self.knob("queued", prompt, str(self.pace.queued)))
        running = float(self.knob("running", prompt, str(self.pace.running)))
        status, code = self.knob("status", prompt), self.knob("fail", prompt)
        ending, error = "succeeded", None
        if code or status == "failed":
            ending, error = "failed", problems.failure(code or "unknown", inputs.urls(given))
        elif status == "canceled":
            ending = status
        if fault := inputs.rule_fault(given):
            ending, error, running = "failed", f"Input validation error: {fault[1]}", RULE_CHECK_SECONDS
        elif status in ("stuck", "unknown"):
            running = NEVER
        events = tuple(body.get("webhook_events_filter") or inputs.EVENTS)
        seconds = inputs.cancel_after(cancel_after)
        prediction = Prediction(
            model=model,
            version=version,
            input=given,
            webhook=body.get("webhook", ""),
            events=events,
            has_filter="webhook_events_filter" in body,
            created_at=now,
            queued=queued,
            running=running,
            ending=ending,
            error=error,
            deadline=now + queued if status == "aborted" else now + (seconds or NEVER),
            status_while_running=UNKNOWN_STATUS if status == "unknown" else "processing",
        )
        with self.lock:
            self._predictions[prediction.id] = prediction
            self._by_file[prediction.file_key] = prediction
            self._in_order.append(prediction)
            self._admit(prediction)
        self.record(Submission(prediction.id, model, prompt, prediction.webhook, now))
        return prediction

    def _admit(self, arrival: Prediction | None = None) -> None:
        """Give the free places to those who wait longest; without a limit there is no waiting."""
        now = self.now()
        limit = int(self.knob("max-concurrent") or 0)
        with self.lock:
            if arrival:
                arrival.plan(NEVER)
                self._schedule.at(arrival.timeline.ended_at, self._end, arrival, arrival.timeline.ended_at)
                self._waiting.append(arrival)
            self._admitted = [prediction for prediction in self._admitted if not prediction.has_ended(now)]
            while self._waiting and (not limit or len(self._admitted) < limit):
                prediction = self._waiting.popleft()
                if prediction.has_ended(now):
                    continue
                prediction.plan(max(now, prediction.created_at + prediction.queued))
                if limit:
                    self._admitted.append(prediction)
                line = prediction.timeline
                self._schedule.at(line.started_at, self._start, prediction)
                self._schedule.at(line.ended_at, self._end, prediction, line.ended_at)

    def _wait(self, prediction: Prediction, prefer: str) -> None:
        """Hold the connection as `Prefer: wait` or `wait=N` asks."""
        word, _, number = prefer.partition("=")
        if word.strip() != "wait" or self.knob("prefer") == "ignore":
            return
        seconds = int(number) if number.isdecimal() else MAX_WAIT_SECONDS
        until = time.monotonic() + min(seconds, MAX_WAIT_SECONDS)
        while time.monotonic() < until and not prediction.has_ended(self.now()):
            time.sleep(0.02)

    # Reading and cancelling

    def _shown(self, prediction: Prediction | None, request: Request) -> Response:
        if prediction is None:
            return problems.problem("404", request.path)
        return json_response(self._view(prediction, self.now()))

    def _list(self, request: Request) -> Response:
        size = int(self.knob("page-size", default="100"))
        end = len(self._in_order)
        if cursor := request.query.get("cursor"):
            try:
                end = int(base64.urlsafe_b64decode(cursor[0]).decode())
            except ValueError:
                return problems.problem("404", request.path, "Invalid cursor.")
        start = max(0, end - size)
        now = self.now()
        return json_response(
            {
                "previous": self._page(end + size) if end < len(self._in_order) else None,
                "next": self._page(start) if start else None,
                "results": [self._view(prediction, now) for prediction in reversed(self._in_order[start:end])],
            }
        )

    def _page(self, end: int) -> str:
        return f"{self.origin}/v1/predictions?cursor={base64.urlsafe_b64encode(str(end).encode()).decode()}"

    def _cancel(self, prediction: Prediction | None, request: Request) -> Response:
        prompt = prediction.prompt if prediction else ""
        if broken := self._broken("cancel", prompt, request):
            return broken
        word = self.knob("cancel", prompt)
        if prediction and word != "ignored":
            with self.lock:
                before = prediction.timeline
                prediction.cancel(self.now(), delay=SLOW_CANCEL_SECONDS if word == "slow" else 0.0)
                if prediction.timeline is not before:
                    ended_at = prediction.timeline.ended_at
                    self._schedule.at(ended_at, self._end, prediction, ended_at)
        return self._shown(prediction, request)

    def _view(self, prediction: Prediction, at: float) -> dict[str, Any]:
        word = self.knob("result", prediction.prompt)
        file_name = f"tmp{prediction.id[:8]}.mp4"
        address = self.file_url(f"xezq/{prediction.file_key}/{file_name}")
        outputs = {
            "no-url": None,
            "list": [address],
            "empty-list": [],
            "foreign": address.replace(self.origin, self._elsewhere),
        }
        view = prediction.view(
            at,
            origin=self.origin,
            output=outputs.get(word, address),
            is_removed=prediction.is_removed(at) or (word == "removed" and prediction.has_ended(at)),
            has_echo=self.knob("webhook-echo") != "no",
        )
        return view | {"metrics": {}} if word == "no-metrics" else view

    # Webhooks

    def _start(self, prediction: Prediction) -> None:
        line = prediction.timeline
        if self.now() < line.started_at:
            return
        body = self._view(prediction, line.started_at)
        pause = min(0.5, prediction.running / 2)
        if line.started_at + pause < line.ended_at:
            self._schedule.at(line.started_at + pause, self._log, prediction)
        if self.knob("callback", prediction.prompt) == "reordered":
            self._schedule.at(line.ended_at + REORDERED_SECONDS, self._send, prediction, "start", body)
        elif line.started_at < line.ended_at:
            self._send(prediction, "start", body)

    def _log(self, prediction: Prediction) -> None:
        if not prediction.has_ended(self.now()):
            self._send(prediction, "logs", self._view(prediction, prediction.timeline.started_at))

    def _end(self, prediction: Prediction, ended_at: float) -> None:
        line = prediction.timeline
        self._admit()
        # It was cancelled, or has been told when to start, since this end was foreseen; maybe the same end twice.
        if line.ended_at != ended_at or prediction.is_reported:
            return
        prediction.is_reported = True
        body = self._view(prediction, ended_at)
        if line.ending == "succeeded":
            self._send(prediction, "output", {**body, "status": "processing", "completed_at": None, "metrics": {}})
        self._send(prediction, "completed", body)

    def _send(self, prediction: Prediction, event: str, body: Mapping[str, Any]) -> None:
        fault = self.knob("callback", prediction.prompt)
        if not prediction.webhook or event not in prediction.events or fault == "none":
            return
        if fault == "late":
            self._schedule.at(self.now() + LATE_SECONDS, self._post, prediction.webhook, event, body, fault)
        else:
            self._post(prediction.webhook, event, body, fault)

    def _post(self, url: str, event: str, body: Mapping[str, Any], fault: str) -> None:
        # Signed by the real clock, which those who check go by, however far the provider's was moved.
        raw, headers = webhooks.message(body, secret=self.secret, now=float(unix_time()), fault=fault)
        repeats = webhooks.RETRY_SECONDS if event == "completed" else ()
        for _ in range(2 if fault == "twice" else 1):
            self.callbacks.send(url, raw, headers, repeats=repeats)

    # Files and faults

    def file(self, request: Request) -> Response:
        """Answer for a video: without a key, until the prediction's data are removed."""
        parts = request.path.split("/")
        prediction = self._by_file.get(parts[3]) if len(parts) == 5 and parts[2] == "xezq" else None
        now = self.now()
        if prediction is None or not prediction.has_ended(now) or prediction.is_removed(now):
            return Response(404)
        word = self.knob("result", prediction.prompt)
        if word in ("gone", "removed"):
            return Response(404)
        if word == "not-video":
            return Response(200, HTML.body, {"Content-Type": "text/html"})
        if word == "redirect" and "moved" not in request.query:
            return Response(302, headers={"Location": f"{self._elsewhere}{request.path}?moved"})
        response = video_response(
            prompt=prediction.prompt,
            duration=prediction.duration // 2 if word == "short" else prediction.duration,
            resolution=prediction.setting("resolution"),
            ratio=prediction.setting("aspect_ratio"),
            has_audio=prediction.setting("generate_audio"),
            has_mark=False,
        )
        if word == "truncated":
            return Response(200, response.body[: len(response.body) // 2], response.headers)
        return response

    @property
    def _elsewhere(self) -> str:
        return self.origin.replace("127.0.0.1", "localhost")

    def _broken(self, knob: str, prompt: str, request: Request) -> Response | None:
        match self.knob(knob, prompt):
            case "html":
                return HTML
            case "empty":
                return Response(200)
            case "5xx":
                return problems.problem("503", request.path)
            case "drop":
                return DROPPED
            case "429" | "404" | "401" as code:
                return problems.problem(code, request.path)
        return None
