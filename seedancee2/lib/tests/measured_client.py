"""Calls URLs one after another and prints what came of each, and by how much the process grew at its largest.

A process of its own, run by the tests: what servers and the test runner take must not be counted.
"""

import json
import sys
from pathlib import Path

from django.conf import settings

from seedancee2.lib import http


def outcome(url: str) -> str:
    """Name what a GET ends with."""
    try:
        reply = http.send(
            "GET", url, deadline_seconds=5, max_response_bytes=64 * 1024, allowed_hosts=["127.0.0.1", "good.example"]
        )
    except http.TransportFailed as error:
        return error.kind.value
    return f"{reply.status_code}, {len(reply.body)} bytes"


def peak_kib() -> int:
    """Return the largest size that this process has had in memory; Linux alone tells."""
    # Not getrusage: what it tells is never less than what the process that started this one had.
    [line] = [line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith("VmHWM:")]
    return int(line.split()[1])


if __name__ == "__main__":
    settings.configure()
    warm_up, *urls = sys.argv[1:]
    outcome(warm_up)
    before = peak_kib()
    outcomes = [outcome(url) for url in urls]
    print(json.dumps({"outcomes": outcomes, "grown_kib": peak_kib() - before}))
