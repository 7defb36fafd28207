"""What every adapter promises: our words in, our words out; a provider's vocabulary stops here."""

import abc
import dataclasses
import datetime as dt
import enum
from collections.abc import Mapping, Sequence
from pathlib import Path, PurePosixPath
from typing import Any, ClassVar
from urllib.parse import urlsplit


class ErrorClass(enum.StrEnum):
    """Whose fault a failure is; it decides who tries again where."""

    CUSTOMER_INPUT = "customer_input"
    CUSTOMER_MODERATION = "customer_moderation"
    TRANSIENT = "transient"
    CAPACITY = "capacity"
    OUR_ACCOUNT = "our_account"
    OUR_BUG = "our_bug"
    UNKNOWN = "unknown"


class Reason(enum.StrEnum):
    """A reason that the customer can act on; they are told it in our own words."""

    AUDIO_ALONE = "audio_alone"


@dataclasses.dataclass(frozen=True, slots=True)
class JobRequest:
    """One generation as an adapter sees it: every parameter explicit, nothing about the customer.

    `duration` is in seconds. In first-and-last-frames requests the two frames stand in `first_frame_url` and
    `last_frame_url`, however the customer gave them; reference images then are empty.
    """

    model: str
    prompt: str
    duration: int
    resolution: str
    aspect_ratio: str
    generate_audio: bool
    watermark: bool
    return_last_frame: bool
    seed: int | None = None
    image_urls: tuple[str, ...] = ()
    video_urls: tuple[str, ...] = ()
    audio_urls: tuple[str, ...] = ()
    first_frame_url: str | None = None
    last_frame_url: str | None = None

    def as_json(self) -> dict[str, Any]:
        """Return plain JSON data, for the job's row."""
        return {field.name: getattr(self, field.name) for field in dataclasses.fields(self)}

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> "JobRequest":
        """Read back what `as_json` wrote."""
        lists = {name: tuple(data[name]) for name in ("image_urls", "video_urls", "audio_urls")}
        return cls(**{**data, **lists})


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Capabilities:
    """What a provider can do with a request, by its sheet; a route may allow other resolutions.

    What it lacks in watermarks and last frames is made here afterwards; a seed is best effort everywhere.
    """

    resolutions: Mapping[str, frozenset[str]] | None = None
    """By public model; None for whatever there is."""
    aspect_ratios: frozenset[str] = frozenset({"16:9", "9:16", "1:1", "4:3", "3:4", "21:9", "adaptive"})
    image_formats: frozenset[str] = frozenset({"jpg", "jpeg", "png", "webp", "bmp", "tif", "tiff", "gif"})
    """Endings of file names; what a URL's path does not tell is taken to be fine."""
    max_images: int = 9
    max_videos: int = 3
    max_audios: int = 3
    max_files: int = 15
    max_prompt_characters: int = 20_000
    has_watermark: bool = False

    def lacks(self, request: JobRequest, *, resolutions: Sequence[str] = ()) -> str:
        """Say what about a request cannot be served, for staff; empty where all can be."""
        frames = [url for url in (request.first_frame_url, request.last_frame_url) if url]
        pictures = [*request.image_urls, *frames]
        counts = {
            "images": (len(request.image_urls), self.max_images),
            "videos": (len(request.video_urls), self.max_videos),
            "audios": (len(request.audio_urls), self.max_audios),
            "files": (len(pictures) + len(request.video_urls) + len(request.audio_urls), self.max_files),
            "prompt characters": (len(request.prompt), self.max_prompt_characters),
        }
        for what, (count, limit) in counts.items():
            if count > limit:
                return f"{count} {what}, more than {limit}"
        known = self.resolutions and (resolutions or self.resolutions.get(request.model, ()))
        if known is not None and request.resolution not in known:
            return f"the resolution {request.resolution} of {request.model}"
        if request.aspect_ratio not in self.aspect_ratios:
            return f"the aspect ratio {request.aspect_ratio}"
        for url in pictures:
            ending = PurePosixPath(urlsplit(url).path).suffix.lower().removeprefix(".")
            if ending in _IMAGE_ENDINGS and ending not in self.image_formats:
                return f"images of the format {ending}"
        return ""


_IMAGE_ENDINGS = frozenset({"jpg", "jpeg", "png", "webp", "bmp", "tif", "tiff", "gif", "heic", "heif", "avif"})


@dataclasses.dataclass(frozen=True, slots=True)
class ChannelAccess:
    """How to reach one configured account: its name, address and opened secrets, and what staff configured for it."""

    name: str
    base_url: str
    credential: str = dataclasses.field(repr=False)
    callback_secret: str = dataclasses.field(default="", repr=False)
    output_hosts: tuple[str, ...] = ()
    """Hosts that outputs may be fetched from beside the adapter's own; `*.host` covers every name under it."""
    options: Mapping[str, Any] = dataclasses.field(default_factory=dict)


@dataclasses.dataclass(frozen=True, slots=True)
class Ticket:
    """What ties a submission to its answer: a token that nobody can guess, and where the provider may call back.

    `tag` is derived from the token and may be shown to the provider in a field that it echoes.
    """

    token: str = dataclasses.field(repr=False)
    callback_url: str = dataclasses.field(repr=False)
    tag: str = ""


@dataclasses.dataclass(frozen=True, slots=True)
class Ref:
    """A job as its provider knows it; `urls` are the addresses that came with its id, to be used as they are.

    An answer about another model than `upstream_model`, where the provider tells it, is unreadable.
    """

    upstream_id: str
    upstream_model: str = ""
    urls: Mapping[str, str] = dataclasses.field(default_factory=dict)


@dataclasses.dataclass(frozen=True, slots=True)
class Lost:
    """A submission of which nobody knows whether it arrived, and all that is known of it."""

    request: JobRequest
    upstream_model: str
    tag: str
    token_digest: bytes
    started_at: dt.datetime


# --- What a submission can come to. ---


@dataclasses.dataclass(frozen=True, slots=True)
class Accepted:
    """The provider took the job and gave it an id, and perhaps addresses to ask for it.

    Of a job that was looked for, `is_certain` tells that it was known by its tag and not only by what it is like.
    """

    upstream_id: str
    urls: Mapping[str, str] = dataclasses.field(default_factory=dict)
    is_certain: bool = dataclasses.field(default=True, compare=False)


@dataclasses.dataclass(frozen=True, slots=True)
class Refused:
    """The provider certainly did not take the job. `detail` is for staff, never for customers.

    `retry_after` is in seconds. `is_model_only` tells that the fault is of this model there, not of the whole account.
    """

    error_class: ErrorClass
    detail: str
    reason: Reason | None = None
    retry_after: float | None = None
    is_model_only: bool = False


@dataclasses.dataclass(frozen=True, slots=True)
class Unknown:
    """Nobody can tell whether the provider took the job: it must not be sent again blindly."""

    detail: str


# --- What asking for a job can come to. ---


@dataclasses.dataclass(frozen=True, slots=True)
class Pending:
    """Accepted, not yet started."""


@dataclasses.dataclass(frozen=True, slots=True)
class Running:
    """Started."""


@dataclasses.dataclass(frozen=True, slots=True)
class Succeeded:
    """Finished, with a video that can be fetched."""

    video_url: str
    last_frame_url: str | None = None
    meta: Mapping[str, Any] = dataclasses.field(default_factory=dict)


@dataclasses.dataclass(frozen=True, slots=True)
class Failed:
    """Finished without a usable output. `detail` is for staff, never for customers.

    The class UNKNOWN stands for words of the provider that nobody knows: they are kept and raise an alarm.
    """

    error_class: ErrorClass
    detail: str
    reason: Reason | None = None
    is_model_only: bool = False


@dataclasses.dataclass(frozen=True, slots=True)
class Unreadable:
    """The answer told nothing that can be relied on; the job stays as it is.

    `is_new` marks words of the provider that nobody knows, which raise an alarm. `is_done` marks a job that is said to
    have succeeded but has nothing to fetch: it is asked for a few times more, then counts as failed.
    """

    detail: str
    is_new: bool = False
    is_done: bool = False


# --- What a callback can come to. It is never more than a hint to ask. ---


@dataclasses.dataclass(frozen=True, slots=True)
class Hint:
    """A callback that may be believed so far as to ask about this id; `is_verified` where a signature covered it."""

    upstream_id: str
    is_verified: bool = False


@dataclasses.dataclass(frozen=True, slots=True)
class Forged:
    """A callback whose signature is missing, wrong or too old."""

    detail: str


Submission = Accepted | Refused | Unknown
Progress = Pending | Running | Succeeded | Failed | Unreadable
Callback = Hint | Forged


class Cancellation(enum.StrEnum):
    """What a cancel request came to."""

    DONE = "done"
    TOO_LATE = "too_late"
    UNSUPPORTED = "unsupported"
    MAYBE = "maybe"


@dataclasses.dataclass(frozen=True, slots=True)
class Exchange:
    """One call to a provider, for the staff's log. Headers are never kept; bodies must be redacted by the adapter.

    Where one call asked about many jobs, `items` holds by upstream id what was said of each.
    """

    kind: str
    request: str
    status_code: int | None
    response: str
    duration_ms: int
    items: Mapping[str, str] = dataclasses.field(default_factory=dict)


class LookFailed(Exception):
    """A look for a lost job got no answer that can be relied on."""


class DownloadError(Exception):
    """A finished output could not be fetched; `is_final` tells that trying again cannot help."""

    def __init__(self, detail: str, *, is_final: bool = False) -> None:
        super().__init__(detail)
        self.is_final = is_final


class Adapter(abc.ABC):
    """Speaks to one provider through one channel.

    An instance serves one operation of one worker; the exchanges it made are read from `exchanges` afterwards.
    """

    name: ClassVar[str]
    capabilities: ClassVar[Capabilities]
    bulk_limit: ClassVar[int] = 1
    """How many jobs `fetch_many` can ask for with one call."""

    def __init__(self, access: ChannelAccess) -> None:
        self.access = access
        self.exchanges: list[Exchange] = []

    @abc.abstractmethod
    def submit(self, request: JobRequest, *, upstream_model: str, ticket: Ticket) -> Submission:
        """Send one job; every outcome that is not certain is `Unknown`, and nothing is raised for it."""

    @abc.abstractmethod
    def fetch(self, ref: Ref) -> Progress:
        """Ask what became of one job."""

    def fetch_many(self, refs: Sequence[Ref]) -> Mapping[str, Progress]:
        """Ask for several jobs, by upstream id; adapters override it where the provider can answer in bulk."""
        return {ref.upstream_id: self.fetch(ref) for ref in refs}

    def recover(self, lost: Lost) -> Sequence[Accepted] | None:
        """Look for a job whose submission was cut short.

        Returns every job there that may be it, an empty list where there is none, and None where the provider offers
        no way to look, so that only its callback can tell.

        Raises:
            LookFailed: the provider did not answer, which says nothing.
        """
        return None

    def cancel(self, ref: Ref) -> Cancellation:
        """Ask the provider to stop a job."""
        return Cancellation.UNSUPPORTED

    def read_callback(self, headers: Mapping[str, str], body: bytes, *, received_at: dt.datetime) -> Callback:
        """Check a callback and say which job it tells of; header names are in lower case."""
        return Forged("this provider sends no callbacks")

    @abc.abstractmethod
    def download(self, url: str, destination: Path, *, max_bytes: int) -> None:
        """Fetch an output into a file of at most `max_bytes`.

        Raises:
            DownloadError: it could not be fetched.
        """
