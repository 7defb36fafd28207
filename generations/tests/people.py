"""People who use the console in a browser: members of an organization, and what they see and send."""

import re
from typing import TYPE_CHECKING, Any

from django.test import Client

from accounts.models import Membership, Organization, User
from accounts.tests.factories import MembershipFactory
from billing import ledger
from billing.models import LedgerEntry
from generations.models import Generation
from providers.models import UpstreamJob

if TYPE_CHECKING:
    from django.test.client import _MonkeyPatchedWSGIResponse

    Reply = _MonkeyPatchedWSGIResponse

Role = Membership.Role

INLINE = re.compile(r"<script(?![^>]*\bsrc=)|<style|<[a-z][^>]*\s(?:style|on[a-z]+)=|href=\"javascript:")
ELSEWHERE = re.compile(r"(?:src|href|action)=\"https?://(?!media\.example\.com/|testserver/)")


class Person:
    """A member of an organization at a browser."""

    def __init__(self, organization: Organization, role: str = Role.OWNER) -> None:
        self.organization = organization
        self.user: User = MembershipFactory.create(organization=organization, role=role).user
        self.browser = Client()
        self.browser.force_login(self.user)

    def get(self, path: str, query: dict[str, Any] | None = None, *, is_part: bool = False) -> "Reply":
        """Open a page, or fetch a part of it as htmx does."""
        return self.browser.get(path, query or {}, headers={"hx-request": "true"} if is_part else {})

    def read(self, path: str, query: dict[str, Any] | None = None, *, is_part: bool = False) -> str:
        """Return the text of a page that must be there."""
        reply = self.get(path, query, is_part=is_part)
        assert reply.status_code == 200, reply.status_code
        text = reply.content.decode()
        assert not INLINE.search(text), INLINE.search(text)
        assert not ELSEWHERE.search(text), ELSEWHERE.search(text)
        return text

    def send(self, path: str, values: dict[str, Any], **headers: str) -> "Reply":
        """Send a form."""
        return self.browser.post(path, values, headers=headers)

    def holdings(self) -> tuple[Any, ...]:
        """Return what a refused request must not change: rows and credits."""
        return (
            Generation.objects.count(),
            UpstreamJob.objects.count(),
            LedgerEntry.objects.count(),
            ledger.balance(organization_id=self.organization.pk),
        )
