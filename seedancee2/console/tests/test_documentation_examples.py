"""The examples of the customers' documentation are right as JSON, requests and programs; its pages stand alone."""

import ast
import json
import re
import shutil
import subprocess
import time
from html.parser import HTMLParser
from urllib.parse import urlsplit

import pytest
from django.contrib.staticfiles import finders
from django.test import Client
from django.urls import resolve

from generations import requests
from generations.tests.callers import Caller, golden
from generations.tests.factories import funded_organization
from seedancee2.console import documentation
from seedancee2.console.tests.manual import SOURCE, examples, fences
from seedancee2.lib import signing
from webhooks import openapi_examples, samples
from webhooks.models import Delivery

EXAMPLES = list(examples())
SECTIONS = [f"{shell.section}-{number}" for number, (shell, _, _) in enumerate(EXAMPLES)]
PAGES = ["/docs", "/docs/api", "/docs/api/try"]

_ADDRESS = re.compile(r"https://api\.seedancee2\.ai[^\"'`\s]*")


def _tool(name: str, how: str) -> str:
    path = shutil.which(name)
    if path is None:
        pytest.skip(f"{name} is missing, so an example is not run; {how}")
    return path


def _node() -> str:
    return _tool("node", "install Node.js 18 or later (Debian: apt install nodejs)")


# --- JSON ---


def _json(section: str, title: str = "") -> object:
    (found,) = [
        fence for fence in fences() if (fence.section, fence.language) == (section, "json") and title == fence.title
    ]
    return json.loads(found.content)


def test_every_json_block_is_json():
    blocks = [fence for fence in fences() if fence.language == "json"]

    assert len(blocks) >= 10
    for fence in blocks:
        assert isinstance(json.loads(fence.content), dict)


@pytest.mark.parametrize(
    ("name", "section", "title"),
    [
        ("created", "create-a-video-task", "Reply"),
        ("processing", "get-a-video-task", "Processing (pending reads alike)"),
        ("completed", "get-a-video-task", "Completed"),
        ("failed", "get-a-video-task", "Failed"),
        ("failed", "webhooks", "Body of video.generation.failed"),
        ("usage", "usage-summary", "Reply"),
        ("models", "list-models", "Reply"),
        ("insufficient_credits", "errors", ""),
    ],
)
def test_replies_are_those_that_the_api_is_held_to(name, section, title):
    assert json.dumps(_json(section, title)) == json.dumps(golden(name))


def test_the_delivery_shown_is_that_of_the_openapi_document():
    shown = json.dumps(_json("see-what-became-of-a-webhook", "Reply"))
    assert shown == json.dumps(openapi_examples.IN_FULL)


def test_samples_are_the_bodies_that_are_shown(settings):
    settings.MEDIA_BASE_URL = "https://media.seedancee2.ai"
    for event in Delivery.Event.values:
        assert samples.body(event).decode() == json.dumps(
            _json("webhooks", f"Body of {event}"), ensure_ascii=False, separators=(",", ":")
        )


def test_the_completed_webhook_is_the_completed_reply_without_a_last_frame():
    completed = golden("completed")
    del completed["data"]["output"]["last_frame_url"]

    assert json.dumps(_json("webhooks", "Body of video.generation.completed")) == json.dumps(completed)


# --- Three languages ---


def _shell_body(code: str) -> object:
    found = re.search(r"-d '(.*)'", code, re.DOTALL)
    return json.loads(found[1]) if found else None


def _python_body(code: str) -> object:
    for node in ast.walk(ast.parse(code)):
        if isinstance(node, ast.keyword) and node.arg == "json":
            return ast.literal_eval(node.value)
    return None


def _javascript_body(code: str) -> object:
    found = re.search(r"body: (JSON\.stringify\(.*\)),\n", code, re.DOTALL)
    if found is None:
        return None
    return json.loads(subprocess.check_output([_node(), "-e", f"process.stdout.write({found[1]})"], timeout=60))


@pytest.mark.parametrize("example", EXAMPLES, ids=SECTIONS)
def test_the_three_languages_say_the_same(example):
    shell, javascript, python = example

    assert [fence.language for fence in example] == ["bash", "javascript", "python"]
    assert shell.section == javascript.section == python.section
    addresses = [set(_ADDRESS.findall(fence.content)) for fence in example]
    assert addresses[0] == addresses[1] == addresses[2]
    for address in addresses[0]:
        assert resolve(urlsplit(address).path)
    bodies = [_shell_body(shell.content), _python_body(python.content), _javascript_body(javascript.content)]
    assert bodies[0] == bodies[1] == bodies[2]


@pytest.mark.django_db
def test_every_create_example_is_a_valid_request():
    creates = [shell.content for shell, _, _ in EXAMPLES if '/v1/videos/generations" ' in shell.content]
    bodies = [_shell_body(content) for content in creates if "-X POST" in content]

    assert bodies[0] == golden("create_minimal_request")
    assert golden("create_full_request") in bodies
    assert len(bodies) >= 5
    for body in bodies:
        read = requests.read(body)
        assert (read.problems, read.ignored) == ((), ())
        assert Caller(funded_organization()).create(body).status_code == 201


@pytest.mark.parametrize("example", EXAMPLES, ids=SECTIONS)
def test_every_example_is_a_program(example, tmp_path):
    shell, javascript, python = example

    compile(python.content, "example.py", "exec")
    subprocess.run([_tool("bash", "install bash"), "-n"], input=shell.content.encode(), check=True, timeout=60)
    module = tmp_path / "example.mjs"
    module.write_text(javascript.content)
    subprocess.run([_node(), "--check", str(module)], check=True, timeout=60)


# --- Signatures ---


def _verifier(language: str) -> str:
    (found,) = [fence for fence in fences() if fence.section == "verify-the-signature" and fence.language == language]
    return found.content


def _by_shell(folder, body, header, secret):
    _tool("openssl", "install OpenSSL (Debian: apt install openssl)")
    (folder / "body.json").write_bytes(body)
    program = f'set -u\n{_verifier("bash")}\nverify_webhook "$1" "$2" "$3"\n'
    line = [_tool("bash", "install bash"), "-c", program, "bash", secret, header, str(folder / "body.json")]
    ended = subprocess.run(line, timeout=60, capture_output=True)
    assert not ended.stderr
    return ended.returncode == 0


def _by_node(folder, body, header, secret):
    (folder / "verify.mjs").write_text(_verifier("javascript"))
    (folder / "main.mjs").write_text(
        'import { readFileSync } from "node:fs";\nimport { isFromSeedancee2 } from "./verify.mjs";\n'
        "process.stdout.write(String(isFromSeedancee2(readFileSync(0), process.argv[2], process.argv[3])));\n"
    )
    line = [_node(), str(folder / "main.mjs"), header, secret]
    return json.loads(subprocess.run(line, input=body, capture_output=True, check=True, timeout=60).stdout)


def _by_python(folder, body, header, secret):
    names = {}
    exec(_verifier("python"), names)  # noqa: S102 - our own example
    return names["is_from_seedancee2"](body, header, secret)


BODY = '{"data":{"id":"vid_1","metadata":{"note":"100% \\\\ \\"é\\" 漢字 🎬"}}}\n'.encode()
SECRET, OLD_SECRET = "whsec_new0123456789", "whsec_old0123456789"


@pytest.mark.parametrize("verify", [_by_shell, _by_node, _by_python])
def test_the_verifiers_accept_our_signatures_and_nothing_else(verify, tmp_path):
    now = int(time.time())

    def header(timestamp=now, secrets=(SECRET,)):
        return signing.signature_header(body=BODY, timestamp=timestamp, secrets=secrets)

    good = header()
    assert verify(tmp_path, BODY, good, SECRET)
    assert verify(tmp_path, BODY, header(secrets=(SECRET, OLD_SECRET)), SECRET)
    assert verify(tmp_path, BODY, header(secrets=(SECRET, OLD_SECRET)), OLD_SECRET)
    assert not verify(tmp_path, BODY.replace(b"vid_1", b"vid_2"), good, SECRET)
    assert not verify(tmp_path, BODY.strip(), good, SECRET)
    assert not verify(tmp_path, BODY, good, OLD_SECRET)
    assert not verify(tmp_path, BODY, header(timestamp=now - 600), SECRET)
    assert not verify(tmp_path, BODY, header(timestamp=now + 600), SECRET)
    assert not verify(tmp_path, BODY, good.replace(f"t={now}", f"t={now + 1}"), SECRET)
    for nonsense in ("", "v1=", f"t={now}", f"t={now},v1=", f"t={now},v1=é", "t=x,v1=00", good.partition(",")[2]):
        assert not verify(tmp_path, BODY, nonsense, SECRET)


# --- Pages ---


class _Page(HTMLParser):
    """Collects what a page loads, where it links to, its anchors, and what stands inline."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.assets: list[str] = []
        self.links: list[str] = []
        self.ids: list[str] = []
        self.inline: list[str] = []
        self.feed(text)

    def handle_starttag(self, tag, attrs):
        values = dict(attrs)
        self.ids += [values["id"]] if "id" in values else []
        self.inline += [name for name in values if name == "style" or name.startswith("on")]
        if tag == "style" or (tag == "script" and "src" not in values):
            self.inline.append(tag)
        if tag == "a":
            self.links.append(values["href"])
        else:
            self.assets += [values[name] for name in ("src", "href", "srcset", "data", "action") if values.get(name)]


@pytest.mark.parametrize("path", PAGES)
@pytest.mark.django_db
def test_pages_load_nothing_from_elsewhere_and_hold_nothing_inline(path):
    response = Client().get(path)
    page = _Page(response.content.decode())

    assert response.status_code == 200
    assert page.assets
    assert all(re.match(r"/[^/]", asset) for asset in page.assets)
    assert all(finders.find(asset.removeprefix("/static/")) for asset in page.assets if asset.startswith("/static/"))
    assert page.inline == []
    policy = response.headers["Content-Security-Policy"]
    assert "default-src 'none'; script-src 'self'; " in policy
    assert not re.search(r"http|\*|unsafe-eval", policy)
    assert "/docs" in page.links


@pytest.mark.django_db
def test_every_link_of_the_docs_leads_somewhere():
    page = _Page(Client().get("/docs").content.decode())
    contents = re.findall(r"^##+ (.*)$", SOURCE, re.MULTILINE)

    assert len(page.ids) == len(set(page.ids))
    assert len(contents) <= len([link for link in page.links if link.startswith("#")])
    for link in page.links:
        assert link[1:] in page.ids if link.startswith("#") else re.match(r"/(?!/)", link)
    assert {"/docs/api", "/docs/api/try", "/openapi.json", "/docs.md", "/llms.txt"} <= set(page.links)


@pytest.mark.parametrize("path", [*PAGES, "/docs.md", "/llms.txt"])
@pytest.mark.django_db
def test_what_a_browser_has_already_is_not_sent_again(path):
    first = Client().get(path)
    again = Client().get(path, headers={"if-none-match": first.headers["ETag"]})

    assert (again.status_code, again.content) == (304, b"")
    assert first.headers["Cache-Control"] in ("private, no-cache", "public, max-age=300")
    assert Client().post(path).status_code == 405


def test_the_raw_source_carries_this_installations_address(settings):
    settings.PUBLIC_BASE_URL = "https://video.example"
    response = Client().get("/docs.md")

    assert response.headers["Content-Type"] == "text/markdown; charset=utf-8"
    assert response.content.decode() == SOURCE.replace(documentation.PLACEHOLDER, "https://video.example")
    assert "https://video.example/v1/videos/generations" in Client().get("/docs").content.decode()


def test_llms_txt_follows_the_convention(settings):
    settings.PUBLIC_BASE_URL = "https://video.example"
    response = Client().get("/llms.txt")
    text = response.content.decode()

    assert response.headers["Content-Type"] == "text/plain; charset=utf-8"
    assert re.match(r"# .+\n\n> .+\n", text)
    assert re.findall(r"\]\((.*)\)", text)[:2] == [
        "https://video.example/docs.md",
        "https://video.example/openapi.json",
    ]
    assert all(
        re.fullmatch(r"- \[.+\]\(https://video\.example/\S+\): .+", line) for line in text.splitlines() if "](" in line
    )
