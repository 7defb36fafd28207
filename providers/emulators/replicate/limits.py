"""How many requests a minute an account may make (sheet §4 and §7)."""

import collections

LOW_CREDIT = "low-credit"
OTHER_REQUESTS_PER_CREATION = 5
_LOW_CREDIT_WINDOWS = ((6, 60.0), (1, 1.0))
_LOW_CREDIT_OTHERS = ((3000, 60.0),)


class RateLimit:
    """Counts creations and other requests, each in a sliding minute."""

    def __init__(self) -> None:
        self._creations: collections.deque[float] = collections.deque()
        self._others: collections.deque[float] = collections.deque()

    def take(self, now: float, limit: str, *, is_creation: bool) -> float:
        """Count one request; returns 0, or else the seconds until there is room for it.

        `limit`: creations a minute, or `low-credit`.
        """
        if limit == LOW_CREDIT:
            windows = _LOW_CREDIT_WINDOWS if is_creation else _LOW_CREDIT_OTHERS
        else:
            windows = ((int(limit) * (1 if is_creation else OTHER_REQUESTS_PER_CREATION), 60.0),)
        passed = self._creations if is_creation else self._others
        while passed and passed[0] <= now - 60:
            passed.popleft()
        for count, seconds in windows:
            if len(passed) >= count and passed[-count] > now - seconds:
                return passed[-count] + seconds - now
        passed.append(now)
        return 0.0
