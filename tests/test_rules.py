"""Rules that a reader of one file cannot see broken: each is looked for in the syntax tree of every file.

`requests` and `urllib3` are also refused by the import contract of `make check`; the rest stands only here.
"""

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
APPS = ("accounts", "billing", "generations", "providers", "webhooks", "seedancee2")
LONGEST_COUNTDOWN = 60  # seconds; a longer wait is a row's `due_at`, which no broker can lose

_PUBLISHING = {"delay", "delay_on_commit", "apply_async", "apply_async_on_commit", "send_task"}
# With all below them. Mail goes through Django, files through its storages, to servers that only the operator names.
_NETWORK = (
    *("requests", "urllib3", "httpx", "aiohttp", "pycurl", "websocket", "websockets", "paramiko", "webbrowser"),
    *("urllib.request", "urllib.robotparser", "http.client", "socket", "_socket", "ssl", "socketserver", "asyncio"),
    *("smtplib", "ftplib", "imaplib", "poplib", "nntplib", "telnetlib", "xmlrpc", "multiprocessing.connection"),
)
_NOT_PRODUCT = ("/tests/", "/migrations/", "providers/emulators/")
_MAY_SPEAK = ("seedancee2/lib/http/", "seedancee2/local/")
_MAY_PUBLISH = ("seedancee2/lib/wakeups.py",)
_MAY_READ_THE_CLOCK = (
    "seedancee2/lib/clock.py",
    "seedancee2/local/",
    "seedancee2/lib/heartbeats.py",  # the age of a sign of life in Redis; nothing is decided by it
)
_MAY_PARSE_ADDRESSES = ("seedancee2/lib/destinations.py",)  # with socket.inet_aton and nothing else of it
_MAY_READ_THE_EXCEPTIONS = ("seedancee2/lib/destinations.py", "seedancee2/console/checks.py")


def _files() -> Iterator[str]:
    for top in (*APPS, "tests", "bench"):
        for path in sorted((ROOT / top).rglob("*.py")):
            yield path.relative_to(ROOT).as_posix()


def violations(path: str, source: str) -> list[str]:
    """Name every rule that a file breaks, with its line."""
    tree = ast.parse(source)
    is_product = path.split("/")[0] in APPS and not any(part in path for part in _NOT_PRODUCT)
    found = list(_long_waits(tree))
    if is_product:
        found += [] if path in _MAY_PUBLISH else [*_publishing(tree), *_wakes_in_transactions(tree)]
        if not path.startswith(_MAY_SPEAK):
            found += _network(tree, is_parser=path in _MAY_PARSE_ADDRESSES)
            found += [] if path in _MAY_READ_THE_EXCEPTIONS else _exceptions(tree)
        found += [] if path.startswith(_MAY_READ_THE_CLOCK) else _clocks(tree)
    return [f"{path}:{line}: {what}" for line, what in sorted(set(found))]


Found = Iterator[tuple[int, str]]


def _long_waits(tree: ast.AST) -> Found:
    """`countdown` and `eta`, as a keyword or in a dictionary of options; Celery's own retries wait three minutes."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Call):
            options: list[tuple[object, ast.expr]] = [(keyword.arg, keyword.value) for keyword in node.keywords]
        elif isinstance(node, ast.Dict):
            options = [
                (key.value, value)
                for key, value in zip(node.keys, node.values, strict=True)
                if isinstance(key, ast.Constant)
            ]
        else:
            continue
        for name, value in options:
            if name in ("eta", "autoretry_for", "default_retry_delay"):
                yield node.lineno, f"{name} leaves a wait to the broker"
            if name == "countdown" and not _is_short(value):
                yield node.lineno, f"countdown is not known to be {LONGEST_COUNTDOWN} s or less"


def _is_short(value: ast.expr) -> bool:
    return isinstance(value, ast.Constant) and isinstance(value.value, int | float) and value.value <= LONGEST_COUNTDOWN


def _publishing(tree: ast.AST) -> Found:
    """A message sent by anything but the wake-ups; a task's method counts also where it is only passed on."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Attribute) and node.attr in _PUBLISHING:
            yield node.lineno, f".{node.attr} is for seedancee2/lib/wakeups.py alone"


def _wakes_in_transactions(tree: ast.AST) -> Found:
    """`wakeups.wake` inside `atomic`: the worker would look before the row can be seen."""
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom | ast.Import):
            module = getattr(node, "module", "")
            for alias in node.names:
                is_wakeups = alias.name.split(".")[-1] == "wakeups"
                if module == "seedancee2.lib.wakeups" or (is_wakeups and alias.asname):
                    yield node.lineno, "wakeups is used under its own name, so that its calls can be seen"
        blocks: list[ast.expr] = []
        if isinstance(node, ast.With | ast.AsyncWith):
            blocks = [item.context_expr for item in node.items]
        elif isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            blocks = node.decorator_list
        if any(_last_name(block) == "atomic" for block in blocks):
            for inner in ast.walk(node):
                if isinstance(inner, ast.Attribute) and inner.attr == "wake" and _last_name(inner.value) == "wakeups":
                    yield inner.lineno, "wakeups.wake inside a transaction; on_commit is for that"


def _network(tree: ast.AST, *, is_parser: bool) -> Found:
    """A module that opens connections, imported by statement or by function, or reached through its package."""
    for node in ast.walk(tree):
        names: list[str] = []
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
            if is_parser and names == ["socket"] and node.names[0].asname is None:
                continue
        elif isinstance(node, ast.ImportFrom):
            names = [node.module or "", *(f"{node.module}.{alias.name}" for alias in node.names)]
        elif isinstance(node, ast.Call) and _last_name(node.func) in ("import_module", "__import__"):
            names = [str(value.value) for value in node.args if isinstance(value, ast.Constant)]
        elif isinstance(node, ast.Attribute):
            dotted = ast.unparse(node)
            names = [dotted] if any(dotted.startswith(module) for module in _NETWORK if "." in module) else []
            if is_parser and dotted.startswith("socket.") and dotted != "socket.inet_aton":
                yield node.lineno, f"{dotted} is for seedancee2/lib/http alone"
        else:
            continue
        for module in {module for name in names for module in _NETWORK if f"{name}.".startswith(f"{module}.")}:
            yield node.lineno, f"{module} is for seedancee2/lib/http alone"


def _exceptions(tree: ast.AST) -> Found:
    """A second way to let a private address be called; the operator's setting is the one."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Call) and any(keyword.arg == "allowed_hosts" for keyword in node.keywords):
            yield node.lineno, "allowed_hosts is for seedancee2/lib and tests alone"
        if isinstance(node, ast.Attribute) and node.attr == "OUTBOUND_ALLOWED_HOSTS":
            yield node.lineno, "OUTBOUND_ALLOWED_HOSTS is for seedancee2/lib/destinations.py alone"


def _clocks(tree: ast.AST) -> Found:
    for node in ast.walk(tree):
        if not isinstance(node, ast.Attribute | ast.ImportFrom):
            continue
        if isinstance(node, ast.Attribute):
            name = f"{_last_name(node.value)}.{node.attr}"
        else:
            module = (node.module or "").split(".")[-1]
            name = next((f"{module}.{alias.name}" for alias in node.names if alias.name in ("now", "time")), "")
        if name in {
            *("datetime.now", "datetime.utcnow", "datetime.today", "date.today"),
            *("timezone.now", "timezone.localtime", "time.time", "time.time_ns"),
        }:
            yield node.lineno, f"{name} instead of seedancee2.lib.clock"


def _last_name(node: ast.expr) -> str:
    if isinstance(node, ast.Call):
        return _last_name(node.func)
    return node.attr if isinstance(node, ast.Attribute) else node.id if isinstance(node, ast.Name) else ""


def test_every_file_keeps_the_rules():
    files = list(_files())

    assert len(files) > 200
    assert [found for path in files for found in violations(path, (ROOT / path).read_text())] == []


@pytest.mark.parametrize(
    ("source", "rule"),
    [
        ("task.retry(countdown=61)", "countdown is not known"),
        ("retry(countdown=pause)", "countdown is not known"),
        ("SCHEDULE = {'task': 'a', 'options': {'countdown': 300}}", "countdown is not known"),
        ("options(eta=tomorrow)", "eta leaves"),
        ("@shared_task(autoretry_for=(OSError,))\ndef work(): ...", "autoretry_for leaves"),
        ("poll.delay()", ".delay is for"),
        ("transaction.on_commit(poll.delay)", ".delay is for"),
        ("poll.apply_async()", ".apply_async is for"),
        ("current_app.send_task('generations.poll')", ".send_task is for"),
        ("with transaction.atomic():\n    row.save()\n    wakeups.wake('a')", "inside a transaction"),
        ("with open(f), atomic(using='default'):\n    if x:\n        lib.wakeups.wake('a')", "inside a transaction"),
        ("@transaction.atomic\ndef f():\n    wakeups.wake('a')", "inside a transaction"),
        ("@transaction.atomic(durable=True)\ndef f():\n    g(wakeups.wake)", "inside a transaction"),
        ("from seedancee2.lib.wakeups import wake", "under its own name"),
        ("from seedancee2.lib import wakeups as w", "under its own name"),
        ("import requests", "requests is for"),
        ("def f():\n    import http.client", "http.client is for"),
        ("from urllib.request import urlopen", "urllib.request is for"),
        ("from urllib import request", "urllib.request is for"),
        ("from http import client", "http.client is for"),
        ("from socket import create_connection", "socket is for"),
        ("import urllib\nurllib.request.urlopen(url)", "urllib.request is for"),
        ("import requests.sessions", "requests is for"),
        ("from urllib3.connection import HTTPSConnection as C", "urllib3 is for"),
        ("from asyncio.streams import open_connection", "asyncio is for"),
        ("import_module('aiohttp.client')", "aiohttp is for"),
        ("importlib.import_module('http.client')", "http.client is for"),
        ("__import__('_socket')", "_socket is for"),
        ("import httpx as h", "httpx is for"),
        ("import smtplib", "smtplib is for"),
        ("from xmlrpc.client import ServerProxy", "xmlrpc is for"),
        ("from multiprocessing.connection import Client", "multiprocessing.connection is for"),
        ("http.send('GET', url, allowed_hosts=['10.0.0.1'])", "allowed_hosts is for"),
        ("settings.OUTBOUND_ALLOWED_HOSTS = [host]", "OUTBOUND_ALLOWED_HOSTS is for"),
        ("dt.datetime.now(dt.UTC)", "datetime.now instead"),
        ("field(default=timezone.now)", "timezone.now instead"),
        ("time.time()", "time.time instead"),
        ("from time import time", "time.time instead"),
        ("from django.utils.timezone import now", "timezone.now instead"),
        ("datetime.date.today()", "date.today instead"),
    ],
)
def test_a_planted_violation_is_named(source, rule):
    (found,) = set(violations("generations/planted.py", source))

    assert found.startswith("generations/planted.py:")
    assert rule in found


@pytest.mark.parametrize(
    ("path", "source"),
    [
        ("generations/sound.py", "refresh(countdown=60)"),
        ("generations/sound.py", "with transaction.atomic():\n    wakeups.on_commit('a')"),
        ("generations/sound.py", "with transaction.atomic():\n    row.save()\nwakeups.wake('a')"),
        ("generations/sound.py", "from urllib.parse import urlsplit\nfrom http import HTTPStatus"),
        ("generations/sound.py", "clock.now()\ntime.monotonic()\ndt.timedelta()"),
        ("seedancee2/lib/wakeups.py", "current_app.send_task(name)"),
        ("seedancee2/lib/http/exchange.py", "import socket"),
        ("seedancee2/lib/destinations.py", "import socket\nsocket.inet_aton(host)\nsettings.OUTBOUND_ALLOWED_HOSTS"),
        ("seedancee2/console/checks.py", "if settings.OUTBOUND_ALLOWED_HOSTS: ..."),
        ("generations/sound.py", "from django.core.mail import send_mail\nrequests.append(asynciolike)"),
        ("providers/emulators/server.py", "import http.client\ntime.time()"),
        ("generations/tests/test_a.py", "import requests\ntimezone.now()"),
    ],
)
def test_what_is_allowed_is_left_alone(path, source):
    assert violations(path, source) == []


def test_what_is_excepted_is_excepted_from_one_rule_only():
    for source in ("import socket\nsocket.create_connection(a)", "import socket as s", "from socket import inet_aton"):
        assert len(violations("seedancee2/lib/destinations.py", source)) == 1
    assert len(violations("seedancee2/console/checks.py", "import socket")) == 1
    assert len(violations("seedancee2/lib/heartbeats.py", "import time, requests\ntime.time()")) == 1
    assert len(violations("tests/chaos/a.py", "poll.apply_async(countdown=3600)")) == 1
