"""A task as GET, the list and callbacks show it (Ark sheet §4), and the files it links to (§9)."""

import dataclasses
import hashlib
import hmac
import io
import secrets
import time
from typing import Any

from PIL import Image

from providers import sandbox_render
from providers.emulators import files
from providers.emulators.ark import tasks
from providers.emulators.ark.tasks import Task
from providers.emulators.server import HTML, Emulator, Request, Response, json_response, video_response

LINK_SECONDS = 86_400
FOREIGN_ORIGIN = "https://files.elsewhere.example"


class Documents:
    """Shows the tasks of one emulator and serves their files."""

    def __init__(self, emulator: Emulator) -> None:
        self._emulator = emulator
        self._link_key = secrets.token_bytes(16)

    def show(self, task: Task, at: float, *, is_polled: bool = True) -> dict[str, Any]:
        """Return the document of a task at this time; the list's is the one that is not polled."""
        order, (status, since) = task.order, task.state(at)
        document: dict[str, Any] = {"id": task.id, "model": order.model_id, "status": status}
        if status == tasks.QUEUED:
            document["error"] = None
        elif status == tasks.FAILED and task.failure:
            document["error"] = task.failure.ending(task.media_name)
        elif status == tasks.SUCCEEDED:
            document |= self._outcome(task, at, is_text=is_polled and self._knob("numbers", task) == "text")
        document |= {
            "created_at": int(task.created_at),
            "updated_at": int(since),
            "service_tier": "default",
            "execution_expires_after": order.expires_after,
        }
        if order.safety_identifier:
            document["safety_identifier"] = order.safety_identifier
        return document

    def file(self, task: Task | None, request: Request) -> Response:
        """Answer a presigned link: 403 once 24 hours have passed since the task succeeded."""
        path, now = request.path.removeprefix("/files/"), self._emulator.now()
        if task is None or task.state(now)[0] != tasks.SUCCEEDED:
            return json_response({"Code": "NoSuchKey", "Message": "The specified key does not exist."}, 404)
        date, signature = (request.query.get(f"X-Tos-{name}", [""])[0] for name in ("Date", "Signature"))
        is_signed = hmac.compare_digest(signature.encode(), self._signature(path, date).encode())
        result, order = self._knob("result", task), task.order
        if not is_signed or now >= task.ends_at + LINK_SECONDS or result == "gone":
            return json_response({"Code": "AccessDenied", "Message": "Request has expired"}, 403)
        if result == "not-video":
            return dataclasses.replace(HTML, status=200)
        if result == "redirect":
            return Response(302, b"", {"Location": f"{FOREIGN_ORIGIN}/{path}"})
        resolution = _drawable(order.resolution)
        if path.endswith("_last.png"):
            picture = files.last_frame(
                prompt=order.prompt, duration=order.duration, resolution=resolution, ratio=order.ratio
            )
            return Response(200, _as_jpeg(picture) if result == "jpeg" else picture, {"Content-Type": "image/png"})
        video = video_response(
            prompt=order.prompt,
            duration=order.duration - 2 if result == "short" else order.duration,
            resolution=resolution,
            ratio=order.ratio,
            has_audio=order.has_audio,
            has_mark=order.has_mark,
        )
        return dataclasses.replace(video, body=video.body[: len(video.body) // 2]) if result == "truncated" else video

    def _knob(self, name: str, task: Task) -> str:
        return self._emulator.knob(name, task.wishes)

    def _outcome(self, task: Task, at: float, *, is_text: bool) -> dict[str, Any]:
        order, result = task.order, self._knob("result", task)
        outcome: dict[str, Any] = {}
        if result != "no-url":
            outcome["content"] = self._content(task, result) if at < task.ends_at + LINK_SECONDS else None
        width, height = sandbox_render.size_of(resolution=_drawable(order.resolution), aspect_ratio=order.ratio)
        tokens: Any = width * height * (order.duration * 24 + 1) // 1024
        return outcome | {
            "usage": dict.fromkeys(("completion_tokens", "total_tokens"), str(tokens) if is_text else tokens),
            "seed": order.seed,
            "resolution": order.resolution,
            "ratio": order.ratio,
            "duration": str(order.duration) if is_text else order.duration,
            "framespersecond": 24,
            "generate_audio": order.has_audio,
            "draft": False,
        }

    def _content(self, task: Task, result: str) -> dict[str, str]:
        foreign_url = f"{FOREIGN_ORIGIN}/{task.media_name}.mp4"
        content = {"video_url": foreign_url if result == "foreign" else self._link(task, ".mp4")}
        if task.order.has_last_frame:
            content["last_frame_url"] = self._link(task, "_last.png")
        return content

    def _link(self, task: Task, suffix: str) -> str:
        family = task.order.model_id.rpartition("-")[0]
        path = f"{family}/{task.media_name}{suffix}"
        signed_at = time.strftime("%Y%m%dT%H%M%SZ", time.gmtime(task.ends_at))
        query = f"X-Tos-Algorithm=TOS4-HMAC-SHA256&X-Tos-Date={signed_at}&X-Tos-Expires={LINK_SECONDS}"
        query += f"&X-Tos-SignedHeaders=host&X-Tos-Signature={self._signature(path, signed_at)}"
        return f"{self._emulator.file_url(path)}?{query}"

    def _signature(self, path: str, signed_at: str) -> str:
        return hmac.new(self._link_key, f"{path}\n{signed_at}".encode(), hashlib.sha256).hexdigest()


def _drawable(resolution: str) -> str:
    # Ark makes 4k, which the product does not sell; the emulator's are smaller than they say.
    return "1080p" if resolution == "4k" else resolution


def _as_jpeg(png: bytes) -> bytes:
    buffer = io.BytesIO()
    Image.open(io.BytesIO(png)).save(buffer, "JPEG")
    return buffer.getvalue()
