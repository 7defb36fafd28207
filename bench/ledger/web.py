"""Creations over HTTP: does one busy organization get as much as many together?"""

import concurrent.futures
import http.client
import json
import multiprocessing
import os
import random
import statistics
import sys
import time
from pathlib import Path

from bench.ledger.speed import CLIENTS
from seedancee2.local import processes, servers

KEYS = 200  # one for each of as many organizations
ROUNDS = 3
BODY = json.dumps({"model": "mini", "input": {"prompt": "waves", "duration": 4, "resolution": "480p"}})


def measure(seconds: int) -> None:
    """Print one table."""
    keys = _keys()
    port = servers.free_port()
    program = processes.Program(
        name="web",
        command=[sys.executable, "-m", "gunicorn", "--config", "seedancee2/gunicorn.py", "seedancee2.wsgi"],
        folder=Path(__file__).resolve().parents[2],
        environment={**os.environ, "PORT": str(port), "ALLOWED_HOSTS": "127.0.0.1"},
        log=Path(os.devnull),
    )
    web = processes.spawn(program)
    try:
        _await(port)
        context = multiprocessing.get_context("spawn")
        with concurrent.futures.ProcessPoolExecutor(CLIENTS, mp_context=context) as pool:
            _offer(pool, port, keys, 1)  # to warm up
            times: dict[str, list[float]] = {"one organization": [], f"{KEYS} organizations": []}
            for _ in range(ROUNDS):
                # In turn, so that noise of the machine falls on both alike.
                for where, few in zip(times, (keys[:1], keys), strict=True):
                    times[where] += _offer(pool, port, few, seconds)
    finally:
        processes.stop(web, program)
    head = f"creations over HTTP, {CLIENTS} clients, {ROUNDS} x {seconds} s"
    print(f"\n{head:<44}{'per second':>11}{'p50 ms':>9}{'p99 ms':>9}")
    rates = []
    for where, found in times.items():
        rates.append(len(found) / seconds / ROUNDS)
        p99 = statistics.quantiles(found, n=100)[98]
        print(f"{where:<44}{rates[-1]:>11,.0f}{statistics.median(found):>9.2f}{p99:>9.2f}   L3: 300/s, p99 60 ms")
    print(f"{'the first beside the second':<44}{rates[0] / rates[1]:>11.2f}   L3: 0.85")


def _keys() -> list[str]:
    from accounts import keys
    from accounts.models import Organization

    organizations = Organization.objects.order_by("pk")[:KEYS]
    limit = 1_000_000
    return [
        keys.issue(
            organization=one, name="bench", mode="live", create_rate_limit=limit, request_rate_limit=limit
        ).secret
        for one in organizations
    ]


def _await(port: int) -> None:
    deadline = time.monotonic() + 30
    while True:
        try:
            connection = http.client.HTTPConnection("127.0.0.1", port, timeout=5)
            connection.request("GET", "/healthz")
            assert connection.getresponse().status == 200
            return
        except OSError:
            if time.monotonic() > deadline:
                raise
            time.sleep(0.1)


def _offer(pool: concurrent.futures.ProcessPoolExecutor, port: int, keys: list[str], seconds: int) -> list[float]:
    results = pool.map(_client, [port] * CLIENTS, [keys] * CLIENTS, [seconds] * CLIENTS)
    return [ms for result in results for ms in result]


def _client(port: int, keys: list[str], seconds: int) -> list[float]:
    """Create tasks one after the other on one connection; return how many milliseconds each took."""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=30)
    times = []
    end = time.perf_counter() + seconds
    while (started := time.perf_counter()) < end:
        headers = {"Authorization": f"Bearer {random.choice(keys)}", "Content-Type": "application/json"}
        connection.request("POST", "/v1/videos/generations", BODY, headers)
        reply = connection.getresponse()
        body = reply.read()
        assert reply.status == 201, body
        times.append((time.perf_counter() - started) * 1000)
    return times
