"""Does the time of a refusal tell a known key from an unknown one? Run: python -m bench.authentication [COUNT].

Two kinds of well-formed wrong keys are authenticated in turn in one run: keys that share all but their last random
characters with a real key, and random ones. The Mann-Whitney U test tells whether one kind tends to take longer.
"""

import math
import os
import random
import statistics
import sys
import time

from seedancee2.local import throwaway


def main() -> None:
    """Measure and print one table."""
    count = int(sys.argv[1]) if len(sys.argv) > 1 else 20_000
    with throwaway.servers() as addresses:
        os.environ.update(addresses, LOCAL_MODE="true", SECRET_KEY="bench" * 10, LOG_LEVEL="ERROR")
        os.environ["DJANGO_SETTINGS_MODULE"] = "seedancee2.settings"
        near, far = _measure(count)
    p = _mann_whitney_p(near, far)
    print(f"{count:,} refusals of each kind, microseconds")
    print(f"{'kind':<28}{'median':>10}{'p95':>10}")
    for name, times in (("shares a real key's start", near), ("random", far)):
        median, p95 = statistics.median(times) / 1000, statistics.quantiles(times, n=20)[18] / 1000
        print(f"{name:<28}{median:>10.1f}{p95:>10.1f}")
    ratio = statistics.median(near) / statistics.median(far)
    print(f"ratio of medians {ratio:.3f}, Mann-Whitney p = {p:.3f} (bar: > 0.01)")


def _measure(count: int) -> tuple[list[int], list[int]]:
    import django
    from django.core.management import call_command

    django.setup()
    call_command("migrate", verbosity=0)
    from accounts import clients, key_secrets, keys
    from accounts.models import ApiKey, Organization
    from seedancee2.api.errors import InvalidApiKey

    organization = Organization.objects.create(name="bench")
    real = [keys.issue(organization=organization, name=f"k{n}", mode="live").secret for n in range(200)]

    def near() -> str:
        secret = random.choice(real)[: -key_secrets.CHECKSUM_LENGTH]
        return key_secrets.with_checksum(secret[:-4] + "".join(random.choices(key_secrets.ALPHABET, k=4)))

    def far() -> str:
        return key_secrets.make(ApiKey.Mode.LIVE)

    def refusal_time(secret: str) -> int:
        started = time.perf_counter_ns()
        try:
            clients.authenticate(secret)
        except InvalidApiKey:
            return time.perf_counter_ns() - started
        raise AssertionError("A wrong key was accepted.")

    times: tuple[list[int], list[int]] = ([], [])
    for _ in range(500):
        refusal_time(near())
    for _ in range(count):
        # In turn, and in random order, so that noise of the machine falls on both alike.
        for kind in random.sample((0, 1), 2):
            times[kind].append(refusal_time((near, far)[kind]()))
    return times


def _mann_whitney_p(one: list[int], other: list[int]) -> float:
    """Return the two-sided p of the U test, by its normal approximation, which is exact enough from some dozens on."""
    ranked = sorted([(value, 0) for value in one] + [(value, 1) for value in other])
    rank_sum, start = 0.0, 0
    while start < len(ranked):
        end = start
        while end < len(ranked) and ranked[end][0] == ranked[start][0]:
            end += 1
        rank = (start + 1 + end) / 2
        rank_sum += rank * sum(1 for _, kind in ranked[start:end] if kind == 0)
        start = end
    n, m = len(one), len(other)
    u = rank_sum - n * (n + 1) / 2
    z = (u - n * m / 2) / math.sqrt(n * m * (n + m + 1) / 12)
    return math.erfc(abs(z) / math.sqrt(2))


if __name__ == "__main__":
    main()
