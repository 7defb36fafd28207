"""The server: submission, status, result, cancellation, keys and files."""

import collections
import contextlib
import hashlib
import threading
import uuid
from collections.abc import Iterator
from typing import Any
from urllib.parse import urlsplit

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from providers.emulators import files
from providers.emulators.fal import errors, inputs, webhooks
from providers.emulators.fal.line import NEVER, Job, Line
from providers.emulators.server import DROPPED, HUNG, Emulator, Pace, Request, Response, Submission, json_response

STARTING_CONCURRENCY = 2
"""How many requests of a new account run at once."""
RECORD_SECONDS = 30 * 86400
AUTO_SECONDS = 5
TICK_SECONDS = 0.02
JWKS_PATH = "/.well-known/jwks.json"
UNKNOWN_STATE = "PREEMPTED"

_IN_PROGRESS = {"detail": "Request is still in progress"}
_NO_FILE = Response(404, b"Not Found", {"Content-Type": "text/plain"})


class FalEmulator(Emulator):
    """fal.ai on loopback: `key` is `id:secret`, `max_concurrent` how many requests run at once (None: all)."""

    name = "fal"

    def __init__(
        self,
        *,
        key: str = "emulator-key",
        pace: Pace | None = None,
        max_concurrent: int | None = None,
        user_id: str = "user_01EMULATOR",
        signing_seed: bytes | None = None,
    ) -> None:
        super().__init__(key=key, pace=pace)
        self.max_concurrent = max_concurrent
        self._jobs: dict[str, Job] = {}
        self._files: dict[str, Job] = {}
        self._line = Line(on_end=self._end)
        own = Ed25519PrivateKey.from_private_bytes(signing_seed) if signing_seed else Ed25519PrivateKey.generate()
        self._courier = webhooks.Courier(self, self._line, user_id=user_id, key=own, outcome=self._outcome)
        self._taken_at: collections.deque[float] = collections.deque()
        self._drawing = threading.Lock()

    def rotate_key(self, *, is_old_kept: bool = False) -> None:
        """Sign with a new key from now on; the key set then holds it alone, or the former ones too."""
        self._courier.rotate_key(is_old_kept=is_old_kept)

    @contextlib.contextmanager
    def serving(self, host: str = "127.0.0.1", port: int = 0) -> Iterator[str]:
        """Serve, and let tasks end and webhooks go out even while nobody asks."""
        closing = threading.Event()
        ticking = threading.Thread(target=self._tick, args=(closing,), daemon=True)
        with super().serving(host, port) as base_url:
            ticking.start()
            try:
                yield base_url
            finally:
                closing.set()
                ticking.join()

    def handle(self, request: Request) -> Response:
        """Answer a request for the queue, or for the keys that sign webhooks."""
        if request.path == JWKS_PATH and request.method == "GET":
            return errors.DISTURBANCES.get(self.knob("jwks")) or json_response(webhooks.jwks(self._courier.keys()))
        if request.headers.get("authorization") != f"Key {self.key}":
            return errors.gateway("401")
        endpoint = inputs.ENDPOINTS.get(request.path[1:])
        if endpoint is not None and request.method == "POST":
            return self._submit(request, endpoint)
        under, _, rest = request.path[1:].partition("/requests/")
        if under == inputs.APP and rest:
            job_id, _, verb = rest.partition("/")
            return self._of_job(request, job_id, verb)
        is_of_app = f"{request.path[1:]}/".startswith(f"{inputs.APP}/")
        if endpoint is not None or (is_of_app and request.method != "POST"):
            return errors.detail("Method Not Allowed", 405)
        return errors.gateway("404")

    def file(self, request: Request) -> Response:
        """Answer a request for a video; anyone may fetch it until its time is up."""
        with self.lock:
            self._advance()
        job = self._files.get(request.path.removeprefix("/files/"))
        if job is None or job.ended_at is None or self.now() >= job.ended_at + job.lifetime_seconds:
            return _NO_FILE
        word = self.knob("result", job.prompt)
        is_here = request.headers.get("host") == urlsplit(self.origin).netloc
        if word == "gone":
            return _NO_FILE
        if word == "redirect" and is_here:
            return Response(302, headers={"Location": self._elsewhere(self.file_url(job.file_path))})
        if word == "not-video":
            return Response(200, errors.BAD_GATEWAY.body, {"Content-Type": "text/html"})
        video = self._video(job)
        if word == "truncated":
            video = video[: len(video) // 2]
        return Response(200, video, {"Content-Type": "video/mp4"})

    # Submission

    def _submit(self, request: Request, endpoint: inputs.Endpoint) -> Response:
        body = request.json()
        payload = body if isinstance(body, dict) else {}
        prompt = payload.get("prompt")
        prompt = prompt if isinstance(prompt, str) else ""
        word = self.knob("submit", prompt)
        if word in ("drop-before", "html"):
            return DROPPED if word == "drop-before" else errors.BAD_GATEWAY
        if word.startswith("error:"):
            code = word.removeprefix("error:")
            return (errors.named(code, payload) or errors.prose(code)).response
        if body is None:
            return errors.infrastructure("bad_request", message="The body is not valid JSON").response
        faults = inputs.faults(endpoint, body)
        if faults and self.knob("validation", prompt) != "job":
            return errors.invalid(faults).response
        try:
            job, timeout_seconds = self._job(request, endpoint, payload, prompt, faults)
        except ValueError as error:
            return errors.infrastructure("bad_request", message=str(error)).response
        with self.lock:
            self._advance()
            refusal = self._too_many(request)
            if refusal:
                return refusal
            timeout = errors.infrastructure("request_timeout", frozenset({"user"}))
            self._line.add(job, timeout_seconds=timeout_seconds, timeout=timeout)
            self._jobs[job.id] = self._files[job.file_path] = job
            position = self._line.position(job)
            self.record(Submission(job.id, endpoint.path, prompt, job.webhook_url, job.submitted_at))
            self._courier.announce_start(job)
            # With no time to wait it is under way before this is answered.
            self._advance()
        answers = {
            "drop": DROPPED,
            "hang": HUNG,
            "late-5xx": errors.nginx(504, "Gateway Time-out"),
            "late-5xx/with-id": _of(job, errors.infrastructure("internal_error").response),
            "no-id": json_response({"status": "IN_QUEUE"}),
        }
        ids = {"request_id": job.id, "gateway_request_id": job.id}
        accepted = {"status": "IN_QUEUE", **ids, "queue_position": position, **self._urls(job)}
        return answers.get(word) or _of(job, json_response(accepted))

    def _job(
        self,
        request: Request,
        endpoint: inputs.Endpoint,
        payload: dict[str, Any],
        prompt: str,
        faults: list[dict[str, Any]],
    ) -> tuple[Job, float]:
        options = inputs.Options.of(request)
        code = self.knob("fail", prompt)
        if faults:
            failure: errors.Failure | None = errors.invalid(faults)
        elif code:
            failure = errors.named(code, payload) or errors.prose(code)
        else:
            failure = inputs.unreadable(endpoint, payload)
        state = self.knob("status", prompt)
        running = float(self.knob("running", prompt) or self.pace.running)
        if failure and failure.is_early:
            running /= 10
        job_id = str(uuid.uuid4())
        digest = hashlib.sha256(job_id.encode()).hexdigest()
        # What the provider repeats by itself comes back under another gateway id.
        is_retried = self.knob("retried", prompt) == "1" or (failure is not None and failure.status in (503, 504))
        job = Job(
            id=job_id,
            endpoint=endpoint,
            payload=payload,
            prompt=prompt,
            webhook_url=options.webhook_url,
            submitted_at=self.now(),
            queued_seconds=NEVER if state == "queued" else float(self.knob("queued", prompt) or self.pace.queued),
            running_seconds=NEVER if state in ("stuck", "unknown") else running,
            priority=1 if options.is_low else 0,
            failure=failure,
            is_stored=options.is_stored,
            lifetime_seconds=options.lifetime_seconds,
            file_path=f"b/{digest[:8]}/{digest[8:29]}_out.mp4",
            gateway_id=str(uuid.uuid4()) if is_retried and options.is_repeatable else job_id,
            seed=int(digest[29:37], 16) >> 1,
        )
        return job, options.timeout_seconds

    def _too_many(self, request: Request) -> Response | None:
        longest = request.query.get("fal_max_queue_length", [""])[0]
        if longest.isdigit() and self._line.waiting_count > int(longest):
            return errors.gateway("429")
        limit = int(self.knob("rate-limit") or 0)
        if not limit:
            return None
        while self._taken_at and self._taken_at[0] <= self.now() - 1:
            self._taken_at.popleft()
        if len(self._taken_at) >= limit:
            return errors.gateway("429/rate")
        self._taken_at.append(self.now())
        return None

    # One request's status, result and cancellation

    def _of_job(self, request: Request, job_id: str, verb: str) -> Response:
        with self.lock:
            self._advance()
            job = self._jobs.get(job_id)
            if job is not None and self.now() >= job.submitted_at + RECORD_SECONDS:
                del self._jobs[job_id]
                job = None
            if (request.method, verb) == ("PUT", "cancel"):
                return self._cancel(job)
            if request.method != "GET":
                return errors.detail("Method Not Allowed", 405)
            if job is None or verb not in ("", "response", "status"):
                return errors.NO_REQUEST
            if verb == "status":
                disturbance = errors.DISTURBANCES.get(self.knob("poll", job.prompt))
                return disturbance or _of(job, self._status(job, has_logs=request.query.get("logs", ["0"])[0] == "1"))
            disturbance = errors.DISTURBANCES.get(self.knob("response", job.prompt))
            if disturbance is not None:
                return disturbance
            if job.ended_at is None:
                return _of(job, json_response(_IN_PROGRESS, 400))
            job.result_reads += 1
            if self.knob("response", job.prompt) == "race" and job.result_reads == 1:
                return _of(job, json_response(_IN_PROGRESS, 400))
        # Outside the lock: the first to ask waits until the video is drawn.
        return _of(job, self._result(job))

    def _status(self, job: Job, *, has_logs: bool) -> Response:
        state = job.state
        status: dict[str, Any] = {"status": state, "request_id": job.id}
        if state == "COMPLETED" and job.failure and job.failure.status_words:
            return json_response({**status, **job.failure.status_words, "metrics": {}})
        if state == "IN_QUEUE":
            status["queue_position"] = self._line.position(job)
        elif has_logs:
            status["logs"] = []
        if state == "COMPLETED":
            ran = (job.ended_at or 0) - (job.started_at or 0)
            status["metrics"] = {"inference_time": round(ran, 3)}
        elif state == "IN_PROGRESS" and self.knob("status", job.prompt) == "unknown":
            status["status"] = UNKNOWN_STATE
        code = 200 if state == "COMPLETED" or self.knob("pending-code", job.prompt) == "200" else 202
        return json_response({**status, **self._urls(job)}, code)

    def _result(self, job: Job) -> Response:
        if not (job.failure or job.is_stored or self.knob("store-io", job.prompt) == "kept"):
            return Response(200)
        return self._outcome(job)

    def _outcome(self, job: Job) -> Response:
        if job.failure:
            return job.failure.response
        return json_response(self._output(job), headers={"X-Fal-Billable-Units": str(_seconds(job))})

    def _output(self, job: Job) -> dict[str, Any]:
        word = self.knob("result", job.prompt)
        url = self.file_url(job.file_path)
        video: dict[str, Any] = {
            "url": self._elsewhere(url) if word == "foreign" else url,
            "content_type": "video/mp4",
            "file_name": job.file_path.rpartition("/")[2],
            "file_size": len(self._video(job)),
        }
        if word == "no-url":
            del video["url"]
        return {"video": video, "seed": job.seed}

    def _cancel(self, job: Job | None) -> Response:
        if job is None:
            return json_response({"status": "NOT_FOUND"}, 404)
        word = self.knob("cancel", job.prompt)
        if word in errors.DISTURBANCES:
            return errors.DISTURBANCES[word]
        if word == "not-found":
            return json_response({"status": "NOT_FOUND"}, 404)
        state = job.state
        if state == "COMPLETED" or word == "too-late":
            return _of(job, json_response({"status": "ALREADY_COMPLETED"}, 400))
        if state == "IN_QUEUE" or word != "ignored":
            self._line.stop(job, errors.infrastructure("client_cancelled"), self.now())
        if state == "IN_QUEUE":
            return _of(job, json_response({"status": "OK"}))
        return _of(job, json_response({"status": "CANCELLATION_REQUESTED"}, 202))

    def _urls(self, job: Job) -> dict[str, str]:
        url = f"{self.origin}/{inputs.APP}/requests/{job.id}"
        suffix = "/response" if self.knob("response-url", job.prompt) == "suffixed" else ""
        return {"response_url": url + suffix, "status_url": f"{url}/status", "cancel_url": f"{url}/cancel"}

    def _elsewhere(self, url: str) -> str:
        return url.replace("//127.0.0.1:", "//localhost:")

    def _video(self, job: Job) -> bytes:
        duration = _seconds(job)
        resolution, ratio = job.payload.get("resolution", "720p"), job.payload.get("aspect_ratio", "auto")
        # One at a time: what many ask for at once is drawn once and then found in the cache.
        with self._drawing:
            return files.video(
                prompt=job.prompt,
                duration=duration // 2 if self.knob("result", job.prompt) == "short" else duration,
                resolution="1080p" if resolution == "4k" else resolution,
                ratio="adaptive" if ratio == "auto" else ratio,
                has_audio=job.payload.get("generate_audio", True),
                has_mark=False,
            )

    # Time

    def _end(self, job: Job) -> None:
        self._courier.announce_end(job)

    def _advance(self) -> None:
        limit = str(self.knob("max-concurrent"))
        self._line.advance(self.now(), limit=int(limit) if limit else self.max_concurrent or 0)

    def _tick(self, closing: threading.Event) -> None:
        while not closing.wait(TICK_SECONDS):
            with self.lock:
                self._advance()
                self._courier.repeat()
            self._courier.send()


def _of(job: Job, response: Response) -> Response:
    return Response(response.status, response.body, {**response.headers, "x-fal-request-id": job.id})


def _seconds(job: Job) -> int:
    duration = job.payload.get("duration", "auto")
    return AUTO_SECONDS if duration == "auto" else int(duration)
