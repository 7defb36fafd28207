"""Our own copy of a provider's video: the same film without anything that tells where it came from.

Pictures and sound are copied as they are; only where a watermark was asked for that the provider could not make are
the pictures encoded anew.
"""

import itertools
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import av
from av.audio.stream import AudioStream
from av.bitstream import BitStreamFilterContext
from av.codec.context import Flags
from av.container.input import InputContainer
from av.container.output import OutputContainer
from av.stream import Stream
from av.video.frame import VideoFrame
from av.video.stream import VideoStream
from PIL import Image

from providers import media_probe
from providers.sandbox_render import picture

# Encoders and providers sign their streams in units of these types (SEI), which players do not need.
_SIGNATURES = {"h264": "6", "hevc": "39-40"}
_CHROMA_SCALES = (1, 2, 2)


def write_clean(source: Path, destination: Path, *, has_to_mark: bool = False) -> None:
    """Write an MP4 file with the source's film and sound, no metadata, and a watermark where it has to be made here.

    Raises:
        UnusableMedia: the source cannot be read or written so.
    """
    options = {"movflags": "+faststart", "fflags": "+bitexact"}
    with (
        media_probe.opened(source) as (container, film),
        av.open(str(destination), "w", format="mp4", options=options) as output,
    ):
        sound = next(iter(container.streams.audio), None)
        if sound is not None and getattr(sound, "codec_context", None) is None:
            sound = None
        if has_to_mark:
            _write_marked(container, film, sound, output)
        else:
            _copy(container, film, sound, output)


def _copy(container: InputContainer, film: VideoStream, sound: AudioStream | None, output: OutputContainer) -> None:
    film_copy = _untold(output.add_stream_from_template(film))
    sound_copy = _untold(output.add_stream_from_template(sound)) if sound else None
    units = _SIGNATURES.get(film.codec.canonical_name)
    unsigned = BitStreamFilterContext(f"filter_units=remove_types={units}", film, film_copy) if units else None
    for packet in _packets(container, film, sound):
        if packet.stream is film:
            for clean in unsigned.filter(packet) if unsigned else [packet]:
                clean.stream = film_copy
                output.mux(clean)
        elif sound_copy is not None:
            packet.stream = sound_copy
            output.mux(packet)
    for clean in unsigned.filter(None) if unsigned else ():
        clean.stream = film_copy
        output.mux(clean)


def _write_marked(
    container: InputContainer, film: VideoStream, sound: AudioStream | None, output: OutputContainer
) -> None:
    rate = film.average_rate or 24
    encoder = output.add_stream("libx264", rate=rate, options={"preset": "veryfast", "crf": "18"})
    assert isinstance(encoder, VideoStream)
    encoder.width, encoder.height = film.width - film.width % 2, film.height - film.height % 2
    encoder.pix_fmt = "yuv420p"
    encoder.codec_context.flags |= Flags.bitexact
    sound_copy = _untold(output.add_stream_from_template(sound)) if sound else None
    sprite, place = picture.watermark((encoder.width, encoder.height))
    unsigned: BitStreamFilterContext | None = None
    for packet in _packets(container, film, sound):
        if packet.stream is not film:
            assert sound_copy is not None
            packet.stream = sound_copy
            output.mux(packet)
            continue
        for frame in film.decode(packet):
            unsigned = unsigned or _opened_encoder(output, encoder)
            for coded in encoder.encode(_marked(frame, encoder, sprite, place)):
                output.mux(unsigned.filter(coded))
    for frame in film.decode(None):
        unsigned = unsigned or _opened_encoder(output, encoder)
        for coded in encoder.encode(_marked(frame, encoder, sprite, place)):
            output.mux(unsigned.filter(coded))
    if unsigned is None:
        raise media_probe.UnusableMedia("no picture")
    for coded in encoder.encode(None):
        output.mux(unsigned.filter(coded))


def _opened_encoder(output: OutputContainer, encoder: VideoStream) -> BitStreamFilterContext:
    output.start_encoding()
    return BitStreamFilterContext("filter_units=remove_types=6", encoder, encoder)


def _marked(frame: VideoFrame, encoder: VideoStream, sprite: picture.Sprite, place: tuple[int, int]) -> VideoFrame:
    """Return the picture with the watermark laid over it."""
    source = frame.reformat(encoder.width, encoder.height, "yuv420p")
    planes = tuple(
        Image.frombytes("L", (plane.width, plane.height), bytes(plane), "raw", "L", plane.line_size, 1)
        for plane in source.planes
    )
    sprite.lay((planes[0], planes[1], planes[2]), *place)
    marked = VideoFrame(encoder.width, encoder.height, "yuv420p")
    for target, plane, scale in zip(marked.planes, planes, _CHROMA_SCALES, strict=True):
        # Lines are padded to whole blocks; what stands in the padding is never seen.
        padded = plane.crop((0, 0, target.line_size, encoder.height // scale))
        target.update(padded.tobytes())
    marked.pts, marked.time_base = frame.pts, frame.time_base
    marked.colorspace, marked.color_range = frame.colorspace, frame.color_range
    return marked


def _packets(container: InputContainer, film: VideoStream, sound: AudioStream | None) -> Iterator[Any]:
    streams = [stream for stream in (film, sound) if stream is not None]
    return itertools.filterfalse(lambda packet: packet.dts is None, container.demux(streams))


def _untold(stream: Stream) -> Stream:
    stream.metadata.clear()
    return stream
