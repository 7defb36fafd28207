"""Requests are counted by method, route and status, and by nothing that a client can make up."""

import pytest
from prometheus_client import REGISTRY

pytestmark = pytest.mark.django_db


def _count(**labels: str) -> float:
    return REGISTRY.get_sample_value("seedancee2_request_seconds_count", labels) or 0.0


def test_a_request_is_counted_under_its_route(client):
    labels = {"method": "GET", "route": "/v1/videos/generations/<str:id>", "status": "401"}
    before = _count(**labels)

    for number in range(3):
        client.get(f"/v1/videos/generations/vid_{number}?secret=1")

    assert _count(**labels) == before + 3


def test_what_a_client_makes_up_has_one_name(client):
    labels = {"method": "other", "route": "(no such path)", "status": "404"}
    before = _count(**labels)

    for number in range(3):
        client.generic(f"BREW{number}", f"/nothing/{number}")

    assert _count(**labels) == before + 3
    assert b"BREW" not in client.get("/metrics").content
