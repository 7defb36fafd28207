"""Strict JSON for request bodies: whatever reads two ways, or cannot be stored and echoed unchanged, is refused."""

import json
import math
import re
from collections.abc import Iterator, Mapping
from typing import IO, Any, NoReturn

from django.conf import settings
from rest_framework.parsers import BaseParser

from seedancee2.api.errors import InvalidRequest, RequestTooLarge, UnsupportedMediaType

MAX_DEPTH = 20
MAX_INTEGER = 2**53 - 1  # the largest that a JavaScript client reads back unchanged

_FORM_TYPES = frozenset({"application/x-www-form-urlencoded", "multipart/form-data"})
_BYTE_ORDER_MARKS = (b"\xef\xbb\xbf", b"\xff\xfe", b"\xfe\xff")
_SURROGATE = re.compile("[\ud800-\udfff]")
_PLAIN_KEY = re.compile(r"[A-Za-z_][A-Za-z0-9_-]{0,63}")

_TOO_LARGE = object()  # stands for a number out of range until the walk can tell where it stood


class StrictJSONParser(BaseParser):
    """Parses any body as JSON, whatever its content type says; forms are refused."""

    media_type = "*/*"

    def parse(
        self,
        stream: IO[Any],
        media_type: str | None = None,
        parser_context: Mapping[str, Any] | None = None,
    ) -> dict[str, Any]:
        """Read the body and return its object.

        Raises:
            UnsupportedMediaType: it is a form, or compressed.
            RequestTooLarge: it is larger than the API takes.
            InvalidRequest: it is not strict JSON in UTF-8; the message tells what and where.
        """
        if (media_type or "").partition(";")[0].strip().lower() in _FORM_TYPES:
            raise UnsupportedMediaType
        request = (parser_context or {}).get("request")
        encoding = request.META.get("HTTP_CONTENT_ENCODING", "identity") if request is not None else "identity"
        if encoding.strip().lower() not in ("", "identity"):
            raise UnsupportedMediaType("Send the request body without a Content-Encoding.")
        raw = stream.read(settings.API_MAX_BODY_BYTES + 1)
        if len(raw) > settings.API_MAX_BODY_BYTES:
            raise RequestTooLarge
        return loads(raw)


def loads(raw: bytes) -> dict[str, Any]:
    """Parse one strict JSON object.

    Raises:
        InvalidRequest: it is anything else; the message tells what and where.
    """
    try:
        body = json.loads(
            _text(raw),
            object_pairs_hook=_object,
            parse_int=_integer,
            parse_float=_float,
            parse_constant=_constant,
        )
    except json.JSONDecodeError as error:
        raise InvalidRequest(
            f"The request body is not valid JSON: {error.msg} at line {error.lineno}, column {error.colno}."
        ) from None
    except RecursionError:
        _refuse_depth()
    if not isinstance(body, dict):
        raise InvalidRequest("The request body must be a JSON object.")
    _check(body)
    return body


def _text(raw: bytes) -> str:
    if raw.startswith(_BYTE_ORDER_MARKS) or b"\x00" in raw[:4]:
        raise InvalidRequest("The request body must be UTF-8 without a byte order mark.")
    try:
        return raw.decode()
    except UnicodeDecodeError as error:
        raise InvalidRequest(f"The request body must be UTF-8; the byte at offset {error.start} is not.") from None


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    result = dict(pairs)
    if len(result) < len(pairs):
        seen: set[str] = set()
        for key, _ in pairs:
            if key in seen:
                raise InvalidRequest(f"The key {_shown(key)} appears more than once in the same object.")
            seen.add(key)
    return result


def _integer(text: str) -> object:
    # Longer texts are never converted: that takes quadratic time.
    if len(text) > 17 or abs(int(text)) > MAX_INTEGER:
        return _TOO_LARGE
    return int(text)


def _float(text: str) -> object:
    value = float(text)
    return value if math.isfinite(value) else _TOO_LARGE


def _constant(name: str) -> NoReturn:
    raise InvalidRequest(f"The request body is not valid JSON: {name} is not a JSON value.")


def _check(body: dict[str, Any]) -> None:
    """Walk the whole body without recursion: depth, numbers, and texts that PostgreSQL cannot hold."""
    open_levels: list[Iterator[tuple[str, Any]]] = [_members("", body)]
    while open_levels:
        member = next(open_levels[-1], None)
        if member is None:
            open_levels.pop()
            continue
        path, value = member
        if value is _TOO_LARGE:
            raise InvalidRequest(
                f"{path} is out of range: numbers must be finite, integers between -{MAX_INTEGER} and {MAX_INTEGER}."
            )
        if isinstance(value, str):
            _check_text(path, value)
        elif isinstance(value, (dict, list)):
            if len(open_levels) >= MAX_DEPTH:
                _refuse_depth()
            open_levels.append(_members(path, value))


def _members(path: str, container: dict[str, Any] | list[Any]) -> Iterator[tuple[str, Any]]:
    if isinstance(container, list):
        yield from ((f"{path}[{index}]", value) for index, value in enumerate(container))
        return
    for key, value in container.items():
        _check_text(f"A key in {path or 'the request body'}", key)
        yield f"{path}.{_shown(key)}" if path else _shown(key), value


def _check_text(where: str, text: str) -> None:
    if "\x00" in text:
        raise InvalidRequest(f"{where} must not contain NUL characters.")
    if _SURROGATE.search(text):
        raise InvalidRequest(f"{where} must not contain unpaired surrogates.")


def _refuse_depth() -> NoReturn:
    raise InvalidRequest(f"The request body must not be nested more than {MAX_DEPTH} levels deep.")


def _shown(key: str) -> str:
    """Write a customer's key so that a message can carry it."""
    if _PLAIN_KEY.fullmatch(key):
        return key
    cut = key if len(key) <= 64 else key[:64] + "…"
    return json.dumps(_SURROGATE.sub("\ufffd", cut), ensure_ascii=False)
