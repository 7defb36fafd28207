"""How soon do webhooks leave, and who holds up whom? Run: python -m bench.webhooks [PART …], all parts unless told.

isolation   1,000 deliveries due at once to good receivers, alone and with 1,000 beside them that are due to a black
            hole; median of the p95 of five runs each, in turns. Bar: 1.2 times as long.
hanging     20 events a second for 150 s, a tenth of them to hosts that take connections and never answer: none, one
            such host, fifty new ones. From commit to the first byte at a good receiver. Bars: W1 p95 1 s, p99 2 s;
            with none that hangs W3 p95 1 s, p99 3 s.
throughput  3,000 deliveries due at once to good receivers. Bar: W12 100 a second on two cores.
claims      a claim with 10,000 endpoints that have a backlog of ten deliveries each.

Deliverer and beat run as in the Procfile, on durable servers; the receivers are a process of their own.
"""

import asyncio
import contextlib
import multiprocessing
import os
import signal
import statistics
import sys
import time
from collections.abc import Iterator, Sequence
from typing import Any, Self

import psutil

from bench import system
from bench.system import System

GOOD, HANGING = 20, 50  # receivers
ORGANIZATIONS = 10
TRICKLE = 150.0  # seconds, longer than a lane lasts
PATIENCE = 180.0  # seconds after which a run is given up


class Receivers:
    """Servers in a process of their own, which note when each delivery's first byte came; some never answer."""

    def __init__(self) -> None:
        context = multiprocessing.get_context("spawn")
        self._pipe, theirs = context.Pipe()
        self._process = context.Process(target=_receive, args=(theirs, GOOD, HANGING), daemon=True)
        self._process.start()
        ports = self._pipe.recv()
        self.good = [f"http://127.0.0.1:{port}/hook" for port in ports[:GOOD]]
        self.hanging = [f"http://127.0.0.1:{port}/hook" for port in ports[GOOD:]]

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._process.kill()
        self._process.join()

    def seen(self) -> dict[str, float]:
        """Return when each delivery came to a good receiver first."""
        self._pipe.send(None)
        found: dict[str, float] = self._pipe.recv()
        return found


def main() -> None:
    """Measure and print."""
    parts = {"isolation": _isolation, "hanging": _hanging, "throughput": _throughput, "claims": _claims}
    os.environ.setdefault("LOG_LEVEL", "WARNING")
    with (
        Receivers() as receivers,
        system.system(OUTBOUND_ALLOWED_HOSTS="127.0.0.1", LOG_LEVEL=os.environ["LOG_LEVEL"]) as made,
    ):
        from accounts.models import Organization

        for number in range(ORGANIZATIONS):
            Organization.objects.create(name=f"bench {number}")
        for name in sys.argv[1:] or parts:
            print(f"{name}: load {os.getloadavg()[0]:.1f} on {os.cpu_count()} cores")
            try:
                parts[name](made, receivers)
            except TimeoutError:
                print(made.last_words())
                raise


def _isolation(made: System, receivers: Receivers) -> None:
    figures: dict[str, list[float]] = {"alone": [], "beside": []}
    with _running(made, receivers):
        for _ in range(5):
            for name in figures:
                _forget()
                others = receivers.hanging[:1] if name == "beside" else []
                sent = _write([url for number in range(1_000) for url in (receivers.good[number % GOOD], *others)])
                waits = _await(receivers, {pk: at for pk, (at, url) in sent.items() if url in receivers.good})
                figures[name].append(_percentile(waits, 95))
                print(f"  {name:<8} p95 {figures[name][-1]:6.2f} s   load {os.getloadavg()[0]:.1f}")
    alone, beside = (statistics.median(figures[name]) for name in ("alone", "beside"))
    print(f"  median of p95: alone {alone:.2f} s, beside a black hole {beside:.2f} s: ×{beside / alone:.2f} (bar ×1.2)")


def _hanging(made: System, receivers: Receivers) -> None:
    for count in (0, 1, HANGING):
        _forget()
        with _running(made, receivers):
            sent = _trickle(receivers, hanging=receivers.hanging[:count], seconds=TRICKLE, rate=20.0)
            waits = _await(receivers, sent)
            memory = _memory(made)
        bars = "W3: p95 1 s, p99 3 s" if count == 0 else "W1: p95 1 s, p99 2 s"
        print(
            f"  {count:>2} hanging: p50 {_percentile(waits, 50):.3f}, p95 {_percentile(waits, 95):.3f},"
            f" p99 {_percentile(waits, 99):.3f}, worst {max(waits):.3f} s of {len(waits)} ({bars});"
            f" deliverer {memory:.0f} MB; load {os.getloadavg()[0]:.1f}"
        )


def _throughput(made: System, receivers: Receivers) -> None:
    _forget()
    with _running(made, receivers):
        for _ in range(3):
            cpu = made.cpu_seconds()
            sent = _write([receivers.good[number % GOOD] for number in range(3_000)])
            waits = _await(receivers, {pk: at for pk, (at, _) in sent.items()})
            print(
                f"  {len(waits) / max(waits):.0f}/s (bar W12: 100/s); {(made.cpu_seconds() - cpu) / 3:.1f} ms of CPU"
                f" of deliverer and beat for each; {_memory(made):.0f} MB; load {os.getloadavg()[0]:.1f}"
            )


def _claims(made: System, receivers: Receivers) -> None:
    from django.db import connection

    from seedancee2.lib import database
    from webhooks import delivery
    from webhooks.models import Delivery, Endpoint

    _forget()
    with database.patience(seconds=120), connection.cursor() as cursor:
        cursor.execute(
            """
            INSERT INTO webhooks_delivery (delivery_id, organization_id, is_test, reference, event, url, host, body,
                                           state, attempt_count, created_at, due_at)
            SELECT 'dlv_' || n, (SELECT min(id) FROM accounts_organization) + mod(n, 10), false, 'vid_' || n,
                   'video.generation.completed', 'http://127.0.0.1/', 'http://h' || mod(n, 10000), '{}', 'pending', 0,
                   now(), now() - n * interval '1 millisecond'
              FROM generate_series(1, 100000) n
            """
        )
        cursor.execute("VACUUM ANALYZE webhooks_delivery, webhooks_endpoint")
    spent: list[float] = []
    for _ in range(100):
        began = time.perf_counter()
        assert len(delivery.claim_due(16)) == 16
        spent.append((time.perf_counter() - began) * 1000)
    print(
        f"  {Endpoint.objects.count():,} endpoints, {Delivery.objects.count():,} due: a claim of 16"
        f" p50 {_percentile(spent, 50):.1f} ms, p95 {_percentile(spent, 95):.1f} ms"
    )


# --- The deliverer, and what is written for it. ---


@contextlib.contextmanager
def _running(made: System, receivers: Receivers) -> Iterator[None]:
    made.start("beat", "deliver")
    try:
        # Awake, and with each good endpoint known.
        _await(receivers, {pk: at for pk, (at, _) in _write(receivers.good).items()})
        yield
    finally:
        made.stop()


def _write(urls: Sequence[str]) -> dict[str, tuple[float, str]]:
    """Write deliveries that are due at once; return when each was committed, and where it goes."""
    from accounts.models import Organization
    from seedancee2.lib import clock, destinations, ids, wakeups
    from webhooks.models import Delivery

    first = Organization.objects.order_by("pk").values_list("pk", flat=True)[0]
    now = clock.now()
    rows = [
        Delivery(
            delivery_id=ids.new("dlv"),
            organization_id=first + urls.index(url) % ORGANIZATIONS,
            reference=ids.new("vid"),
            event=Delivery.Event.COMPLETED,
            url=url,
            host=destinations.parse(url).origin,
            body=b"{}" * 400,
            created_at=now,
            due_at=now,
        )
        for url in urls
    ]
    Delivery.objects.bulk_create(rows)
    at = time.time()
    wakeups.wake("webhooks.deliver")
    return {row.pk: (at, row.url) for row in rows}


def _trickle(receivers: Receivers, *, hanging: Sequence[str], seconds: float, rate: float) -> dict[str, float]:
    """Commit events one by one at a rate; return when each of those to good receivers was."""
    sent: dict[str, float] = {}
    began = time.time()
    for number in range(int(seconds * rate)):
        time.sleep(max(0.0, began + number / rate - time.time()))
        if hanging and number % 10 == 0:
            _write([hanging[number // 10 % len(hanging)]])
        else:
            sent |= {pk: at for pk, (at, _) in _write([receivers.good[number % GOOD]]).items()}
    return sent


def _await(receivers: Receivers, sent: dict[str, float]) -> list[float]:
    """Wait until all have come, and return how long each took."""
    end = time.time() + PATIENCE
    while True:
        seen = receivers.seen()
        if missing := sent.keys() - seen.keys():
            if time.time() > end:
                raise TimeoutError(f"{len(missing)} deliveries did not come")
            time.sleep(0.2)
            continue
        return [max(0.0, seen[pk] - at) for pk, at in sent.items()]


def _forget() -> None:
    """Empty the tables, also under a deliverer at work, which then finds that its leases are gone."""
    from django.db import OperationalError, connection

    while True:
        with contextlib.suppress(OperationalError), connection.cursor() as cursor:  # it may hold them just now
            cursor.execute("TRUNCATE webhooks_deliveryattempt, webhooks_delivery, webhooks_endpoint")
            return


def _memory(made: System) -> float:
    """Return the memory of the deliverer's processes in MB, shared pages counted once among them."""
    top = psutil.Process(made.running["deliver"][0].pid)
    return sum(one.memory_full_info().pss for one in (top, *top.children(recursive=True))) / 1e6


def _percentile(values: Sequence[float], percent: int) -> float:
    return sorted(values)[max(0, -(-len(values) * percent // 100) - 1)]


# --- In the receivers' process. ---


def _receive(pipe: Any, good: int, hanging: int) -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    asyncio.run(_serve(pipe, good, hanging))


async def _serve(pipe: Any, good: int, hanging: int) -> None:
    seen: dict[str, float] = {}

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(OSError, asyncio.IncompleteReadError):
            head = await reader.read(1)
            at = time.time()
            head += await reader.readuntil(b"\r\n\r\n")
            headers = dict(line.split(": ", 1) for line in head.decode().split("\r\n")[1:] if line)
            await reader.readexactly(int(headers["Content-Length"]))
            seen.setdefault(headers["X-Seedancee2-Delivery"], at)
            writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\nConnection: close\r\n\r\nok")
            await writer.drain()
        writer.close()

    async def hang(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(OSError):
            while await reader.read(65_536):
                pass
        writer.close()

    servers = [
        await asyncio.start_server(answer if number < good else hang, "127.0.0.1", 0, backlog=512)
        for number in range(good + hanging)
    ]
    pipe.send([server.sockets[0].getsockname()[1] for server in servers])
    asyncio.get_running_loop().add_reader(pipe.fileno(), lambda: (pipe.recv(), pipe.send(seen)))
    await asyncio.Event().wait()


if __name__ == "__main__":
    main()
