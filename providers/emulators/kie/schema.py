"""What Kie takes as a new task (Kie sheet §1 and §2)."""

import re
from typing import Any

MODELS = {
    "bytedance/seedance-2": (("480p", "720p", "1080p"), 15),
    "bytedance/seedance-2-fast": (("480p", "720p"), 15),
    "bytedance/seedance-2-mini": (("480p", "720p"), 15),
    "bytedance/seedance-2-5": (("480p", "720p", "1080p"), 30),
}
"""Resolutions, and the longest video in seconds."""
MIN_DURATION = 4
MAX_PLAYING_SECONDS = 15.0
DEFAULTS = {"resolution": "720p", "aspect_ratio": "16:9", "duration": 5, "generate_audio": True}
_RATIOS = ("16:9", "4:3", "1:1", "3:4", "9:16", "21:9", "adaptive")
_FRAMES = ("first_frame_url", "last_frame_url")
_REFERENCES = {"reference_image_urls": 9, "reference_video_urls": 3, "reference_audio_urls": 3}
_SWITCHES = ("generate_audio", "return_last_frame", "web_search", "nsfw_checker")
_KEYS = {"prompt", *_FRAMES, *_REFERENCES, "resolution", "aspect_ratio", "duration", *_SWITCHES}
_CALLBACK_URL = re.compile(r"https?://\S+")
_MEDIA_URL = re.compile(r"(https?|asset)://\S+")
_SECONDS = re.compile(r"[?&]seconds=(\d+(?:\.\d+)?)")


class Invalid(Exception):
    """Kie refuses the task with 422 and this sentence."""


def check(body: dict[str, Any], *, accepts_adaptive: bool = True, accepts_extra_keys: bool = True) -> None:
    """Check the body of a createTask request.

    Raises:
        Invalid: a rule of the sheet is broken.
    """
    model, given = body.get("model"), body.get("input")
    if not isinstance(model, str) or model not in MODELS:
        raise Invalid("The model is not supported")
    if not isinstance(given, dict):
        raise Invalid("input must be an object")
    if "callBackUrl" in body:
        _check_url("callBackUrl", body["callBackUrl"], _CALLBACK_URL)
    if not isinstance(given.get("prompt"), str) or not given["prompt"].strip():
        raise Invalid("prompt is required")
    if not accepts_extra_keys and (extra := given.keys() - _KEYS):
        raise Invalid(f"{min(extra)} is not a known parameter")
    _check_form(model, given, accepts_adaptive=accepts_adaptive)
    _check_media(given)


def _check_form(model: str, given: dict[str, Any], *, accepts_adaptive: bool) -> None:
    resolutions, max_duration = MODELS[model]
    _check_choice("resolution", given, resolutions)
    _check_choice("aspect_ratio", given, _RATIOS if accepts_adaptive else _RATIOS[:-1])
    duration = given.get("duration", DEFAULTS["duration"])
    if type(duration) is not int or not MIN_DURATION <= duration <= max_duration:
        raise Invalid(f"duration must be an integer from {MIN_DURATION} to {max_duration}")
    for key in _SWITCHES:
        if key in given and not isinstance(given[key], bool):
            raise Invalid(f"{key} must be a boolean")


def _check_media(given: dict[str, Any]) -> None:
    for key in _FRAMES:
        if key in given:
            _check_url(key, given[key])
    for key, limit in _REFERENCES.items():
        urls = given.get(key, [])
        if not isinstance(urls, list) or len(urls) > limit:
            raise Invalid(f"{key} must be an array of at most {limit} URLs")
        for url in urls:
            _check_url(key, url)
    images, videos, audios = (given.get(key, []) for key in _REFERENCES)
    if "last_frame_url" in given and "first_frame_url" not in given:
        raise Invalid("last_frame_url requires first_frame_url")
    if "first_frame_url" in given and (images or videos or audios):
        raise Invalid("first_frame_url, last_frame_url and the reference arrays are mutually exclusive")
    if audios and not (images or videos):
        raise Invalid("reference_audio_urls requires a reference image or video")
    for word, urls in (("videos", videos), ("audios", audios)):
        if sum(map(_playing_seconds, urls)) > MAX_PLAYING_SECONDS:
            raise Invalid(f"The total duration of the {word} must not exceed 15 seconds")


def _check_choice(key: str, given: dict[str, Any], choices: tuple[str, ...]) -> None:
    value = given.get(key, DEFAULTS[key])
    if not isinstance(value, str) or value not in choices:
        raise Invalid(f"{key} must be one of {', '.join(choices)}")


def _check_url(key: str, url: object, shape: re.Pattern[str] = _MEDIA_URL) -> None:
    if not isinstance(url, str) or not shape.fullmatch(url):
        raise Invalid(f"{key} must be a URL")


def _playing_seconds(url: str) -> float:
    found = _SECONDS.search(url)
    return float(found[1]) if found else 1.0
