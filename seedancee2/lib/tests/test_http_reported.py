"""The outbound client where errors are reported: nothing of the reporter's goes out with a request."""

import json
import os
import subprocess
import sys
from pathlib import Path

from tests.receivers import Receiver

ROOT = Path(__file__).resolve().parents[3]

SCRIPT = """
import json, os, sys
import django
django.setup()
import sentry_sdk
from seedancee2.lib import http
http.send("POST", sys.argv[1], body=b"{}", deadline_seconds=5, max_response_bytes=100, allowed_hosts=["127.0.0.1"])
client = sentry_sdk.get_client()
print(json.dumps([client.is_active(), str(sentry_sdk.get_isolation_scope()._breadcrumbs)]), flush=True)
os._exit(0)  # it would try for seconds to tell a server that is not there
"""


def test_an_error_reporter_adds_nothing_to_requests_and_keeps_no_address(receiver: Receiver) -> None:
    environment = os.environ | {
        "DJANGO_SETTINGS_MODULE": "seedancee2.settings",
        "SENTRY_DSN": "http://key@127.0.0.1:9/1",
    }
    command = [sys.executable, "-c", SCRIPT, receiver.url("/hook?token=secret-of-the-customer")]

    ended = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=60, check=False)

    assert ended.returncode == 0, ended.stderr
    is_active, kept = json.loads(ended.stdout.splitlines()[-1])
    assert is_active
    assert "secret-of-the-customer" not in kept
    [request] = receiver.requests
    assert set(request.headers) == {"host", "user-agent", "accept-encoding", "connection", "content-length"}
