"""Replicate's problems in our words (Replicate sheet §4): its HTTP errors have a status, its predictions prose only."""

import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Final
from urllib.parse import urlsplit

from providers.adapters.base import ErrorClass

_STATUSES: Final = {
    400: ErrorClass.OUR_BUG,
    401: ErrorClass.OUR_ACCOUNT,
    402: ErrorClass.OUR_ACCOUNT,
    403: ErrorClass.OUR_ACCOUNT,
    404: ErrorClass.OUR_BUG,
    422: ErrorClass.OUR_BUG,
    429: ErrorClass.CAPACITY,
}
DOCUMENTED: Final = frozenset(_STATUSES)
# A timeout by another name: whoever answered so gave up waiting for somebody who may have begun.
_TIMEOUTS: Final = frozenset({408, 499})
_LOW_CREDIT: Final = re.compile(r"\bcredit|payment method", re.IGNORECASE)
_RESET: Final = re.compile(r"resets in ~?([0-9]{1,6})s")

_MEDIA: Final = re.compile(r"\b(?:image|last_frame_image|reference_(?:images|videos|audios))\b")
_ADDRESS: Final = re.compile(r"\bur[il]s?\b", re.IGNORECASE)
_URL: Final = re.compile(r"https?://[^\s\"'<>()\[\]{}]+")

_FETCHING: Final = (
    "could not download",
    "failed to fetch",
    "invalid image",
    "403 client error",
    "404 client error",
)
# In the order in which they are tried.
WORDS: Final[Mapping[ErrorClass, Sequence[str]]] = {
    ErrorClass.CUSTOMER_MODERATION: (
        r"\be005\b",
        "sensitive",
        "content policy",
        "real person",
        "copyright",
    ),
    ErrorClass.CUSTOMER_INPUT: ("input validation error", *_FETCHING),
    ErrorClass.TRANSIENT: (
        "director: unexpected error",
        r"\be1[0-9]{3}\b",
        "prediction interrupted",
        "cuda",
        "timed out",
        "queue is full",
        "high demand",
    ),
}


def of_problem(status: int, problem: Mapping[str, Any]) -> ErrorClass:
    """Say whose fault a refused request is; UNKNOWN for a status that is not documented."""
    error_class = _STATUSES.get(status, ErrorClass.UNKNOWN)
    if status == 429 and _LOW_CREDIT.search(str(problem.get("detail"))):
        return ErrorClass.OUR_ACCOUNT
    if status == 422:
        lines = list(_lines(problem))
        if any(_has(line, WORDS[ErrorClass.CUSTOMER_MODERATION]) for line in lines):
            return ErrorClass.CUSTOMER_MODERATION
        if any((_MEDIA.search(line) and _ADDRESS.search(line)) or _has(line, _FETCHING) for line in lines):
            return ErrorClass.CUSTOMER_INPUT
    return error_class


def is_certain(status: int, problem: Mapping[str, Any]) -> bool:
    """Tell whether a request that was answered so left no prediction behind.

    Their own refusals have a detail always and an id never; a server's own error may come after the fact.
    """
    is_theirs = isinstance(problem.get("detail"), str) and not problem.get("id")
    return is_theirs and 400 <= status < 500 and status not in _TIMEOUTS


def reset_seconds(problem: Mapping[str, Any]) -> float | None:
    """Return the seconds after which a throttled request may come again, where only its sentence tells."""
    found = _RESET.search(str(problem.get("detail")))
    return float(found[1]) if found else None


def of_prediction(
    sentence: str, *, media_urls: Sequence[str] | None, more_words: Mapping[str, Sequence[str]]
) -> ErrorClass:
    """Say whose fault a failed prediction is, UNKNOWN where its sentence does not tell.

    `media_urls` are the customer's, None where nobody knows: what names another address, which the customer cannot
    mend, is not their fault. `more_words` by class stand beside ours, which are partly guessed.
    """
    words = _without_urls(sentence)
    for error_class, patterns in WORDS.items():
        more = [re.escape(word.lower()) for word in more_words.get(error_class, ()) if word]
        is_meant = _has(words, (*patterns, *more))
        if error_class is ErrorClass.CUSTOMER_INPUT and _has(words, _FETCHING):
            is_meant = _is_of(sentence, media_urls)
        if is_meant:
            return error_class
    return ErrorClass.UNKNOWN


def _has(line: str, patterns: Sequence[str]) -> bool:
    low = line.lower()
    return any(re.search(pattern, low) for pattern in patterns)


def _is_of(sentence: str, media_urls: Sequence[str] | None) -> bool:
    if media_urls is None:
        return True
    named, own = _hosts(_URL.findall(sentence)), _hosts(media_urls)
    return bool(named & own if named else own)


def _hosts(urls: Sequence[str]) -> set[str]:
    hosts = set()
    for url in urls:
        try:
            hosts.add((urlsplit(url).hostname or "").rstrip(".,;"))
        except ValueError:
            continue
    return hosts - {""}


def _lines(problem: Mapping[str, Any]) -> Iterator[str]:
    """Yield what is said of each fault, without addresses: their words are the customer's."""
    yield from _without_urls(str(problem.get("detail"))).splitlines()
    fields = problem.get("invalid_fields")
    for field in fields if isinstance(fields, list) else ():
        # The keys in there are not documented.
        values = field.values() if isinstance(field, dict) else [field]
        yield _without_urls(" ".join(value for value in values if isinstance(value, str)))


def _without_urls(text: str) -> str:
    return _URL.sub("…", text)
