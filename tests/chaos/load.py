"""Customers who ask one thing after another, and the balancer in front of several web servers."""

import itertools
import selectors
import socket
import threading
import time
from collections import Counter
from typing import Any, Self

import requests

HANG, HANG_SECONDS = "[chaos:hang]", 15.0  # in a prompt: the provider dawdles before it takes the job

PATIENCE = 120  # seconds for one answer: here only failures count, and slowness is told beside them

_numbers = itertools.count()


def body(directive: str = "[sandbox:moderation]") -> dict[str, Any]:
    """Return the body of a create; what the sandbox refuses needs no rendering, which keeps a machine busy."""
    prompt = f"calm {next(_numbers)} {directive}".strip()
    return {"model": "mini", "input": {"prompt": prompt, "duration": 4, "resolution": "480p"}}


def p99(values: list[float]) -> float:
    """Return the value that one in a hundred exceeds."""
    return sorted(values)[-max(1, len(values) // 100) - 1]


class Load:
    """Threads that create, get and list in turn until told to stop, each request on a connection of its own."""

    def __init__(self, url: str, headers: dict[str, str], *, threads: int = 4, pause: float = 0.05) -> None:
        self.answers: Counter[str] = Counter()
        self.seconds: list[float] = []
        self.tasks: list[str] = []
        self._url, self._headers, self._pause = url, headers, pause
        self._is_over = threading.Event()
        self._threads = [threading.Thread(target=self._work, daemon=True) for _ in range(threads)]

    def __enter__(self) -> Self:
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._is_over.set()
        for thread in self._threads:
            thread.join()

    @property
    def failures(self) -> dict[str, int]:
        """What was answered otherwise than it should, and how often."""
        return {what: count for what, count in self.answers.items() if what not in ("200", "201")}

    def _work(self) -> None:
        task_id = ""
        for number in itertools.count():
            if self._is_over.wait(self._pause):
                return
            began = time.monotonic()
            try:
                reply = self._ask(number, task_id)
            except requests.RequestException as error:
                self.answers[type(error).__name__] += 1
                continue
            self.seconds.append(time.monotonic() - began)
            self.answers[str(reply.status_code)] += 1
            if reply.status_code == 201:
                task_id = reply.json()["data"]["id"]
                self.tasks.append(task_id)

    def _ask(self, number: int, task_id: str) -> requests.Response:
        path = f"{self._url}/videos/generations"
        if number % 3 == 0 or not task_id:
            return requests.post(path, headers=self._headers, json=body(), timeout=PATIENCE)
        path += f"/{task_id}" if number % 3 == 1 else "?limit=5"
        return requests.get(path, headers=self._headers, timeout=PATIENCE)


class Balancer:
    """Hands each new connection to the next server in rotation; those that are open stay where they are."""

    def __init__(self) -> None:
        self._listener = socket.create_server(("127.0.0.1", 0), backlog=256)
        self.port: int = self._listener.getsockname()[1]
        self.servers: list[int] = []
        self._turns = itertools.count()
        threading.Thread(target=self._accept, daemon=True).start()

    def close(self) -> None:
        """Take no more connections."""
        self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()

    def _accept(self) -> None:
        while True:
            try:
                client, _ = self._listener.accept()
            except OSError:
                return
            port = self.servers[next(self._turns) % len(self.servers)]
            threading.Thread(target=_join, args=(client, port), daemon=True).start()


def _join(client: socket.socket, port: int) -> None:
    with client, socket.create_connection(("127.0.0.1", port)) as server, selectors.DefaultSelector() as selector:
        selector.register(client, selectors.EVENT_READ, server)
        selector.register(server, selectors.EVENT_READ, client)
        try:
            while True:
                for key, _ in selector.select():
                    data = key.fileobj.recv(65536)  # type: ignore[union-attr]
                    if not data:
                        return
                    key.data.sendall(data)
        except OSError:
            return
