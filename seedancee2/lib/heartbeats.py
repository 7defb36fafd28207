"""Signs of life of the background processes, kept in Redis; only /readyz and the staff look at them."""

import time
from typing import Any

import redis
import structlog
from celery.beat import Scheduler as CeleryScheduler
from django.conf import settings

log = structlog.get_logger(__name__)

BEAT = "beat"
WORKER = "worker"
DELIVER = "deliver"
MEDIA = "media"
POLL = "poll"
FRESH_SECONDS = 15


def connect() -> "redis.Redis":
    """Return a Redis client whose every call ends within a second."""
    return redis.Redis.from_url(settings.REDIS_URL, socket_timeout=0.5, socket_connect_timeout=0.5)


def note(name: str) -> None:
    """Note that a part is alive now; never raises."""
    try:
        with connect() as client:
            client.set(f"heartbeat:{name}", int(time.time()), ex=300)
    except redis.RedisError as error:
        log.warning("heartbeat_not_noted", part=name, error=type(error).__name__)


def ages(names: list[str]) -> dict[str, float | None]:
    """Return the seconds since each part was last seen, None for one never seen.

    Raises:
        redis.RedisError: Redis does not answer.
    """
    with connect() as client:
        values: Any = client.mget([f"heartbeat:{name}" for name in names])
    now = time.time()
    return {
        name: None if value is None else max(0.0, now - int(value)) for name, value in zip(names, values, strict=True)
    }


class Scheduler(CeleryScheduler):
    """Celery's in-memory schedule, which notes that beat is alive at each tick; no schedule file is kept."""

    _noted_at = 0.0

    def tick(self, *args: Any, **kwargs: Any) -> float:
        """Send what is due, and note the sign of life every two seconds."""
        if time.monotonic() - self._noted_at > 2:
            note(BEAT)
            self._noted_at = time.monotonic()
        delay: float = super().tick(*args, **kwargs)
        return delay
