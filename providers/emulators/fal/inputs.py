"""What the provider's models take, and what they refuse at once or only when they read the files (fal sheet §1, §2)."""

import dataclasses
import json
from collections.abc import Mapping
from pathlib import PurePosixPath
from typing import Any
from urllib.parse import urlsplit

from providers.emulators.fal import errors
from providers.emulators.server import Request

APP = "bytedance/seedance-2.0"
MAX_FILES = 12
FILE_SECONDS = 7 * 86400
_MAX_OF = {"image_urls": 9, "video_urls": 3, "audio_urls": 3}
_DURATIONS = ("auto", *(str(seconds) for seconds in range(4, 16)))
_RATIOS = ("auto", "21:9", "16:9", "4:3", "1:1", "3:4", "9:16")
_BITRATES = ("standard", "high")
# Suffixes, as one is all that can be known without a download, which an emulator does not make.
_TAKEN = {
    "image": {"", ".jpg", ".jpeg", ".png", ".webp"},
    "video": {"", ".mp4", ".mov"},
    "audio": {"", ".mp3", ".wav"},
}
_KNOWN = {
    "image": {".bmp", ".gif", ".tif", ".tiff", ".heic", ".heif", ".avif", ".svg"},
    "video": {".webm", ".mkv", ".avi", ".m4v", ".flv", ".wmv", ".mpg", ".mpeg"},
    "audio": {".m4a", ".aac", ".ogg", ".oga", ".opus", ".flac", ".wma"},
}


@dataclasses.dataclass(frozen=True, slots=True)
class Endpoint:
    """One endpoint: the resolutions of its tier and the files that its form takes."""

    path: str
    resolutions: tuple[str, ...]
    form: str
    has_bitrate: bool


@dataclasses.dataclass(frozen=True, slots=True)
class Options:
    """What headers and query ask of the queue; seconds to wait for a start, and for files to live after the end."""

    webhook_url: str
    timeout_seconds: float
    lifetime_seconds: int
    is_low: bool
    is_stored: bool
    is_repeatable: bool

    @classmethod
    def of(cls, request: Request) -> "Options":
        """Read a request.

        Raises:
            ValueError: it asks for what there is not.
        """
        headers = request.headers
        webhook_url = request.query.get("fal_webhook", [""])[0]
        parts = urlsplit(webhook_url)
        # Documented as https; on loopback there is none.
        if webhook_url and (parts.scheme not in ("http", "https") or not parts.hostname or parts.port == 0):
            raise ValueError("fal_webhook is not a valid URL")
        timeout_seconds = float(headers.get("x-fal-request-timeout", "inf"))
        if not timeout_seconds > 1:
            raise ValueError("X-Fal-Request-Timeout must be greater than 1")
        priority = headers.get("x-fal-queue-priority", "normal")
        if priority not in ("normal", "low"):
            raise ValueError("X-Fal-Queue-Priority must be normal or low")
        lifecycle = json.loads(headers.get("x-fal-object-lifecycle-preference", "{}"))
        lifetime = lifecycle.get("expiration_duration_seconds", FILE_SECONDS) if isinstance(lifecycle, dict) else 0
        if not isinstance(lifetime, int) or lifetime <= 0:
            raise ValueError("X-Fal-Object-Lifecycle-Preference is not valid")
        return cls(
            webhook_url=webhook_url,
            timeout_seconds=timeout_seconds,
            lifetime_seconds=lifetime,
            is_low=priority == "low",
            is_stored=headers.get("x-fal-store-io") != "0",
            is_repeatable=headers.get("x-fal-no-retry") != "1",
        )


def _endpoints() -> dict[str, Endpoint]:
    tiers = {"": ("480p", "720p", "1080p", "4k"), "/fast": ("480p", "720p"), "/mini": ("480p", "720p")}
    return {
        f"{APP}{tier}/{form}": Endpoint(f"{APP}{tier}/{form}", resolutions, form, tier != "/mini")
        for tier, resolutions in tiers.items()
        for form in ("text-to-video", "image-to-video", "reference-to-video")
    }


ENDPOINTS = _endpoints()


def faults(endpoint: Endpoint, body: Any) -> list[dict[str, Any]]:
    """Return all that breaks the schema, as elements of `detail`; fields that it does not know are ignored."""
    if not isinstance(body, dict):
        return [errors.entry("", "value_error", "Input should be an object", body)]
    found = [*_texts(body, "prompt", is_required=True), *_texts(body, "end_user_id")]
    choices = {"duration": _DURATIONS, "aspect_ratio": _RATIOS, "resolution": endpoint.resolutions}
    if endpoint.has_bitrate:
        choices["bitrate_mode"] = _BITRATES
    for field, values in choices.items():
        # An integer 5 is not among the texts: no coercion.
        if field in body and body[field] not in values:
            permitted = ", ".join(f"'{value}'" for value in values)
            found.append(errors.entry(field, "literal_error", f"Input should be one of {permitted}", body[field]))
    if not isinstance(body.get("generate_audio", True), bool):
        message = "Input should be a valid boolean"
        found.append(errors.entry("generate_audio", "value_error", message, body["generate_audio"]))
    if endpoint.form == "image-to-video":
        found += [*_texts(body, "image_url", is_required=True), *_texts(body, "end_image_url")]
    if endpoint.form == "reference-to-video":
        found += _references(body)
    return found


def unreadable(endpoint: Endpoint, body: Mapping[str, Any]) -> errors.Failure | None:
    """Return the failure of the first reference that the model could not read, judged by its address."""
    for field, kind, url in _files(endpoint, body):
        try:
            parts = urlsplit(url)
        except ValueError:
            return errors.model("file_download_error", body, field=field)
        if parts.scheme not in ("http", "https") or not parts.hostname:
            return errors.model("file_download_error", body, field=field)
        suffix = PurePosixPath(parts.path).suffix.lower()
        others = set().union(*_TAKEN.values(), *_KNOWN.values()) - _TAKEN[kind]
        if suffix in others:
            return errors.model(f"unsupported_{kind}_format", body, field=field)
    return None


def _texts(body: Mapping[str, Any], field: str, *, is_required: bool = False) -> list[dict[str, Any]]:
    if field not in body and is_required:
        return [errors.entry(field, "missing", "Field required", dict(body))]
    value = body.get(field)
    if isinstance(value, str) or (value is None and not is_required):
        return []
    return [errors.entry(field, "value_error", "Input should be a valid string", value)]


def _references(body: Mapping[str, Any]) -> list[dict[str, Any]]:
    found = []
    counts: dict[str, int] = {}
    for field, maximum in _MAX_OF.items():
        value = body.get(field)
        if value is None:
            value = []
        if not isinstance(value, list) or not all(isinstance(url, str) for url in value):
            found.append(errors.entry(field, "value_error", "Input should be a valid list of strings", value))
            continue
        counts[field] = len(value)
        if len(value) > maximum:
            message = f"List should have at most {maximum} items, not {len(value)}"
            found.append(errors.entry(field, "value_error", message, value))
    if found:
        return found
    if sum(counts.values()) > MAX_FILES:
        message = f"At most {MAX_FILES} reference files may be given, not {sum(counts.values())}"
        return [errors.entry("", "value_error", message, dict(body))]
    if counts["audio_urls"] and not counts["image_urls"] and not counts["video_urls"]:
        message = "Audio references need at least one image or video reference"
        return [errors.entry("audio_urls", "value_error", message, body["audio_urls"])]
    return []


def _files(endpoint: Endpoint, body: Mapping[str, Any]) -> list[tuple[str, str, str]]:
    if endpoint.form == "image-to-video":
        fields = ("image_url", "end_image_url")
        return [(field, "image", body[field]) for field in fields if body.get(field) is not None]
    if endpoint.form == "reference-to-video":
        return [(field, field.split("_")[0], url) for field in _MAX_OF for url in body.get(field) or ()]
    return []
