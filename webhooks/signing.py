"""Whether an organization's webhooks are signed, and with which secrets: seen and changed by its people."""

import datetime as dt
from dataclasses import dataclass
from typing import Final

from django.db import transaction

from accounts import audit
from accounts.models import Organization, User
from seedancee2.lib import clock
from webhooks import secrets
from webhooks.models import SigningSecret

# Seconds for which the old secret can go on signing beside a new one, and how people say them.
OVERLAPS: Final = {0: "no time", 3_600: "1 hour", 86_400: "24 hours", 604_800: "7 days"}


@dataclass(frozen=True, slots=True)
class Signing:
    """What there is to know without seeing a secret."""

    is_enabled: bool
    made_at: dt.datetime | None
    """When the current secret was made; None where none was needed yet."""
    retiring_at: list[dt.datetime]
    """When each older secret stops signing, the soonest first."""


def look(organization: Organization) -> Signing:
    """Return how an organization's webhooks are signed."""
    rows = SigningSecret.objects.filter(organization=organization)
    current = rows.filter(retires_at=None).first()
    retiring = rows.filter(retires_at__gt=clock.now()).order_by("retires_at").values_list("retires_at", flat=True)
    return Signing(
        is_enabled=organization.is_webhook_signing_enabled,
        made_at=current.created_at if current else None,
        retiring_at=[moment for moment in retiring if moment is not None],
    )


def reveal(*, organization: Organization, actor: User) -> str:
    """Return the current secret.

    Raises:
        UnreadableSecret: no configured key opens it.
    """
    secret = secrets.current(organization_id=organization.pk)
    audit.note(organization_id=organization.pk, actor=actor, action="signing_secret.shown", target="webhooks")
    return secret


def rotate(*, organization: Organization, overlap_seconds: int, actor: User) -> None:
    """Make a new secret; the old one signs beside it for the overlap."""
    with transaction.atomic():
        secrets.rotate(organization_id=organization.pk, overlap_seconds=overlap_seconds)
        after = {"overlap_seconds": overlap_seconds}
        audit.note(
            organization_id=organization.pk,
            actor=actor,
            action="signing_secret.rotated",
            target="webhooks",
            after=after,
        )


def switch(*, organization: Organization, is_enabled: bool, actor: User) -> None:
    """Sign webhooks from now on, or send them without a signature."""
    with transaction.atomic():
        before = Organization.objects.select_for_update().get(pk=organization.pk).is_webhook_signing_enabled
        Organization.objects.filter(pk=organization.pk).update(is_webhook_signing_enabled=is_enabled)
        audit.note(
            organization_id=organization.pk,
            actor=actor,
            action="signing.switched",
            target="webhooks",
            before={"is_enabled": before},
            after={"is_enabled": is_enabled},
        )
    organization.is_webhook_signing_enabled = is_enabled
