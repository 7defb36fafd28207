"""Load over HTTP: connections kept alive, each with one request at a time, all in this one process."""

import asyncio
import contextlib
import http.client
import json
import statistics
import time
from collections.abc import Callable, Sequence

ROUNDS = 3


def request(method: str, path: str, key: str = "", body: object = None, **headers: str) -> bytes:
    """Return the bytes of a request."""
    content = json.dumps(body).encode() if body is not None else b""
    lines = [f"{method} {path} HTTP/1.1", "Host: 127.0.0.1", f"Content-Length: {len(content)}"]
    lines += [f"Authorization: Bearer {key}"] if key else []
    lines += ["Content-Type: application/json"] if content else []
    lines += [f"{name.replace('_', '-')}: {value}" for name, value in headers.items()]
    return "\r\n".join([*lines, "", ""]).encode() + content


def offer(
    port: int, make: Callable[[], bytes], *, connections: int, seconds: float, status: int | None = 200
) -> list[float]:
    """Send requests for some seconds; return how many milliseconds each took. Without a status any reply will do.

    Raises:
        AssertionError: a reply had another status.
    """
    times: list[float] = []

    async def run() -> None:
        end = time.perf_counter() + seconds
        await asyncio.gather(*(_client(port, make, end, status, times) for _ in range(connections)))

    asyncio.run(run())
    return times


def in_turn(loads: Sequence[Callable[[], list[float]]], rounds: int = ROUNDS) -> list[list[float]]:
    """Run loads one after the other, several rounds of them, so that the machine's noise falls on all alike."""
    times: list[list[float]] = [[] for _ in loads]
    for _ in range(rounds):
        for found, load in zip(times, loads, strict=True):
            found.extend(load())
    return times


async def exchange(port: int, sent: bytes, *, host: str = "127.0.0.1") -> tuple[int, dict[str, str], bytes]:
    """Send one request on a connection of its own; return status, headers in lower case, and body."""
    reader, writer = await asyncio.open_connection(host, port)
    try:
        writer.write(sent)
        return await _reply(reader)
    finally:
        writer.close()


def await_health(port: int, seconds: float = 60, *, host: str = "127.0.0.1") -> None:
    """Wait until a server answers."""
    deadline = time.monotonic() + seconds
    while True:
        with contextlib.suppress(OSError, http.client.HTTPException):
            connection = http.client.HTTPConnection(host, port, timeout=5)
            connection.request("GET", "/healthz")
            if connection.getresponse().status == 200:
                return
        if time.monotonic() > deadline:
            raise TimeoutError(f"Nothing answers on port {port}.")
        time.sleep(0.1)


def percentile(times: Sequence[float], percent: int) -> float:
    """Return a percentile of some times."""
    return statistics.quantiles(times, n=100)[percent - 1]


async def _client(port: int, make: Callable[[], bytes], end: float, status: int | None, times: list[float]) -> None:
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    while (started := time.perf_counter()) < end:
        writer.write(make())
        found, _, body = await _reply(reader)
        assert status is None or found == status, body
        times.append((time.perf_counter() - started) * 1000)
    writer.close()


async def _reply(reader: asyncio.StreamReader) -> tuple[int, dict[str, str], bytes]:
    first, *lines = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1").split("\r\n")
    headers = {name.lower(): value.strip() for name, _, value in (line.partition(":") for line in lines if line)}
    body = await reader.readexactly(int(headers.get("content-length", "0")))
    return int(first.split()[1]), headers, body
