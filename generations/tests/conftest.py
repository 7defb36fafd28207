"""A customer, and a stranger who must see and spend nothing of theirs."""

from typing import Any

import pytest
from django.test import Client

from generations.tests import conformance
from generations.tests.callers import Caller
from generations.tests.factories import funded_organization


@pytest.fixture
def customer(db: None) -> Caller:
    """A customer with 1,000 credits and a live key."""
    return Caller(funded_organization())


@pytest.fixture
def stranger(db: None) -> Caller:
    """Another customer, with 1,000 credits too."""
    return Caller(funded_organization())


@pytest.fixture(autouse=True)
def _every_reply_conforms(monkeypatch: pytest.MonkeyPatch) -> None:
    """Hold every reply under /v1 against the OpenAPI document, whoever asked for it."""
    send = Client.request

    def request(client: Client, **environ: Any) -> Any:
        reply = send(client, **environ)
        path = environ["PATH_INFO"]
        if path.startswith("/v1/"):
            conformance.check(environ["REQUEST_METHOD"], path, reply)
        return reply

    monkeypatch.setattr(Client, "request", request)
