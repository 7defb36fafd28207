"""The cache: Redis, and while it is away this process's own memory, so that what is limited stays limited."""

import threading
import time
from typing import Any, ClassVar

import structlog
from django.core.cache.backends.locmem import LocMemCache
from django.core.cache.backends.redis import RedisCache
from redis.exceptions import RedisError

log = structlog.get_logger(__name__)

# Seconds in which Redis is not asked again after a failure, so that a frozen one does not slow every request.
PAUSE_AFTER_FAILURE = 5.0


class Cache(RedisCache):
    """Django's Redis cache that degrades: what it holds is counters and marks, and losing them costs little.

    Sign-in limits are kept in it. Without Redis every process counts for itself, so an attacker gets as many times more
    attempts as there are processes, and people can still sign in.
    """

    _asked_again_at: ClassVar[float] = 0.0
    _lock: ClassVar[threading.Lock] = threading.Lock()

    def __init__(self, server: str, params: dict[str, Any]) -> None:
        super().__init__(server, params)
        self._memory = LocMemCache("while-redis-is-away", params)

    def add(self, *args: Any, **kwargs: Any) -> Any:
        """Store a value unless the key has one."""
        return self._either("add", *args, **kwargs)

    def get(self, *args: Any, **kwargs: Any) -> Any:
        """Read a value."""
        return self._either("get", *args, **kwargs)

    def set(self, *args: Any, **kwargs: Any) -> Any:
        """Store a value."""
        return self._either("set", *args, **kwargs)

    def touch(self, *args: Any, **kwargs: Any) -> Any:
        """Give a key a new age to expire at."""
        return self._either("touch", *args, **kwargs)

    def delete(self, *args: Any, **kwargs: Any) -> Any:
        """Forget a key."""
        return self._either("delete", *args, **kwargs)

    def get_many(self, *args: Any, **kwargs: Any) -> Any:
        """Read several values."""
        return self._either("get_many", *args, **kwargs)

    def set_many(self, *args: Any, **kwargs: Any) -> Any:
        """Store several values."""
        return self._either("set_many", *args, **kwargs)

    def delete_many(self, *args: Any, **kwargs: Any) -> Any:
        """Forget several keys."""
        return self._either("delete_many", *args, **kwargs)

    def has_key(self, *args: Any, **kwargs: Any) -> Any:
        """Tell whether a key has a value."""
        return self._either("has_key", *args, **kwargs)

    def incr(self, *args: Any, **kwargs: Any) -> Any:
        """Count up."""
        return self._either("incr", *args, **kwargs)

    def clear(self) -> None:
        """Forget everything, here and there."""
        self._memory.clear()
        self._either("clear")

    def _either(self, name: str, *args: Any, **kwargs: Any) -> Any:
        if time.monotonic() >= Cache._asked_again_at:
            try:
                return getattr(super(), name)(*args, **kwargs)
            except RedisError as error:
                with Cache._lock:
                    Cache._asked_again_at = time.monotonic() + PAUSE_AFTER_FAILURE
                log.warning("cache_in_memory", error=type(error).__name__)
        return getattr(self._memory, name)(*args, **kwargs)
