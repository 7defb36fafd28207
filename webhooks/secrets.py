"""The secrets that sign webhooks, one current for each organization."""

import datetime as dt
import secrets
import string
from typing import Final

from django.db import transaction
from django.db.models import Q

from accounts.models import Organization
from seedancee2.lib import clock, vault
from webhooks.models import SigningSecret

LONGEST_OVERLAP_SECONDS: Final = 7 * 86_400
MOST: Final = 5  # that sign at once: each makes the header longer and every attempt slower

_ALPHABET = string.ascii_letters + string.digits
_LENGTH = 40  # 238 bits


class BadOverlap(ValueError):
    """The overlap asked for is out of bounds; the message is for whoever asked."""


def current(*, organization_id: int) -> str:
    """Return the organization's newest secret, making the first one on demand.

    Raises:
        UnreadableSecret: no configured key opens it.
    """
    row = _current_row(organization_id)
    if row is None:
        with transaction.atomic():
            _lock(organization_id)
            row = _current_row(organization_id) or _create(organization_id, _new())
    return vault.unseal(bytes(row.sealed_secret))


def active(*, organization_id: int) -> list[str]:
    """Return the secrets that sign now, newest first: the current one and those still in their overlap.

    Raises:
        UnreadableSecret: no configured key opens one of them.
    """
    retiring = SigningSecret.objects.filter(organization_id=organization_id, retires_at__gt=clock.now())
    return [
        current(organization_id=organization_id),
        *(vault.unseal(bytes(row.sealed_secret)) for row in retiring.order_by("-created_at", "-pk")),
    ]


def rotate(*, organization_id: int, overlap_seconds: int = 86_400) -> str:
    """Make a new current secret and return it; every older one retires after the overlap at the latest.

    Raises:
        BadOverlap: the overlap is not 0 seconds to 7 days, or as many secrets as may sign already; nothing was changed.
    """
    if not 0 <= overlap_seconds <= LONGEST_OVERLAP_SECONDS:
        raise BadOverlap(
            f"The overlap must be 0 to {LONGEST_OVERLAP_SECONDS} seconds (7 days); {overlap_seconds} is not."
        )
    with transaction.atomic():
        _lock(organization_id)
        until = clock.now() + dt.timedelta(seconds=overlap_seconds)
        mine = SigningSecret.objects.filter(organization_id=organization_id)
        if overlap_seconds and mine.filter(Q(retires_at=None) | Q(retires_at__gt=clock.now())).count() >= MOST:
            raise BadOverlap(
                f"{MOST} secrets sign already. Wait until one retires, or rotate with an overlap of 0 seconds."
            )
        mine.filter(Q(retires_at=None) | Q(retires_at__gt=until)).update(retires_at=until)
        secret = _new()
        _create(organization_id, secret)
    return secret


def _lock(organization_id: int) -> None:
    # First uses and rotations of one organization follow each other; rows that refer to it can still be written.
    Organization.objects.select_for_update(no_key=True).get(pk=organization_id)


def _current_row(organization_id: int) -> SigningSecret | None:
    return SigningSecret.objects.filter(organization_id=organization_id, retires_at=None).first()


def _create(organization_id: int, secret: str) -> SigningSecret:
    return SigningSecret.objects.create(organization_id=organization_id, sealed_secret=vault.seal(secret))


def _new() -> str:
    return "whsec_" + "".join(secrets.choice(_ALPHABET) for _ in range(_LENGTH))
