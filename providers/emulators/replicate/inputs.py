"""What Replicate takes for a prediction: the schema, checked on creation, and the rules, checked by the model (§2)."""

import re
from collections.abc import Iterator, Mapping
from typing import Any
from urllib.parse import urlsplit

PRO = "bytedance/seedance-2.0"
FAST = "bytedance/seedance-2.0-fast"
MINI = "bytedance/seedance-2.0-mini"
MODELS = (PRO, FAST, MINI)
# The beginnings of the version ids that the sheet's sources name (§12).
VERSIONS = {"d456b64a": PRO, "affbecc3": PRO, "90388a62": FAST}
EVENTS = ("start", "output", "logs", "completed")
RATIOS = ("16:9", "4:3", "1:1", "3:4", "9:16", "21:9", "adaptive")
RESOLUTIONS = ("480p", "720p")
MAX_REFERENCES = {"reference_images": 9, "reference_videos": 3, "reference_audios": 3}
DEFAULTS: dict[str, Any] = {
    "duration": 5,
    "resolution": "720p",
    "aspect_ratio": "16:9",
    "generate_audio": True,
}
MIN_DURATION, MAX_DURATION = -1, 15
MIN_MODEL_DURATION = 4
DECIDED_DURATION = 5
"""Seconds that the model chooses where it may."""
MIN_CANCEL_AFTER_SECONDS = 5.0

_TYPES: dict[str, type] = {
    "prompt": str,
    "image": str,
    "last_frame_image": str,
    "reference_images": list,
    "reference_videos": list,
    "reference_audios": list,
    "duration": int,
    "resolution": str,
    "aspect_ratio": str,
    "generate_audio": bool,
    "seed": int,
}
_TYPE_NAMES = {str: "string", list: "array", int: "integer", bool: "boolean", dict: "object"}
_VERSION = re.compile(r"[0-9a-f]{64}")
_CANCEL_AFTER = re.compile(r"(?=\d)(?:(\d+)h)?(?:(\d+)m)?(?:(\d+)s)?")
Fault = tuple[str, str]


def model_of(version: object) -> str | None:
    """Return the model to which a version id belongs; None for one that is not an id or not known."""
    if not isinstance(version, str) or not _VERSION.fullmatch(version):
        return None
    return VERSIONS.get(version[:8])


def cancel_after(header: str) -> float | None:
    """Return the seconds of a `Cancel-After` header such as `90s` or `1h30m`; None where it says nothing usable."""
    match = _CANCEL_AFTER.fullmatch(header.strip())
    if not match:
        return None
    hours, minutes, seconds = (int(part or 0) for part in match.groups())
    total = float(hours * 3600 + minutes * 60 + seconds)
    return total if total >= MIN_CANCEL_AFTER_SECONDS else None


def faults(body: Mapping[str, Any], *, model: str, are_others_taken: bool, has_full_hd: bool) -> list[Fault]:
    """Return what the schema has against a request; nothing where it is in order.

    `are_others_taken`: whether unknown fields are let pass; `has_full_hd`: whether the pro model makes 1080p.
    """
    found = list(_request_faults(body))
    given = body.get("input")
    if isinstance(given, dict):
        resolutions = (*RESOLUTIONS, "1080p") if has_full_hd and model == PRO else RESOLUTIONS
        found += _input_faults(given, resolutions)
    if not are_others_taken:
        known = ("input", "webhook", "webhook_events_filter", "version")
        found += [("(root)", f"Additional property {name} is not allowed") for name in body if name not in known]
        if isinstance(given, dict):
            found += [("input", f"Additional property {name} is not allowed") for name in given if name not in _TYPES]
    return found


def rule_fault(given: Mapping[str, Any]) -> Fault | None:
    """Return the first rule of the model, beyond its schema, that an input breaks."""
    references = [name for name in MAX_REFERENCES if given.get(name)]
    if given.get("image") and references:
        return "input.image", f"image cannot be used together with {references[0]}"
    if given.get("last_frame_image") and not given.get("image"):
        return "input.last_frame_image", "last_frame_image needs image"
    if references == ["reference_audios"]:
        return "input.reference_audios", "reference_audios needs a reference image or a reference video"
    duration = given.get("duration", DEFAULTS["duration"])
    if duration != MIN_DURATION and duration < MIN_MODEL_DURATION:
        return "input.duration", f"duration must be {MIN_DURATION} or between {MIN_MODEL_DURATION} and {MAX_DURATION}"
    return None


def urls(given: Mapping[str, Any]) -> list[str]:
    """Return every address in an input."""
    frames = [given[name] for name in ("image", "last_frame_image") if given.get(name)]
    return frames + [url for name in MAX_REFERENCES for url in given.get(name) or []]


def _request_faults(body: Mapping[str, Any]) -> Iterator[Fault]:
    if "input" not in body:
        yield "(root)", "input is required"
    elif not isinstance(body["input"], dict):
        yield "input", _wrong_type(dict, body["input"])
    if "webhook" in body and not _is_webhook(body["webhook"]):
        yield "webhook", "Must be an HTTPS URL"
    events = body.get("webhook_events_filter", [])
    if not isinstance(events, list):
        yield "webhook_events_filter", _wrong_type(list, events)
    elif unknown := [event for event in events if event not in EVENTS]:
        yield "webhook_events_filter", f"Must be among {', '.join(EVENTS)}, given: {unknown[0]}"


def _input_faults(given: Mapping[str, Any], resolutions: tuple[str, ...]) -> Iterator[Fault]:
    if "prompt" not in given:
        yield "input", "prompt is required"
    for name, value in given.items():
        kind = _TYPES.get(name)
        if kind is None:
            continue
        if not _is_a(kind, value):
            yield f"input.{name}", _wrong_type(kind, value)
        elif name in ("image", "last_frame_image") and not _is_uri(value):
            yield f"input.{name}", "Does not match format 'uri'"
        elif name in MAX_REFERENCES:
            yield from _reference_faults(name, value)
        elif name == "duration" and not MIN_DURATION <= value <= MAX_DURATION:
            yield "input.duration", f"Must be between {MIN_DURATION} and {MAX_DURATION}"
        elif name == "resolution" and value not in resolutions:
            yield "input.resolution", f"Must be one of the following: {', '.join(resolutions)}"
        elif name == "aspect_ratio" and value not in RATIOS:
            yield "input.aspect_ratio", f"Must be one of the following: {', '.join(RATIOS)}"


def _reference_faults(name: str, references: list[Any]) -> Iterator[Fault]:
    if len(references) > MAX_REFERENCES[name]:
        yield f"input.{name}", f"Array must have at most {MAX_REFERENCES[name]} items"
    for index, url in enumerate(references):
        if not _is_uri(url):
            yield f"input.{name}.{index}", "Does not match format 'uri'"


def _is_a(kind: type, value: object) -> bool:
    return type(value) is kind  # Not isinstance: true is no integer in JSON.


def _wrong_type(kind: type, value: object) -> str:
    return f"Invalid type. Expected: {_TYPE_NAMES[kind]}, given: {_TYPE_NAMES.get(type(value), 'null or number')}"


def _is_uri(value: object) -> bool:
    if not isinstance(value, str):
        return False
    try:
        parts = urlsplit(value)
    except ValueError:
        return False
    return (parts.scheme in ("http", "https") and bool(parts.hostname)) or value.startswith("data:")


def _is_webhook(value: object) -> bool:
    if not isinstance(value, str) or not _is_uri(value):
        return False
    parts = urlsplit(value)
    # On loopback there is nobody to give certificates.
    return parts.scheme == "https" or (parts.scheme == "http" and parts.hostname in ("127.0.0.1", "localhost", "::1"))
