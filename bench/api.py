"""How fast is the API, and where does the time go? Run: python -m bench.api [TASKS] [SECONDS].

On a history of TASKS tasks (20,000 unless told), SECONDS (5) for each load, three rounds in turn. Creations are
compared with a bare Django view that sends the very same statements, and with pgbench running the same transaction;
reads with a bare view that reads one row by its key. Clients, servers and database share the machine.
"""

import asyncio
import functools
import io
import itertools
import json
import random
import statistics
import sys
import time
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from bench import history, load, system
from bench.history import LARGE
from bench.system import System
from seedancee2.local import environment, processes
from seedancee2.local.processes import Program

TASKS = "/v1/videos/generations"
BODY = {
    "model": "mini",
    "input": {
        "prompt": "A cinematic drone shot of waves breaking against black volcanic rocks",
        "duration": 4,
        "resolution": "480p",
        "aspect_ratio": "16:9",
    },
    "metadata": {"customer_job_id": "job_123"},
}
PAGE, FAR = 20, 1_000
HELD, HOLD_SECONDS = 500, 20
UNLIMITED = {"RATE_LIMIT_CREATES": "120000", "RATE_LIMIT_REQUESTS": "120000"}


def main() -> None:
    """Measure and print the tables."""
    tasks = int(sys.argv[1]) if len(sys.argv) > 1 else 20_000
    seconds = float(sys.argv[2]) if len(sys.argv) > 2 else 5
    with system.system(LOG_LEVEL="WARNING", **UNLIMITED) as made:
        history.write(tasks)
        try:
            measure(made, seconds)
        except BaseException:
            print(made.last_words())
            raise


def measure(made: System, seconds: float) -> None:
    """Measure on the history that is there."""
    from bench.ledger import speed

    speed.prepare()
    keys = _keys()
    scripts = {kind: _recorded(is_idempotent=kind == "idempotent") for kind in ("plain", "idempotent")}
    path = made.folder / "statements.json"
    path.write_text(json.dumps(scripts))
    made.start("web")
    port = int(made.values["PORT"])
    load.await_health(port)
    # Before there are open tasks: they have no files, and the first page would be a shorter one than the far page.
    _pages(port, keys[0])
    with _bare(made, path) as bare:
        _creations(made, port, bare, keys, scripts, seconds)
        _shares(keys[0])
        _reads(port, bare, keys, seconds)
    asyncio.run(_held(port, keys[0], _some_tasks(100)))
    made.stop()


# --- Creations. ---


def _creations(made: System, port: int, bare: int, keys: list[str], scripts: dict[str, Any], seconds: float) -> None:
    from bench.ledger import speed

    counter = itertools.count()

    def ours(few: list[str], *, is_idempotent: bool) -> Callable[[], bytes]:
        def make() -> bytes:
            headers = {"Idempotency_Key": f"{time.time_ns()}-{next(counter)}"} if is_idempotent else {}
            return load.request("POST", TASKS, random.choice(few), BODY, **headers)

        return make

    def theirs(kind: str) -> Callable[[], bytes]:
        sent = load.request("POST", f"/create/{kind}?organizations={len(keys)}", "", BODY)
        return lambda: sent

    def offer(at: int, make: Callable[[], bytes], connections: int) -> Callable[[], list[float]]:
        return lambda: load.offer(at, make, connections=connections, seconds=seconds, status=201)

    loads = {
        "a bare view, 16 connections": offer(bare, theirs("plain"), 16),
        "creations, 16 connections": offer(port, ours(keys, is_idempotent=False), 16),
        "  of one organization": offer(port, ours(keys[:1], is_idempotent=False), 16),
        "creations, 64 connections": offer(port, ours(keys, is_idempotent=False), 64),
        "a bare view, with Idempotency-Key": offer(bare, theirs("idempotent"), 16),
        "creations with Idempotency-Key": offer(port, ours(keys, is_idempotent=True), 16),
    }
    _note_uses()
    for at, make in ((bare, theirs("plain")), (port, ours(keys, is_idempotent=False))):
        load.offer(at, make, connections=16, seconds=3, status=None)  # to warm up: the pools grow
    found = dict(zip(loads, load.in_turn(list(loads.values())), strict=True))
    script = speed._recorded(speed._create)
    limit, times = speed._pgbench(Path(made.folder), script, history.ORGANIZATIONS, round(seconds))
    rates = {name: len(ms) / (seconds * load.ROUNDS) for name, ms in found.items()}
    plain, idempotent = (len(scripts[kind]["statements"]) for kind in ("plain", "idempotent"))
    print(f"\ncreations ({plain} statements, {idempotent} with an Idempotency-Key){system.loaded()}")
    _head()
    _row("pgbench, the same transaction", limit, times)
    of_bare = rates["a bare view, 16 connections"]
    for name, ms in found.items():
        ratio = {
            "creations, 16 connections": f"{rates[name] / of_bare:.2f} of the bare view (bar: 0.6, aim 0.75),"
            f" {rates[name] / limit:.2f} of pgbench",
            "  of one organization": f"{rates[name] / rates['creations, 16 connections']:.2f} of"
            f" {len(keys):,} organizations (bar: 0.7)",
            "creations with Idempotency-Key": f"{rates[name] / rates['a bare view, with Idempotency-Key']:.2f}"
            " of the bare view",
        }.get(name, "")
        _row(name, rates[name], ms, ratio)


def _shares(key: str) -> None:
    """Print which parts of a creation take how much CPU time of a web process, the database's own aside."""
    from django.core.handlers.wsgi import WSGIHandler
    from django.db import connection

    from accounts import clients
    from generations import idempotency, lifecycle, requests
    from seedancee2.api import ratelimits

    spent: defaultdict[str, float] = defaultdict(float)
    handler, count = WSGIHandler(), 300
    inside: list[str] = []

    def timed(name: str, call: Callable[..., Any]) -> Callable[..., Any]:
        @functools.wraps(call)
        def run(*args: Any, **kwargs: Any) -> Any:
            began = time.thread_time()
            inside.append(name)
            try:
                return call(*args, **kwargs)
            finally:
                inside.pop()
                took = time.thread_time() - began
                spent[name] += took
                if inside:  # a part of a part counts once
                    spent[inside[-1]] -= took

        return run

    parts = {
        "authentication": (clients, "authenticate"),
        "rate limit (Redis)": (ratelimits, "take"),
        "validation": (requests, "read"),
        "task, job and hold": (lifecycle, "create"),
        "idempotency": (idempotency, "once"),
    }
    kept = {name: getattr(module, attribute) for name, (module, attribute) in parts.items()}
    execute = timed("sending statements and reading answers", lambda run, *args: run(*args))
    content = json.dumps(BODY).encode()
    try:
        for name, (module, attribute) in parts.items():
            setattr(module, attribute, timed(name, kept[name]))
        began = time.thread_time()
        for _ in range(count):
            environ = _environ(key, content)
            with connection.execute_wrapper(execute):
                response = handler(environ, _start_response)
                b"".join(response)
                response.close()
        total = time.thread_time() - began
    finally:
        for name, (module, attribute) in parts.items():
            setattr(module, attribute, kept[name])
    spent["Django, REST framework, middleware, log, commit"] = total - sum(spent.values())
    print(f"\na creation's {1000 * total / count:.2f} ms of CPU in a web process, the database's aside")
    for name, took in sorted(spent.items(), key=lambda item: -item[1]):
        print(f"{name:<52}{1000 * took / count:>8.2f} ms{took / total:>8.0%}")


def _start_response(status: str, headers: Any, error: Any = None, /) -> Callable[[bytes], object]:
    assert status.startswith("201"), status
    return len


def _environ(key: str, content: bytes) -> dict[str, Any]:
    return {
        "REQUEST_METHOD": "POST",
        "PATH_INFO": TASKS,
        "QUERY_STRING": "",
        "CONTENT_TYPE": "application/json",
        "CONTENT_LENGTH": str(len(content)),
        "HTTP_HOST": "127.0.0.1",
        "HTTP_AUTHORIZATION": f"Bearer {key}",
        "SERVER_NAME": "127.0.0.1",
        "SERVER_PORT": "80",
        "SERVER_PROTOCOL": "HTTP/1.1",
        "wsgi.input": io.BytesIO(content),
        "wsgi.url_scheme": "http",
        "wsgi.errors": sys.stderr,
    }


def _recorded(*, is_idempotent: bool) -> dict[str, Any]:
    """Return the statements that one creation over HTTP sends, and the values in them that change each time."""
    from django.db import connection
    from django.db.backends.postgresql.psycopg_any import mogrify
    from django.test import Client

    from accounts import keys
    from accounts.models import Organization
    from bench.ledger import speed

    organization = Organization.objects.get(pk=speed.RECORDED)
    secret = keys.issue(organization=organization, name="bench", mode="live").secret
    _note_uses()
    found: list[tuple[str, bool]] = []

    def note(execute: Any, sql: str, params: Any, many: bool, context: Any) -> Any:
        result = execute(sql, params, many, context)
        found.append((mogrify(sql, params, connection), connection.in_atomic_block))
        return result

    def send(key: str) -> dict[str, Any]:
        headers = {"Authorization": f"Bearer {secret}", "Host": "127.0.0.1"}
        headers |= {"Idempotency-Key": key} if is_idempotent else {}
        reply = Client().post(TASKS, BODY, content_type="application/json", headers=headers)
        assert reply.status_code == 201, reply.content
        reference = reply.json()["data"]["id"]
        return {"reference": reference, "organization": speed.RECORDED, "key": key if is_idempotent else ""}

    recordings = []
    for number in range(4):
        found.clear()
        with connection.execute_wrapper(note):
            recordings.append(send(f"bench-idempotency-key-{number}") | {"statements": list(found)})
    # Now and then models and rates are read anew.
    return min(recordings, key=lambda recording: len(recording["statements"]))


# --- Reads. ---


def _reads(port: int, bare: int, keys: list[str], seconds: float) -> None:
    tasks = _some_tasks(2_000)

    def ours() -> bytes:
        return load.request("GET", f"{TASKS}/{random.choice(tasks)}", keys[0])

    def theirs() -> bytes:
        return load.request("GET", f"/tasks/{random.choice(tasks)}")

    print(f"\nreads of one task of {_count():,}{system.loaded()}")
    _head()
    _note_uses()
    for connections in (16, 64):
        loads = [
            functools.partial(load.offer, at, make, connections=connections, seconds=seconds)
            for at, make in ((bare, theirs), (port, ours))
        ]
        by_bare, by_us = load.in_turn(loads)
        _row(f"a bare view, {connections} connections", len(by_bare) / seconds / load.ROUNDS, by_bare)
        ratio = f"{len(by_us) / len(by_bare):.2f} of the bare view (bar: 0.5, aim 0.7)"
        _row(f"reads, {connections} connections", len(by_us) / seconds / load.ROUNDS, by_us, ratio)


def _pages(port: int, key: str) -> None:
    first = load.request("GET", f"{TASKS}?limit={PAGE}", key)
    far = load.request("GET", f"{TASKS}?limit={PAGE}&cursor={_cursor(PAGE * (FAR - 1))}", key)
    loads = [
        functools.partial(load.offer, port, functools.partial(bytes, sent), connections=1, seconds=1)
        for sent in (first, far)
    ]
    near_times, far_times = load.in_turn(loads, rounds=5)
    print(f"\nlists of {PAGE} tasks{system.loaded()}")
    _head()
    ratio = statistics.median(far_times) / statistics.median(near_times)
    _row("the first page", len(near_times) / 5, near_times)
    _row(f"page {FAR:,} by cursor", len(far_times) / 5, far_times, f"{ratio:.2f} of the first page's p50 (bar: 1.3)")


async def _held(port: int, key: str, tasks: list[str]) -> None:
    """Let many clients wait for one task while others read, and tell how the others fare."""
    task = json.loads((await load.exchange(port, load.request("POST", TASKS, key, BODY)))[2])["data"]["id"]
    waits: list[float] = []
    codes: Counter[int] = Counter()
    is_over = False

    async def wait() -> None:
        while not is_over:
            began = time.monotonic()
            status, headers, _ = await load.exchange(port, load.request("GET", f"{TASKS}/{task}?wait=25", key))
            codes[status] += 1
            waits.append(time.monotonic() - began)
            if waits[-1] < 20:
                await asyncio.sleep(int(headers.get("retry-after", "1")))

    async def read() -> list[float]:
        times = []
        end = time.monotonic() + HOLD_SECONDS
        while time.monotonic() < end:
            began = time.perf_counter()
            status, _, body = await load.exchange(port, load.request("GET", f"{TASKS}/{random.choice(tasks)}", key))
            assert status == 200, body
            times.append((time.perf_counter() - began) * 1000)
            await asyncio.sleep(0.02)
        return times

    alone = sorted(itertools.chain.from_iterable(await asyncio.gather(*(read() for _ in range(4)))))
    waiting = [asyncio.create_task(wait()) for _ in range(HELD)]
    await asyncio.sleep(2)
    beside = sorted(itertools.chain.from_iterable(await asyncio.gather(*(read() for _ in range(4)))))
    is_over = True
    for one in waiting:
        one.cancel()
    await asyncio.gather(*waiting, return_exceptions=True)
    print(f"\nreads by four clients beside {HELD} that wait{system.loaded()}")
    _head()
    _row("alone", len(alone) / HOLD_SECONDS, alone)
    _row(f"beside {HELD} waiting", len(beside) / HOLD_SECONDS, beside)
    held = sum(seconds > 1 for seconds in waits)
    print(f"replies to those who wait: {len(waits):,}, {held:,} of them held for more than a second; {dict(codes)}")


# --- What they need. ---


def _keys() -> list[str]:
    """Issue one key for each organization, the first for the one with the most tasks."""
    from accounts import keys
    from accounts.models import Organization

    rows = Organization.objects.filter(pk__lte=history.ORGANIZATIONS).order_by("pk")
    return [keys.issue(organization=one, name="bench", mode="live").secret for one in rows]


def _note_uses() -> None:
    """Mark all keys as just used: writing that down is once a minute, and would fall into the first seconds only."""
    from accounts.models import ApiKey
    from seedancee2.lib import clock

    ApiKey.objects.update(last_used_at=clock.now())


def _some_tasks(count: int) -> list[str]:
    from generations.models import Generation

    rows = Generation.objects.filter(organization_id=LARGE, is_test=False, finished_at__isnull=False)
    return list(rows.order_by("-created_at").values_list("public_id", flat=True)[: 50 * count : 50])


def _count() -> int:
    from generations.models import Generation

    return Generation.objects.count()


def _cursor(offset: int) -> str:
    from generations.models import Generation
    from seedancee2.api import cursors

    rows = Generation.objects.filter(organization_id=LARGE, is_test=False).order_by("-created_at", "-public_id")
    row = rows[min(offset, rows.count() - PAGE - 1)]
    return cursors.encode(row.created_at, row.public_id)


@contextmanager
def _bare(made: System, statements: Path) -> Iterator[int]:
    port = environment.free_port()
    program = Program(
        name="bare",
        command=[sys.executable, "-m", "gunicorn", "--config", "seedancee2/gunicorn.py", "bench.bare"],
        folder=Path(__file__).resolve().parents[1],
        environment={**made.values, "PORT": str(port), "BENCH_STATEMENTS": str(statements)},
        log=made.folder / "bare.log",
    )
    process = processes.spawn(program)
    try:
        load.await_health(port)
        yield port
    finally:
        processes.stop(process, program)


def _head() -> None:
    print(f"{'':<44}{'per second':>11}{'p50 ms':>9}{'p99 ms':>9}")


def _row(name: str, rate: float, times: list[float], rest: str = "") -> None:
    print(
        f"{name:<44}{rate:>11,.0f}{statistics.median(times):>9.2f}{load.percentile(times, 99):>9.2f}   {rest}".rstrip()
    )


if __name__ == "__main__":
    main()
