"""Kie.ai's market API for the Seedance 2 family (Kie sheet): poll first, for there is no list and no cancel.

Options of a channel:
    adaptive ("adaptive"): what is sent for the aspect ratio `adaptive`, which Kie is only believed to take; a ratio
        instead fixes it, and empty leaves the key out.
    reference_tag ("@{kind}{number}"): how a prompt names a reference, with kinds Image, Video and Audio.
    last_frame_keys (["resultUrls", "lastFrameUrl", "last_frame_url", "firstFrameUrl"]): where in `resultJson` to look
        for the picture of the last frame, which is not documented; empty for nowhere.
    check_model (true): believe an answer only if it names the model that was asked for.
    words ({}): more words of failures by class, such as {"customer_moderation": ["likeness"]}; the classes are
        customer_moderation, customer_input and transient, tried in this order.

The channel's callback secret is the console's `webhookHmacKey`; without one callbacks are unsigned, and only the token
in their path vouches for them. Result hosts are not documented: others than the one known go to the channel's hosts.
"""

import base64
import datetime as dt
import hmac
import json
import re
from collections.abc import Mapping, Sequence
from pathlib import PurePosixPath
from typing import Any, Final
from urllib.parse import urlsplit

from providers.adapters import kie_errors, prompts
from providers.adapters.base import (
    Accepted,
    Callback,
    Capabilities,
    ErrorClass,
    Failed,
    Forged,
    Hint,
    JobRequest,
    Pending,
    Progress,
    Reason,
    Ref,
    Refused,
    Running,
    Submission,
    Succeeded,
    Ticket,
    Unknown,
    Unreadable,
)
from providers.adapters.wire import Answer, HttpAdapter, redacted

CREATE: Final = "/api/v1/jobs/createTask"
RECORD: Final = "/api/v1/jobs/recordInfo"
CALLBACK_WINDOW_SECONDS: Final = 300
RATE_WINDOW_SECONDS: Final = 10.0  # in which 20 tasks may be created (Kie sheet §7)
MAX_DETAIL: Final = 500

_ID = re.compile(r"[A-Za-z0-9][A-Za-z0-9._:-]{0,199}")
_TIMESTAMP = re.compile(r"[0-9]{1,12}")
_URL = re.compile(r"https?://[A-Za-z0-9._-]+(?::[0-9]{1,5})?(?:[/?][^\x00-\x20\x7f\ud800-\udfff]*)?")
_RESULT_URLS: Final = "resultUrls"
_LAST_FRAME_KEYS: Final = (_RESULT_URLS, "lastFrameUrl", "last_frame_url", "firstFrameUrl")
_VIDEO_ENDINGS: Final = frozenset({".mp4", ".mov", ".webm", ".m4v"})
_PICTURE_ENDINGS: Final = frozenset({".png", ".jpg", ".jpeg", ".webp", ".gif", ".bmp", ".tif", ".tiff", ".avif"})


class KieAdapter(HttpAdapter):
    """Speaks to Kie, where HTTP says 200 of nearly everything and the body's `code` says what it is."""

    name = "kie"
    capabilities = Capabilities(
        resolutions={
            "pro": frozenset({"480p", "720p", "1080p"}),
            "fast": frozenset({"480p", "720p"}),
            "mini": frozenset({"480p", "720p"}),
        },
    )
    own_output_hosts = ("*.aiquickdraw.com",)

    def submit(self, request: JobRequest, *, upstream_model: str, ticket: Ticket) -> Submission:
        """Create a task, once."""
        if request.audio_urls and not (request.image_urls or request.video_urls):
            return Refused(ErrorClass.CUSTOMER_INPUT, "Audio cannot be the only reference.", Reason.AUDIO_ALONE)
        body: dict[str, Any] = {"model": upstream_model, "input": self._input(request)}
        if ticket.callback_url:
            body["callBackUrl"] = ticket.callback_url
        answer = self.post(self.url(CREATE), body)
        if not isinstance(answer, Answer):
            return answer
        code, detail = _code(answer), _detail(answer)
        upstream_id = _task_id(answer.field("data"))
        if 200 <= answer.status_code < 300 and code == kie_errors.OK:
            return Accepted(upstream_id) if upstream_id else Unknown("Code 200 without the id of a task.")
        # Refusals name no task, and a real 5xx is a gateway's, which cannot know.
        if upstream_id or answer.status_code >= 500:
            return Unknown(detail)
        # Who routes requests there may refuse them in a shape of their own.
        code = answer.status_code if code is None else code
        error_class = self._class_of(code, _sentence(answer))
        if not kie_errors.is_certain(code, error_class):
            return Unknown(detail)
        retry_after = answer.retry_after
        if retry_after is None and error_class is ErrorClass.CAPACITY:
            retry_after = RATE_WINDOW_SECONDS
        is_model_only = code in kie_errors.MODEL_ONLY
        return Refused(error_class, detail, retry_after=retry_after, is_model_only=is_model_only)

    def fetch(self, ref: Ref) -> Progress:
        """Ask what became of one task."""
        answer = self.ask("fetch", self.url(RECORD, [("taskId", ref.upstream_id)]))
        if isinstance(answer, Unreadable):
            return answer
        code = _code(answer)
        if answer.status_code != 200 or code != kie_errors.OK:
            # Not even 404 or 422 is an end: a task that was just created may not be known yet.
            is_new = answer.status_code == 200 and code not in kie_errors.DOCUMENTED
            return Unreadable(_detail(answer), is_new=is_new)
        task = answer.field("data")
        if isinstance(task, dict):
            return self._progress(task, ref)
        # `null` is said of tasks that were just created; anything else in this place is news.
        is_new = task is not None or "data" not in answer.data
        return Unreadable("The answer has no record of the task.", is_new=is_new)

    def read_callback(self, headers: Mapping[str, str], body: bytes, *, received_at: dt.datetime) -> Callback:
        """Read the id and nothing else: no signature covers the rest (Kie sheet §6)."""
        try:
            data = json.loads(body)
        except (ValueError, RecursionError):
            data = None
        upstream_id = _task_id(data.get("data")) if isinstance(data, dict) else ""
        if not self.access.callback_secret:
            return Hint(upstream_id)
        timestamp, signature = (headers.get(f"x-webhook-{name}", "") for name in ("timestamp", "signature"))
        if not (timestamp and signature):
            return Forged("The callback is not signed.")
        if not _TIMESTAMP.fullmatch(timestamp):
            return Forged("The callback's timestamp is no number.")
        if abs(received_at.timestamp() - int(timestamp)) > CALLBACK_WINDOW_SECONDS:
            return Forged("The callback's signature is too old, or from the future.")
        digest = hmac.digest(self.access.callback_secret.encode(), f"{upstream_id}.{timestamp}".encode(), "sha256")
        if not hmac.compare_digest(base64.b64encode(digest), signature.encode(errors="replace")):
            return Forged("The callback's signature is wrong.")
        return Hint(upstream_id, is_verified=True)

    def _input(self, request: JobRequest) -> dict[str, Any]:
        # Modes exclude one another, and an unknown key loses a reference without a word: nothing empty, nothing else.
        media = {
            "first_frame_url": request.first_frame_url,
            "last_frame_url": request.last_frame_url,
            "reference_image_urls": list(request.image_urls),
            "reference_video_urls": list(request.video_urls),
            "reference_audio_urls": list(request.audio_urls),
        }
        ratio = request.aspect_ratio
        if ratio == "adaptive":
            ratio = self.access.options.get("adaptive", ratio)
        return {
            "prompt": prompts.rewrite(request, tag=self.access.options.get("reference_tag", "@{kind}{number}")),
            **{key: value for key, value in media.items() if value},
            "resolution": request.resolution,
            **({"aspect_ratio": ratio} if ratio else {}),
            "duration": request.duration,
            "generate_audio": request.generate_audio,
            "return_last_frame": request.return_last_frame,
            "web_search": False,
        }

    def _class_of(self, code: int | None, sentence: str) -> ErrorClass:
        return kie_errors.classify(code, sentence, self.access.options.get("words", {}))

    def _progress(self, task: Mapping[str, Any], ref: Ref) -> Progress:
        if _task_id(task) != ref.upstream_id:
            return Unreadable("The answer is about another task.")
        model = task.get("model")
        if model and ref.upstream_model not in ("", model) and self.access.options.get("check_model", True):
            return Unreadable(f"The task is of the model {str(model)[:100]!r}.", is_new=True)
        match task.get("state"):
            case "waiting" | "queuing":
                return Pending()
            case "generating":
                return Running()
            case "success":
                return self._success(task)
            case "fail":
                return self._failure(task)
        return Unreadable(f"The state {str(task.get('state'))[:100]!r} is not documented.", is_new=True)

    def _success(self, task: Mapping[str, Any]) -> Succeeded | Unreadable:
        result = _unpacked(task.get("resultJson"))
        urls = _urls(result.get(_RESULT_URLS))
        video_url = _first(urls, _VIDEO_ENDINGS) or next((url for url in urls if not _is_picture(url)), None)
        if video_url is None:
            return Unreadable("The task succeeded without a video URL.", is_done=True)
        keys = self.access.options.get("last_frame_keys", _LAST_FRAME_KEYS)
        # Under a key of its own an address needs no ending to be the picture's.
        pictures = [url for key in keys for url in _urls(result.get(key)) if key != _RESULT_URLS or _is_picture(url)]
        numbers = {"credits": task.get("creditsConsumed"), "milliseconds": task.get("costTime")}
        # JSON reads 1e999 as infinity, which no column takes.
        meta = {
            name: number for name, number in numbers.items() if isinstance(number, int | float) and abs(number) < 1e12
        }
        return Succeeded(video_url, next(iter(pictures), None), meta)

    def _failure(self, task: Mapping[str, Any]) -> Failed:
        code, sentence = task.get("failCode"), _text(task.get("failMsg"))
        number = _number(code)
        told = _told(code, sentence)
        # Failed tasks are said to cost nothing; staff see where one did.
        if task.get("creditsConsumed"):
            told = f"{task['creditsConsumed']!s:.20} credits consumed: {told}"
        is_model_only = number in kie_errors.MODEL_ONLY
        return Failed(self._class_of(number, sentence), told[:MAX_DETAIL], is_model_only=is_model_only)


def _code(answer: Answer) -> int | None:
    return _number(answer.field("code"))


def _sentence(answer: Answer) -> str:
    return _text(answer.field("msg")) or _text(answer.field("message"))


def _detail(answer: Answer) -> str:
    code = _code(answer)
    is_ours = answer.status_code in (401, 403) or kie_errors.classify(code, "") is ErrorClass.OUR_ACCOUNT
    whose = "Our account is refused: " if is_ours or code == 403 else ""
    return f"{whose}HTTP {answer.status_code} {_told(answer.field('code'), _sentence(answer))}"[:MAX_DETAIL]


def _told(code: Any, sentence: str) -> str:
    return redacted({"code": code, "message": sentence})


def _task_id(task: Any) -> str:
    """Return the id in a record; its key is spelled in two ways. Empty where there is none."""
    if not isinstance(task, dict):
        return ""
    found = task.get("taskId") or task.get("task_id")
    return found if isinstance(found, str) and _ID.fullmatch(found) else ""


def _unpacked(value: Any) -> Mapping[str, Any]:
    """Read JSON inside a string; empty where it holds no object."""
    if isinstance(value, str):
        try:
            value = json.loads(value)
        except (ValueError, RecursionError):
            return {}
    return value if isinstance(value, dict) else {}


def _urls(value: Any) -> Sequence[str]:
    values = value if isinstance(value, list) else [value]
    return [url for url in values if isinstance(url, str) and _URL.fullmatch(url)]


def _ending(url: str) -> str:
    return PurePosixPath(urlsplit(url).path).suffix.lower()


def _first(urls: Sequence[str], endings: frozenset[str]) -> str | None:
    return next((url for url in urls if _ending(url) in endings), None)


def _is_picture(url: str) -> bool:
    return _ending(url) in _PICTURE_ENDINGS


def _text(value: Any) -> str:
    return value if isinstance(value, str) else ""


def _number(value: Any) -> int | None:
    """Read a number that may come as text."""
    try:
        return int(value) if isinstance(value, int | str) else None
    except ValueError:
        return None
