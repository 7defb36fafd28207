"""Specs and generations for tests."""

from typing import Any

from django.db import transaction

from accounts.models import Organization
from accounts.tests.factories import OrganizationFactory
from billing import ledger
from generations import lifecycle
from generations.models import Generation
from generations.specs import JobSpec
from seedancee2.lib import ids


def funded_organization(credits: int = 1_000) -> Organization:
    """Make an organization with credits."""
    organization: Organization = OrganizationFactory.create()
    with transaction.atomic():
        ledger.grant(
            organization_id=organization.pk, amount=credits, reference=ids.new("grt"), actor="t", reason="test"
        )
    return organization


def create_generation(organization: Organization, *, is_test: bool = False, **spec: Any) -> Generation:
    """Create a generation through the lifecycle, as a request would: by default `mini`, 4 s, 480p, 20 credits."""
    values = {"model": "mini", "prompt": "waves", "duration": 4, "resolution": "480p", **spec}
    return lifecycle.create(organization_id=organization.pk, api_key_id=None, is_test=is_test, spec=JobSpec(**values))
