"""BytePlus ModelArk and Volcengine Ark: one API on two hosts, with other keys and model ids (Ark sheet).

Options of a channel:
    tag (true): send the ticket's tag as `safety_identifier`, by which a lost task is found for certain; check the
        provider's terms. Change it only while nothing is under way.
    execution_expires_after (3600): seconds after which the provider gives a waiting task up; 3600 to 259200.
    seed (true): pass seeds on; the provider's pages disagree about which models take one.
    frames_adaptive (false): ask for the ratio `adaptive` wherever frames are given, as 2.5 demands.
    check_model (true): believe an answer only if it names the model that was asked for.
"""

import dataclasses
import datetime as dt
import json
import re
import time
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, ClassVar, Final, TypeGuard
from urllib.parse import quote

from providers.adapters import ark_errors, prompts
from providers.adapters.base import (
    Accepted,
    Callback,
    Cancellation,
    Capabilities,
    ErrorClass,
    Failed,
    Hint,
    JobRequest,
    LookFailed,
    Lost,
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
from seedancee2.lib import http

TASKS: Final = "/contents/generations/tasks"
SEED_RANGE: Final = 2**31
PAGE_SIZE: Final = 500
MAX_PAGES: Final = 20
CLOCK_SLACK: Final = dt.timedelta(seconds=60)
SINGLES_SECONDS: Final = 10.0
MAX_DETAIL: Final = 500

_ID = re.compile(r"[A-Za-z0-9][A-Za-z0-9._:-]{0,199}")


class ArkAdapter(HttpAdapter):
    """Speaks to Ark. Whatever the state, a task is asked for by GET; a callback only says when."""

    name = "ark"
    capabilities = Capabilities(
        resolutions={
            "pro": frozenset({"480p", "720p", "1080p"}),
            "fast": frozenset({"480p", "720p"}),
            "mini": frozenset({"480p", "720p"}),
        },
        image_formats=frozenset({"jpg", "jpeg", "png", "webp", "bmp", "tif", "tiff", "gif", "heic", "heif"}),
        has_watermark=True,
    )
    bulk_limit = 100
    own_output_hosts = ("*.volces.com", "*.bytepluses.com", "*.byteplus.com")
    # References are fetched before the reply; tens of seconds are common (Ark sheet §10.1).
    submit_seconds: ClassVar[float] = 120.0

    def submit(self, request: JobRequest, *, upstream_model: str, ticket: Ticket) -> Submission:
        """Create a task, once."""
        if request.audio_urls and not (request.image_urls or request.video_urls):
            return Refused(ErrorClass.CUSTOMER_INPUT, "Audio cannot be the only reference.", Reason.AUDIO_ALONE)
        body = self._parameters(request, upstream_model)
        body["execution_expires_after"] = int(self.access.options.get("execution_expires_after", 3600))
        if ticket.callback_url:
            body["callback_url"] = ticket.callback_url
        if self._is_tagged(ticket.tag):
            body["safety_identifier"] = ticket.tag
        answer = self.post(self.url(TASKS), body)
        if not isinstance(answer, Answer):
            return answer
        if 200 <= answer.status_code < 300:
            upstream_id = answer.field("id")
            if _is_id(upstream_id):
                return Accepted(upstream_id)
            return Unknown(f"HTTP {answer.status_code} without the id of a task.")
        code, message, param = _error(answer.field("error"))
        detail = _detail(answer)
        # Only their own refusals, in their own shape, are certain: an InternalServiceError may come after the fact.
        if not (400 <= answer.status_code < 500 and code) or code.startswith("InternalServiceError"):
            return Unknown(detail)
        fault = ark_errors.classify(code, message, param)
        return Refused(fault.error_class, detail, fault.reason, answer.retry_after, fault.is_model_only)

    def fetch(self, ref: Ref) -> Progress:
        """Ask what became of one task."""
        task = self._task(ref)
        return task if isinstance(task, Unreadable) else self._progress(task, ref)

    def fetch_many(self, refs: Sequence[Ref]) -> Mapping[str, Progress]:
        """Ask for tasks by lists of 100, and one by one for those that a list does not tell about."""
        found: dict[str, Progress] = {}
        for start in range(0, len(refs), self.bulk_limit):
            found |= self._fetch_chunk(refs[start : start + self.bulk_limit])
        return found

    def recover(self, lost: Lost) -> Sequence[Accepted]:
        """Look through the list of tasks since a minute before the submission.

        Raises:
            LookFailed: the list could not be read to where the submission began.
        """
        since = (lost.started_at - CLOCK_SLACK).timestamp()
        found: dict[str, Accepted] = {}
        for items in self._pages(lost.upstream_model):
            for item in items:
                if _is_id(item.get("id")) and self._may_be(item, lost, since):
                    found[item["id"]] = Accepted(item["id"], is_certain=self._is_tagged(lost.tag))
            times = [_number(item.get("created_at")) or since for item in items]
            # The order is not documented; where a page is seen to run into the past, the next ones are older still.
            if times == sorted(times, reverse=True) and times and times[0] > times[-1] < since:
                break
        return list(found.values())

    def cancel(self, ref: Ref) -> Cancellation:
        """Cancel a task that waits; DELETE is sent for no other, since it destroys the record of a finished one."""
        task = self._task(ref)
        if isinstance(task, Unreadable) or isinstance(self._progress(task, ref), Unreadable):
            return Cancellation.MAYBE
        if task["status"] != "queued":
            return Cancellation.DONE if task["status"] == "cancelled" else Cancellation.TOO_LATE
        try:
            answer = self.call("cancel", "DELETE", self._task_url(ref), seconds=self.ask_seconds)
        except (http.Blocked, http.TransportFailed):
            return Cancellation.MAYBE
        if 200 <= answer.status_code < 300:
            return Cancellation.DONE
        is_too_late = ark_errors.is_too_late(_error(answer.field("error"))[0])
        return Cancellation.TOO_LATE if is_too_late else Cancellation.MAYBE

    def read_callback(self, headers: Mapping[str, str], body: bytes, *, received_at: dt.datetime) -> Callback:
        """Read the id and nothing else: callbacks are unsigned, and only the token in their path vouches for them.

        One that cannot be read still says when to ask, and is not worth being repeated (Ark sheet §8).
        """
        try:
            data = json.loads(body)
        except (ValueError, RecursionError):
            data = None
        upstream_id = data.get("id") if isinstance(data, dict) else None
        return Hint(upstream_id if _is_id(upstream_id) else "")

    def _parameters(self, request: JobRequest, upstream_model: str) -> dict[str, Any]:
        frames = [
            _media("image_url", url, role)
            for url, role in ((request.first_frame_url, "first_frame"), (request.last_frame_url, "last_frame"))
            if url
        ]
        body: dict[str, Any] = {
            "model": upstream_model,
            "content": [
                {"type": "text", "text": prompt_text(request)},
                *frames,
                *(_media("image_url", url, "reference_image") for url in request.image_urls),
                *(_media("video_url", url, "reference_video") for url in request.video_urls),
                *(_media("audio_url", url, "reference_audio") for url in request.audio_urls),
            ],
            "resolution": request.resolution,
            "ratio": request.aspect_ratio,
            "duration": request.duration,
            "generate_audio": request.generate_audio,
            "watermark": request.watermark,
            "return_last_frame": request.return_last_frame,
        }
        if frames and self.access.options.get("frames_adaptive", False):
            body["ratio"] = "adaptive"
        if request.seed is not None and request.seed >= 0 and self.access.options.get("seed", True):
            body["seed"] = request.seed % SEED_RANGE
        return body

    def _task_url(self, ref: Ref) -> str:
        return self.url(f"{TASKS}/{quote(ref.upstream_id, safe='')}")

    def _task(self, ref: Ref) -> Mapping[str, Any] | Unreadable:
        answer = self.ask("fetch", self._task_url(ref))
        if isinstance(answer, Unreadable):
            return answer
        if answer.status_code == 200:
            data: Mapping[str, Any] = answer.data
            return data
        # Not even a 404 is an end: it also stands for ids that never were, and for the tasks of another account.
        return Unreadable(_detail(answer))

    def _progress(self, task: Mapping[str, Any], ref: Ref) -> Progress:
        if task.get("id") != ref.upstream_id:
            return Unreadable("The answer is about another task.")
        if not self._is_of(task, ref.upstream_model):
            return Unreadable(f"The task is of the model {str(task['model'])[:100]!r}.", is_new=True)
        match task.get("status"):
            case "queued":
                return Pending()
            case "running":
                return Running()
            case "succeeded":
                return _success(task)
            case "failed":
                code, message, param = _error(task.get("error"))
                fault = ark_errors.classify(code, message, param)
                return Failed(fault.error_class, _told(code, message, param), fault.reason, fault.is_model_only)
            case "expired":
                return Failed(ErrorClass.TRANSIENT, "The task waited until it expired there.")
            case "cancelled":
                return Failed(ErrorClass.OUR_BUG, "The task was cancelled there.")
        return Unreadable(f"The status {str(task.get('status'))[:100]!r} is not documented.", is_new=True)

    def _fetch_chunk(self, refs: Sequence[Ref]) -> dict[str, Progress]:
        if len(refs) == 1:
            return {refs[0].upstream_id: self.fetch(refs[0])}
        query = [("page_num", "1"), ("page_size", str(self.bulk_limit))]
        page = self._page("fetch", [*query, *(("filter.task_ids", ref.upstream_id) for ref in refs)])
        if isinstance(page, Unreadable):
            return {ref.upstream_id: page for ref in refs}
        items = {item["id"]: item for item in page[0] if _is_id(item.get("id"))}
        told = {upstream_id: redacted(item) for upstream_id, item in items.items()}
        self.exchanges[-1] = dataclasses.replace(self.exchanges[-1], response=f"{len(items)} tasks", items=told)
        found: dict[str, Progress] = {}
        give_up_at = time.monotonic() + SINGLES_SECONDS
        for ref in refs:
            progress: Progress = Unreadable("The list did not tell about the task.")
            if ref.upstream_id in items:
                progress = self._progress(items[ref.upstream_id], ref)
            # A list that leaves many out must not hold the worker for a hundred slow calls.
            is_untold = isinstance(progress, Unreadable) and not progress.is_new
            if is_untold and time.monotonic() < give_up_at:
                progress = self.fetch(ref)
            found[ref.upstream_id] = progress
        return found

    def _page(
        self, kind: str, query: Sequence[tuple[str, str]]
    ) -> tuple[list[Mapping[str, Any]], int | None] | Unreadable:
        """Return one page of the list of tasks, and how many there are in all if that is told."""
        answer = self.ask(kind, self.url(TASKS, query))
        if isinstance(answer, Unreadable):
            return answer
        if answer.status_code != 200:
            return Unreadable(_detail(answer))
        items, total = answer.field("items"), _number(answer.field("total"))
        if items is None and total == 0:
            items = []
        if not isinstance(items, list):
            return Unreadable("The list has no items.")
        return [item for item in items if isinstance(item, dict)], total

    def _pages(self, upstream_model: str) -> Iterator[list[Mapping[str, Any]]]:
        """Yield the pages of the list of tasks to its end.

        Raises:
            LookFailed: a page could not be read, or there are too many.
        """
        # Answers name the model behind an endpoint; only the filter knows endpoints.
        endpoint = [("filter.model", upstream_model)] if _is_endpoint(upstream_model) else []
        seen_count = 0
        for number in range(1, MAX_PAGES + 1):
            page = self._page("recover", [("page_num", str(number)), ("page_size", str(PAGE_SIZE)), *endpoint])
            if isinstance(page, Unreadable):
                raise LookFailed(page.detail)
            items, total = page
            yield items
            seen_count += len(items)
            if not items or (total is not None and seen_count >= total):
                return
        raise LookFailed(f"The list of tasks has more than {seen_count} entries.")

    def _may_be(self, item: Mapping[str, Any], lost: Lost, since: float) -> bool:
        tag = item.get("safety_identifier")
        if tag or self._is_tagged(lost.tag):
            return bool(tag == lost.tag)
        created_at = _number(item.get("created_at"))
        if (created_at is not None and created_at < since) or not self._is_of(item, lost.upstream_model):
            return False
        asked = self._parameters(lost.request, lost.upstream_model)
        for name in ("seed", "ratio", "duration", "resolution"):
            told, wanted = item.get(name), asked.get(name)
            # A task that has not finished tells none of them, and `adaptive` becomes the ratio that was chosen.
            is_open = told in (None, "") or wanted in (None, "adaptive")
            if not is_open and str(told).lower() != str(wanted).lower():
                return False
        return True

    def _is_tagged(self, tag: str) -> bool:
        return bool(tag and self.access.options.get("tag", True))

    def _is_of(self, task: Mapping[str, Any], upstream_model: str) -> bool:
        if not (upstream_model and task.get("model") and self.access.options.get("check_model", True)):
            return True
        return _is_endpoint(upstream_model) or task["model"] == upstream_model


def prompt_text(request: JobRequest) -> str:
    """Return the prompt as Ark reads it: `Image 1` for `@Image1` where there is one, and no suffix flags."""
    return prompts.rewrite(request, tag="{kind} {number}")


def _media(kind: str, url: str, role: str) -> dict[str, Any]:
    return {"type": kind, kind: {"url": url}, "role": role}


def _success(task: Mapping[str, Any]) -> Succeeded | Unreadable:
    content, usage = task.get("content"), task.get("usage")
    content = content if isinstance(content, dict) else {}
    video_url, last_frame_url = content.get("video_url"), content.get("last_frame_url")
    if not (isinstance(video_url, str) and video_url):
        return Unreadable("The task succeeded without a video URL.", is_done=True)
    meta = {name: task[name] for name in ("seed", "resolution", "ratio") if isinstance(task.get(name), int | str)}
    numbers = {
        "duration": task.get("duration"),
        "total_tokens": usage.get("total_tokens") if isinstance(usage, dict) else None,
    }
    meta |= {name: number for name, value in numbers.items() if (number := _number(value)) is not None}
    return Succeeded(video_url, last_frame_url if isinstance(last_frame_url, str) and last_frame_url else None, meta)


def _error(error: Any) -> tuple[str, str, str]:
    """Return code, message and param of an error object; empty where it has none."""
    if not isinstance(error, dict):
        return "", "", ""
    code, message, param = (error.get(name) for name in ("code", "message", "param"))
    return (code if isinstance(code, str) else ""), str(message or ""), (param if isinstance(param, str) else "")


def _told(code: str, message: str, param: str) -> str:
    return redacted({"code": code, "at": param, "message": message})[:MAX_DETAIL]


def _detail(answer: Answer) -> str:
    code, message, param = _error(answer.field("error"))
    is_ours = answer.status_code in (401, 403) or ark_errors.classify(code).error_class is ErrorClass.OUR_ACCOUNT
    whose = "Our account is refused: " if is_ours else ""
    return f"{whose}HTTP {answer.status_code} {_told(code, message, param)}"[:MAX_DETAIL]


def _number(value: Any) -> int | None:
    """Read a number that may come as text (Ark sheet §4)."""
    try:
        return int(value) if isinstance(value, int | str) else None
    except ValueError:
        return None


def _is_id(value: Any) -> TypeGuard[str]:
    return isinstance(value, str) and _ID.fullmatch(value) is not None


def _is_endpoint(upstream_model: str) -> bool:
    return upstream_model.startswith("ep-")
