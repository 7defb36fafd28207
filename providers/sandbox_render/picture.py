"""The sandbox video's picture, drawn straight into the three planes an encoder takes.

Everything that stays the same is drawn once and converted once; a single frame then is a few copies of memory.
"""

import colorsys
import dataclasses
import math
import random

from av.video.frame import VideoFrame
from av.video.reformatter import ColorPrimaries, ColorRange, Colorspace, ColorTrc, Interpolation
from PIL import Image, ImageDraw

from providers.sandbox_render import lettering

_LABEL = "SANDBOX"
_WATERMARK = "Seedancee2"
_GRID = 5
_ORB_COUNT = 3
# Luma of black and white, and the chroma of both, in the narrow range that video uses.
_BLACK, _WHITE, _GREY = 16, 235, 128
# Frames are padded to whole blocks at the right; the background must reach that far.
_PADDING = 64

Planes = tuple[Image.Image, Image.Image, Image.Image]


@dataclasses.dataclass(frozen=True, slots=True)
class Sprite:
    """A picture with transparency, ready to be laid over a frame."""

    planes: Planes
    mask: Image.Image
    half_mask: Image.Image

    @classmethod
    def from_image(cls, image: Image.Image) -> "Sprite":
        """Convert an RGBA picture of even width and height."""
        mask = image.getchannel("A")
        return cls(_to_planes(image.convert("RGB")), mask, mask.reduce(2))

    def lay(self, planes: Planes, left: int, top: int) -> None:
        """Draw over the planes; the place is in pixels and rounded down to even numbers."""
        luma, *chroma = self.planes
        half = (left // 2, top // 2)
        planes[0].paste(luma, (half[0] * 2, half[1] * 2), self.mask)
        for plane, colour in zip(planes[1:], chroma, strict=True):
            plane.paste(colour, half, self.half_mask)


@dataclasses.dataclass(frozen=True, slots=True)
class Orbit:
    """A path around a centre: how far (pixels), how fast (turns a second) and from where (turns)."""

    centre: tuple[int, int]
    radius: tuple[int, int]
    speed: tuple[float, float]
    phase: tuple[float, float]

    def at(self, seconds: float) -> tuple[int, int]:
        """Return the place at a time."""
        x, y = (
            round(centre + radius * math.sin(2 * math.pi * (speed * seconds + phase)))
            for centre, radius, speed, phase in zip(self.centre, self.radius, self.speed, self.phase, strict=True)
        )
        return x, y


def watermark(size: tuple[int, int]) -> tuple[Sprite, tuple[int, int]]:
    """Return the watermark for pictures of this size, and its place at the bottom right."""
    unit = min(size) // 20
    mark = _draw_text(_WATERMARK, unit, backdrop=(0, 0, 0, 90))
    return mark, (size[0] - mark.mask.width - unit, size[1] - mark.mask.height - unit)


class Picture:
    """Draws any frame of one video; `size` is width and height in pixels, both even."""

    def __init__(self, *, prompt: str, seed: str, size: tuple[int, int], frame_rate: int, has_watermark: bool) -> None:
        self._size = size
        self._frame_rate = frame_rate
        self._unit = min(size) // 20
        chance = random.Random(f"picture:{seed}")  # noqa: S311 - repeatable is what it must be
        self._canvas, self._camera = self._draw_background(chance)
        self._orbs = [self._draw_orb(chance) for _ in range(_ORB_COUNT)]
        self._fixtures = self._draw_fixtures(prompt, has_watermark)
        self._clock_font = lettering.font_of_size(self._unit)
        self._clock_size = (self._unit * 5 // 2 * 2, self._unit * 8 // 10 * 2)

    def draw(self, index: int) -> VideoFrame:
        """Draw the frame of this number, counted from 0."""
        width, height = self._size
        seconds = index / self._frame_rate
        frame = VideoFrame(width, height, "yuv420p")
        left, top = (value // 2 for value in self._camera.at(seconds))
        areas = [(plane.line_size, height // scale) for plane, scale in zip(frame.planes, (1, 2, 2), strict=True)]
        corners = [(left * 2, top * 2), (left, top), (left, top)]
        luma, blue, red = (
            plane.crop((x, y, x + wide, y + high))
            for plane, (x, y), (wide, high) in zip(self._canvas, corners, areas, strict=True)
        )
        planes = (luma, blue, red)
        for orb, orbit in self._orbs:
            orb.lay(planes, *orbit.at(seconds))
        for sprite, (x, y) in self._fixtures:
            sprite.lay(planes, x, y)
        self._draw_clock(planes, seconds)
        for target, plane in zip(frame.planes, planes, strict=True):
            target.update(plane.tobytes())
        frame.colorspace = Colorspace.ITU709
        frame.color_range = ColorRange.MPEG
        frame.color_primaries = ColorPrimaries.BT709
        frame.color_trc = ColorTrc.BT709
        return frame

    def _draw_background(self, chance: random.Random) -> tuple[Planes, Orbit]:
        """Draw a soft field of colours larger than the frame, and the way the frame moves over it."""
        width, height = self._size
        travel = (width // 4, height // 4)
        area = (_even(width + travel[0] + _PADDING), _even(height + travel[1]))
        first, second = chance.random(), chance.uniform(0.15, 0.5)
        field = Image.new("RGB", (_GRID, _GRID))
        for place in range(_GRID * _GRID):
            hue = (first + second * chance.random()) % 1
            colour = colorsys.hsv_to_rgb(hue, chance.uniform(0.45, 0.85), chance.uniform(0.25, 0.85))
            field.putpixel(divmod(place, _GRID), _as_bytes(colour))
        canvas = _to_planes(field.resize(area, Image.Resampling.BICUBIC))
        return canvas, Orbit(
            centre=(travel[0] // 2, travel[1] // 2),
            radius=(travel[0] // 2, travel[1] // 2),
            speed=(chance.uniform(0.04, 0.09), chance.uniform(0.04, 0.09)),
            phase=(chance.random(), chance.random()),
        )

    def _draw_orb(self, chance: random.Random) -> tuple[Sprite, Orbit]:
        """Draw a glowing disc, and the way it moves over the frame."""
        width, height = self._size
        side = _even(round(min(self._size) * chance.uniform(0.18, 0.36)))
        colour = _as_bytes(colorsys.hsv_to_rgb(chance.random(), chance.uniform(0.3, 0.7), 0.95))
        image = Image.new("RGB", (side, side), colour).convert("RGBA")
        glow = Image.radial_gradient("L").resize((side, side), Image.Resampling.BILINEAR)
        # The gradient is 0 in the middle and about 180 at the rim of the inscribed circle.
        image.putalpha(glow.point([max(0, min(230, (180 - value) * 4)) for value in range(256)]))
        orbit = Orbit(
            centre=((width - side) // 2, (height - side) // 2),
            radius=(round(width * chance.uniform(0.2, 0.5)), round(height * chance.uniform(0.2, 0.5))),
            speed=(chance.uniform(0.05, 0.2), chance.uniform(0.05, 0.2)),
            phase=(chance.random(), chance.random()),
        )
        return Sprite.from_image(image), orbit

    def _draw_fixtures(self, prompt: str, has_watermark: bool) -> list[tuple[Sprite, tuple[int, int]]]:
        width, height = self._size
        unit = self._unit
        label = _draw_text(_LABEL, unit, backdrop=(180, 20, 40, 220))
        panel = self._draw_prompt(prompt)
        fixtures = [
            (label, (unit, unit)),
            (panel, ((width - panel.mask.width) // 2, (height - panel.mask.height) // 2)),
        ]
        if has_watermark:
            fixtures.append(watermark(self._size))
        return fixtures

    def _draw_prompt(self, prompt: str) -> Sprite:
        width, height = self._size
        unit = self._unit
        lines, font, line_height = lettering.fit(
            prompt, width=width - 5 * unit, height=height * 55 // 100, font_size=round(unit * 1.3)
        )
        widest = max(font.getlength(line) for line in lines)
        size = (_even(min(width - 2 * unit, round(widest) + 2 * unit)), _even(len(lines) * line_height + unit))
        image = Image.new("RGBA", size)
        draw = ImageDraw.Draw(image)
        draw.rounded_rectangle((0, 0, size[0] - 1, size[1] - 1), unit // 2, (0, 0, 0, 150))
        for number, line in enumerate(lines):
            place = (size[0] / 2, unit // 2 + (number + 0.5) * line_height)
            draw.text(place, line, "white", font, "mm")
        return Sprite.from_image(image)

    def _draw_clock(self, planes: Planes, seconds: float) -> None:
        """Draw the elapsed seconds; black and white need no colour planes of their own."""
        wide, high = self._clock_size
        left, top = (self._size[0] - wide - self._unit) // 2, self._unit // 2
        face = Image.new("L", (wide, high), _BLACK)
        ImageDraw.Draw(face).text((wide / 2, high / 2), f"{seconds:.3f} s", _WHITE, self._clock_font, "mm")
        planes[0].paste(face, (left * 2, top * 2))
        for plane in planes[1:]:
            plane.paste(_GREY, (left, top, left + wide // 2, top + high // 2))


def _draw_text(text: str, unit: int, *, backdrop: tuple[int, int, int, int]) -> Sprite:
    font, padding = lettering.font_of_size(unit), unit // 2
    size = (_even(round(font.getlength(text)) + 2 * padding), _even(unit + 2 * (padding // 2)))
    image = Image.new("RGBA", size, backdrop)
    ImageDraw.Draw(image).text((size[0] / 2, size[1] / 2), text, "white", font, "mm")
    return Sprite.from_image(image)


def _even(value: int) -> int:
    return value + value % 2


def _as_bytes(colour: tuple[float, float, float]) -> tuple[int, int, int]:
    red, green, blue = (round(part * 255) for part in colour)
    return red, green, blue


def _to_planes(image: Image.Image) -> Planes:
    """Convert an RGB picture of even size to luma and two chroma planes of half the resolution (BT.709)."""
    source: VideoFrame = VideoFrame.from_image(image)  # type: ignore[no-untyped-call]
    frame = source.reformat(
        format="yuv420p",
        dst_colorspace=Colorspace.ITU709,
        src_color_range=ColorRange.JPEG,
        dst_color_range=ColorRange.MPEG,
        interpolation=Interpolation.BILINEAR | Interpolation.ACCURATE_RND | Interpolation.BITEXACT,
        threads=1,
    )
    luma, blue, red = (
        Image.frombytes("L", (plane.width, plane.height), bytes(plane), "raw", "L", plane.line_size, 1)
        for plane in frame.planes
    )
    return luma, blue, red
