"""How exact is the rate limit over a minute? Run: python -m bench.ratelimits [PER_MINUTE].

Requests are offered at twice the limit, evenly, for 150 seconds. After the first minute each sliding minute's accepted
requests are compared with the limit.
"""

import bisect
import os
import sys
import time

from seedancee2.local import throwaway

SECONDS = 150


def main() -> None:
    """Measure and print one table."""
    per_minute = int(sys.argv[1]) if len(sys.argv) > 1 else 600
    with throwaway.servers() as addresses:
        os.environ.update(addresses, LOCAL_MODE="true", SECRET_KEY="bench" * 10, LOG_LEVEL="ERROR")
        os.environ["DJANGO_SETTINGS_MODULE"] = "seedancee2.settings"
        accepted = _offer(per_minute)
    minutes = [_within(accepted, start, start + 60) for start in range(60, SECONDS - 60)]
    print(f"limit {per_minute} a minute, {2 * per_minute} offered, sliding minutes after the first")
    print(f"accepted: least {min(minutes)}, most {max(minutes)}")
    error = max(abs(count / per_minute - 1) for count in minutes)
    print(f"largest error {error:.1%} (bar: 5 %)")


def _offer(per_minute: int) -> list[float]:
    import django

    django.setup()
    from seedancee2.api import ratelimits
    from seedancee2.api.errors import RateLimitExceeded

    accepted: list[float] = []
    pause = 60 / (2 * per_minute)
    started = time.monotonic()
    for number in range(round(SECONDS / pause)):
        time.sleep(max(0.0, started + number * pause - time.monotonic()))
        try:
            if ratelimits.take(bucket="create", identity=1, per_minute=per_minute) is None:
                raise SystemExit("Redis was away; nothing was measured.")
            accepted.append(time.monotonic() - started)
        except RateLimitExceeded:
            continue
    return accepted


def _within(moments: list[float], start: float, end: float) -> int:
    return bisect.bisect_left(moments, end) - bisect.bisect_left(moments, start)


if __name__ == "__main__":
    main()
