"""Markdown as the documentation page shows it: headings with anchors, tables that stack, code in tabs by language."""

import functools
import itertools
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

from django.template.loader import render_to_string
from django.utils.safestring import SafeString, mark_safe
from markdown_it import MarkdownIt
from markdown_it.renderer import RendererHTML
from markdown_it.token import Token
from mdit_py_plugins.anchors import anchors_plugin
from pygments import highlight
from pygments.formatters import HtmlFormatter
from pygments.lexers import get_lexer_by_name

# Languages in which every example is written; fences of them that follow each other become the tabs of one example.
TABBED: Final = {"bash": "curl", "javascript": "JavaScript", "python": "Python"}
_OTHER_LABELS: Final = {"json": "JSON", "http": "HTTP"}

_TABLE_ROLES: Final = {
    "table_open": "table",
    "thead_open": "rowgroup",
    "tbody_open": "rowgroup",
    "tr_open": "row",
    "th_open": "columnheader",
    "td_open": "cell",
}


@dataclass(frozen=True, slots=True)
class Entry:
    """A line of the table of contents."""

    slug: str
    title: str
    children: list["Entry"] = field(default_factory=list)


@dataclass(frozen=True, slots=True)
class Rendered:
    """A document as HTML, and the headings that lead into it."""

    html: SafeString
    entries: tuple[Entry, ...]


def render(source: str) -> Rendered:
    """Render a document that we wrote ourselves; HTML in it is shown as text."""
    parser = _parser()
    tokens = parser.parse(source)
    entries = _entries(tokens)
    tokens = list(_labelled(_grouped(tokens)))
    html = parser.renderer.render(tokens, parser.options, {})
    # Markdown without raw HTML, of our own, escaped by the renderer.
    return Rendered(mark_safe(html), entries)  # noqa: S308


@functools.cache
def _parser() -> MarkdownIt:
    parser = MarkdownIt("commonmark", {"html": False}).enable("table").use(anchors_plugin, max_level=3)
    for name, rule in (
        ("fence", _fence),
        ("heading_close", _heading_close),
        ("tabs_open", _tabs_open),
        ("tabs_close", _tabs_close),
        ("table_open", _table_open),
        ("table_close", _table_close),
        ("td_open", _td_open),
        ("td_close", _td_close),
    ):
        parser.add_render_rule(name, rule)
    return parser


def _entries(tokens: Sequence[Token]) -> tuple[Entry, ...]:
    entries: list[Entry] = []
    for opening, inline in itertools.pairwise(tokens):
        if opening.type != "heading_open" or opening.tag not in ("h2", "h3"):
            continue
        entry = Entry(str(opening.attrGet("id")), inline.content.replace("`", ""))
        (entries[-1].children if opening.tag == "h3" and entries else entries).append(entry)
    return tuple(entries)


def _grouped(tokens: Iterable[Token]) -> Iterator[Token]:
    """Put adjacent blocks of the tabbed languages between a pair of tokens of their own."""
    for is_tabbed, run in itertools.groupby(tokens, lambda token: token.type == "fence" and token.info in TABBED):
        found = list(run)
        is_group = is_tabbed and len(found) > 1
        if is_group:
            yield Token("tabs_open", "div", 1)
        yield from found
        if is_group:
            yield Token("tabs_close", "div", -1)


def _labelled(tokens: Iterable[Token]) -> Iterator[Token]:
    """Give table cells their column's name, for screens too narrow for columns, and number the code blocks."""
    heads: list[str] = []
    column = code = 0
    previous = ""
    for token in tokens:
        if role := _TABLE_ROLES.get(token.type):
            token.attrSet("role", role)
        match token.type:
            case "thead_open":
                heads = []
            case "inline" if previous == "th_open":
                heads.append(token.content)
            case "tr_open":
                column = 0
            case "td_open":
                token.attrSet("data-label", heads[column])
                column += 1
            case "fence":
                code += 1
                token.meta["number"] = code
        previous = token.type
        yield token


def _fence(_renderer: RendererHTML, tokens: Sequence[Token], index: int, *_rest: Any) -> str:
    token = tokens[index]
    language, _, title = token.info.partition(" ")
    label = title or TABBED.get(language) or _OTHER_LABELS.get(language, "")
    if language == "bash" and "curl" not in token.content:
        label = "Shell"
    return render_to_string(
        "docs_code.html",
        {
            "id": f"code-{token.meta['number']}",
            "language": language,
            "label": label,
            "code": mark_safe(_coloured(token.content, language)),  # noqa: S308 - Pygments escapes what it colours
        },
    )


def _coloured(code: str, language: str) -> str:
    lexer = get_lexer_by_name(language or "text", stripnl=False)
    return str(highlight(code, lexer, HtmlFormatter(nowrap=True))).rstrip("\n")


def _heading_close(renderer: RendererHTML, tokens: Sequence[Token], index: int, options: Any, environment: Any) -> str:
    slug = tokens[index - 2].attrGet("id")
    closing = renderer.renderToken(tokens, index, options, environment)
    if tokens[index].tag == "h1" or slug is None:
        return closing
    return f' <a class="anchor" href="#{slug}" aria-label="Link to this section">#</a>{closing}'


def _tabs_open(*_: Any) -> str:
    return '<div class="languages">\n'


def _tabs_close(*_: Any) -> str:
    return "</div>\n"


def _table_open(renderer: RendererHTML, tokens: Sequence[Token], index: int, options: Any, environment: Any) -> str:
    return f'<div class="table">{renderer.renderToken(tokens, index, options, environment)}'


def _table_close(renderer: RendererHTML, tokens: Sequence[Token], index: int, options: Any, environment: Any) -> str:
    return f"{renderer.renderToken(tokens, index, options, environment)}</div>\n"


def _td_open(renderer: RendererHTML, tokens: Sequence[Token], index: int, options: Any, environment: Any) -> str:
    # The content in one box, beside which the column's name can stand.
    return f"{renderer.renderToken(tokens, index, options, environment)}<div>"


def _td_close(*_: Any) -> str:
    return "</div></td>\n"
