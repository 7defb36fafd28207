"""Sandbox videos, read back by a decoder."""

from fractions import Fraction
from pathlib import Path

import av
import pytest
from PIL import Image, ImageChops, ImageStat

from providers import media_probe, sandbox_render
from providers.sandbox_render import Scene

ALL_SIZES = [(resolution, ratio) for resolution, ratios in sandbox_render.SIZES.items() for ratio in ratios]
SCRIPTS = {
    "emoji": "A cat 🐈‍⬛ on a 🚀 and a family 👨‍👩‍👧‍👦",
    "arabic": "منارة هادئة على جرف فوق البحر عند الفجر",
    "chinese": "黎明时分，悬崖上宁静的灯塔俯瞰大海，电影般的光线。" * 6,
    "hindi": "समुद्र के ऊपर चट्टान पर एक शांत प्रकाशस्तंभ",
    "controls": "one\ttwo\r\nthree\x07\x1b[31m\u202efour\ufeff\n\n\nfive",
    "surrogate": "half a character \ud83d",
    "one long word": "a" * 5000,
    "many words": "words and " * 500,
    "only marks": "\u0301\u0301\u0301",
    "blank": " ",
}


def scene(
    *,
    prompt: str = "A quiet lighthouse on a cliff at dawn",
    seed: str = "42",
    duration: int = 1,
    size: tuple[int, int] = (864, 496),
    has_audio: bool = False,
    has_watermark: bool = False,
) -> Scene:
    return Scene(
        prompt=prompt, seed=seed, duration=duration, size=size, has_audio=has_audio, has_watermark=has_watermark
    )


def difference(first: Image.Image, second: Image.Image, box: tuple[int, int, int, int] | None = None) -> float:
    """Return how far two pictures are apart on average, in steps of 255."""
    pair = [image.convert("RGB").crop(box) if box else image.convert("RGB") for image in (first, second)]
    return sum(ImageStat.Stat(ImageChops.difference(*pair)).mean) / 3


def boxes(path: Path) -> list[bytes]:
    data, names, position = path.read_bytes(), [], 0
    while position < len(data):
        names.append(data[position + 4 : position + 8])
        position += int.from_bytes(data[position : position + 4], "big")
    return names


@pytest.mark.parametrize("duration", [4, 5])
def test_video_has_the_asked_length_and_sound(tmp_path: Path, duration: int) -> None:
    path = tmp_path / "video"
    sandbox_render.write_video(scene(duration=duration, has_audio=True), path)
    with av.open(str(path)) as container:
        video, audio = container.streams.video[0], container.streams.audio[0]
        assert (video.codec.name, video.pix_fmt) == ("h264", "yuv420p")
        assert video.average_rate is not None
        assert video.average_rate == Fraction(24)
        assert (audio.codec.name, audio.rate) == ("aac", 48_000)
        assert video.duration is not None
        assert video.time_base is not None
        assert video.duration * video.time_base == duration
        assert audio.duration == duration * 48_000
        frames = list(container.decode(video))
    assert len(frames) == duration * 24
    assert [frame.time for frame in frames] == pytest.approx([index / 24 for index in range(duration * 24)])
    keyframes = [index for index, frame in enumerate(frames) if frame.key_frame]
    assert keyframes[0] == 0
    assert all(later - earlier <= 48 for earlier, later in zip(keyframes, [*keyframes[1:], len(frames)], strict=True))


def test_no_audio_track_where_none_is_asked(tmp_path: Path) -> None:
    sandbox_render.write_video(scene(), tmp_path / "video")
    with av.open(str(tmp_path / "video")) as container:
        assert len(container.streams) == 1


def test_sound_is_heard_and_soft(tmp_path: Path) -> None:
    sandbox_render.write_video(scene(has_audio=True), tmp_path / "video")
    loudest = 0.0
    with av.open(str(tmp_path / "video")) as container:
        for frame in container.decode(audio=0):
            samples = memoryview(bytes(frame.planes[0])).cast("f")[: frame.samples]
            loudest = max(loudest, *map(abs, samples))
    assert 0.02 < loudest < 0.3


@pytest.mark.parametrize(("resolution", "ratio"), ALL_SIZES)
def test_every_size_comes_out_to_the_pixel(tmp_path: Path, resolution: str, ratio: str) -> None:
    size = sandbox_render.size_of(resolution=resolution, aspect_ratio=ratio)
    sandbox_render.write_video(scene(size=size), tmp_path / "video")
    info = media_probe.probe(tmp_path / "video")
    assert (info.width, info.height, info.duration_ms) == (*size, 1000)


def test_sizes_fit_their_names() -> None:
    assert sandbox_render.size_of(resolution="720p", aspect_ratio="16:9") == (1280, 720)
    assert sandbox_render.size_of(resolution="480p", aspect_ratio="adaptive") == (864, 496)
    for ratios in sandbox_render.SIZES.values():
        for ratio, (width, height) in ratios.items():
            across, down = map(int, ratio.split(":"))
            assert width / height == pytest.approx(across / down, rel=0.03)
            assert width % 2 == height % 2 == 0


def test_browsers_can_play_while_they_load(tmp_path: Path) -> None:
    sandbox_render.write_video(scene(has_audio=True), tmp_path / "video")
    names = boxes(tmp_path / "video")
    assert names[0] == b"ftyp"
    assert names.index(b"moov") < names.index(b"mdat")


def test_file_does_not_tell_what_made_it(tmp_path: Path) -> None:
    sandbox_render.write_video(scene(has_audio=True), tmp_path / "video")
    data = (tmp_path / "video").read_bytes().lower()
    assert not [word for word in (b"x264", b"lavf", b"lavc", b"ffmpeg", b"lighthouse") if word in data]


def test_same_scene_gives_the_same_bytes(tmp_path: Path) -> None:
    for name in ("first", "second"):
        sandbox_render.write_video(scene(has_audio=True, has_watermark=True), tmp_path / name)
        sandbox_render.write_last_frame(scene(), tmp_path / f"{name}.png")
    assert (tmp_path / "first").read_bytes() == (tmp_path / "second").read_bytes()
    assert (tmp_path / "first.png").read_bytes() == (tmp_path / "second.png").read_bytes()


def test_seed_decides_the_picture() -> None:
    first, second = (sandbox_render.frame_image(scene(seed=seed), 0) for seed in ("1", "2"))
    assert difference(first, second) > 8


def test_picture_moves_and_the_clock_tells_the_frame() -> None:
    first, next_one, later = (sandbox_render.frame_image(scene(), index) for index in (0, 1, 23))
    clock = (700, 20, 844, 70)
    assert difference(first, next_one, clock) > 0.5
    assert difference(first, later) > difference(first, next_one) > 0


def test_watermark_is_drawn_only_where_asked() -> None:
    plain, marked = (sandbox_render.frame_image(scene(has_watermark=mark), 5) for mark in (False, True))
    corner = (864 - 200, 496 - 80, 864, 496)
    assert difference(plain, marked, corner) > 5
    assert difference(plain, marked, (0, 0, 864, 496 - 80)) == 0


@pytest.mark.parametrize("prompt", SCRIPTS.values(), ids=SCRIPTS.keys())
def test_prompts_of_every_script_are_drawn(prompt: str) -> None:
    for size in ((864, 496), (496, 864)):
        assert sandbox_render.frame_image(scene(prompt=prompt, size=size), 0).size == size


def test_prompt_is_visible() -> None:
    fox, bird = (sandbox_render.frame_image(scene(prompt=prompt), 0) for prompt in ("A red fox", "A blue bird"))
    assert difference(fox, bird, (232, 198, 632, 298)) > 3


@pytest.mark.parametrize("size", [(864, 496), (834, 1112)])
def test_last_frame_is_the_videos_last_picture(tmp_path: Path, size: tuple[int, int]) -> None:
    sandbox_render.write_video(scene(size=size), tmp_path / "video")
    sandbox_render.write_last_frame(scene(size=size), tmp_path / "last.png")
    with Image.open(tmp_path / "last.png") as last:
        assert (last.format, last.size) == ("PNG", size)
        decoded = media_probe.extract_frame(tmp_path / "video", at="last")
        assert difference(last, decoded) < 2
        assert difference(sandbox_render.frame_image(scene(size=size), 0), decoded) > difference(last, decoded)
        before_last = sandbox_render.frame_image(scene(size=size), 22)
        clock = (size[0] - 160, 20, size[0] - 20, 70)
        assert difference(before_last, decoded, clock) > difference(last, decoded, clock)
