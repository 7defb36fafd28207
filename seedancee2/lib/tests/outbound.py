"""Short calls of the outbound client, for its tests."""

from typing import Any

import pytest

from seedancee2.lib import http
from seedancee2.lib.http import Reply

LOOPBACK = ["127.0.0.1"]


def get(url: str, **options: Any) -> Reply:
    """GET with the options that most tests share."""
    return http.send("GET", url, **{"deadline_seconds": 5, "max_response_bytes": 1024, **options})


def failure(url: str, **options: Any) -> http.TransportFailed:
    """GET and return the failure that it must end with."""
    with pytest.raises(http.TransportFailed) as caught:
        get(url, **{"allowed_hosts": LOOPBACK, **options})
    return caught.value
