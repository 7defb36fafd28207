"""A smoke test of a channel: one cheap real generation, and what it shows of all that we assume about the provider."""

import dataclasses
import enum
import hashlib
import secrets
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from urllib.parse import urlsplit

from providers import channels, media_probe
from providers.adapters.base import (
    Accepted,
    Adapter,
    Cancellation,
    DownloadError,
    JobRequest,
    LookFailed,
    Lost,
    Pending,
    Progress,
    Ref,
    Running,
    Succeeded,
    Ticket,
    Unreadable,
)
from providers.models import Channel, Route
from seedancee2.lib import clock

DURATION = 4  # seconds, the shortest and so the cheapest there is
MAX_BYTES = 256 * 1024 * 1024
_NO_SUCH_ID = "00000000-0000-4000-8000-000000000000"


class Verdict(enum.StrEnum):
    """What a check came to."""

    HOLDS = "holds"
    DIFFERS = "DIFFERS"
    UNSEEN = "not seen"


@dataclasses.dataclass(frozen=True, slots=True)
class Check:
    """One assumption, whether it held, and what was seen."""

    assumption: str
    verdict: Verdict
    seen: str


def run(channel: Channel, route: Route, *, patience: float, say: Callable[[str], None]) -> Iterator[Check]:
    """Make one generation of 4 s at 480p and check what can be checked; `patience` in seconds for all of it.

    It is no job of ours: nothing is written to our tables, and nobody is charged. The provider charges for it.
    """
    adapter = channels.open_adapter(channel, channels.newest_credential(channel))
    request = JobRequest(
        model=route.model,
        prompt="A paper boat drifts on calm water at dawn, static camera",
        duration=DURATION,
        resolution="480p",
        aspect_ratio="adaptive",
        generate_audio=False,
        watermark=False,
        return_last_frame=True,
        seed=42,
    )
    token = secrets.token_urlsafe(32)
    digest = hashlib.sha256(token.encode()).digest()
    # The token belongs to no job, so that a callback is answered with 404: only its coming could be seen in our log.
    ticket = Ticket(token, channels.callback_url(channel, token), digest.hex()[:32])
    started_at = clock.now()

    lacks = adapter.capabilities.lacks(request, resolutions=route.resolutions)
    yield _check("480p, adaptive ratio and a seed are within our table of capabilities", not lacks, lacks or "yes")
    say("submitting (this costs what 4 seconds of video cost there)")
    began = time.monotonic()
    outcome = adapter.submit(request, upstream_model=route.upstream_model, ticket=ticket)
    took = time.monotonic() - began
    yield _check("a submission is accepted", isinstance(outcome, Accepted), f"{outcome} after {took:.1f} s")
    if not isinstance(outcome, Accepted):
        return
    ref = Ref(outcome.upstream_id, route.upstream_model, outcome.urls)

    yield _recovered(adapter, Lost(request, route.upstream_model, ticket.tag, digest, started_at), outcome.upstream_id)
    statuses, end = _followed(adapter, ref, patience, say)
    yield _check("every status is one that we know", "Unreadable" not in statuses, " → ".join(statuses))
    yield _check("it succeeds", isinstance(end, Succeeded), str(end)[:200])
    if isinstance(end, Succeeded):
        yield from _outputs(adapter, end)
    again = adapter.fetch(Ref(ref.upstream_id, ref.upstream_model))
    yield _check("the id alone is enough to ask for a job", type(again) is type(end), type(again).__name__)
    cancelled = adapter.cancel(ref)
    is_known = cancelled in (Cancellation.TOO_LATE, Cancellation.UNSUPPORTED)
    yield _check("a finished job cannot be cancelled", is_known, cancelled)
    missing = adapter.fetch(Ref(_NO_SUCH_ID))
    yield _check("an unknown id is no success", not isinstance(missing, Succeeded | Running), str(missing)[:200])


def _recovered(adapter: Adapter, lost: Lost, upstream_id: str) -> Check:
    assumption = "a lost submission is found in the provider's list, and it alone"
    try:
        found = adapter.recover(lost)
    except LookFailed as error:
        return Check(assumption, Verdict.DIFFERS, str(error))
    if found is None:
        return Check(assumption, Verdict.UNSEEN, "this provider has no list; only its callback can tell")
    ids = [one.upstream_id for one in found]
    return _check(assumption, ids == [upstream_id], f"found {len(ids)}, its own id {upstream_id in ids}")


def _followed(adapter: Adapter, ref: Ref, patience: float, say: Callable[[str], None]) -> tuple[list[str], Progress]:
    statuses: list[str] = []
    end = time.monotonic() + patience
    while True:
        progress = adapter.fetch(ref)
        if not statuses or statuses[-1] != type(progress).__name__:
            statuses.append(type(progress).__name__)
            say(f"{statuses[-1].lower()}{f': {progress.detail}' if isinstance(progress, Unreadable) else ''}")
        if not isinstance(progress, Pending | Running | Unreadable) or time.monotonic() >= end:
            return statuses, progress
        time.sleep(min(5.0, patience / 20))


def _outputs(adapter: Adapter, end: Succeeded) -> Iterator[Check]:
    with tempfile.TemporaryDirectory(prefix="smoke-") as folder:
        video = Path(folder) / "video.mp4"
        host = urlsplit(end.video_url).hostname
        try:
            adapter.download(end.video_url, video, max_bytes=MAX_BYTES)
            info = media_probe.probe(video)
        except (DownloadError, media_probe.UnusableMedia) as error:
            yield Check("the video can be fetched from a known host, without our key", Verdict.DIFFERS, str(error))
            return
        yield _check("the video can be fetched from a known host, without our key", True, str(host))
        is_long = abs(info.duration_ms - DURATION * 1000) <= 1000
        yield _check("it lasts as long as was asked, give or take a second", is_long, f"{info.duration_ms} ms")
        yield _check("it has no sound where none was asked for", not info.has_audio, f"sound: {info.has_audio}")
        size = f"{info.width}×{info.height} {info.video_codec}, {info.size_bytes} bytes"
        yield _check("it is H.264 in MP4", (info.container, info.video_codec) == ("mp4", "h264"), size)
        if end.last_frame_url is None:
            yield Check("a last frame comes with it", Verdict.UNSEEN, "none; we make our own from the video")
            return
        picture = Path(folder) / "last"
        try:
            adapter.download(end.last_frame_url, picture, max_bytes=MAX_BYTES)
        except DownloadError as error:
            yield Check("a last frame comes with it", Verdict.DIFFERS, str(error))
            return
        head = picture.read_bytes()[:8]
        form = "PNG" if head.startswith(b"\x89PNG") else "JPEG" if head.startswith(b"\xff\xd8") else head.hex()
        yield _check("a last frame comes with it", form in ("PNG", "JPEG"), form)


def _check(assumption: str, is_held: bool, seen: str) -> Check:
    return Check(assumption, Verdict.HOLDS if is_held else Verdict.DIFFERS, seen)
