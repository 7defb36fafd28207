"""What every emulator shares: a real HTTP server on loopback, its knobs, and the books that tests read.

A test in the same process reads `emulator.submissions` and turns `emulator.knobs`; one in another process uses
`GET /_emulator/submissions` and `PUT /_emulator/knobs` (a JSON object). A knob in a prompt, `[emulate:NAME=VALUE]`,
holds for that one task and wins over the emulator's own.
"""

import abc
import contextlib
import dataclasses
import json
import re
import threading
import time
from collections.abc import Iterator, Mapping
from http.server import BaseHTTPRequestHandler
from typing import Any, ClassVar
from urllib.parse import parse_qs, urlsplit

from providers.emulators import callbacks, files
from providers.emulators.quiet import QuietServer

MAX_BODY_BYTES = 64 * 1024 * 1024
HANG_SECONDS = 600.0
_KNOB = re.compile(r"\[emulate:([a-z-]+)=([^\]]*)\]")


@dataclasses.dataclass(frozen=True, slots=True)
class Request:
    """One HTTP request as it came; header names are in lower case."""

    method: str
    path: str
    query: Mapping[str, list[str]]
    headers: Mapping[str, str]
    body: bytes

    def json(self) -> Any:
        """Return the body as JSON; None where it is not."""
        try:
            return json.loads(self.body)
        except ValueError:
            return None


@dataclasses.dataclass(frozen=True, slots=True)
class Response:
    """One HTTP reply: `delay` in seconds before it; `is_dropped` closes the connection instead of replying."""

    status: int = 200
    body: bytes = b""
    headers: Mapping[str, str] = dataclasses.field(default_factory=dict)
    delay: float = 0.0
    is_dropped: bool = False


def json_response(value: Any, status: int = 200, headers: Mapping[str, str] | None = None) -> Response:
    """Return a reply with a JSON body."""
    return Response(status, json.dumps(value).encode(), {"Content-Type": "application/json", **(headers or {})})


DROPPED = Response(is_dropped=True)
HUNG = Response(delay=HANG_SECONDS, is_dropped=True)
HTML = Response(502, b"<html><head><title>502 Bad Gateway</title></head></html>", {"Content-Type": "text/html"})


@dataclasses.dataclass(frozen=True, slots=True)
class Pace:
    """How many seconds a task waits in the queue and then runs."""

    queued: float = 0.3
    running: float = 1.0


@dataclasses.dataclass(frozen=True, slots=True)
class Submission:
    """One task that the emulator took, and would send a bill for."""

    task_id: str
    model: str
    prompt: str
    callback_url: str
    at: float


class Emulator(abc.ABC):
    """One provider on loopback; `with emulator.serving() as base_url:` runs it in threads of its own."""

    name: ClassVar[str]
    base_path: ClassVar[str] = ""
    """What follows scheme, host and port in the base URL that a channel is given."""

    def __init__(self, *, key: str = "emulator-key", pace: Pace | None = None) -> None:
        self.key = key
        self.pace = pace or Pace()
        self.knobs: dict[str, str] = {}
        self.submissions: list[Submission] = []
        self.requests: list[tuple[float, str, str]] = []
        """Time, method and path of every request, the emulator's own paths aside."""
        self.origin = ""
        self.lock = threading.RLock()
        self.callbacks = callbacks.Sender()
        self._skipped_seconds = 0.0

    @abc.abstractmethod
    def handle(self, request: Request) -> Response:
        """Answer one request as the provider would."""

    def now(self) -> float:
        """Return the provider's time, in seconds since 1970."""
        return time.time() + self._skipped_seconds

    def skip(self, seconds: float) -> None:
        """Let the provider's time jump ahead, so that links expire."""
        self._skipped_seconds += seconds

    def knob(self, name: str, prompt: str = "", default: str = "") -> str:
        """Return the value of a knob for a task with this prompt."""
        return dict(_KNOB.findall(prompt)).get(name) or self.knobs.get(name, default)

    def record(self, submission: Submission) -> None:
        """Write a task that was taken into the books."""
        with self.lock:
            self.submissions.append(submission)

    def file_url(self, path: str) -> str:
        """Return the address of a file under `/files/`; who may fetch it until when is for `file` to say."""
        return f"{self.origin}/files/{path}"

    def file(self, request: Request) -> Response:
        """Answer a request for `/files/…`; emulators override it."""
        return Response(404)

    def answer(self, request: Request) -> Response:
        """Answer one request: a test's, one for a file, or one for the provider."""
        if request.path == "/_emulator/submissions":
            return json_response([dataclasses.asdict(submission) for submission in list(self.submissions)])
        if request.path == "/_emulator/knobs" and request.method == "PUT":
            self.knobs = dict(request.json())
            return json_response(self.knobs)
        with self.lock:
            self.requests.append((time.monotonic(), request.method, request.path))
        if request.path.startswith("/files/"):
            return self.file(request)
        return self.handle(request)

    @contextlib.contextmanager
    def serving(self, host: str = "127.0.0.1", port: int = 0) -> Iterator[str]:
        """Serve in the background and yield the base URL; stops, and refuses connections, at the end."""
        server = QuietServer((host, port), _handler_for(self))
        self.origin = f"http://{host}:{server.server_address[1]}"
        thread = threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True)
        thread.start()
        try:
            yield self.origin + self.base_path
        finally:
            server.shutdown()
            server.server_close()
            self.callbacks.close()
            thread.join()


def video_response(
    *, prompt: str, duration: int, resolution: str, ratio: str, has_audio: bool, has_mark: bool
) -> Response:
    """Return a real video of these dimensions; `duration` in seconds."""
    body = files.video(
        prompt=prompt, duration=duration, resolution=resolution, ratio=ratio, has_audio=has_audio, has_mark=has_mark
    )
    return Response(200, body, {"Content-Type": "video/mp4"})


def _handler_for(emulator: Emulator) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"
        timeout = 60
        server_version = "Emulator"
        disable_nagle_algorithm = True

        def _respond(self) -> None:
            length = min(int(self.headers.get("Content-Length") or 0), MAX_BODY_BYTES)
            body = self.rfile.read(length)
            parts = urlsplit(self.path)
            headers = {name.lower(): value for name, value in self.headers.items()}
            query = parse_qs(parts.query, keep_blank_values=True)
            response = emulator.answer(Request(self.command, parts.path, query, headers, body))
            if response.delay:
                time.sleep(response.delay)
            if response.is_dropped:
                self.close_connection = True
                return
            self.send_response(response.status)
            for name, value in response.headers.items():
                self.send_header(name, value)
            self.send_header("Content-Length", str(len(response.body)))
            self.end_headers()
            if self.command != "HEAD":
                self.wfile.write(response.body)

        do_GET = do_POST = do_PUT = do_DELETE = do_HEAD = _respond

        def log_message(self, format: str, *args: Any) -> None:
            pass

    return Handler
