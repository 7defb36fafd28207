"""A pytest plugin: `python -m pytest` starts a real PostgreSQL and a real Valkey, once for all its processes.

Set DATABASE_URL and REDIS_URL to test against servers of your own.
"""

from __future__ import annotations

import contextlib
import os
import tempfile
from collections.abc import Generator
from urllib.parse import urlsplit, urlunsplit

import pytest

from seedancee2.local import throwaway
from seedancee2.local.state import CannotStart

# Whatever the person has in the environment, tests reach no storage, host or error tracker of theirs.
_ENVIRONMENT = {
    "SECRET_KEY": "only-for-tests-0123456789-abcdefghijklmnopqrstuvwxyz-0123456789",
    "LOCAL_MODE": "true",
    "DEBUG": "false",
    "ALLOWED_HOSTS": "localhost,127.0.0.1,[::1],testserver",
    "PUBLIC_BASE_URL": "http://testserver",
    "MEDIA_BASE_URL": "http://testserver/media",
    "OUTBOUND_ALLOWED_HOSTS": "",
    "SENTRY_DSN": "",
}


# A wrapper, since pytest-django loads the settings in this same hook and must find the addresses.
@pytest.hookimpl(wrapper=True, tryfirst=True)
def pytest_load_initial_conftests(early_config: pytest.Config) -> Generator[None, object, object]:
    """Prepare the environment before Django reads its settings."""
    if worker := os.environ.get("PYTEST_XDIST_WORKER"):
        # A child of the process that started the servers: same environment, but a Redis database of its own.
        os.environ["REDIS_URL"] = _numbered(os.environ["REDIS_URL"], int(worker.removeprefix("gw")) + 1)
    else:
        stack = contextlib.ExitStack()
        early_config.add_cleanup(stack.close)
        try:
            addresses = stack.enter_context(throwaway.servers())
        except CannotStart as error:
            raise pytest.UsageError(str(error)) from error
        media = stack.enter_context(tempfile.TemporaryDirectory(prefix="seedancee2-media-", ignore_cleanup_errors=True))
        os.environ.update(_ENVIRONMENT | addresses | {"MEDIA_STORAGE_URL": f"file://{media}"})
    return (yield)


def _numbered(redis_url: str, database: int) -> str:
    return urlunsplit(urlsplit(redis_url)._replace(path=f"/{database}"))
