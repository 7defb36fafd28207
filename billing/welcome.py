"""What a newcomer's organization gets: a credit account, and the credits that SIGNUP_CREDITS gives."""

from typing import Any

from django.conf import settings

from accounts.models import Organization
from billing import ledger

ACTOR = "system:sign-up"


def on_organization_signed_up(*, organization: Organization, **_: Any) -> None:
    """Open the account and grant the gift, in the transaction of the sign-up and once for each organization."""
    ledger.open_account(organization_id=organization.pk)
    if settings.SIGNUP_CREDITS:
        ledger.grant(
            organization_id=organization.pk,
            amount=settings.SIGNUP_CREDITS,
            reference=f"sign-up:{organization.pk}",
            actor=ACTOR,
            reason="A gift to try Seedancee2",
        )
