"""Files from outside: whole ones are read, all others are refused with one kind of error."""

from collections.abc import Callable
from pathlib import Path

import av
import pytest
from PIL import Image

from providers import media_probe, sandbox_render
from providers.media_probe import MediaInfo, UnusableMedia
from providers.sandbox_render import Scene

SIZE = (640, 640)


@pytest.fixture(scope="module")
def video(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("media") / "video.mp4"
    sandbox_render.write_video(
        Scene(prompt="A fox", seed="1", duration=4, size=SIZE, has_audio=True, has_watermark=False), path
    )
    return path


def write_small(
    path: Path, *, codec: str = "libx264", container: str = "mp4", size: tuple[int, int] = (64, 64), rate: int = 24
) -> Path:
    """Write a second of black by other means than our own renderer."""
    with av.open(str(path), "w", format=container) as output:
        stream = output.add_stream(codec, rate=rate)
        assert isinstance(stream, av.VideoStream)
        stream.width, stream.height = size
        stream.pix_fmt = "yuv420p"
        for _ in range(24):
            output.mux(stream.encode(av.VideoFrame(*size, "yuv420p")))
        output.mux(stream.encode(None))
    return path


def write_sound_only(path: Path) -> Path:
    with av.open(str(path), "w", format="mp4") as output:
        stream = output.add_stream("aac", rate=48_000)
        frame = av.AudioFrame(format="fltp", layout="mono", samples=48_000)
        frame.planes[0].update(bytes(4 * 48_000))
        frame.sample_rate = 48_000
        output.mux(stream.encode(frame))
        output.mux(stream.encode(None))
    return path


def test_probe_tells_what_a_video_is(video: Path) -> None:
    assert media_probe.probe(video) == MediaInfo(
        container="mp4",
        duration_ms=4000,
        width=640,
        height=640,
        has_audio=True,
        video_codec="h264",
        size_bytes=video.stat().st_size,
    )


def test_mov_and_silence_are_told(tmp_path: Path) -> None:
    info = media_probe.probe(write_small(tmp_path / "video", container="mov"))
    assert (info.container, info.has_audio, info.width, info.duration_ms) == ("mov", False, 64, 1000)


def test_name_of_the_file_does_not_matter(tmp_path: Path, video: Path) -> None:
    for name in ("video", "video.txt", "concat:a|b", "http:", "-i"):
        (tmp_path / name).write_bytes(video.read_bytes())
        assert media_probe.probe(tmp_path / name).duration_ms == 4000


def test_frames_come_from_both_ends(video: Path) -> None:
    first, last = (media_probe.extract_frame(video, at=at) for at in ("first", "last"))
    assert first.size == last.size == SIZE
    assert first.mode == "RGB"
    assert first.tobytes() != last.tobytes()


def test_last_frame_is_found_where_only_the_first_is_a_keyframe(tmp_path: Path) -> None:
    path = tmp_path / "video"
    with av.open(str(path), "w", format="mp4") as output:
        stream = output.add_stream("libx264", rate=24, options={"g": "1000", "bf": "3"})
        assert isinstance(stream, av.VideoStream)
        stream.width = stream.height = 64
        for index in range(48):
            source: av.VideoFrame = av.VideoFrame.from_image(Image.new("RGB", (64, 64), (index * 5, 0, 0)))
            output.mux(stream.encode(source.reformat(format="yuv420p")))
        output.mux(stream.encode(None))
    red = media_probe.extract_frame(path, at="last").getpixel((32, 32))
    assert isinstance(red, tuple)
    assert red[0] == pytest.approx(47 * 5, abs=6)


@pytest.mark.parametrize("at", ["first", "last"])
def test_poster_is_a_jpeg_of_the_same_size(tmp_path: Path, video: Path, at: str) -> None:
    poster = tmp_path / "poster"
    media_probe.write_poster(video, poster, at="last" if at == "last" else "first")
    with Image.open(poster) as image:
        assert (image.format, image.size) == ("JPEG", SIZE)


def junk(path: Path, whole: bytes) -> dict[str, bytes]:
    return {
        "empty": b"",
        "a byte": b"\0",
        "text": b"This is not a video.\n" * 100,
        "html": b"<!doctype html><html><body>404 Not Found</body></html>",
        "json": b'{"error": "expired"}',
        "playlist": b"#EXTM3U\n#EXT-X-TARGETDURATION:10\n#EXTINF:10,\nfile:///etc/passwd\n",
        "zeroes": bytes(10_000),
        "ftyp alone": whole[:32],
        "ftyp and noise": whole[:32] + bytes(range(256)) * 40,
        "half": whole[: len(whole) // 2],
        "all but a byte": whole[:-1],
        "no index": whole[:32] + whole[whole.index(b"mdat") - 4 :],
        "overwritten pictures": whole[: whole.index(b"mdat") + 4] + bytes(len(whole) - whole.index(b"mdat") - 4),
        "endless box": whole[:32] + b"\0\0\0\x01free" + b"\xff" * 8 + whole[32:],
        "many boxes": whole[:32] + b"\0\0\0\x08free" * 30_000 + whole[32:],
        "png": b"\x89PNG\r\n\x1a\n" + bytes(100),
    }


@pytest.mark.parametrize("kind", junk(Path(), b"mdat" * 99).keys())
def test_what_is_no_whole_video_is_refused(tmp_path: Path, video: Path, kind: str) -> None:
    path = tmp_path / "video.mp4"
    path.write_bytes(junk(path, video.read_bytes())[kind])
    calls: list[Callable[[], object]] = [
        lambda: media_probe.probe(path),
        lambda: media_probe.extract_frame(path, at="first"),
        lambda: media_probe.extract_frame(path, at="last"),
        lambda: media_probe.write_poster(path, tmp_path / "poster.jpg"),
    ]
    for call in calls:
        with pytest.raises(UnusableMedia):
            call()
    assert not (tmp_path / "poster.jpg").exists()


def test_other_containers_and_codecs_are_refused(tmp_path: Path) -> None:
    files = [
        write_small(tmp_path / "video.mkv", container="matroska"),
        write_small(tmp_path / "video.avi", codec="mpeg4", container="avi"),
        write_small(tmp_path / "old.mp4", codec="mpeg4"),
        write_sound_only(tmp_path / "sound.mp4"),
    ]
    for path in files:
        with pytest.raises(UnusableMedia):
            media_probe.probe(path)


def test_too_large_a_picture_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UnusableMedia, match="4160x64 pixels"):
        media_probe.probe(write_small(tmp_path / "wide.mp4", size=(4160, 64)))


def test_too_long_a_video_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "long.mp4"
    with av.open(str(path), "w", format="mp4") as output:
        stream = output.add_stream("libx264", rate=1)
        assert isinstance(stream, av.VideoStream)
        stream.width = stream.height = 64
        for _ in range(61):
            output.mux(stream.encode(av.VideoFrame(64, 64, "yuv420p")))
        output.mux(stream.encode(None))
    with pytest.raises(UnusableMedia, match=r"61\.000 s"):
        media_probe.probe(path)


def test_a_missing_file_is_no_bad_video(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        media_probe.probe(tmp_path / "nothing.mp4")
