"""Rate limits of a key, counted in Redis over a sliding minute; without Redis requests pass, and that is counted.

A process takes a thousandth of a limit at a time from Redis, and asks again when it has used that up: a request then
waits for Redis the less often the more a key may do, and a limit is exact but for a thousandth for each process.
"""

import dataclasses
import functools
import math
import threading
import time

import redis
import structlog
from django.conf import settings
from prometheus_client import Counter
from redis.backoff import NoBackoff
from redis.commands.core import Script
from redis.retry import Retry

from seedancee2.api.errors import RateLimitExceeded

log = structlog.get_logger(__name__)

# Seconds in which Redis is not asked again after two failures, so that a frozen one does not slow every request; one
# failure alone may be a hiccup, and limits nobody for a single request only.
PAUSE_AFTER_FAILURE = 5.0
_TIMEOUT = 0.07  # seconds that a request may wait for Redis
_PARTS = 1_000  # of a limit, one of which a process takes at a time
_SHARES_AT_MOST = 10_000

# A sliding minute: what was counted in the running one, and of the one before it the part that still lies within sixty
# seconds. Answers how many of the wanted requests are within the limit, how many more are, and the milliseconds left of
# the running minute.
_TAKE = """
    local limit, wanted, minute = tonumber(ARGV[1]), tonumber(ARGV[2]), 60000
    local time = redis.call('TIME')
    local now = time[1] * 1000 + math.floor(time[2] / 1000)
    local known = redis.call('HMGET', KEYS[1], 'began', 'count', 'before')
    local began, count, before = tonumber(known[1]) or now, tonumber(known[2]) or 0, tonumber(known[3]) or 0
    if now < began or now - began >= 2 * minute then
        began, count, before = now, 0, 0
    elseif now - began >= minute then
        began, count, before = began + minute, 0, count
    end
    local rest = minute - (now - began)
    local left = math.max(0, limit - count - math.floor(before * rest / minute))
    local taken = math.min(wanted, left)
    if taken > 0 then
        redis.call('HSET', KEYS[1], 'began', began, 'count', count + taken, 'before', before)
        redis.call('PEXPIRE', KEYS[1], 2 * minute)
    end
    return {taken, left - taken, rest}
"""

passed_unlimited = Counter("seedancee2_requests_passed_unlimited", "Requests that passed because Redis was away.")

_asked_again_at = 0.0  # 0 while Redis answers
_failed_at = -math.inf
_failure_lock = threading.Lock()

_shares: dict[tuple[str, int, int], "_Share"] = {}
_share_lock = threading.Lock()


@dataclasses.dataclass(frozen=True, slots=True)
class Allowance:
    """What is left of a limit: requests in the running minute, and seconds until its count begins to wane."""

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


@dataclasses.dataclass(slots=True)
class _Share:
    """What this process has taken of a limit and not used yet; it is forfeit when the running minute ends."""

    unused: int
    remaining: int  # for everybody, when it was taken
    ends_at: float


def take(*, bucket: str, identity: int, per_minute: int) -> Allowance | None:
    """Count one request against a limit, and return what is left; None where nobody could count.

    Raises:
        RateLimitExceeded: the limit is reached; the error carries Retry-After.
    """
    held = (bucket, identity, per_minute)
    if allowance := _take_of_share(held):
        return allowance
    if not _is_asked():
        passed_unlimited.inc()
        return None
    try:
        taken, remaining, rest = _script(settings.REDIS_URL)(
            keys=[f"ratelimit:{bucket}:{identity}"], args=[per_minute, max(1, per_minute // _PARTS)]
        )
    except redis.RedisError as error:
        _note(is_away=True)
        passed_unlimited.inc()
        log.warning("rate_limit_not_counted", error=type(error).__name__)
        return None
    _note(is_away=False)
    if not taken:
        # The oldest requests leave the sliding minute one by one, so waiting for all of them would be too long.
        wait = max(1, math.ceil(60 / per_minute))
        headers = Allowance(per_minute, 0, _seconds(rest / 1000)).headers()
        raise RateLimitExceeded(headers={**headers, "Retry-After": str(wait)})
    if taken > 1:
        _keep_share(held, _Share(taken - 1, remaining, time.monotonic() + rest / 1000))
    return Allowance(per_minute, remaining + taken - 1, _seconds(rest / 1000))


def _take_of_share(held: tuple[str, int, int]) -> Allowance | None:
    with _share_lock:
        share = _shares.get(held)
        rest = share.ends_at - time.monotonic() if share else 0.0
        if share is None or not share.unused or rest <= 0:
            return None
        share.unused -= 1
        return Allowance(held[-1], share.remaining + share.unused, _seconds(rest))


def _keep_share(held: tuple[str, int, int], share: _Share) -> None:
    with _share_lock:
        if len(_shares) >= _SHARES_AT_MOST:
            _shares.clear()
        if other := _shares.get(held):  # two threads found it used up
            share.unused += other.unused if other.ends_at > time.monotonic() else 0
        _shares[held] = share


def _seconds(rest: float) -> int:
    return max(1, math.ceil(rest))


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
def _script(url: str) -> Script:
    client = redis.Redis.from_url(
        url,
        socket_timeout=_TIMEOUT,
        socket_connect_timeout=_TIMEOUT,
        # A connection that a restarted server closed is opened again; one that hangs has had its time.
        retry=Retry(NoBackoff(), 1, supported_errors=(redis.ConnectionError,)),
    )
    return client.register_script(_TAKE)
