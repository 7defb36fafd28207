"""Requests as programs: each says exactly the body it was made from, whatever a customer wrote into it."""

import ast
import json
import re
import shlex
import shutil
import subprocess

import pytest

from generations import payloads, playground, requests, snippets
from generations.models import Generation
from generations.specs import JobSpec

HOSTILE = """It's "quoted" \\ back `tick` $HOME $(id) 'x' ' ; é 世界 \u2028 {}"""
BODIES = [
    {"model": "mini", "input": {"prompt": "waves", "duration": 5, "resolution": "720p", "aspect_ratio": "16:9"}},
    {
        "model": "pro",
        "input": {
            "prompt": HOSTILE,
            "image_urls": ["https://cdn.example.com/a.png?x='1'"],
            "generate_audio": False,
            "watermark": True,
            "seed": 0,
        },
        "callback_url": "https://example.com/hook?a=1&b='2'",
        "metadata": {HOSTILE: [1, 2.5, None, True, False, {"deep": []}, {}]},
    },
]


def programs(body, *, is_test=False):
    made = snippets.create(body, base_url="https://api.example.com", is_test=is_test)
    return {snippet.name: snippet.text for snippet in made}


@pytest.mark.parametrize("body", BODIES)
def test_curl_sends_the_body(body):
    words = shlex.split(programs(body)["curl"].replace("\\\n", ""))

    assert words[:4] == ["curl", "-X", "POST", "https://api.example.com/v1/videos/generations"]
    assert json.loads(words[words.index("-d") + 1]) == body
    assert "Authorization: Bearer sk_seedancee2_live_xxxxx" in words


@pytest.mark.parametrize("body", BODIES)
def test_python_sends_the_body(body):
    tree = ast.parse(programs(body)["python"])
    (call,) = [
        node for node in ast.walk(tree) if isinstance(node, ast.Call) and ast.unparse(node.func) == "requests.post"
    ]
    given = {keyword.arg: keyword.value for keyword in call.keywords}

    assert ast.literal_eval(given["json"]) == body
    assert ast.literal_eval(given["headers"]) == {"Authorization": "Bearer sk_seedancee2_live_xxxxx"}


@pytest.mark.parametrize("body", BODIES)
def test_javascript_sends_the_body(body):
    text = programs(body)["javascript"]
    written = re.search(r"JSON\.stringify\((.*)\),\n\}\);", text, re.DOTALL)
    assert json.loads(written[1]) == body
    if node := shutil.which("node"):
        script = (
            "globalThis.fetch = async (url, o) => ({json: async () => [url, o.method, o.headers, JSON.parse(o.body)]});"
            + text.replace("console.log(await response.json())", "console.log(JSON.stringify(await response.json()))")
        )
        run = subprocess.run([node, "--input-type=module", "-e", script], capture_output=True, check=True, timeout=60)
        assert json.loads(run.stdout)[3] == body


def test_the_key_is_of_the_mode_and_only_a_placeholder():
    for is_test, key in ((False, "sk_seedancee2_live_xxxxx"), (True, "sk_seedancee2_test_xxxxx")):
        texts = programs(BODIES[0], is_test=is_test).values()
        assert {tuple(re.findall(r"sk_seedancee2_\w+", text)) for text in texts} == {(key,)}


SPECS = [
    {},
    {"generate_audio": False, "watermark": True, "return_last_frame": True, "seed": 0, "aspect_ratio": "9:16"},
    {"image_urls": ("https://a.example/1.png",), "video_urls": ("https://a.example/1.mp4",), "duration": 15},
    {"audio_urls": ("https://a.example/1.mp3",), "metadata": {"b": 1, "a": {"c": None}}, "seed": -1},
    {
        "generation_type": "first_and_last_frames",
        "start_image_url": "https://a.example/1.png",
        "end_image_url": "https://a.example/2.png",
        "callback_url": "https://example.com/hook",
    },
]


@pytest.mark.django_db
@pytest.mark.parametrize("values", SPECS)
def test_the_request_of_a_task_asks_for_the_same_again_and_so_does_the_form_that_repeats_it(values):
    spec = JobSpec(model="pro", prompt=HOSTILE.strip(), **values)
    task = Generation(
        model=spec.model,
        input=json.loads(json.dumps(spec.input_json())),
        metadata=dict(spec.metadata),
        callback_url=spec.callback_url,
    )

    body = payloads.request(task)

    assert requests.read(body).checked_spec() == spec
    form = playground.PlaygroundForm(initial=playground.repeating(task))
    assert requests.read(form.body()).checked_spec() == spec
