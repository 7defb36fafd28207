"""Keys that are not ours: near misses of a real one are told apart from keys that simply mean nothing here."""

import re
from collections.abc import Collection, Sequence
from urllib.parse import quote

_SEPARATORS = re.compile(r"[\s_\-.]+")
_LONGEST = 40  # longer than any name that could be a typing error of one of ours

# Words of their own that lie one letter from a name of ours.
_OTHER_WORDS = frozenset({"mode", "modes", "speed", "need", "feed"})

MAX_IGNORED_SHOWN = 20


def near_miss(key: str, names: Collection[str]) -> str | None:
    """Return the name that a key was probably meant to be, or None.

    Letter case, separators, one plural s, and one or two mistyped letters do not make a different word.
    """
    if len(key) > _LONGEST or key.lower() in _OTHER_WORDS:
        return None
    plain = _plain(key)
    by_plain = {_plain(name): name for name in names}
    if plain in by_plain:
        return by_plain[plain]
    for candidate, name in by_plain.items():
        if plain.removesuffix("s") == candidate.removesuffix("s"):
            return name
    ranked = sorted((_distance(plain, candidate), name) for candidate, name in by_plain.items())
    for distance, name in ranked:
        if distance <= (1 if len(_plain(name)) <= 5 else 2):
            return name
    return None


def header_value(paths: Sequence[str]) -> str:
    """Write ignored paths for a response header: plain ASCII, and not more of them than anybody would read."""
    shown = [quote(path, safe=".[]-_~")[:100] for path in paths[:MAX_IGNORED_SHOWN]]
    if len(paths) > MAX_IGNORED_SHOWN:
        shown.append(f"+{len(paths) - MAX_IGNORED_SHOWN} more")
    return ", ".join(shown)


def _plain(name: str) -> str:
    return _SEPARATORS.sub("", name).lower()


def _distance(left: str, right: str) -> int:
    """Count the insertions, deletions, replacements and swaps of neighbours between two words (capped at 3)."""
    if abs(len(left) - len(right)) > 2:
        return 3
    before: list[int] = []
    row = list(range(len(right) + 1))
    for i, a in enumerate(left, start=1):
        before, above, row = row, before, [i]
        for j, b in enumerate(right, start=1):
            cost = min(before[j] + 1, row[j - 1] + 1, before[j - 1] + (a != b))
            if above and j > 1 and a == right[j - 2] and left[i - 2] == b:
                cost = min(cost, above[j - 2] + 1)
            row.append(cost)
    return min(row[-1], 3)
