"""The provider for trying things out: it keeps its own books, renders its own videos, and fails on demand.

Directives in a prompt choose the outcome: `[sandbox:fail]`, `[sandbox:moderation]`, `[sandbox:bad-reference]`,
`[sandbox:delay=SECONDS]` and `[sandbox:stuck]`, in any case, anywhere in the text.
"""

import contextlib
import hashlib
import json
import re
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from django.db import IntegrityError, transaction

from providers import sandbox_render
from providers.adapters.base import (
    Accepted,
    Adapter,
    Cancellation,
    Capabilities,
    DownloadError,
    ErrorClass,
    Exchange,
    Failed,
    JobRequest,
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
    Unreadable,
)
from providers.models import SandboxRun
from seedancee2.lib import clock, ids

QUEUED_SECONDS = 0.5
RUN_SECONDS = 2.0
MAX_DELAY_SECONDS = 3600.0
MAX_DURATION_SECONDS = 60

_VIDEO, _LAST_FRAME = "video.mp4", "last.png"
_CANCELLED = "is_cancelled"
_DIRECTIVE = re.compile(r"\[sandbox:([a-z-]+)(?:=([0-9]+(?:\.[0-9]+)?))?\]", re.IGNORECASE)

# In the order in which they win where a prompt carries several.
_FAILURES = {
    "moderation": Failed(ErrorClass.CUSTOMER_MODERATION, "[sandbox:moderation] was asked for"),
    "bad-reference": Failed(ErrorClass.CUSTOMER_INPUT, "[sandbox:bad-reference] was asked for"),
    # Not a passing failure: another try would end the same way.
    "fail": Failed(ErrorClass.OUR_BUG, "[sandbox:fail] was asked for"),
}


class SandboxAdapter(Adapter):
    """Speaks to the sandbox, which lives in this very database: the channel's address and credential play no part."""

    name = "sandbox"
    capabilities = Capabilities(has_watermark=True)
    bulk_limit = 100

    def submit(self, request: JobRequest, *, upstream_model: str, ticket: Ticket) -> Submission:
        """Write a run into the books; a callback token counts once."""
        with self._exchange("submit", {"model": upstream_model, **_without_content(request)}) as answer:
            outcome = _refusal(request) or _insert(request, ticket.token)
            answer.update(_told(outcome))
        return outcome

    def fetch(self, ref: Ref) -> Progress:
        """Ask what became of one run."""
        return self.fetch_many([ref])[ref.upstream_id]

    def fetch_many(self, refs: Sequence[Ref]) -> Mapping[str, Progress]:
        """Ask for several runs with one query."""
        run_ids = [ref.upstream_id for ref in refs]
        with self._exchange("fetch", {"ids": run_ids}) as answer:
            runs = SandboxRun.objects.in_bulk(run_ids)
            found = {run_id: _progress(runs.get(run_id)) for run_id in run_ids}
            answer.update({run_id: _told(progress) for run_id, progress in found.items()})
        return found

    def recover(self, lost: Lost) -> Sequence[Accepted]:
        """Find the run of a callback token."""
        with self._exchange("recover", {}) as answer:
            runs = SandboxRun.objects.filter(callback_token_digest=lost.token_digest)
            answer["ids"] = list(runs.values_list("run_id", flat=True))
        return [Accepted(run_id) for run_id in answer["ids"]]

    def cancel(self, ref: Ref) -> Cancellation:
        """Stop a run that has not started."""
        upstream_id = ref.upstream_id
        with self._exchange("cancel", {"id": upstream_id}) as answer, transaction.atomic():
            run = SandboxRun.objects.select_for_update().filter(pk=upstream_id).first()
            outcome = Cancellation.TOO_LATE
            if run is not None and run.request.get(_CANCELLED):
                outcome = Cancellation.DONE
            elif isinstance(_progress(run), Pending) and run is not None:
                run.request[_CANCELLED] = True
                run.save(update_fields=["request"])
                outcome = Cancellation.DONE
            answer["outcome"] = outcome
        return outcome

    def download(self, url: str, destination: Path, *, max_bytes: int) -> None:
        """Render the video or its last frame: the same bytes at every call.

        Raises:
            DownloadError: there is no such output, or it does not fit.
        """
        with self._exchange("download", {"url": url}) as answer:
            scene, is_video = _output(url)
            try:
                if is_video:
                    sandbox_render.write_video(scene, destination)
                else:
                    sandbox_render.write_last_frame(scene, destination)
                answer["size"] = destination.stat().st_size
            except OSError as error:
                destination.unlink(missing_ok=True)
                raise DownloadError(f"the sandbox could not write its file: {type(error).__name__}") from error
            if answer["size"] > max_bytes:
                destination.unlink()
                raise DownloadError(f"{answer['size']} bytes, more than {max_bytes}", is_final=True)

    @contextlib.contextmanager
    def _exchange(self, kind: str, request: Mapping[str, Any]) -> Iterator[dict[str, Any]]:
        """Note one call for the staff, however it ends; the body fills in the answer."""
        answer: dict[str, Any] = {}
        started = time.perf_counter()
        try:
            yield answer
        except DownloadError as error:
            answer["error"] = str(error)
            raise
        finally:
            milliseconds = round((time.perf_counter() - started) * 1000)
            items = {name: json.dumps(told) for name, told in answer.items()} if kind == "fetch" else {}
            self.exchanges.append(Exchange(kind, json.dumps(request), None, json.dumps(answer), milliseconds, items))


def _refusal(request: JobRequest) -> Refused | None:
    """Say why a request cannot be run at all, or None."""
    has_picture = request.image_urls or request.video_urls or request.first_frame_url or request.last_frame_url
    if request.audio_urls and not has_picture:
        return Refused(ErrorClass.CUSTOMER_INPUT, "audio cannot be the only reference", Reason.AUDIO_ALONE)
    try:
        sandbox_render.size_of(resolution=request.resolution, aspect_ratio=request.aspect_ratio)
    except KeyError:
        return Refused(ErrorClass.OUR_BUG, f"no size for {request.resolution} at {request.aspect_ratio}")
    if not 1 <= request.duration <= MAX_DURATION_SECONDS:
        return Refused(ErrorClass.OUR_BUG, f"a duration of {request.duration} s")
    return None


def _insert(request: JobRequest, callback_token: str) -> Submission:
    run_id = ids.new("sbx")
    digest = hashlib.sha256(callback_token.encode()).digest()
    try:
        with transaction.atomic():
            SandboxRun.objects.create(run_id=run_id, request=request.as_json(), callback_token_digest=digest)
    except IntegrityError:
        return Refused(ErrorClass.OUR_BUG, "this callback token was used before")
    return Accepted(run_id)


def _progress(run: SandboxRun | None) -> Progress:
    """Compute the state of a run from its age and the directives in its prompt."""
    if run is None:
        return Unreadable("the sandbox knows no such run")
    if run.request.get(_CANCELLED):
        return Failed(ErrorClass.OUR_BUG, "cancelled on request")
    age = (clock.now() - run.created_at).total_seconds()
    if age < QUEUED_SECONDS:
        return Pending()
    request = _request_of(run)
    directives = {name.lower(): value for name, value in _DIRECTIVE.findall(request.prompt)}
    delay = min(float(directives.get("delay") or 0), MAX_DELAY_SECONDS)
    if "stuck" in directives or age < RUN_SECONDS + delay:
        return Running()
    for name, failure in _FAILURES.items():
        if name in directives:
            return failure
    address = f"sandbox://{run.run_id}"
    return Succeeded(f"{address}/{_VIDEO}", f"{address}/{_LAST_FRAME}" if request.return_last_frame else None)


def _request_of(run: SandboxRun) -> JobRequest:
    return JobRequest.from_json({key: value for key, value in run.request.items() if key != _CANCELLED})


def _output(url: str) -> tuple[sandbox_render.Scene, bool]:
    """Return what to render for an address, and whether all of it or the last frame only."""
    parts = urlsplit(url)
    run = SandboxRun.objects.filter(pk=parts.netloc).first() if parts.scheme == "sandbox" else None
    progress = _progress(run)
    if isinstance(progress, Pending | Running):
        # Another machine's clock may be a little ahead of this one's.
        raise DownloadError("the sandbox is not done yet")
    if run is None or not isinstance(progress, Succeeded) or url not in (progress.video_url, progress.last_frame_url):
        raise DownloadError("the sandbox has no such output", is_final=True)
    request = _request_of(run)
    scene = sandbox_render.Scene(
        prompt=request.prompt,
        seed=run.run_id if request.seed in (None, -1) else str(request.seed),
        duration=request.duration,
        size=sandbox_render.size_of(resolution=request.resolution, aspect_ratio=request.aspect_ratio),
        has_audio=request.generate_audio,
        has_watermark=request.watermark,
    )
    return scene, url == progress.video_url


def _without_content(request: JobRequest) -> dict[str, Any]:
    """Return a request for the log: no words and no addresses of the customer, only how many there are."""
    frames = (request.first_frame_url, request.last_frame_url)
    return {
        "prompt_length": len(request.prompt),
        "duration": request.duration,
        "resolution": request.resolution,
        "aspect_ratio": request.aspect_ratio,
        "generate_audio": request.generate_audio,
        "watermark": request.watermark,
        "return_last_frame": request.return_last_frame,
        "seed": request.seed,
        "image_count": len(request.image_urls),
        "video_count": len(request.video_urls),
        "audio_count": len(request.audio_urls),
        "frame_count": sum(frame is not None for frame in frames),
    }


def _told(outcome: Submission | Progress) -> dict[str, str]:
    answer = {"outcome": type(outcome).__name__.lower()}
    match outcome:
        case Accepted(upstream_id=upstream_id):
            answer["id"] = upstream_id
        case Refused() | Failed():
            answer |= {"error_class": outcome.error_class, "detail": outcome.detail}
        case Succeeded(video_url=video_url):
            answer["video_url"] = video_url
    return answer
