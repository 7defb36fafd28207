"""The files an emulated provider serves: real videos and pictures, drawn as the sandbox draws them."""

import functools
import tempfile
from pathlib import Path

from providers import sandbox_render


@functools.lru_cache(maxsize=64)
def video(*, prompt: str, duration: int, resolution: str, ratio: str, has_audio: bool, has_mark: bool) -> bytes:
    """Return an MP4 file; `duration` in seconds."""
    with tempfile.TemporaryDirectory(prefix="emulated-") as folder:
        path = Path(folder) / "video.mp4"
        sandbox_render.write_video(_scene(prompt, duration, resolution, ratio, has_audio, has_mark), path)
        return path.read_bytes()


@functools.lru_cache(maxsize=64)
def last_frame(*, prompt: str, duration: int, resolution: str, ratio: str) -> bytes:
    """Return the video's last picture as a PNG file."""
    with tempfile.TemporaryDirectory(prefix="emulated-") as folder:
        path = Path(folder) / "last.png"
        sandbox_render.write_last_frame(_scene(prompt, duration, resolution, ratio, False, False), path)
        return path.read_bytes()


def _scene(
    prompt: str, duration: int, resolution: str, ratio: str, has_audio: bool, has_mark: bool
) -> sandbox_render.Scene:
    return sandbox_render.Scene(
        prompt=prompt,
        seed=prompt,
        duration=duration,
        size=sandbox_render.size_of(resolution=resolution, aspect_ratio=ratio),
        has_audio=has_audio,
        has_watermark=has_mark,
    )
