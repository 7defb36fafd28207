"""Kie's codes and sentences in our words (Kie sheet §4). The same codes come from its API and in failed tasks."""

import re
from collections.abc import Mapping, Sequence
from typing import Final

from providers.adapters.base import ErrorClass

OK: Final = 200

# What the number alone settles, whatever the sentence says.
_SETTLED: Final = {
    401: ErrorClass.OUR_ACCOUNT,
    402: ErrorClass.OUR_ACCOUNT,
    429: ErrorClass.CAPACITY,
    433: ErrorClass.OUR_ACCOUNT,
    455: ErrorClass.TRANSIENT,
    505: ErrorClass.OUR_ACCOUNT,
}
# Our request was wrong, unless the sentence blames the customer's words or files.
_REQUEST: Final = frozenset({400, 404, 422})
_GENERATION: Final = frozenset({500, 501})
DOCUMENTED: Final = frozenset({OK, *_SETTLED, *_REQUEST, *_GENERATION})
# A feature that is switched off is the model that was asked for: there is no other feature here.
MODEL_ONLY: Final = frozenset({505})
# A timeout by another name: whoever answered so gave up waiting for somebody who may have begun.
_TIMEOUTS: Final = frozenset({408, 499})

_CUSTOMER: Final = (ErrorClass.CUSTOMER_MODERATION, ErrorClass.CUSTOMER_INPUT)
# In the order in which they are tried. "Information" and "transformation" have "format" in them and mean none.
WORDS: Final[Mapping[ErrorClass, Sequence[str]]] = {
    ErrorClass.CUSTOMER_MODERATION: (
        "sensitive",
        "copyright",
        "real person",
        "policy",
        "violat",
        "inappropriate",
        "moderation",
        "safety",
    ),
    ErrorClass.CUSTOMER_INPUT: (
        "download",
        "unreachable",
        "format(?!ion)",
        "too large",
        "resolution of",
        "pixel",
        "duration of",
    ),
    ErrorClass.TRANSIENT: ("timeout", "internal", "try again", "busy"),
}
# In a refused request the same words may be about a parameter of ours: only in a sentence about a file they are not.
_FILE: Final = re.compile(r"image|video|audio|media|file|frame|reference|download|unreachable|pixel", re.IGNORECASE)
_MEASURES: Final = re.compile(r"\b(url|size|duration)\b", re.IGNORECASE)


def classify(code: int | None, sentence: str, more_words: Mapping[str, Sequence[str]] | None = None) -> ErrorClass:
    """Say whose fault an error is, UNKNOWN where neither its code nor its sentence tells.

    `more_words` by class stand beside ours: resold sentences change their wording (Kie sheet §8.8).
    """
    if code in _SETTLED:
        return _SETTLED[code]
    told = _told(sentence, more_words or {})
    if code in _REQUEST:
        is_about_file = _FILE.search(sentence) and (told is ErrorClass.CUSTOMER_INPUT or _MEASURES.search(sentence))
        if told is ErrorClass.CUSTOMER_MODERATION:
            return told
        return ErrorClass.CUSTOMER_INPUT if is_about_file else ErrorClass.OUR_BUG
    if not sentence and code == 500:
        return ErrorClass.TRANSIENT
    return told or ErrorClass.UNKNOWN


def is_certain(code: int | None, error_class: ErrorClass) -> bool:
    """Tell whether a createTask that was answered so left no task behind that may yet cost us another.

    A server's own error may come after the fact. What failed by the customer's fault is never sent again.
    """
    if code is None or code in _TIMEOUTS:
        return False
    return 400 <= code < 500 or code == 505 or (code == 501 and error_class in _CUSTOMER)


def _told(sentence: str, more_words: Mapping[str, Sequence[str]]) -> ErrorClass | None:
    low = sentence.lower()
    for error_class, patterns in WORDS.items():
        more = more_words.get(error_class, ())
        if any(re.search(pattern, low) for pattern in patterns) or any(word and word.lower() in low for word in more):
            return error_class
    return None
