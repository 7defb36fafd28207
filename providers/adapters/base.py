"""What every adapter promises: our words in, our words out; a provider's vocabulary stops here."""

import abc
import dataclasses
import enum
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar


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
        return dataclasses.asdict(self)

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> "JobRequest":
        """Read back what `as_json` wrote."""
        lists = {name: tuple(data[name]) for name in ("image_urls", "video_urls", "audio_urls")}
        return cls(**{**data, **lists})


@dataclasses.dataclass(frozen=True, slots=True)
class ChannelAccess:
    """How to reach one configured account: its name, address and opened credential."""

    name: str
    base_url: str
    credential: str = dataclasses.field(repr=False)


# --- What a submission can come to. ---


@dataclasses.dataclass(frozen=True, slots=True)
class Accepted:
    """The provider took the job and gave it an id."""

    upstream_id: str


@dataclasses.dataclass(frozen=True, slots=True)
class Refused:
    """The provider certainly did not take the job. `detail` is for staff, never for customers."""

    error_class: ErrorClass
    detail: str
    reason: Reason | None = None


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
    """Finished without a usable output. `detail` is for staff, never for customers."""

    error_class: ErrorClass
    detail: str
    reason: Reason | None = None


@dataclasses.dataclass(frozen=True, slots=True)
class Unreadable:
    """The answer told nothing that can be relied on; the job stays as it is."""

    detail: str


Submission = Accepted | Refused | Unknown
Progress = Pending | Running | Succeeded | Failed | Unreadable


class Cancellation(enum.StrEnum):
    """What a cancel request came to."""

    DONE = "done"
    TOO_LATE = "too_late"
    UNSUPPORTED = "unsupported"
    MAYBE = "maybe"


@dataclasses.dataclass(frozen=True, slots=True)
class Exchange:
    """One call to a provider, for the staff's log. Headers are never kept; bodies must be redacted by the adapter."""

    kind: str
    request: str
    status_code: int | None
    response: str
    duration_ms: int


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

    def __init__(self, access: ChannelAccess) -> None:
        self.access = access
        self.exchanges: list[Exchange] = []

    @abc.abstractmethod
    def submit(self, request: JobRequest, *, upstream_model: str, callback_token: str) -> Submission:
        """Send one job; every outcome that is not certain is `Unknown`, and nothing is raised for it."""

    @abc.abstractmethod
    def fetch(self, upstream_id: str) -> Progress:
        """Ask what became of one job."""

    def fetch_many(self, upstream_ids: Sequence[str]) -> Mapping[str, Progress]:
        """Ask for several jobs; adapters override it where the provider can answer in bulk."""
        return {upstream_id: self.fetch(upstream_id) for upstream_id in upstream_ids}

    @abc.abstractmethod
    def recover(self, *, callback_token_digest: bytes) -> Accepted | None:
        """Find a job whose submission was lost, by the SHA-256 of its callback token; None where it is not there."""

    def cancel(self, upstream_id: str) -> Cancellation:
        """Ask the provider to stop a job."""
        return Cancellation.UNSUPPORTED

    @abc.abstractmethod
    def download(self, url: str, destination: Path, *, max_bytes: int) -> None:
        """Fetch an output into a file of at most `max_bytes`.

        Raises:
            DownloadError: it could not be fetched.
        """
