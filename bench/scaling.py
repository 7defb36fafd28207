"""What do more hosts bring, and what does one that dies cost? Run: python -m bench.scaling [TASKS].

First one web and one worker host, then two of each: network namespaces with a quarter of a core each, where this
machine allows both. One PostgreSQL, one Valkey, an S3 server (moto's) and an emulated Ark that is done at once are
beside them, without limits. TASKS tasks (120 unless told) for each worker host are created over HTTP, by all
webs, and only then made by the workers.

Then, with two of each and no limits, five tasks a second with callbacks; half-way one web and one worker host lose
their network, and every process on them ends by kill -9. The client sends what was not answered to the other web, with
the same Idempotency-Key. Nothing may be lost, and nothing made, charged or paid for twice.
"""

import asyncio
import contextlib
import json
import multiprocessing
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable, Sequence
from typing import Any
from urllib.parse import quote

from bench import hosts, load, system
from bench.api import BODY, TASKS, UNLIMITED
from bench.hosts import Host, Network
from bench.system import Provider, System
from seedancee2.local import environment

PORT = 8000
CORES = 0.25
WORKER = ("worker", "poll", "deliver", "media", "beat")
CLIENTS = 8  # for each web
RATE, SECONDS = 5, 30  # of tasks, while a host dies
PATIENCE = 300.0
BUCKET = "bench"
FIRST = 10  # tasks that workers warm up with
PROMPT = "waves [emulate:queued=0] [emulate:running=0]"


def main() -> None:
    """Measure and print two tables."""
    count = int(sys.argv[1]) if len(sys.argv) > 1 else 120
    with contextlib.ExitStack() as stack:
        network = stack.enter_context(hosts.network())
        store = stack.enter_context(_store(network.address))
        # Webs and receivers are on addresses that only this machine has.
        settings = {"OUTBOUND_ALLOWED_HOSTS": network.address, "MEDIA_STORAGE_URL": store, "LOG_LEVEL": "WARNING"}
        made = stack.enter_context(system.system(address=network.address, **settings, **UNLIMITED))
        provider = Provider("ark", running=0.0, address=network.address)
        stack.callback(provider.kill)
        key = _prepare(provider, network.address)
        try:
            one, limited = _throughput(made, network, key, count, pairs=1)
            two, _ = _throughput(made, network, key, 2 * count, pairs=2)
            _print_throughput(network, limited, one, two)
            _death(made, network, key, provider)
        except BaseException:
            print(made.last_words())
            raise


# --- Throughput. ---


def _throughput(
    made: System, network: Network, key: str, count: int, *, pairs: int
) -> tuple[tuple[float, float], bool]:
    """Return tasks created and tasks completed a second, and whether the hosts were limited."""
    with contextlib.ExitStack() as stack:
        webs, workers = ([_host(stack, network, 2 * n + kind) for n in range(pairs)] for kind in (1, 2))
        for host in webs:
            host.start("web", environment=_environment(made, host), folder=made.folder)
        for host in webs:
            load.await_health(PORT, host=host.address)
        asyncio.run(_create(webs, key, CLIENTS * pairs))  # to warm up
        limited = all(host.limit(CORES) for host in webs)
        began = time.monotonic()
        asyncio.run(_create(webs, key, count))
        created = count / (time.monotonic() - began)
        for host in workers:
            host.start(*WORKER, environment=_environment(made, host), folder=made.folder)
        before = _completed()
        _await(lambda: _completed() - before >= FIRST * pairs)
        for host in workers:
            host.limit(CORES)
        before, began = _completed(), time.monotonic()
        _await(lambda: not _open())
        return (created, (_completed() - before) / (time.monotonic() - began)), limited


async def _create(webs: Sequence[Host], key: str, count: int) -> None:
    body = {**BODY, "input": {**BODY["input"], "prompt": PROMPT}}  # type: ignore[dict-item] # a dict
    left = iter(range(count))

    async def client(host: Host) -> None:
        for _ in left:
            status, _, reply = await load.exchange(PORT, load.request("POST", TASKS, key, body), host=host.address)
            assert status == 201, reply

    await asyncio.gather(*(client(host) for host in webs for _ in range(CLIENTS)))


def _print_throughput(network: Network, limited: bool, one: tuple[float, float], two: tuple[float, float]) -> None:
    kind = "network namespaces" if network.bridge else "loopback addresses (namespaces need root and `ip`)"
    share = f"{CORES} of a core each" if limited else "not limited, so that they share the cores"
    print(f"\nhosts are {kind}, {share}{system.loaded()}")
    print(f"{'a second':<44}{'one of each':>13}{'two of each':>13}{'ratio':>8}")
    for name, single, double in zip(("tasks created over HTTP", "tasks completed"), one, two, strict=True):
        print(f"{name:<44}{single:>13.1f}{double:>13.1f}{double / single:>8.2f}")


# --- A host dies. ---


def _death(made: System, network: Network, key: str, provider: Provider) -> None:
    submitted = provider.ask(_submissions)
    with contextlib.ExitStack() as stack:
        receiver = stack.enter_context(_receiver(network.address))
        everything = [_host(stack, network, number) for number in (1, 2, 3, 4)]
        webs, workers = everything[::2], everything[1::2]
        for host in webs:
            host.start("web", environment=_environment(made, host), folder=made.folder)
        for host in workers:
            host.start(*WORKER, environment=_environment(made, host), folder=made.folder)
        for host in webs:
            load.await_health(PORT, host=host.address)
        asyncio.run(_create(webs, key, 2 * FIRST))
        _await(lambda: not _open())
        asked = asyncio.run(_trickle(webs, key, f"{receiver.origin}/hook", [webs[1], workers[1]]))
        _await(lambda: not _open())
        _await(lambda: not _undelivered())
        _print_death(asked, receiver.received(), provider.ask(_submissions)[len(submitted) + 2 * FIRST :])


async def _trickle(webs: Sequence[Host], key: str, callback: str, dying: Sequence[Host]) -> dict[str, tuple[str, int]]:
    """Create tasks at a steady rate while hosts die; return each one's id, and how often it had to be asked for."""
    made: dict[str, tuple[str, int]] = {}
    count = RATE * SECONDS

    async def create(number: int) -> None:
        name = f"scaling-{number}"
        body = {**BODY, "input": {**BODY["input"], "prompt": PROMPT}, "callback_url": callback}  # type: ignore[dict-item] # a dict
        body["metadata"] = {"number": number}
        sent = load.request("POST", TASKS, key, body, Idempotency_Key=name)
        for attempt in range(60):
            host = webs[(number + attempt) % len(webs)]
            with contextlib.suppress(OSError, TimeoutError, asyncio.IncompleteReadError):
                status, _, reply = await asyncio.wait_for(load.exchange(PORT, sent, host=host.address), 3)
                if status == 201:
                    made[name] = (json.loads(reply)["data"]["id"], attempt + 1)
                    return
            await asyncio.sleep(0.5)

    async with asyncio.TaskGroup() as group:
        began = time.monotonic()
        for number in range(count):
            if number == count // 2:
                for host in dying:
                    await asyncio.to_thread(host.die)
            group.create_task(create(number))
            await asyncio.sleep(max(0.0, began + (number + 1) / RATE - time.monotonic()))
    return made


def _print_death(asked: dict[str, tuple[str, int]], received: Sequence[str], submissions: Sequence[str]) -> None:
    from billing.models import LedgerEntry
    from generations import reconciliation
    from generations.models import Generation

    ids = {public_id for public_id, _ in asked.values()}
    numbers = [row.metadata["number"] for row in Generation.objects.all() if "number" in row.metadata]
    rows = Generation.objects.filter(pk__in=ids)
    charges = LedgerEntry.objects.filter(kind="capture", reference__in=ids)
    times = sorted((row.finished_at - row.created_at).total_seconds() for row in rows if row.finished_at)
    print(f"\n{RATE} tasks a second for {SECONDS} s; half-way one web and one worker host die{system.loaded()}")
    for name, value in {
        "tasks asked for / accepted / in the database": f"{RATE * SECONDS} / {len(ids)} / {len(numbers)}",
        "asked for more than once": sum(count > 1 for _, count in asked.values()),
        "ended, by status": dict(Counter(rows.values_list("status", flat=True))),
        "charges / tasks charged": f"{charges.count()} / {charges.values('reference').distinct().count()}",
        "submissions at the provider": len(submissions),
        "tasks told by webhook / webhooks sent": f"{len(set(received))} / {len(received)}",
        "from creation to the end, p50 / longest": f"{times[len(times) // 2]:.1f} s / {times[-1]:.1f} s",
    }.items():
        print(f"{name:<48}{value!s:>20}")
    found = reconciliation.discrepancies()
    print(f"{'discrepancies, every stored file looked for':<48}{len(found):>20}")
    completed = rows.filter(status="completed").count()
    assert len(ids) == len(set(numbers)) == len(numbers) == RATE * SECONDS == completed == charges.count()
    assert set(received) == ids, "A task's webhook did not come."
    assert len(submissions) == RATE * SECONDS, "A provider was asked twice."
    assert not found, found


# --- What stands beside the hosts. ---


def _host(stack: contextlib.ExitStack, network: Network, number: int) -> Host:
    host = network.host(number)
    stack.callback(host.remove)
    return host


def _environment(made: System, host: Host) -> dict[str, str]:
    allowed = f"{environment.LOOPBACK},{host.address}"
    return {**made.values, "PORT": str(PORT), "WEB_CONCURRENCY": "1", "ALLOWED_HOSTS": allowed}


@contextlib.contextmanager
def _store(address: str) -> Any:
    """Give the MEDIA_STORAGE_URL of an S3 server in a process of its own."""
    import boto3

    with contextlib.ExitStack() as stack:
        port = environment.free_port()
        command = [sys.executable, "-W", "ignore", "-m", "moto.server", "-H", address, "-p", str(port)]
        process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        stack.callback(process.wait)
        stack.callback(process.kill)
        endpoint = f"http://{address}:{port}"
        client = boto3.client(
            "s3",
            endpoint_url=endpoint,
            region_name="us-east-1",
            aws_access_key_id="key",
            aws_secret_access_key="secret",
        )
        _await(lambda: _is_bucket_there(client))
        yield f"s3://{BUCKET}?endpoint_url={quote(endpoint)}&region_name=us-east-1&access_key=key&secret_key=secret"


def _is_bucket_there(client: Any) -> bool:
    from botocore.exceptions import BotoCoreError

    with contextlib.suppress(BotoCoreError):
        client.create_bucket(Bucket=BUCKET)
        return True
    return False


class _Receiver:
    """A customer's server in a process of its own, which notes the task of each webhook."""

    def __init__(self, address: str) -> None:
        context = multiprocessing.get_context("spawn")
        self._pipe, theirs = context.Pipe()
        self.process = context.Process(target=_receive, args=(theirs, address), daemon=True)
        self.process.start()
        self.origin: str = self._pipe.recv()

    def received(self) -> list[str]:
        self._pipe.send(None)
        found: list[str] = self._pipe.recv()
        return found


@contextlib.contextmanager
def _receiver(address: str) -> Any:
    made = _Receiver(address)
    try:
        yield made
    finally:
        made.process.kill()
        made.process.join()


def _receive(pipe: Any, address: str) -> None:
    from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
    from threading import Thread

    received: list[str] = []

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            received.append(body["data"]["id"])
            self.send_response(200)
            self.send_header("Content-Length", "0")
            self.end_headers()

        def log_message(self, format: str, *args: Any) -> None:
            pass

    server = ThreadingHTTPServer((address, 0), Handler)
    Thread(target=server.serve_forever, daemon=True).start()
    pipe.send(f"http://{address}:{server.server_address[1]}")
    with contextlib.suppress(EOFError, OSError, KeyboardInterrupt):
        while True:
            pipe.recv()
            pipe.send(received)


def _submissions(emulator: Any) -> list[str]:
    return [submission.task_id for submission in emulator.submissions]


# --- What they need. ---


def _prepare(provider: Provider, address: str) -> str:
    """Make the channel and a customer; return the customer's key."""
    from accounts.models import ApiKey
    from providers import presets
    from seedancee2.console import provisioning

    preset = presets.emulated("ark", origin=provider.origin)
    channel = presets.install(name="ark", preset=preset, credential=provider.key, is_active=True)
    channel.output_hosts = [address]
    channel.save()
    return provisioning.issue_key(organization_name="bench", name="bench", mode=ApiKey.Mode.LIVE, credits=10**9).secret


def _completed() -> int:
    from generations.models import Generation

    return Generation.objects.filter(status="completed").count()


def _open() -> bool:
    from generations.models import Generation

    assert not Generation.objects.filter(status="failed").exists()
    return Generation.objects.filter(status__in=Generation.OPEN).exists()


def _undelivered() -> bool:
    from webhooks.models import Delivery

    return Delivery.objects.filter(state="pending").exists()


def _await(is_there: Callable[[], bool]) -> None:
    end = time.monotonic() + PATIENCE
    while not is_there():
        if time.monotonic() > end:
            raise TimeoutError("It takes too long.")
        time.sleep(0.1)


if __name__ == "__main__":
    main()
