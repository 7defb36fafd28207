"""The cache without Redis."""

import socket
import time
from collections.abc import Iterator

import pytest
from django.conf import settings
from django.core.cache import cache as in_redis
from redis import Redis

from seedancee2.lib.cache import Cache

OPTIONS = {"KEY_PREFIX": "test", "OPTIONS": {"socket_timeout": 0.2, "socket_connect_timeout": 0.2}}


@pytest.fixture(autouse=True)
def _redis_is_asked(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setattr(Cache, "_asked_again_at", 0.0)
    yield
    Cache("redis://127.0.0.1:1/0", OPTIONS).clear()


@pytest.fixture
def listening() -> Iterator[socket.socket]:
    """A server that takes connections and never says a word, as a frozen Redis does."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        yield server


def test_values_are_kept_in_redis_while_it_answers() -> None:
    in_redis.set("kept", [1, 2], 60)
    assert in_redis.get("kept") == [1, 2]
    assert Redis.from_url(settings.REDIS_URL).exists("cache:1:kept")
    in_redis.delete("kept")
    assert in_redis.get("kept", "gone") == "gone"


def test_a_frozen_redis_is_waited_for_once_and_then_left_alone(listening: socket.socket) -> None:
    cache = Cache(f"redis://127.0.0.1:{listening.getsockname()[1]}/0", OPTIONS)
    before = time.monotonic()
    assert cache.add("lock", True, 60)
    first = time.monotonic() - before
    before = time.monotonic()
    assert not cache.add("lock", True, 60)
    cache.set("count", 1, 60)
    assert cache.incr("count") == 2
    assert cache.get_many(["count", "none"]) == {"count": 2}
    cache.delete("lock")
    assert cache.add("lock", True, 60)
    assert first < 1
    assert time.monotonic() - before < 0.1


def test_redis_is_asked_again_after_the_pause(listening: socket.socket) -> None:
    cache = Cache(f"redis://127.0.0.1:{listening.getsockname()[1]}/0", OPTIONS)
    cache.set("name", "from memory", 60)
    assert Cache._asked_again_at > time.monotonic()
    Cache._asked_again_at = time.monotonic()
    listening.settimeout(5)
    listening.accept()[0].close()  # the first attempt
    cache.get("name")
    listening.accept()[0].close()  # the one after the pause
