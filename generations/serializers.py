"""What a create request may hold, and what each rule says when broken (public page, "Create Video Task")."""

import json
from collections.abc import Iterator, Mapping
from typing import Any

from drf_spectacular.utils import extend_schema_field
from rest_framework import serializers

from generations.specs import JobSpec
from seedancee2.api.fields import (
    PublicURL,
    StrictBoolean,
    StrictChar,
    StrictChoice,
    StrictInteger,
    StrictList,
    StrictObject,
)

MAX_PROMPT_LENGTH = 5000
MAX_IMAGES = 9
MAX_VIDEOS = 3
MAX_AUDIOS = 3
MIN_DURATION = 4
MAX_DURATION = 15
NO_SEED = -1
MAX_SEED = 2**53 - 1
MAX_METADATA_KEYS = 50
MAX_METADATA_BYTES = 16 * 1024
MAX_METADATA_DEPTH = 5

OMNI_REFERENCE = "omni_reference"
FIRST_AND_LAST_FRAMES = "first_and_last_frames"
GENERATION_TYPES = [OMNI_REFERENCE, FIRST_AND_LAST_FRAMES]
RESOLUTIONS = ["480p", "720p", "1080p"]
ASPECT_RATIOS = ["16:9", "4:3", "1:1", "3:4", "9:16", "21:9", "adaptive"]

DEFAULTS = JobSpec(model="", prompt="")
_FRAMES = ("start_image_url", "end_image_url")


@extend_schema_field(
    {
        "type": ["object", "null"],
        "additionalProperties": True,
        "maxProperties": MAX_METADATA_KEYS,
        "description": (
            "Customer-defined metadata, echoed back in replies and webhooks. "
            f"At most {MAX_METADATA_BYTES // 1024} KiB as JSON, nested at most {MAX_METADATA_DEPTH} levels deep."
        ),
    }
)
class MetadataField(serializers.Field[dict[str, Any], Any, Any, Any]):
    """The customer's own object, echoed back equal as JSON."""

    default_error_messages = {
        "invalid": "must be an object.",
        "too_many_keys": f"must not have more than {MAX_METADATA_KEYS} keys.",
        "too_deep": f"must not be nested more than {MAX_METADATA_DEPTH} levels deep.",
        "too_large": f"must not be larger than {MAX_METADATA_BYTES // 1024} KiB as JSON.",
    }

    def to_internal_value(self, data: Any) -> dict[str, Any]:
        """Return the object; every limit that it breaks is named."""
        if not isinstance(data, dict):
            self.fail("invalid")
        broken = []
        if len(data) > MAX_METADATA_KEYS:
            broken.append("too_many_keys")
        if _depth(data) > MAX_METADATA_DEPTH:
            broken.append("too_deep")
        if len(json.dumps(data, ensure_ascii=False, separators=(",", ":")).encode()) > MAX_METADATA_BYTES:
            broken.append("too_large")
        if broken:
            raise serializers.ValidationError([self.error_messages[name] for name in broken])
        return data

    def to_representation(self, value: dict[str, Any]) -> dict[str, Any]:
        """Return the object."""
        return value


class InputSerializer(StrictObject):
    """The generation parameters, in the order of the page."""

    prompt = StrictChar(max_length=MAX_PROMPT_LENGTH, help_text="Text prompt.")
    generation_type = StrictChoice(
        GENERATION_TYPES, default=DEFAULTS.generation_type, allow_null=True, help_text="What the references are for."
    )
    image_urls = StrictList(
        child=PublicURL(),
        max_length=MAX_IMAGES,
        required=False,
        allow_null=True,
        help_text="Reference image URLs; exactly two, first and last, with first_and_last_frames.",
    )
    video_url = PublicURL(required=False, allow_null=True, help_text="Single reference video URL.")
    video_urls = StrictList(
        child=PublicURL(),
        max_length=MAX_VIDEOS,
        required=False,
        allow_null=True,
        help_text="Reference video URLs. Do not send together with video_url.",
    )
    audio_urls = StrictList(
        child=PublicURL(), max_length=MAX_AUDIOS, required=False, allow_null=True, help_text="Reference audio URLs."
    )
    start_image_url = PublicURL(
        required=False, allow_null=True, help_text="First frame image for first_and_last_frames."
    )
    end_image_url = PublicURL(required=False, allow_null=True, help_text="Last frame image for first_and_last_frames.")
    duration = StrictInteger(
        minimum=MIN_DURATION,
        maximum=MAX_DURATION,
        default=DEFAULTS.duration,
        allow_null=True,
        help_text="Output duration in seconds.",
    )
    resolution = StrictChoice(
        RESOLUTIONS, default=DEFAULTS.resolution, allow_null=True, help_text="Which are available depends on the model."
    )
    aspect_ratio = StrictChoice(
        ASPECT_RATIOS, default=DEFAULTS.aspect_ratio, allow_null=True, help_text="Shape of the picture."
    )
    generate_audio = StrictBoolean(
        default=DEFAULTS.generate_audio, allow_null=True, help_text="Generate synchronized audio when supported."
    )
    watermark = StrictBoolean(default=DEFAULTS.watermark, allow_null=True, help_text="Request watermarked output.")
    seed = StrictInteger(
        minimum=NO_SEED,
        maximum=MAX_SEED,
        required=False,
        allow_null=True,
        help_text="Deterministic seed, best effort; -1 is no seed.",
    )
    return_last_frame = StrictBoolean(
        default=DEFAULTS.return_last_frame,
        allow_null=True,
        help_text="Include the last frame image in the output payload.",
    )

    def combination_problems(self, values: Mapping[str, Any], problems: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
        """Yield what is wrong between the references and the generation type ("Input Guidelines")."""
        sent = {*problems, *(name for name, value in values.items() if value)}
        if {"video_url", "video_urls"} <= sent:
            yield "video_urls", "must not be sent together with input.video_url."
        match values.get("generation_type"):
            case "omni_reference":
                for name in _FRAMES:
                    if name in sent:
                        yield (
                            name,
                            "is only for first_and_last_frames: set input.generation_type to that, or use image_urls.",
                        )
            case "first_and_last_frames":
                yield from self._frame_problems(values, problems, sent)

    def _frame_problems(
        self, values: Mapping[str, Any], problems: Mapping[str, Any], sent: set[str]
    ) -> Iterator[tuple[str, str]]:
        frames = [name for name in _FRAMES if name in sent]
        if "image_urls" in sent and frames:
            yield "image_urls", "must not be sent together with input.start_image_url or input.end_image_url."
        elif "image_urls" in sent:
            if "image_urls" not in problems and len(values["image_urls"]) != 2:
                yield (
                    "image_urls",
                    "must hold exactly 2 images for first_and_last_frames: the first and the last frame.",
                )
        elif not frames:
            yield (
                "start_image_url",
                "and input.end_image_url are required for first_and_last_frames, or two images in input.image_urls.",
            )
        elif len(frames) == 1:
            missing = next(name for name in _FRAMES if name not in frames)
            yield missing, f"is required together with input.{frames[0]}."
        for name in ("video_url", "video_urls", "audio_urls"):
            if name in sent:
                yield name, "is not allowed with first_and_last_frames."


class CreateSerializer(StrictObject):
    """The top of a create request, in the order of the page."""

    model = StrictChar(
        allow_blank=True, trim_whitespace=False, help_text="Public model name: `pro`, `fast`, or `mini`."
    )
    input = InputSerializer(help_text="Generation parameters.")
    callback_url = PublicURL(
        required=False, allow_null=True, help_text="Public webhook URL for completion or failure callbacks."
    )
    metadata = MetadataField(required=False)


def _depth(value: Any) -> int:
    """Count the levels of objects and lists, the outermost being the first; the parser has bounded them."""
    if isinstance(value, dict):
        return 1 + max((_depth(item) for item in value.values()), default=0)
    if isinstance(value, list):
        return 1 + max((_depth(item) for item in value), default=0)
    return 0
