"""What the web has served, for Prometheus: each process counts for itself, and any of them tells for all."""

import functools
import os

from prometheus_client import REGISTRY, CollectorRegistry, Histogram, generate_latest
from prometheus_client.multiprocess import MultiProcessCollector

_BUCKETS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0)

_requests = Histogram(
    "seedancee2_request_seconds",
    "Seconds from a request to its reply, all middleware included.",
    ["method", "route", "status"],
    buckets=_BUCKETS,
)
_METHODS = {"GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"}


def note_request(*, method: str, route: str, status: int, seconds: float) -> None:
    """Count one request; `route` is the pattern that it matched, so that there are no more of them than patterns."""
    _served(method if method in _METHODS else "other", route, status).observe(seconds)


def exposed() -> bytes:
    """Return the figures of all processes in Prometheus' text format."""
    registry = REGISTRY
    if "PROMETHEUS_MULTIPROC_DIR" in os.environ:
        registry = CollectorRegistry()
        MultiProcessCollector(registry)  # type: ignore[no-untyped-call] # the package has no types there
    return generate_latest(registry)


@functools.cache
def _served(method: str, route: str, status: int) -> Histogram:
    return _requests.labels(method, route, str(status))
