"""Customers who call the API over HTTP, through the real middleware, and the examples they are held against."""

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

from django.test import Client

from accounts.models import Organization
from accounts.tests.factories import issue_key
from billing import ledger
from billing.models import LedgerEntry
from generations.models import Generation
from providers.models import UpstreamJob

TASKS = "/v1/videos/generations"

if TYPE_CHECKING:
    from django.test.client import _MonkeyPatchedWSGIResponse

    Reply = _MonkeyPatchedWSGIResponse

_GOLDENS = Path(__file__).parent / "goldens"


def golden(name: str) -> Any:
    """Read an example body of the public page."""
    return json.loads((_GOLDENS / f"{name}.json").read_text())


def minimal(**input_values: Any) -> dict[str, Any]:
    """Return a small valid create body, 20 credits, with some input values of one's own."""
    values = {"prompt": "waves", "duration": 4, "resolution": "480p"}
    return {"model": "mini", "input": {**values, **input_values}}


class Caller:
    """An organization's client program."""

    def __init__(self, organization: Organization, mode: str = "live") -> None:
        self.organization = organization
        self._http = Client(
            headers={"authorization": f"Bearer {issue_key(organization, mode)}"}, raise_request_exception=False
        )

    def get(self, path: str, **headers: str) -> "Reply":
        """GET a path; header names are written with underscores."""
        return self._http.get(path, headers=_named(headers))

    def post(self, path: str, body: Any = None) -> "Reply":
        """POST a JSON body, or none, to a path."""
        if body is None:
            return self._http.post(path)
        return self._http.post(path, json.dumps(body), content_type="application/json")

    def create(self, body: Any, **headers: str) -> "Reply":
        """POST a create request; a text or bytes go out as they are."""
        raw = body if isinstance(body, (str, bytes)) else json.dumps(body)
        return self._http.post(
            TASKS, raw, content_type=headers.pop("content_type", "application/json"), headers=_named(headers)
        )

    def refused(self, body: Any, **headers: str) -> str:
        """POST a create request that must be a 400 which leaves nothing behind; return its message."""
        before = self.holdings()
        response = self.create(body, **headers)
        error = response.json()["error"]
        assert (response.status_code, error["code"], error["type"]) == (400, "invalid_request", "invalid_request_error")
        assert self.holdings() == before
        return str(error["message"])

    def holdings(self) -> tuple[Any, ...]:
        """Return what a refused request must not change: rows and credits."""
        return (
            Generation.objects.count(),
            UpstreamJob.objects.count(),
            LedgerEntry.objects.count(),
            ledger.balance(organization_id=self.organization.pk),
        )


def _named(headers: dict[str, str]) -> dict[str, str]:
    return {name.replace("_", "-"): value for name, value in headers.items()}
