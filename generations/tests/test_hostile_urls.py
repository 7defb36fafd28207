"""The table of hostile URLs at the door: each is refused by its field, and nothing is left behind."""

import pytest

from generations.tests.callers import Caller, minimal
from seedancee2.lib.tests.canaries import HOSTILE_URLS, Canary


@pytest.mark.parametrize(
    ("template", "reason"), [row[1:] for row in HOSTILE_URLS], ids=[name for name, *_ in HOSTILE_URLS]
)
def test_a_hostile_url_is_refused_when_a_task_is_created(
    customer: Caller, stranger: Caller, settings: object, template: str, reason: str
) -> None:
    settings.OUTBOUND_ALLOWED_HOSTS = []  # type: ignore[attr-defined] # pytest-django's wrapper
    before = stranger.holdings()
    with Canary() as canary:
        url = canary.led_to(template)

        message = customer.refused({**minimal(video_url=url), "callback_url": url})

    if "\0" in url:  # refused in any text, before it is read as a URL
        assert message == "input.video_url must not contain NUL characters."
    else:
        assert message == f"input.video_url {reason}. callback_url {reason}."
    assert canary.connection_count == 0
    assert stranger.holdings() == before
