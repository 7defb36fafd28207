"""The web server of production on the database of this test process."""

import contextlib
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import urlsplit, urlunsplit

import requests
from django.db import connection

from generations import lifecycle
from generations.models import Generation, OutputAsset
from seedancee2.local import servers
from seedancee2.local.state import ROOT


def environment(base_url: str) -> dict[str, str]:
    """Return what a process needs that works on this test's database, under an address of its own."""
    address = urlsplit(os.environ["DATABASE_URL"])._replace(path=f"/{connection.settings_dict['NAME']}")
    return os.environ | {
        "DATABASE_URL": urlunsplit(address),
        "PUBLIC_BASE_URL": base_url,
        "MEDIA_BASE_URL": f"{base_url}/media",
        "PORT": str(urlsplit(base_url).port),
        "PYTHONPATH": str(ROOT),
        # What is tested here is not how many requests a key may send.
        "RATE_LIMIT_CREATES": "1000000",
        "RATE_LIMIT_REQUESTS": "1000000",
    }


@contextlib.contextmanager
def server(log: Path) -> Iterator[str]:
    """Run gunicorn as in production, and give its address; the test must be a transactional one."""
    base_url = f"http://127.0.0.1:{servers.free_port()}"
    command = [sys.executable, "-m", "gunicorn", "--config", "seedancee2/gunicorn.py", "seedancee2.wsgi"]
    settings = environment(base_url) | {"WEB_CONCURRENCY": "1"}
    with log.open("wb") as output:
        process = subprocess.Popen(command, cwd=ROOT, env=settings, stdout=output, stderr=subprocess.STDOUT)
    try:
        _await(base_url, process, log)
        yield base_url
    finally:
        process.terminate()
        process.wait(timeout=30)


def _await(base_url: str, process: "subprocess.Popen[bytes]", log: Path) -> None:
    end = time.monotonic() + 60
    while True:
        assert process.poll() is None, log.read_text(errors="replace")
        assert time.monotonic() < end, log.read_text(errors="replace")
        with contextlib.suppress(requests.ConnectionError, requests.Timeout):
            requests.get(f"{base_url}/healthz", timeout=5)
            return
        time.sleep(0.1)


def complete(task: Generation) -> Generation:
    """End a task with its files, which are only names here."""
    kinds = [
        (OutputAsset.Kind.VIDEO, f"videos/2026/06/29/{task.public_id}.mp4"),
        (OutputAsset.Kind.THUMBNAIL, f"video-posters/2026/06/29/{task.public_id}.jpg"),
    ]
    return lifecycle.complete(
        public_id=task.public_id,
        assets=[
            OutputAsset(generation_id=task.public_id, kind=kind, path=path, size_bytes=1, sha256="0" * 64)
            for kind, path in kinds
        ],
    )
