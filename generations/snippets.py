"""A request as programs: curl, JavaScript and Python, with a placeholder where the API key goes."""

import json
import shlex
from collections.abc import Mapping
from typing import Any, NamedTuple

PATH = "/v1/videos/generations"
_KEYS = {False: "sk_seedancee2_live_xxxxx", True: "sk_seedancee2_test_xxxxx"}


class Snippet(NamedTuple):
    """One program: the language as people call it, a name for its element, and the text."""

    title: str
    name: str
    text: str


def create(body: Mapping[str, Any], *, base_url: str, is_test: bool) -> list[Snippet]:
    """Write a create request in each language."""
    url, key = base_url + PATH, _KEYS[is_test]
    return [
        Snippet("curl", "curl", _curl(url, key, body)),
        Snippet("JavaScript", "javascript", _javascript(url, key, body)),
        Snippet("Python", "python", _python(url, key, body)),
    ]


def _curl(url: str, key: str, body: Mapping[str, Any]) -> str:
    return "\n".join(
        [
            f"curl -X POST {shlex.quote(url)} \\",
            f'  -H "Authorization: Bearer {key}" \\',
            '  -H "Content-Type: application/json" \\',
            f"  -d {shlex.quote(_json(body))}",
        ]
    )


def _javascript(url: str, key: str, body: Mapping[str, Any]) -> str:
    return f"""const response = await fetch({json.dumps(url)}, {{
  method: "POST",
  headers: {{
    Authorization: "Bearer {key}",
    "Content-Type": "application/json",
  }},
  body: JSON.stringify({_indented(_json(body), 2)}),
}});

console.log(await response.json());"""


def _python(url: str, key: str, body: Mapping[str, Any]) -> str:
    return f"""import requests

response = requests.post(
    {json.dumps(url)},
    headers={{"Authorization": "Bearer {key}"}},
    json={_indented(_literal(body), 4)},
    timeout=60,
)
print(response.json())"""


def _json(body: Mapping[str, Any]) -> str:
    return json.dumps(body, indent=2, ensure_ascii=False)


def _literal(value: Any, margin: str = "") -> str:
    """Write JSON data as a Python literal, one entry a line."""
    inner = margin + "    "
    if isinstance(value, Mapping) and value:
        lines = [f"{inner}{_literal(name)}: {_literal(item, inner)}," for name, item in value.items()]
        return "\n".join(["{", *lines, margin + "}"])
    if isinstance(value, list) and value:
        return "\n".join(["[", *(f"{inner}{_literal(item, inner)}," for item in value), margin + "]"])
    # A text in JSON's form is one in Python's too, and keeps its double quotes.
    return json.dumps(value, ensure_ascii=False) if isinstance(value, str) else repr(value)


def _indented(text: str, width: int) -> str:
    return text.replace("\n", "\n" + " " * width)
