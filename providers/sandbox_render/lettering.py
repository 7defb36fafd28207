"""Fits a prompt of any length and script into a box."""

import functools
import re
import unicodedata
from typing import cast

from PIL import ImageFont

Font = ImageFont.FreeTypeFont

_MAX_CHARACTERS = 600
_SCALES = (1.0, 0.8, 0.62)
_LINE_HEIGHT = 1.35
_ELLIPSIS = "…"
_NO_SUCH_GLYPH = "\U0010fffd"

# The font that comes with Pillow knows Latin letters only; the rest depends on what the machine has installed.
_FALLBACKS = (
    "DejaVuSans.ttf",
    "NotoSansCJK-Regular.ttc",
    "DroidSansFallbackFull.ttf",
    "wqy-zenhei.ttc",
    "Arial Unicode.ttf",
)


def fit(text: str, *, width: int, height: int, font_size: int) -> tuple[list[str], Font, int]:
    """Break a text into lines for a box, smaller letters before fewer words; every size is in pixels."""
    text = _drawable(text)
    name = _font_name(text)
    lines, font, line_height = [""], _font(name, font_size), font_size
    for scale in _SCALES:
        size = max(10, round(font_size * scale))
        font, line_height = _font(name, size), round(size * _LINE_HEIGHT)
        lines = _wrap(text, font, width)
        if len(lines) * line_height <= height:
            return lines, font, line_height
    kept = lines[: max(1, height // line_height)]
    last = kept[-1].rstrip()
    while last and font.getlength(last + _ELLIPSIS) > width:
        last = last[:-1]
    return [*kept[:-1], last + _ELLIPSIS], font, line_height


def font_of_size(size: int) -> Font:
    """Return the plain font at a size in pixels."""
    return _font("", size)


def _drawable(text: str) -> str:
    is_cut = len(text) > _MAX_CHARACTERS
    characters = [
        character if character == "\n" or unicodedata.category(character) not in ("Cc", "Cs") else " "
        for character in text[:_MAX_CHARACTERS]
    ]
    return "".join(characters).strip() + (_ELLIPSIS if is_cut else "")


@functools.lru_cache(maxsize=32)
def _font(name: str, size: int) -> Font:
    return ImageFont.truetype(name, size) if name else cast(Font, ImageFont.load_default(size))


def _font_name(text: str) -> str:
    """Choose the font that can draw most of the text; the empty name is Pillow's own."""
    characters = {character for character in text if not character.isspace()}
    best, fewest = "", _count_missing(_font("", 12), characters)
    for name in _FALLBACKS:
        if not fewest:
            break
        try:
            missing = _count_missing(_font(name, 12), characters)
        except OSError:
            continue
        if missing < fewest:
            best, fewest = name, missing
    return best


def _count_missing(font: Font, characters: set[str]) -> int:
    blank = bytes(font.getmask(_NO_SUCH_GLYPH))
    return sum(bytes(font.getmask(character)) == blank for character in characters)


def _wrap(text: str, font: Font, width: int) -> list[str]:
    lines: list[str] = []
    for paragraph in text.split("\n"):
        line = ""
        for word in re.findall(r"\S+|\s+", paragraph):
            if font.getlength((line + word).rstrip()) <= width:
                line += word
                continue
            if line.strip():
                lines.append(line.rstrip())
            line = word.lstrip()
            # A word wider than the box, or a script written without spaces.
            while font.getlength(line) > width:
                count = _fitting(line, font, width)
                lines.append(line[:count])
                line = line[count:]
        lines.append(line.rstrip())
    return lines


def _fitting(text: str, font: Font, width: int) -> int:
    """Count the characters from the start that fit, at least one."""
    low, high = 1, len(text)
    while low < high:
        middle = (low + high + 1) // 2
        if font.getlength(text[:middle]) <= width:
            low = middle
        else:
            high = middle - 1
    return low
