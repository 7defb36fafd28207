"""What the tests of this application share."""

import pytest
from django.core.cache import cache


@pytest.fixture(autouse=True)
def _no_attempts_yet() -> None:
    """Sign-in is limited for each address, and every test comes from the same one."""
    cache.clear()
