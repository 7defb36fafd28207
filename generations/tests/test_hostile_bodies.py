"""Whatever JSON is sent: a reply in the page's form, never a 500, and nothing moved by a refusal."""

import os
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from billing import ledger
from generations.models import Generation
from generations.serializers import ASPECT_RATIOS, GENERATION_TYPES, RESOLUTIONS, CreateSerializer, InputSerializer
from generations.tests.callers import Caller

_TEXT = st.text(max_size=20)
_SCALARS = st.none() | st.booleans() | st.integers() | st.floats() | _TEXT
_JUNK = st.recursive(
    _SCALARS, lambda inner: st.lists(inner, max_size=4) | st.dictionaries(_TEXT, inner, max_size=4), max_leaves=8
)
_URLS = st.sampled_from(
    ["https://example.com/a.png", "http://10.0.0.1/", "nonsense", "https://[::1]/", "https://é.com"]
)
_LIKELY = {
    "prompt": st.just("waves") | _TEXT,
    "generation_type": st.sampled_from(GENERATION_TYPES),
    "image_urls": st.lists(_URLS, max_size=11),
    "video_url": _URLS,
    "video_urls": st.lists(_URLS, max_size=4),
    "audio_urls": st.lists(_URLS, max_size=4),
    "start_image_url": _URLS,
    "end_image_url": _URLS,
    "duration": st.integers(3, 16),
    "resolution": st.sampled_from(RESOLUTIONS),
    "aspect_ratio": st.sampled_from(ASPECT_RATIOS),
    "generate_audio": st.booleans(),
    "watermark": st.booleans(),
    "seed": st.integers(-2, 2**53),
    "return_last_frame": st.booleans(),
}
_INPUTS = st.fixed_dictionaries({}, optional={name: values | _JUNK for name, values in _LIKELY.items()})
_NEARLY_RIGHT = st.fixed_dictionaries(
    {"prompt": st.just("waves")}, optional={name: values for name, values in _LIKELY.items() if name != "prompt"}
)
_BODIES = _JUNK | st.fixed_dictionaries(
    {},
    optional={
        "model": st.sampled_from(["pro", "fast", "mini", "nano"]) | _JUNK,
        "input": _NEARLY_RIGHT | _INPUTS | _JUNK,
        "callback_url": _URLS | _JUNK,
        "metadata": st.dictionaries(_TEXT, _JUNK, max_size=4) | _JUNK,
        "stranger": _JUNK,
    },
)
# HOSTILE_BODIES=10000 tries that many; the suite is content with fewer.
_COUNT = int(os.environ.get("HOSTILE_BODIES", "300"))
_STATUSES = {201: None, 400: "invalid_request", 402: "insufficient_credits", 404: "model_not_found"}


def test_every_field_of_the_page_is_tried() -> None:
    assert list(_LIKELY) == list(InputSerializer().fields)
    assert list(CreateSerializer().fields) == ["model", "input", "callback_url", "metadata"]


@pytest.fixture
def unhurried(customer: Caller) -> Caller:
    """A customer whom no rate limit stops."""
    customer.organization.create_rate_limit = 1_000_000
    customer.organization.save(update_fields=["create_rate_limit"])
    return customer


@settings(max_examples=_COUNT, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(body=_BODIES)
def test_any_body_is_answered_and_only_accepted_ones_cost(unhurried: Caller, body: Any) -> None:
    customer = unhurried
    before = customer.holdings()

    response = customer.create(body)

    assert response.status_code in _STATUSES
    if response.status_code == 201:
        price = response.json()["data"]["credits_reserved"]
        task = Generation.objects.get(public_id=response.json()["data"]["id"])
        assert ledger.balance(organization_id=customer.organization.pk)[0] == before[3][0] - price
        assert task.credits == price
    else:
        assert response.json()["error"]["code"] == _STATUSES[response.status_code]
        assert customer.holdings() == before
