"""Looks into a video file that came from outside: what it is, whether it plays, and what its ends look like."""

import collections
import contextlib
import dataclasses
import errno
from collections.abc import Iterator
from pathlib import Path
from typing import Literal, cast

import av
from av.container.input import InputContainer
from av.error import FFmpegError
from av.stream import Disposition
from av.video.frame import VideoFrame
from av.video.reformatter import Colorspace
from av.video.stream import VideoStream
from PIL import Image

MAX_SIDE_PIXELS = 4096
MAX_DURATION_SECONDS = 60
JPEG_QUALITY = 85

_VIDEO_CODECS = frozenset({"h264", "hevc", "av1", "vp9"})
_OF_THIS_MACHINE = frozenset(
    {errno.ENOSPC, errno.EDQUOT, errno.EIO, errno.EMFILE, errno.ENFILE, errno.ENOMEM, errno.EROFS}
)
_MAX_PACKETS_BEFORE_PICTURE = 300
_MAX_BOXES = 20_000
# From the first height on, players take a file that does not say its colours to be BT.709, below it BT.601.
_BT709_FROM_HEIGHT = 720
_COLOURS_UNSPECIFIED = 2

# The file is not trusted: no other format, no decoder beyond these, no other file and no network may come into play.
_OPTIONS = {
    "format_whitelist": "mov,mp4,m4a,3gp,3g2,mj2",
    "protocol_whitelist": "file",
    "codec_whitelist": "h264,hevc,libdav1d,av1,vp9,aac,mp3,mp3float,ac3,eac3,opus,flac,alac,pcm_s16le,pcm_s16be",
    "max_pixels": str(MAX_SIDE_PIXELS * MAX_SIDE_PIXELS),
    "max_streams": "16",
    "threads": "2",
}


class LocalTrouble(Exception):
    """This machine, not the file, is to blame: no space, no memory, no handles. The same file may do later."""


class UnusableMedia(Exception):
    """The file is no video that could be shown; `detail` is for staff, never for customers."""

    def __init__(self, detail: str) -> None:
        super().__init__(detail)
        self.detail = detail


@dataclasses.dataclass(frozen=True, slots=True)
class MediaInfo:
    """What a video file is: its container (mp4 or mov), length in milliseconds, size in pixels and in bytes."""

    container: str
    duration_ms: int
    width: int
    height: int
    has_audio: bool
    video_codec: str
    size_bytes: int


def probe(path: Path) -> MediaInfo:
    """Read what a video file is, and decode its first picture.

    Raises:
        UnusableMedia: it is no whole MP4 or MOV file with a video that can be decoded.
    """
    container_name = _check_boxes(path)
    with opened(path) as (container, stream):
        first = next(_pictures(container, stream), None)
        if first is None:
            raise UnusableMedia("no picture can be decoded")
        return MediaInfo(
            container=container_name,
            duration_ms=_duration_ms(container, stream),
            width=first.width,
            height=first.height,
            has_audio=bool(container.streams.audio),
            video_codec=stream.codec.canonical_name,
            size_bytes=path.stat().st_size,
        )


def extract_frame(path: Path, *, at: Literal["first", "last"]) -> Image.Image:
    """Return the first or the last picture of a video file, in RGB and the video's own size.

    Raises:
        UnusableMedia: it cannot be decoded.
    """
    _check_boxes(path)
    with opened(path) as (container, stream):
        frame = next(_pictures(container, stream), None) if at == "first" else _last_picture(container, stream)
        if frame is None:
            raise UnusableMedia("no picture can be decoded")
        return _as_image(frame)


def write_poster(path: Path, destination: Path, *, at: Literal["first", "last"] = "first") -> None:
    """Write the first or the last picture of a video file as a JPEG of the video's own size.

    Raises:
        UnusableMedia: the video cannot be decoded.
    """
    extract_frame(path, at=at).save(destination, "JPEG", quality=JPEG_QUALITY, progressive=True)


def _check_boxes(path: Path) -> str:
    """Walk over the file's outermost boxes without trusting a decoder, and return the container's name."""
    size = path.stat().st_size
    if not size:
        raise UnusableMedia("the file is empty")
    with path.open("rb") as file:
        head = file.read(12)
        if head[4:8] != b"ftyp":
            raise UnusableMedia("no MP4 or MOV file")
        position = 0
        for _ in range(_MAX_BOXES):
            file.seek(position)
            header = file.read(16)
            length = int.from_bytes(header[:4], "big")
            if length == 1:
                length = int.from_bytes(header[8:16], "big")
            if not length:
                # The last box reaches to the end of the file.
                break
            if len(header) < 8 or length < 8 or position + length > size:
                raise UnusableMedia("the file is cut short")
            position += length
            if position == size:
                break
        else:
            raise UnusableMedia("too many boxes")
    return "mov" if head[8:12] == b"qt  " else "mp4"


@contextlib.contextmanager
def opened(path: Path) -> Iterator[tuple[InputContainer, VideoStream]]:
    """Open an untrusted file and its film for decoding, and turn all that decoders find wrong into `UnusableMedia`."""
    try:
        with av.open(
            str(path.resolve()), "r", format="mov", options=dict(_OPTIONS), metadata_errors="replace"
        ) as container:
            stream = _video_stream(container)
            _duration_ms(container, stream)
            yield container, stream
    except (FFmpegError, ValueError, OverflowError, MemoryError) as error:
        if isinstance(error, MemoryError) or getattr(error, "errno", None) in _OF_THIS_MACHINE:
            raise LocalTrouble(type(error).__name__) from error
        raise UnusableMedia(f"cannot be decoded: {type(error).__name__}") from error


def _video_stream(container: InputContainer) -> VideoStream:
    # A picture of the cover counts as a video stream too.
    films = (stream for stream in container.streams.video if not stream.disposition & Disposition.attached_pic)
    stream = next(films, None)
    # A stream without a known decoder has no context, whatever its type says.
    context = cast(object, stream.codec_context) if stream is not None else None
    if stream is None or context is None:
        raise UnusableMedia("no video stream")
    if stream.codec.canonical_name not in _VIDEO_CODECS:
        raise UnusableMedia(f"a video codec that is not allowed: {stream.codec.canonical_name}")
    _check_size(stream.width, stream.height)
    stream.codec_context.options = {"max_pixels": _OPTIONS["max_pixels"]}
    stream.codec_context.thread_count = 2
    return stream


def _check_size(width: int, height: int) -> None:
    if not (0 < width <= MAX_SIDE_PIXELS and 0 < height <= MAX_SIDE_PIXELS):
        raise UnusableMedia(f"{width}x{height} pixels")


def _duration_ms(container: InputContainer, stream: VideoStream) -> int:
    if stream.duration is not None and stream.time_base is not None:
        seconds = float(stream.duration * stream.time_base)
    else:
        seconds = (container.duration or 0) / av.time_base
    if not 0 < seconds <= MAX_DURATION_SECONDS:
        raise UnusableMedia(f"a duration of {seconds:.3f} s")
    return round(seconds * 1000)


def _pictures(container: InputContainer, stream: VideoStream) -> Iterator[VideoFrame]:
    """Decode pictures from where the container stands, passing over broken packets for a while."""
    barren_count = 0
    for packet in container.demux(stream):
        try:
            frames = stream.decode(packet)
        except FFmpegError:
            frames = []
        barren_count = 0 if frames else barren_count + 1
        if barren_count > _MAX_PACKETS_BEFORE_PICTURE:
            return
        for frame in frames:
            _check_size(frame.width, frame.height)
            yield frame


def _last_picture(container: InputContainer, stream: VideoStream) -> VideoFrame | None:
    """Decode from the last keyframe on; from the start where that yields nothing."""
    for offset in (_duration_ms(container, stream) * 1000, 0):
        with contextlib.suppress(FFmpegError):
            container.seek(offset, backward=True, any_frame=False)
        if last := collections.deque(_pictures(container, stream), maxlen=1):
            return last[0]
    return None


def _as_image(frame: VideoFrame) -> Image.Image:
    if frame.colorspace == _COLOURS_UNSPECIFIED:
        frame.colorspace = Colorspace.ITU709 if frame.height >= _BT709_FROM_HEIGHT else Colorspace.ITU601
    return cast(Image.Image, frame.to_image(threads=1))  # type: ignore[no-untyped-call]
