"""API keys in a text that somebody found: looked up by their digests, and masked before the text is shown again."""

import dataclasses
import re

from accounts import keys
from accounts.models import ApiKey

_WHOLE = re.compile(r"(sk_seedancee2_(?:live|test)_)[0-9A-Za-z]{34}([0-9A-Za-z]{4})")
_PART = re.compile(r"(sk_seedancee2_(?:live|test)_)[0-9A-Za-z]{5,37}(?![0-9A-Za-z])")
_MARKS = re.compile(r"[\"'`,;&?<>(){}\[\]|]+|\.$")  # what stands around a key in a line, a header or an address


@dataclasses.dataclass(frozen=True, slots=True)
class Found:
    """The keys that are in a text, and the text without any secret.

    `is_secret` tells of a key that is whole, known here or not; `is_part` of one that was cut off at its end.
    """

    keys: tuple[ApiKey, ...]
    text: str
    is_secret: bool
    is_part: bool


def read(text: str) -> Found:
    """Look for keys anywhere in a text: ours by their form, imported ones by every piece that could be one."""
    known = keys.find(secrets=_pieces(text))
    masked = text
    for secret in sorted(known, key=len, reverse=True):
        masked = masked.replace(secret, known[secret].masked)
    masked, count = _WHOLE.subn(r"\1…\2", masked)
    masked, part_count = _PART.subn(r"\1…", masked)
    found = tuple({key.pk: key for key in known.values()}.values())
    return Found(found, masked, bool(known or count), bool(part_count))


def _pieces(text: str) -> set[str]:
    """Return what may be a key: each word, what stands in it between marks, and of each what follows an `=` or `:`."""
    pieces = {match[0] for match in _WHOLE.finditer(text)}
    for word in text.split():
        for piece in (word, *_MARKS.split(word)):
            pieces |= {piece, *(piece[match.end() :] for match in re.finditer("[=:]", piece))}
    return pieces
