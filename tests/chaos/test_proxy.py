"""The fault proxy does what the other tests believe it does."""

import contextlib
import socket
import threading
from collections.abc import Iterator

import pytest

from tests.chaos.proxy import FaultProxy


@pytest.fixture
def echo() -> Iterator[str]:
    """The URL of a server that says everything back."""

    def serve(connection: socket.socket) -> None:
        with connection, contextlib.suppress(OSError):
            while data := connection.recv(1024):
                connection.sendall(data)

    def listen() -> None:
        with contextlib.suppress(OSError):
            while True:
                threading.Thread(target=serve, args=(listener.accept()[0],), daemon=True).start()

    with socket.create_server(("127.0.0.1", 0)) as listener:
        threading.Thread(target=listen, daemon=True).start()
        yield f"redis://:word@127.0.0.1:{listener.getsockname()[1]}/0"
        listener.shutdown(socket.SHUT_RDWR)


def _connect(proxy):
    return socket.create_connection(("127.0.0.1", proxy.port), timeout=10)


@contextlib.contextmanager
def _silence(connection):
    connection.settimeout(0.5)
    with pytest.raises(TimeoutError):
        yield
    connection.settimeout(10)


def _said_back(connection, words=b"hello"):
    connection.sendall(words)
    return connection.recv(1024)


def test_it_passes_on_freezes_and_lets_go_again(echo):
    with FaultProxy(echo) as proxy, _connect(proxy) as connection:
        assert proxy.url == f"redis://:word@127.0.0.1:{proxy.port}/0"
        assert _said_back(connection) == b"hello"
        proxy.freeze()
        with _silence(connection):
            _said_back(connection, b"anyone?")
        with _connect(proxy) as another:
            with _silence(another):
                _said_back(another)
            proxy.thaw()
            assert another.recv(1024) == b"hello"
        assert connection.recv(1024) == b"anyone?"


def test_what_went_deaf_stays_so_and_new_connections_work(echo):
    with FaultProxy(echo) as proxy, _connect(proxy) as connection:
        assert _said_back(connection) == b"hello"
        proxy.deafen()
        with _silence(connection):
            _said_back(connection)
        with _connect(proxy) as another:
            assert _said_back(another) == b"hello"
        with _silence(connection):
            connection.recv(1024)


def test_it_breaks_and_refuses_connections(echo):
    with FaultProxy(echo) as proxy:
        with _connect(proxy) as connection:
            assert _said_back(connection) == b"hello"
            proxy.reset()
            with pytest.raises(ConnectionResetError):
                connection.recv(1024)
        proxy.refuse()
        with pytest.raises(ConnectionRefusedError):
            _connect(proxy)
        proxy.heal()
        with _connect(proxy) as another:
            assert _said_back(another) == b"hello"
