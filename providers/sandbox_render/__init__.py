"""Draws and encodes the sandbox provider's videos: real files, made on this machine in about a second."""

import dataclasses
from fractions import Fraction
from pathlib import Path
from typing import cast

import av
from av.audio.stream import AudioStream
from av.bitstream import BitStreamFilterContext
from av.codec.context import Flags
from av.container.output import OutputContainer
from av.video.frame import VideoFrame
from av.video.reformatter import ColorPrimaries, ColorRange, Colorspace, ColorTrc
from av.video.stream import VideoStream
from PIL import Image

from providers.sandbox_render import tone
from providers.sandbox_render.picture import Picture

FRAME_RATE = 24
KEYFRAME_SECONDS = 2
ADAPTIVE = "adaptive"

# Width and height in pixels; every number is even, since chroma has half the resolution.
SIZES: dict[str, dict[str, tuple[int, int]]] = {
    "480p": {
        "16:9": (864, 496),
        "4:3": (752, 560),
        "1:1": (640, 640),
        "3:4": (560, 752),
        "9:16": (496, 864),
        "21:9": (992, 432),
    },
    "720p": {
        "16:9": (1280, 720),
        "4:3": (1112, 834),
        "1:1": (960, 960),
        "3:4": (834, 1112),
        "9:16": (720, 1280),
        "21:9": (1470, 630),
    },
    "1080p": {
        "16:9": (1920, 1080),
        "4:3": (1664, 1248),
        "1:1": (1440, 1440),
        "3:4": (1248, 1664),
        "9:16": (1080, 1920),
        "21:9": (2206, 946),
    },
}


@dataclasses.dataclass(frozen=True, slots=True)
class Scene:
    """All that decides the bytes of one video; `duration` is in seconds, `size` in pixels."""

    prompt: str
    seed: str
    duration: int
    size: tuple[int, int]
    has_audio: bool
    has_watermark: bool

    @property
    def frame_count(self) -> int:
        """Return the number of pictures in the video."""
        return self.duration * FRAME_RATE


def size_of(*, resolution: str, aspect_ratio: str) -> tuple[int, int]:
    """Return width and height in pixels; `adaptive` is 16:9."""
    return SIZES[resolution]["16:9" if aspect_ratio == ADAPTIVE else aspect_ratio]


def write_video(scene: Scene, destination: Path) -> None:
    """Write the scene as an MP4 file: the same scene gives the same bytes."""
    picture = _picture_of(scene)
    options = {"movflags": "+faststart", "fflags": "+bitexact"}
    with av.open(str(destination), "w", format="mp4", options=options) as container:
        video = _add_video(container, scene.size)
        audio = _add_audio(container) if scene.has_audio else None
        container.start_encoding()
        # The encoder signs its streams with its name and settings, in a unit of type 6 (SEI); players need none of it.
        unsigned = BitStreamFilterContext("filter_units=remove_types=6", video, video)
        sound = tone.chunks(seed=scene.seed, duration=scene.duration, per_second=FRAME_RATE)
        for index in range(scene.frame_count):
            for packet in video.encode(_timed(picture.draw(index), index)):
                container.mux(unsigned.filter(packet))
            # Picture and sound go in side by side, so that the muxer never has to hold much of either.
            if audio is not None:
                container.mux(audio.encode(next(sound)))
        for packet in video.encode(None):
            container.mux(unsigned.filter(packet))
        if audio is not None:
            container.mux(audio.encode(None))


def write_last_frame(scene: Scene, destination: Path) -> None:
    """Write the last picture of the scene's video as a PNG file."""
    frame_image(scene, scene.frame_count - 1).save(destination, "PNG")


def frame_image(scene: Scene, index: int) -> Image.Image:
    """Return one picture of the video as it was before encoding, counted from 0."""
    frame = _picture_of(scene).draw(index)
    image = frame.to_image(dst_color_range=ColorRange.JPEG, threads=1)  # type: ignore[no-untyped-call]
    return cast(Image.Image, image)


def _picture_of(scene: Scene) -> Picture:
    return Picture(
        prompt=scene.prompt,
        seed=scene.seed,
        size=scene.size,
        frame_rate=FRAME_RATE,
        has_watermark=scene.has_watermark,
    )


def _timed(frame: VideoFrame, index: int) -> VideoFrame:
    frame.pts = index
    frame.time_base = Fraction(1, FRAME_RATE)
    return frame


def _add_video(container: OutputContainer, size: tuple[int, int]) -> VideoStream:
    stream = container.add_stream("libx264", rate=FRAME_RATE, options={"preset": "ultrafast", "crf": "23"})
    assert isinstance(stream, VideoStream)
    stream.width, stream.height = size
    stream.pix_fmt = "yuv420p"
    context = stream.codec_context
    context.gop_size = KEYFRAME_SECONDS * FRAME_RATE
    # A fixed number: the encoder's output depends on it, and it must not depend on the machine.
    context.thread_count = 2
    context.flags |= Flags.bitexact
    context.colorspace = Colorspace.ITU709
    context.color_primaries = ColorPrimaries.BT709
    context.color_trc = ColorTrc.BT709
    context.color_range = ColorRange.MPEG
    return stream


def _add_audio(container: OutputContainer) -> AudioStream:
    stream = container.add_stream("aac", rate=tone.SAMPLE_RATE, options={"aac_coder": "fast"})
    assert isinstance(stream, AudioStream)
    stream.codec_context.layout = tone.LAYOUT
    stream.codec_context.format = tone.FORMAT
    stream.bit_rate = 64_000
    stream.codec_context.flags |= Flags.bitexact
    return stream
