"""Every reply that a test gets under `/v1` is held against the OpenAPI document, more strictly than a client would."""

import copy
import functools
import json
import re
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import jsonschema_rs

from seedancee2.api import errors, schema

if TYPE_CHECKING:
    from django.test.client import _MonkeyPatchedWSGIResponse as Reply

# Nothing of what renders the videos shows in a reply: no adapter, no channel, none of their ids.
_OF_A_PROVIDER = re.compile(r"sandbox|sbx_|upstream", re.IGNORECASE)
_ERRORS = {(kind.status, kind.code, kind.type) for kind in errors.PublicError.__subclasses__()}


@functools.cache
def document() -> Any:
    """Return the OpenAPI document."""
    return json.loads(schema.document())


@functools.cache
def _closed_components() -> Any:
    """Return the components, with no key allowed that they do not name."""
    components = copy.deepcopy(document()["components"])
    for component in components["schemas"].values():
        if component.get("type") == "object":
            component.setdefault("additionalProperties", False)
    return components


@functools.cache
def _validator(subject: str) -> jsonschema_rs.Draft202012Validator:
    root = {**json.loads(subject), "components": _closed_components()}
    return jsonschema_rs.Draft202012Validator(root, validate_formats=True)


def _problems(subject: Any, value: Any) -> list[str]:
    return [str(error) for error in _validator(json.dumps(subject)).iter_errors(value)]


def operation_of(method: str, path: str) -> Any:
    """Return the operation that a request was sent to, `{}` for a method that the path lacks, None for no such path."""
    for template, operations in document()["paths"].items():
        if re.fullmatch(re.sub(r"\{\w+\}", "[^/]+", template), path.removesuffix("/")):
            return operations.get("get" if method == "HEAD" else method.lower(), {})
    return None


def check(method: str, path: str, reply: "Reply") -> None:
    """Hold one reply against the document."""
    what = f"{method} {path} → {reply.status_code} {reply.content[:500]!r}"
    operation = operation_of(method, path)
    assert operation or reply.status_code in (401, 404 if operation is None else 405, 413), what
    described = (operation or {}).get("responses", {}).get(str(reply.status_code))
    assert described or not operation, f"{what}: the status is not in the document"
    for problem in _header_problems((described or {}).get("headers", {}), reply):
        raise AssertionError(f"{what}: {problem}")
    _check_body(method, reply, described, what)


def _header_problems(described: Any, reply: "Reply") -> Iterator[str]:
    if "X-Request-Id" not in reply.headers:
        yield "X-Request-Id is missing"
    for name, header in described.items():
        text = reply.headers.get(name)
        if text is None:
            if header.get("required"):
                yield f"{name} is missing"
            continue
        value = int(text) if header["schema"]["type"] == "integer" else text
        yield from (f"{name}: {problem}" for problem in _problems(header["schema"], value))


def _check_body(method: str, reply: "Reply", described: Any, what: str) -> None:
    if method == "HEAD" or (described is not None and "content" not in described):
        assert reply.content == b"", what
        return
    assert reply.headers["Content-Type"] == "application/json", what
    body = reply.json()
    content = (described or {}).get("content", {}).get("application/json", {})
    assert not _problems(content.get("schema", {"$ref": "#/components/schemas/Error"}), body), what
    if reply.status_code >= 400:
        assert (reply.status_code, body["error"]["code"], body["error"]["type"]) in _ERRORS, what
    told = json.dumps(_without_metadata(body)) + str(dict(reply.headers))
    assert not _OF_A_PROVIDER.search(told), what


def _without_metadata(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _without_metadata(item) for key, item in value.items() if key != "metadata"}
    return [_without_metadata(item) for item in value] if isinstance(value, list) else value
