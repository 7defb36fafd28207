"""What a customer asked for, checked and with every default filled in."""

import dataclasses
from collections.abc import Mapping
from typing import Any

from providers.adapters.base import JobRequest


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class JobSpec:
    """A create request after validation. `duration` is in seconds; empty tuples and None mean absent."""

    model: str
    prompt: str
    generation_type: str = "omni_reference"
    image_urls: tuple[str, ...] = ()
    video_urls: tuple[str, ...] = ()
    audio_urls: tuple[str, ...] = ()
    start_image_url: str | None = None
    end_image_url: str | None = None
    duration: int = 5
    resolution: str = "720p"
    aspect_ratio: str = "adaptive"
    generate_audio: bool = True
    watermark: bool = False
    seed: int | None = None
    return_last_frame: bool = False
    callback_url: str = ""
    metadata: Mapping[str, Any] = dataclasses.field(default_factory=dict)

    def input_json(self) -> dict[str, Any]:
        """Return the input as it is stored with the generation: everything but model, callback and metadata."""
        return {name: getattr(self, name) for name in _INPUT_NAMES}

    def job_request(self) -> JobRequest:
        """Translate into what adapters understand, with the two frames in their own fields."""
        frames: tuple[str | None, str | None] = (None, None)
        images = self.image_urls
        if self.generation_type == "first_and_last_frames":
            frames = (self.start_image_url, self.end_image_url) if self.start_image_url else (images[0], images[1])
            images = ()
        return JobRequest(
            model=self.model,
            prompt=self.prompt,
            duration=self.duration,
            resolution=self.resolution,
            aspect_ratio=self.aspect_ratio,
            generate_audio=self.generate_audio,
            watermark=self.watermark,
            return_last_frame=self.return_last_frame,
            seed=self.seed,
            image_urls=images,
            video_urls=self.video_urls,
            audio_urls=self.audio_urls,
            first_frame_url=frames[0],
            last_frame_url=frames[1],
        )


_BESIDE_INPUT = ("model", "callback_url", "metadata")
_INPUT_NAMES = [field.name for field in dataclasses.fields(JobSpec) if field.name not in _BESIDE_INPUT]
