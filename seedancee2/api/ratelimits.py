"""Rate limits of a key, counted in Redis over a sliding minute; without Redis requests pass, and that is counted."""

import dataclasses
import functools
import math
import threading
import time

import structlog
from django.conf import settings
from limits import RateLimitItemPerMinute
from limits.errors import StorageError
from limits.storage import storage_from_string
from limits.strategies import SlidingWindowCounterRateLimiter
from prometheus_client import Counter

from seedancee2.api.errors import RateLimitExceeded

log = structlog.get_logger(__name__)

# Seconds in which Redis is not asked again after two failures, so that a frozen one does not slow every request; one
# failure alone may be a hiccup, and limits nobody for a single request only.
PAUSE_AFTER_FAILURE = 5.0
_TIMEOUT = 0.07  # seconds that a request may wait for Redis

passed_unlimited = Counter("seedancee2_requests_passed_unlimited", "Requests that passed because Redis was away.")

_asked_again_at = 0.0  # 0 while Redis answers
_failed_at = -math.inf
_failure_lock = threading.Lock()


@dataclasses.dataclass(frozen=True, slots=True)
class Allowance:
    """What is left of a limit: requests in the running minute, and seconds until they are all back."""

    limit: int
    remaining: int
    reset_seconds: int

    def headers(self) -> dict[str, str]:
        """Return the three headers that every limited reply carries."""
        return {
            "RateLimit-Limit": str(self.limit),
            "RateLimit-Remaining": str(self.remaining),
            "RateLimit-Reset": str(self.reset_seconds),
        }


def take(*, bucket: str, identity: int, per_minute: int) -> Allowance | None:
    """Count one request against a limit, and return what is left; None where nobody could count.

    Raises:
        RateLimitExceeded: the limit is reached; the error carries Retry-After.
    """
    if not _is_asked():
        passed_unlimited.inc()
        return None
    item = RateLimitItemPerMinute(per_minute)
    try:
        limiter = _limiter(settings.REDIS_URL)
        is_within = limiter.hit(item, bucket, str(identity))
        stats = limiter.get_window_stats(item, bucket, str(identity))
    except StorageError as error:
        _note(is_away=True)
        passed_unlimited.inc()
        log.warning("rate_limit_not_counted", error=type(error.storage_error).__name__)
        return None
    _note(is_away=False)
    reset_seconds = min(60, max(1, math.ceil(stats.reset_time - time.time())))
    allowance = Allowance(per_minute, stats.remaining, reset_seconds)
    if not is_within:
        # The oldest requests leave the sliding minute one by one, so waiting for all of them would be too long.
        wait = max(1, math.ceil(60 / per_minute))
        raise RateLimitExceeded(headers={**allowance.headers(), "RateLimit-Remaining": "0", "Retry-After": str(wait)})
    return allowance


def _is_asked() -> bool:
    """Tell whether this request asks Redis; while it is away, one in each pause does, and the others need not wait."""
    global _asked_again_at
    if not _asked_again_at:
        return True
    with _failure_lock:
        now = time.monotonic()
        if now < _asked_again_at:
            return False
        _asked_again_at = now + PAUSE_AFTER_FAILURE
        return True


def _note(*, is_away: bool) -> None:
    global _asked_again_at, _failed_at
    if is_away or _asked_again_at:
        with _failure_lock:
            now = time.monotonic()
            is_second = now - _failed_at < 2 * PAUSE_AFTER_FAILURE
            _asked_again_at = now + PAUSE_AFTER_FAILURE if is_away and is_second else 0.0
            _failed_at = now if is_away else -math.inf


@functools.cache
def _limiter(url: str) -> SlidingWindowCounterRateLimiter:
    storage = storage_from_string(
        url, wrap_exceptions=True, socket_timeout=_TIMEOUT, socket_connect_timeout=_TIMEOUT, key_prefix="ratelimit"
    )
    return SlidingWindowCounterRateLimiter(storage)
