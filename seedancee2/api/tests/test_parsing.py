"""Strict JSON: hostile bodies are refused in a sentence, and everything else reads as it was written."""

import contextlib
import io
import json
import time
from types import SimpleNamespace
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from seedancee2.api.errors import InvalidRequest, RequestTooLarge, UnsupportedMediaType
from seedancee2.api.parsing import MAX_INTEGER, StrictJSONParser, loads

NOT_UTF8 = "The request body must be UTF-8 without a byte order mark."
NOT_OBJECT = "The request body must be a JSON object."
OUT_OF_RANGE = f"is out of range: numbers must be finite, integers between -{MAX_INTEGER} and {MAX_INTEGER}."

HOSTILE = {
    "nothing": (b"", "The request body is not valid JSON: Expecting value at line 1, column 1."),
    "cut off": (b'{"a": ', "The request body is not valid JSON: Expecting value at line 1, column 7."),
    "two values": (b"{} {}", "The request body is not valid JSON: Extra data at line 1, column 4."),
    "single quotes": (
        b"{'a': 1}",
        "The request body is not valid JSON: Expecting property name enclosed in double quotes at line 1, column 2.",
    ),
    "control character": (
        b'{"a": "\n"}',
        "The request body is not valid JSON: Invalid control character at at line 1, column 8.",
    ),
    "bare text": (b"hello", "The request body is not valid JSON: Expecting value at line 1, column 1."),
    "byte order mark": (b"\xef\xbb\xbf{}", NOT_UTF8),
    "UTF-16": ('{"a": 1}'.encode("utf-16"), NOT_UTF8),
    "UTF-16 without mark": ('{"a": 1}'.encode("utf-16-le"), NOT_UTF8),
    "UTF-32": ('{"a": 1}'.encode("utf-32-be"), NOT_UTF8),
    "Latin-1": (b'{"a": "\xe9"}', "The request body must be UTF-8; the byte at offset 7 is not."),
    "encoded surrogate": (b'{"a": "\xed\xa0\x80"}', "The request body must be UTF-8; the byte at offset 7 is not."),
    "list": (b"[]", NOT_OBJECT),
    "null": (b"null", NOT_OBJECT),
    "number": (b"1", NOT_OBJECT),
    "huge number": (b"9" * 5000, NOT_OBJECT),
    "NaN": (b'{"a": NaN}', "The request body is not valid JSON: NaN is not a JSON value."),
    "Infinity": (b'{"a": [-Infinity]}', "The request body is not valid JSON: -Infinity is not a JSON value."),
    "overflowing number": (b'{"a": {"b": 1e999}}', f"a.b {OUT_OF_RANGE}"),
    "2^53": (b'{"seed": 9007199254740992}', f"seed {OUT_OF_RANGE}"),
    "4,000 digits": (b'{"a": [0, ' + b"7" * 4000 + b"]}", f"a[1] {OUT_OF_RANGE}"),
    "negative digits": (b'{"a": -' + b"7" * 4000 + b"}", f"a {OUT_OF_RANGE}"),
    "duplicate key": (b'{"a": 1, "b": {"c": 1, "c": 2}}', "The key c appears more than once in the same object."),
    "escaped duplicate": (b'{"a": 1, "\\u0061": 2}', "The key a appears more than once in the same object."),
    "odd duplicate": (b'{"x\\ny": 1, "x\\ny": 2}', 'The key "x\\ny" appears more than once in the same object.'),
    "NUL in a value": (b'{"input": {"prompt": "a\\u0000"}}', "input.prompt must not contain NUL characters."),
    "NUL in a key": (b'{"metadata": {"a\\u0000": 1}}', "A key in metadata must not contain NUL characters."),
    "NUL in a top key": (b'{"a\\u0000": 1}', "A key in the request body must not contain NUL characters."),
    "lone surrogate": (b'{"metadata": {"a": ["\\ud800"]}}', "metadata.a[0] must not contain unpaired surrogates."),
    "reversed surrogates": (b'{"a": "\\udc00\\ud800"}', "a must not contain unpaired surrogates."),
    "surrogate key": (b'{"a": {"\\udfff": 1}}', "A key in a must not contain unpaired surrogates."),
    "surrogate keys twice": (
        b'{"\\udfff": 1, "\\udfff": 2}',
        'The key "\ufffd" appears more than once in the same object.',
    ),
    "21 levels": (b'{"a":' * 21 + b"1" + b"}" * 21, "The request body must not be nested more than 20 levels deep."),
    "100,000 lists": (
        b'{"a":' + b"[" * 100_000 + b"]" * 100_000 + b"}",
        "The request body must not be nested more than 20 levels deep.",
    ),
    "100,000 open lists": (b'{"a":' + b"[" * 100_000, "The request body must not be nested more than 20 levels deep."),
}


@pytest.mark.parametrize(("raw", "message"), HOSTILE.values(), ids=HOSTILE)
def test_hostile_bodies_are_refused_in_a_sentence(raw: bytes, message: str) -> None:
    with pytest.raises(InvalidRequest) as caught:
        loads(raw)

    assert caught.value.message == message


@pytest.mark.parametrize(
    "raw",
    [
        b"{}",
        b' \n{"a" : 1}\t ',
        b'{"a": 9007199254740991, "b": -9007199254740991}',
        b'{"a": 1e308, "b": 5.0, "c": -0.0, "d": 1E-400}',
        '{"π": "😀\\ud83d\\ude00\u2028"}'.encode(),
        b'{"a":' * 20 + b"1" + b"}" * 20,
        b'{"": {"": ""}}',
        b'{"__proto__": 1, "constructor": null, "a": true}',
    ],
)
def test_good_bodies_read_as_they_were_written(raw: bytes) -> None:
    assert loads(raw) == json.loads(raw)


_LEAVES = (
    st.none()
    | st.booleans()
    | st.integers(-MAX_INTEGER, MAX_INTEGER)
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(st.characters(exclude_characters="\x00", exclude_categories=["Cs"]))
)
_TEXTS = st.text(st.characters(exclude_characters="\x00", exclude_categories=["Cs"]))
_VALUES = st.recursive(_LEAVES, lambda inner: st.lists(inner) | st.dictionaries(_TEXTS, inner), max_leaves=15)


@settings(deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(st.dictionaries(_TEXTS, _VALUES))
def test_every_object_in_bounds_is_read_unchanged(body: dict[str, Any]) -> None:
    assert loads(json.dumps(body).encode()) == body
    assert loads(json.dumps(body, ensure_ascii=False).encode()) == body


@settings(deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(st.binary())
def test_no_bytes_cause_anything_but_a_refusal(raw: bytes) -> None:
    with contextlib.suppress(InvalidRequest):
        assert isinstance(loads(raw), dict)


def test_the_worst_body_is_read_quickly() -> None:
    pairs = ",".join(f'"{n:06d}":0' for n in range(23_000)).encode()

    started = time.process_time()
    loads(b"{" + pairs + b"}")
    with pytest.raises(InvalidRequest):
        loads(b'{"a":"' + b'\\"' * 130_000)

    assert time.process_time() - started < 2


def parse(raw: bytes, content_type: str, **meta: str) -> Any:
    """Parse as a view would."""
    context = {"request": SimpleNamespace(META=meta)}
    return StrictJSONParser().parse(io.BytesIO(raw), content_type, context)


@pytest.mark.parametrize(
    "content_type",
    ["application/json", "application/json; charset=latin-1", "text/plain", "", "application/octet-stream", "nonsense"],
)
def test_content_type_is_not_asked(content_type: str) -> None:
    assert parse(b'{"a": "\xc3\xa9"}', content_type) == {"a": "é"}


@pytest.mark.parametrize(
    "content_type",
    ["application/x-www-form-urlencoded", "Multipart/Form-Data; boundary=x", "application/x-www-form-urlencoded;a=b"],
)
def test_forms_are_refused(content_type: str) -> None:
    with pytest.raises(UnsupportedMediaType):
        parse(b'{"a": 1}', content_type)


def test_compressed_bodies_are_refused() -> None:
    with pytest.raises(UnsupportedMediaType) as caught:
        parse(b"\x1f\x8b", "application/json", HTTP_CONTENT_ENCODING="gzip")

    assert caught.value.message == "Send the request body without a Content-Encoding."
    assert parse(b"{}", "application/json", HTTP_CONTENT_ENCODING="identity") == {}


def test_size_is_limited_while_reading() -> None:
    fitting = b'{"a": "' + b"x" * (256 * 1024 - 9) + b'"}'

    assert len(parse(fitting, "application/json")["a"]) == 256 * 1024 - 9
    with pytest.raises(RequestTooLarge):
        parse(fitting + b" ", "application/json")
