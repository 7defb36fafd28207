"""The customers' documentation taken apart, for the tests that hold it against the code."""

import re
from collections.abc import Iterator
from dataclasses import dataclass

from markdown_it import MarkdownIt
from mdit_py_plugins.anchors import anchors_plugin

from seedancee2.console import documentation

SOURCE = documentation.SOURCE.read_text()

_CODE = re.compile(r"`([^`]+)`")
# A dash between two numbers is no minus.
_NUMBER = re.compile(r"(?<![\d\w])-?\d[\d,]*|(?<=\d-)\d[\d,]*")


@dataclass(frozen=True, slots=True)
class Table:
    """A table: its heads, and its rows as raw Markdown."""

    heads: list[str]
    rows: list[list[str]]

    def by_code(self) -> dict[str, list[str]]:
        """Return the other cells of each row by the code in its first; no code stands there twice."""
        rows = {codes(row[0])[0]: row[1:] for row in self.rows}
        assert len(rows) == len(self.rows)
        return rows


@dataclass(frozen=True, slots=True)
class Fence:
    """A block of code, under the heading with the anchor `section`."""

    section: str
    language: str
    title: str
    content: str


def tables() -> dict[tuple[str, int], Table]:
    """Return every table by its heading's anchor and its place below it."""
    found: dict[tuple[str, int], Table] = {}
    section, number = "", 0
    table = Table([], [])
    previous = ""
    for token in _tokens():
        match token.type:
            case "heading_open":
                section, number = str(token.attrGet("id")), 0
            case "table_open":
                table = found[section, number] = Table([], [])
                number += 1
            case "inline" if previous == "th_open":
                table.heads.append(token.content)
            case "inline" if previous == "td_open":
                table.rows[-1].append(token.content)
            case "tr_open":
                table.rows.append([])
        previous = token.type
    return {place: Table(table.heads, [row for row in table.rows if row]) for place, table in found.items()}


def fences() -> list[Fence]:
    """Return every block of code in order."""
    found = []
    section = ""
    for token in _tokens():
        if token.type == "heading_open":
            section = str(token.attrGet("id"))
        elif token.type == "fence":
            language, _, title = token.info.partition(" ")
            found.append(Fence(section, language, title, token.content))
    return found


def examples() -> Iterator[tuple[Fence, Fence, Fence]]:
    """Yield the examples: the same in curl (or the shell), JavaScript and Python."""
    in_languages = [fence for fence in fences() if fence.language in ("bash", "javascript", "python")]
    for index in range(0, len(in_languages), 3):
        first, second, third = in_languages[index : index + 3]
        yield first, second, third


def codes(cell: str) -> list[str]:
    """Return what stands between backticks."""
    return _CODE.findall(cell)


def numbers(cell: str) -> list[int]:
    """Return the whole numbers of a text, in order."""
    return [int(text.replace(",", "")) for text in _NUMBER.findall(cell)]


def _tokens():
    return MarkdownIt("commonmark").enable("table").use(anchors_plugin, max_level=3).parse(SOURCE)
