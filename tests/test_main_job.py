"""The main job on the whole system: gunicorn, Celery, beat, PostgreSQL and Valkey, from `make run` to the webhook."""

import json
import re
import time
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import psutil
import psycopg
import pytest
import requests
import stripe
from psycopg.sql import SQL, Identifier

from providers import media_probe
from tests.local_system import LocalSystem
from tests.receivers import Receiver

# One system serves every test here, so they stay on one worker.
pytestmark = pytest.mark.xdist_group("main job")

BODY = {
    "model": "mini",
    "input": {
        "prompt": "A cinematic drone shot of waves breaking against black volcanic rocks",
        "duration": 5,
        "resolution": "720p",
        "aspect_ratio": "16:9",
    },
    "metadata": {"customer_job_id": "job_123"},
}


@pytest.fixture(scope="module")
def system(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LocalSystem]:
    """A system in a folder whose name has spaces and letters of several scripts."""
    system = LocalSystem(tmp_path_factory.mktemp("up") / "a clône of 种子")
    yield system
    system.stop()


@pytest.fixture(scope="module")
def run(system: LocalSystem) -> dict[str, Any]:
    """The running system's facts."""
    return system.start()


def _await(condition: Any, seconds: float = 30) -> Any:
    end = time.monotonic() + seconds
    while not (value := condition()):
        assert time.monotonic() < end, "It did not happen in time."
        time.sleep(0.1)
    return value


def _create(run: dict[str, Any], key: str = "api_key", **body: Any) -> Any:
    headers = {"Authorization": f"Bearer {run[key]}"}
    reply = requests.post(f"{run['base_url']}/v1/videos/generations", headers=headers, json=BODY | body, timeout=60)
    assert reply.status_code == 201, reply.text
    return reply.json()["data"]


def _look(run: dict[str, Any], task_id: str, key: str = "api_key") -> requests.Response:
    url = f"{run['base_url']}/v1/videos/generations/{task_id}"
    return requests.get(url, headers={"Authorization": f"Bearer {run[key]}"}, timeout=10)


def _status(reply: requests.Response) -> str:
    return str(reply.json()["data"]["status"])


def _ended(run: dict[str, Any], task_id: str, key: str = "api_key", *, seconds: float = 30) -> requests.Response:
    def look() -> requests.Response | None:
        reply = _look(run, task_id, key)
        return reply if _status(reply) in ("completed", "failed") else None

    ended: requests.Response = _await(look, seconds)
    return ended


def _balance(system: LocalSystem) -> dict[str, int]:
    balance: dict[str, int] = json.loads(system.manage("balance", "demo", "--json").splitlines()[-1])
    return balance


def test_a_customer_gets_a_video_a_webhook_and_the_right_charge(system, run, tmp_path):
    before = _balance(system)
    with Receiver() as receiver:
        created = _create(run, callback_url=receiver.url("/hook"))
        assert (created["status"], created["credits_reserved"]) == ("pending", 50)
        reply = _ended(run, created["id"])
        (webhook,) = _await(lambda: receiver.requests)

    task = reply.json()["data"]
    assert (task["status"], task["credits_charged"], task["metadata"]) == ("completed", 50, BODY["metadata"])
    assert _balance(system) == {"available": before["available"] - 50, "held": 0}

    video = tmp_path / "video.mp4"
    video.write_bytes(requests.get(task["output"]["video_url"], timeout=10).content)
    info = media_probe.probe(video)
    assert (info.video_codec, info.width, info.height, info.duration_ms) == ("h264", 1280, 720, 5000)
    assert requests.get(task["output"]["thumbnail_url"], timeout=10).headers["Content-Type"] == "image/jpeg"
    piece = requests.get(task["output"]["video_url"], headers={"Range": "bytes=4-7"}, timeout=10)
    assert (piece.status_code, piece.content) == (206, b"ftyp")

    assert webhook.body == reply.content
    assert webhook.headers["x-seedancee2-event"] == "video.generation.completed"
    signature = webhook.headers["x-seedancee2-signature"]
    assert stripe.WebhookSignature.verify_header(webhook.body.decode(), signature, run["signing_secret"], tolerance=300)


def test_a_failed_task_is_refunded_and_told(system, run):
    before = _balance(system)
    with Receiver() as receiver:
        created = _create(
            run,
            callback_url=receiver.url("/hook"),
            input={"prompt": "waves [sandbox:moderation]", "resolution": "480p", "duration": 4},
        )
        task = _ended(run, created["id"]).json()["data"]
        (webhook,) = _await(lambda: receiver.requests)

    assert (task["status"], task["credits_charged"], task["credits_refunded"]) == ("failed", 0, 20)
    assert task["error"]["code"] == "content_policy_violation"
    assert webhook.headers["x-seedancee2-event"] == "video.generation.failed"
    assert _balance(system) == before


def test_a_test_key_runs_the_whole_way_without_credits(system, run):
    before = _balance(system)

    created = _create(run, key="test_key")

    assert _ended(run, created["id"], key="test_key").json()["data"]["status"] == "completed"
    assert _balance(system) == before
    stranger = requests.get(
        f"{run['base_url']}/v1/videos/generations/{created['id']}",
        headers={"Authorization": f"Bearer {run['api_key']}"},
        timeout=10,
    )
    assert stranger.status_code == 404


def test_a_webhook_that_is_asked_for_again_comes_again_within_two_seconds(run):
    headers = {"Authorization": f"Bearer {run['api_key']}"}
    base = f"{run['base_url']}/v1/webhooks/deliveries"
    with Receiver() as receiver:
        task_id = _ended(run, _create(run, callback_url=receiver.url("/hook"))["id"]).json()["data"]["id"]

        def delivered(count: int) -> Any:
            (row,) = requests.get(f"{base}?task={task_id}", headers=headers, timeout=10).json()["data"]
            return row if (row["state"], row["attempt_count"]) == ("delivered", count) else None

        first = _await(lambda: delivered(1))
        waited = []
        for count in range(1, 11):
            asked = time.monotonic()
            reply = requests.post(f"{base}/{first['id']}/redeliver", headers=headers, timeout=10)
            assert reply.status_code == 202
            assert _await(lambda number=count: delivered(number + 1))["delivered_at"] == first["delivered_at"]
            waited.append(receiver.requests[-1].at - asked)

    assert len(receiver.requests) == 11
    assert len({(one.body, one.headers["x-seedancee2-delivery"]) for one in receiver.requests}) == 1
    assert max(waited) <= 2, waited


def test_a_killed_worker_is_replaced_and_its_work_goes_on(system, run):
    created = _create(run, input={"prompt": "waves [sandbox:delay=8]", "resolution": "480p", "duration": 4})
    # A submission cut short would rightly be looked for, for two minutes: tests/test_crash_points.py sees to those.
    _await(lambda: _status(_look(run, created["id"])) == "processing")
    workers = [process for process in _processes_of(system) if "worker" in process.info["cmdline"]]
    assert len(workers) >= 7
    for process in workers:
        process.kill()

    # What a killed worker held is due again when its lease of 20 seconds ends.
    assert _ended(run, created["id"], seconds=60).json()["data"]["status"] == "completed"


def test_two_hundred_parallel_creates_on_a_balance_for_ten(system, run):
    issued = json.loads(system.manage("issue_key", "Race", "--credits", "200", "--json").splitlines()[-1])
    body = BODY | {"input": {"prompt": "waves", "duration": 4, "resolution": "480p"}}

    def create(_: int) -> int:
        reply = requests.post(
            f"{run['base_url']}/v1/videos/generations",
            headers={"x-api-key": issued["api_key"]},
            json=body,
            timeout=60,
        )
        return reply.status_code

    with ThreadPoolExecutor(max_workers=40) as pool:
        statuses = Counter(pool.map(create, range(200)))

    assert statuses == {201: 10, 402: 190}
    balance = json.loads(system.manage("balance", "Race", "--json").splitlines()[-1])
    assert balance["available"] == 0


def test_nothing_of_the_provider_reaches_a_customer(run):
    with Receiver() as receiver:
        for prompt in ("waves", "waves [sandbox:fail]", "waves [sandbox:moderation]"):
            values = {"prompt": prompt, "duration": 4, "resolution": "480p", "return_last_frame": True}
            _ended(run, _create(run, input=values, callback_url=receiver.url("/hook"))["id"])
        webhooks = _await(lambda: receiver.requests if len(receiver.requests) == 3 else None)
    headers = {"Authorization": f"Bearer {run['api_key']}"}
    replies = [
        requests.get(f"{run['base_url']}/v1/{path}", headers=headers, timeout=10)
        for path in ("videos/generations?limit=100", "usage", "models", "videos/generations/vid_x")
    ]
    video = requests.get(replies[0].json()["data"][2]["output"]["video_url"], timeout=10)
    seen = [
        *(f"{reply.headers}\n{reply.text}" for reply in replies),
        *(f"{webhook.headers}\n{webhook.body!r}" for webhook in webhooks),
        f"{video.headers}\n{video.content!r}",
    ]

    for word in ("sandbox", "sbx_", "upstream", "lavf", "x264"):
        assert [text for text in seen if re.search(rf"\b{word}", text, re.IGNORECASE)] == []


def test_no_key_and_no_secret_stands_in_the_database(run):
    with psycopg.connect(run["database_url"]) as database:
        tables = database.execute("SELECT tablename FROM pg_tables WHERE schemaname = 'public'").fetchall()
        dump = "".join(
            row[0]
            for (table,) in tables
            for row in database.execute(SQL("SELECT t::text FROM {} t").format(Identifier(table))).fetchall()
        )

    assert run["staff_email"] in dump
    for name in ("api_key", "test_key", "signing_secret", "staff_password"):
        assert run[name] not in dump
        # Nor as bytes, which PostgreSQL writes in hexadecimal.
        assert run[name].encode().hex() not in dump


def test_no_secret_and_no_prompt_stands_in_the_logs(system, run):
    _ended(run, _create(run)["id"])

    start, _, rest = system.output.partition("Seedancee2 is up after")
    _, _, after = rest.partition("curl -X POST")
    _, _, after = after.partition("\n\n")
    logged = start + after
    for secret in (run["staff_password"], "volcanic rocks"):
        assert secret not in logged
    assert re.findall(r"sk_seedancee2_(?:live|test)_\w+|whsec_\w+|Bearer \S+", logged) == []


def test_the_ledger_explains_everything_and_a_second_run_keeps_it(system, run):
    assert "0 discrepancies" in system.manage("reconcile_ledger")
    before = _balance(system)
    processes = _processes_of(system)

    assert system.stop() == 0
    assert [process for process in processes if process.is_running()] == []
    assert not (system.folder / "var" / "run.json").exists()
    again = system.start()

    assert again == run
    assert _balance(system) == before
    assert system.stop() == 0


def _processes_of(system: LocalSystem) -> list[psutil.Process]:
    found = []
    for process in psutil.process_iter(["cmdline"]):
        try:
            if Path(process.cwd()).is_relative_to(system.folder):
                found.append(process)
        except psutil.Error:
            continue
    return found
