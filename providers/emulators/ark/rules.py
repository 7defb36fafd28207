"""What Ark takes and refuses in a request for a task (Ark sheet §2, §3, order of checks §12).

Where several parameters are wrong, Ark names one of them, and which one is arbitrary (§5).
"""

import re
import secrets
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import urlsplit

from providers.emulators.ark.errors import Refused

FORBIDDEN_WORD = "forbidden-text"
REAL_PERSON = "real-person"
MISSING_FILE = "404"
CHOSEN_SECONDS = 7
"""What the model makes of a duration of -1."""

_REJECTED_FIELDS = ("service_tier", "camera_fixed", "frames", "draft", "file_format")
_RATIOS = ("16:9", "4:3", "1:1", "3:4", "9:16", "21:9", "adaptive")
_FRAMES = ("first_frame", "last_frame")
_IMAGES = frozenset(["jpeg", "jpg", "png", "webp", "bmp", "tiff", "tif", "gif", "heic", "heif"])
_VIDEOS = frozenset(["mp4", "mov"])
_SOUNDS = frozenset(["wav", "mp3", "mpeg", "x-wav"])
_FORMATS = {"image": _IMAGES, "video": _VIDEOS, "audio": _SOUNDS}
_WRONG_FORMATS = frozenset(
    ["svg", "avif", "pdf", "txt", "html", "json", "avi", "mkv", "webm", "flv", "ogg", "flac", "aac", "m4a"]
)
_MAX_INLINE_BYTES = {"image": 30_000_000, "audio": 15_000_000}
_DATA_URI = re.compile(r"data:(image|audio)/([a-z0-9.+-]+);base64,")
_FLAG = re.compile(
    r"(?:^|\s)--(rs|resolution|rt|ratio|dur|duration|fps|framespersecond|wm|watermark|seed|cf|camerafixed)"
    r"(?:\s+|=)(\S+)",
    re.IGNORECASE,
)


@dataclass(frozen=True, slots=True)
class Model:
    """One row of the table of models (§2); `name` is the id without the cloud's prefix."""

    name: str
    resolutions: tuple[str, ...]
    max_seconds: int = 15
    default_seconds: int = 5
    max_count: Mapping[str, int] = field(default_factory=lambda: {"image": 9, "video": 3, "audio": 3})
    has_bitrate_mode: bool = True
    is_of_2_5: bool = False


MODELS = {
    model.name: model
    for model in (
        Model("seedance-2-0-260128", ("480p", "720p", "1080p", "4k")),
        Model("seedance-2-0-fast-260128", ("480p", "720p")),
        Model("seedance-2-0-mini-260615", ("480p", "720p"), has_bitrate_mode=False),
        Model(
            "seedance-2-5-260628",
            ("480p", "720p", "1080p"),
            max_seconds=30,
            default_seconds=-1,
            max_count={"image": 30, "video": 10, "audio": 10},
            is_of_2_5=True,
        ),
    )
}


@dataclass(frozen=True, slots=True)
class Order:
    """A request that was accepted, with everything decided that it left open."""

    model_id: str
    asked_model: str
    prompt: str
    resolution: str
    ratio: str
    duration: int
    seed: int
    has_mark: bool
    has_audio: bool
    has_last_frame: bool
    callback_url: str
    expires_after: int
    safety_identifier: str


@dataclass(frozen=True, slots=True)
class _Media:
    kind: str
    role: str | None
    url: str
    param: str


def prompt_of(body: Any) -> str:
    """Return the text of a request, however wrong the rest of it is."""
    content = body.get("content") if isinstance(body, dict) else None
    items = [item for item in content if isinstance(item, dict)] if isinstance(content, list) else []
    texts = [item.get("text") for item in items if item.get("type") == "text"]
    return "\n".join(text for text in texts if isinstance(text, str))


def check(
    body: dict[str, Any], *, model: Model, model_id: str, max_seed: int = 2**31 - 1, is_audio_usual: bool = True
) -> Order:
    """Return the order that a request makes.

    Raises:
        Refused: it makes none.
    """
    fields = {name: value for name, value in body.items() if value is not None}
    _raise_one(_rejected(fields))
    media: list[_Media] = []
    _raise_one(_read_content(fields, media))
    _raise_one(_role_faults(media))
    _raise_one(_mode_faults(media, model))
    _raise_one(_field_faults(fields, media, model, max_seed))
    _raise_one(_fetch_faults(media))
    prompt = prompt_of(body)
    _raise_one(_moderation_faults(prompt, media))
    return _order(fields, prompt, model, model_id, max_seed, is_audio_usual)


def _raise_one(faults: Iterable[Refused]) -> None:
    found = list(faults)
    if found:
        raise secrets.choice(found)


def _invalid(param: str, text: str) -> Refused:
    return Refused("InvalidParameter", text, param)


def _rejected(fields: Mapping[str, Any]) -> Iterator[Refused]:
    for name in _REJECTED_FIELDS:
        if name in fields:
            yield _invalid(name, f"{name} is not supported for model {fields['model']} and must be empty")


def _read_content(fields: Mapping[str, Any], media: list[_Media]) -> Iterator[Refused]:
    content = fields.get("content")
    if content is None or content == []:
        yield Refused("MissingParameter", "", "content")
        return
    if not isinstance(content, list):
        yield _invalid("content", "must be an array")
        return
    for index, item in enumerate(content):
        place = f"content[{index}]"
        kind = item.get("type") if isinstance(item, dict) else None
        if kind == "text":
            if not isinstance(item.get("text"), str) or not item["text"]:
                yield Refused("MissingParameter", "", f"{place}.text")
        elif kind in ("image_url", "video_url", "audio_url"):
            yield from _read_media(item, kind, f"{place}.{kind}", media)
        else:
            yield _invalid(f"{place}.type" if isinstance(item, dict) else place, "invalid content type")


def _read_media(item: Mapping[str, Any], field_name: str, place: str, media: list[_Media]) -> Iterator[Refused]:
    kind = field_name.removesuffix("_url")
    holder, role = item.get(field_name), item.get("role")
    if holder is None:
        yield Refused("MissingParameter", "", place)
    elif not isinstance(holder, dict):
        yield _invalid(place, f"{field_name} must be an object")
    elif not isinstance(holder.get("url"), str):
        yield Refused("MissingParameter", "", f"{place}.url")
    elif kind == "image" and not holder["url"]:
        yield Refused("InvalidImageURL.EmptyURL", "", place)
    elif role is not None and not isinstance(role, str):
        yield _invalid(place, f"invalid role specified for {kind} content")
    else:
        media.append(_Media(kind, role, holder["url"], place))
        yield from _url_faults(media[-1])


def _url_faults(item: _Media) -> Iterator[Refused]:
    if _is_web_url(item.url) or re.fullmatch(r"asset://.+", item.url):
        return
    if item.kind == "video":
        yield _invalid(item.param, "reference_video must be provided as a web url")
        return
    inline = _DATA_URI.match(item.url)
    if not inline or inline[1] != item.kind or inline[2] not in _FORMATS[item.kind]:
        sentence = f"{item.kind} must be a web url, an asset or a base64 data url of a supported format"
        yield Refused(
            "InvalidImageURL.InvalidFormat" if item.kind == "image" else "InvalidParameter", sentence, item.param
        )
    elif (len(item.url) - inline.end()) * 3 // 4 > _MAX_INLINE_BYTES[item.kind]:
        yield _invalid(item.param, f"the size of the {item.kind} exceeds the limit")


def _role_faults(media: list[_Media]) -> Iterator[Refused]:
    images = [item for item in media if item.kind == "image"]
    if any(item.role not in (*_FRAMES, "reference_image", None) for item in images):
        yield _invalid("content", "invalid role specified for image content")
    elif len(images) > 1 and any(item.role is None for item in images):
        yield _invalid("content", "role must be specified for image contents")
    for kind in ("video", "audio"):
        if any(item.kind == kind and item.role != f"reference_{kind}" for item in media):
            yield _invalid("content", f"reference media mode requires {kind} role to be reference_{kind}")


def _mode_faults(media: list[_Media], model: Model) -> Iterator[Refused]:
    for kind, limit in model.max_count.items():
        count = sum(item.kind == kind for item in media)
        if count > limit:
            yield _invalid("content", f"expected at most {limit} reference {kind} contents but got {count}")
    yield from _frame_faults([item.role or "first_frame" for item in media], model)


def _frame_faults(roles: list[str], model: Model) -> Iterator[Refused]:
    first_count, last_count = (roles.count(role) for role in _FRAMES)
    has_references = any(role.startswith("reference_") for role in roles)
    if first_count and has_references:
        yield _invalid("content", "first/last frame content cannot be mixed with reference media content")
    elif last_count and has_references:
        sentence = "last frame image content cannot be mixed with first frame or reference image content"
        yield _invalid("content", sentence)
    elif first_count > 1:
        yield _invalid("content", f"expected at most one first frame image content but got {first_count}")
    elif last_count > 1:
        yield _invalid("content", f"expected at most one last frame image content but got {last_count}")
    elif last_count and not first_count:
        yield _invalid("content", "last frame image content requires first frame image content")
    elif roles and set(roles) == {"reference_audio"} and not model.is_of_2_5:
        yield _invalid("content", "reference_audio cannot be the only reference input")


def _field_faults(fields: Mapping[str, Any], media: list[_Media], model: Model, max_seed: int) -> Iterator[Refused]:
    wrong = _wrong_fields(fields, model, max_seed)
    yield from (_invalid(name, f"the value is not supported for model {fields['model']}") for name in wrong)
    has_frame = any(item.role in (*_FRAMES, None) for item in media)
    if model.is_of_2_5 and has_frame and fields.get("ratio", "adaptive") != "adaptive":
        yield _invalid("ratio", "ratio must be adaptive with a first frame")


def _wrong_fields(fields: Mapping[str, Any], model: Model, max_seed: int) -> Iterator[str]:
    allowed: dict[str, Iterable[str]] = {"resolution": model.resolutions, "ratio": _RATIOS}
    if "bitrate_mode" in fields:
        allowed["bitrate_mode"] = ("standard", "high") if model.has_bitrate_mode else ()
    if model.is_of_2_5:
        allowed["output_format"] = ("mp4", "mov")
    for name, words in allowed.items():
        value = fields.get(name, "")
        is_word = isinstance(value, str) and (value.lower() if name == "resolution" else value) in words
        if name in fields and not is_word:
            yield name
    # The lower bound of an hour for `execution_expires_after` is not enforced on 2.x (§3.2).
    for name, low, high in (
        ("seed", -1, max_seed),
        ("priority", 0, 9),
        ("execution_expires_after", 1, 259_200),
    ):
        if name in fields and not _is_between(fields[name], low, high):
            yield name
    if "duration" in fields and not any(
        _is_between(fields["duration"], *span) for span in ((-1, -1), (4, model.max_seconds))
    ):
        yield "duration"
    for name in ("watermark", "generate_audio", "return_last_frame"):
        if not isinstance(fields.get(name, False), bool):
            yield name
    if "callback_url" in fields and not _is_web_url(fields["callback_url"]):
        yield "callback_url"
    identifier = fields.get("safety_identifier", "")
    if not isinstance(identifier, str) or len(identifier) > 64:
        yield "safety_identifier"
    tools = fields.get("tools", [])
    if not isinstance(tools, list) or any(tool != {"type": "web_search"} for tool in tools):
        yield "tools"


def _is_between(value: Any, low: int, high: int) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and low <= value <= high


def _is_web_url(value: Any) -> bool:
    try:
        return (
            isinstance(value, str)
            and bool(re.match(r"https?://", value, re.IGNORECASE))
            and bool(urlsplit(value).hostname)
        )
    except ValueError:
        return False


def _fetch_faults(media: list[_Media]) -> Iterator[Refused]:
    known = _WRONG_FORMATS.union(*_FORMATS.values())
    for item in media:
        # Not the query: a signature there may contain any digits.
        path = urlsplit(item.url).path if _is_web_url(item.url) else ""
        ending = path.rpartition(".")[2].lower()
        if MISSING_FILE in path:
            yield _invalid(item.param, "resource download failed")
        elif ending in known and ending not in _FORMATS[item.kind]:
            yield _invalid(item.param, f"the format of the {item.kind} resource is not supported")


def _moderation_faults(prompt: str, media: list[_Media]) -> Iterator[Refused]:
    if FORBIDDEN_WORD in prompt:
        yield Refused("InputTextSensitiveContentDetected")
    for item in media:
        if item.kind != "audio" and REAL_PERSON in item.url and not item.url.startswith("asset://"):
            yield Refused(f"Input{item.kind.title()}SensitiveContentDetected.PrivacyInformation", "", item.param)


def _order(
    fields: Mapping[str, Any], prompt: str, model: Model, model_id: str, max_seed: int, is_audio_usual: bool
) -> Order:
    # Flags in the prompt win over the fields (§10.4): whoever lets them through gets another task than paid for.
    chosen = {"resolution": "720p", "ratio": "adaptive", "duration": model.default_seconds, "seed": -1, **fields}
    chosen.update(_flags(prompt, model, max_seed))
    return Order(
        model_id=model_id,
        asked_model=fields["model"],
        prompt=prompt,
        resolution=chosen["resolution"].lower(),
        ratio="16:9" if chosen["ratio"] == "adaptive" else chosen["ratio"],
        duration=CHOSEN_SECONDS if chosen["duration"] == -1 else chosen["duration"],
        seed=secrets.randbelow(2**31) if chosen["seed"] == -1 else chosen["seed"],
        has_mark=chosen.get("watermark", False),
        has_audio=chosen.get("generate_audio", is_audio_usual),
        has_last_frame=chosen.get("return_last_frame", False),
        callback_url=chosen.get("callback_url", ""),
        expires_after=chosen.get("execution_expires_after", 172_800),
        safety_identifier=chosen.get("safety_identifier", ""),
    )


def _flags(prompt: str, model: Model, max_seed: int) -> dict[str, Any]:
    """Return the fields that a prompt's suffix flags set; flags with unusable values do nothing."""
    names = {"rs": "resolution", "rt": "ratio", "dur": "duration", "wm": "watermark"}
    found: dict[str, Any] = {}
    for flag, text in _FLAG.findall(prompt):
        name = names.get(flag.lower(), flag.lower())
        value: Any = text
        if name in ("duration", "seed"):
            value = int(text) if re.fullmatch(r"-?[0-9]{1,10}", text) else None
        elif name == "watermark":
            value = {"true": True, "false": False}.get(text.lower())
        if not list(_wrong_fields({name: value}, model, max_seed)):
            found[name] = value
    return found
