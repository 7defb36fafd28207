"""Query parameters, read strictly: each reader returns the value or adds one sentence to the problems."""

import datetime as dt
import re
from collections.abc import Mapping, Sequence

from seedancee2.api.errors import InvalidRequest

_INTEGER = re.compile(r"[0-9]{1,9}")
_DATE = re.compile(r"[0-9]{4}-[0-9]{2}-[0-9]{2}")
_MOMENT = re.compile(r"[0-9]{4}-?[0-9]{2}-?[0-9]{2}[T ][0-9].*")
# A + that arrives as a space, since the client did not encode it: 2026-07-01T00:00:00 02:00.
_LOST_PLUS = re.compile(r"(.+[T ][0-9]{2}:?[0-9]{2}.*) ([0-9]{2}(?::?[0-9]{2})?)")
_LAST_OF_DAY = dt.time(23, 59, 59, 999000)

NOT_A_MOMENT = "must be an ISO 8601 date or datetime, such as 2026-07-01T00:00:00.000Z."


class Query:
    """The parameters of one request; `check` refuses it with every problem found."""

    def __init__(self, params: Mapping[str, str]) -> None:
        self._params = params
        self._problems: list[str] = []

    def integer(self, name: str, *, minimum: int, maximum: int, default: int) -> int:
        """Read a whole number."""
        text = self._params.get(name)
        if text is None:
            return default
        if _INTEGER.fullmatch(text) and minimum <= int(text) <= maximum:
            return int(text)
        self._problems.append(f"{name} must be an integer between {minimum} and {maximum}.")
        return default

    def choice(self, name: str, choices: Sequence[str]) -> str | None:
        """Read one of a few words."""
        text = self._params.get(name)
        if text is None or text in choices:
            return text
        self._problems.append(f"{name} must be one of {', '.join(choices)}.")
        return None

    def text(self, name: str) -> str | None:
        """Read a text that PostgreSQL can be asked for."""
        text = self._params.get(name)
        if text is not None and "\x00" in text:
            self._problems.append(f"{name} must not contain NUL characters.")
            return None
        return text

    def moment(self, name: str, *, is_end: bool = False) -> dt.datetime | None:
        """Read an ISO 8601 time, in UTC where it names no zone; a bare date is the start of that day, or its end."""
        text = self._params.get(name)
        if text is None:
            return None
        moment = parse_moment(text, is_end=is_end)
        if moment is None:
            self._problems.append(f"{name} {NOT_A_MOMENT}")
        return moment

    def problem(self, sentence: str) -> None:
        """Add a problem that the caller found."""
        self._problems.append(sentence)

    def check(self) -> None:
        """Refuse the request where anything was wrong.

        Raises:
            InvalidRequest: the message names every problem.
        """
        if self._problems:
            raise InvalidRequest(" ".join(self._problems))


def parse_moment(text: str, *, is_end: bool = False) -> dt.datetime | None:
    """Read a time as `Query.moment` does; None where it is none."""
    try:
        if _DATE.fullmatch(text):
            day = dt.date.fromisoformat(text)
            return dt.datetime.combine(day, _LAST_OF_DAY if is_end else dt.time.min, tzinfo=dt.UTC)
        if lost := _LOST_PLUS.fullmatch(text):
            text = f"{lost[1]}+{lost[2]}"
        if not text.isascii() or not _MOMENT.fullmatch(text.upper()):
            return None
        moment = dt.datetime.fromisoformat(text.upper())
        moment = moment.replace(tzinfo=dt.UTC) if moment.tzinfo is None else moment.astimezone(dt.UTC)
    except (ValueError, OverflowError):
        return None
    return moment.replace(microsecond=moment.microsecond // 1000 * 1000)
