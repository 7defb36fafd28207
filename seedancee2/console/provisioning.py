"""Setting customers up: an organization with its credit account and signing secret, and keys for it."""

import dataclasses

from django.db import IntegrityError, transaction

from accounts import audit, keys
from accounts.models import ApiKey, Organization
from billing import ledger
from seedancee2.api.errors import InvalidRequest
from seedancee2.lib import ids
from webhooks import secrets

ACTOR = "system:cli"
MAX_NAME_LENGTH = 120
MAX_CREDITS = 10**12


class UnknownOrganization(Exception):
    """No organization has this name."""


@dataclasses.dataclass(frozen=True, slots=True)
class Issued:
    """A new key and what its owner needs beside it; `secret` is shown once."""

    secret: str = dataclasses.field(repr=False)
    organization: Organization
    credits: int
    signing_secret: str = dataclasses.field(repr=False)


def find_organization(*, name: str) -> Organization:
    """Return the organization of this name, upper and lower case aside.

    Raises:
        UnknownOrganization: there is none.
    """
    try:
        return Organization.objects.get(name__iexact=name.strip())
    except Organization.DoesNotExist as error:
        raise UnknownOrganization(f"There is no organization named {name!r}; issue_key makes one.") from error


def ensure_organization(*, name: str) -> Organization:
    """Return the organization of this name, made with its credit account and signing secret where it is new.

    Raises:
        InvalidRequest: the name is empty, too long or not printable.
    """
    name = name.strip()
    if not 1 <= len(name) <= MAX_NAME_LENGTH or not name.isprintable():
        raise InvalidRequest(f"The organization's name must be 1 to {MAX_NAME_LENGTH} printable characters.")
    with transaction.atomic():
        try:
            organization = find_organization(name=name)
        except UnknownOrganization:
            try:
                with transaction.atomic():
                    organization = Organization.objects.create(name=name)
            except IntegrityError:  # somebody else made it a moment ago
                organization = find_organization(name=name)
        ledger.open_account(organization_id=organization.pk)
        secrets.current(organization_id=organization.pk)
    return organization


def issue_key(
    *,
    organization_name: str,
    name: str = "default",
    mode: ApiKey.Mode = ApiKey.Mode.LIVE,
    credits: int = 0,
    create_rate_limit: int | None = None,
    actor: str = ACTOR,
) -> Issued:
    """Issue a key for an organization, made where its name is unknown, and grant it `credits` on top.

    Raises:
        InvalidRequest: the name of the organization or the key, the credits or the rate is not allowed.
    """
    if not 0 <= credits <= MAX_CREDITS:
        raise InvalidRequest(f"The credits must be 0 to {MAX_CREDITS:,}; take some away with adjust_credits.")
    with transaction.atomic():
        organization = ensure_organization(name=organization_name)
        issued = keys.issue(organization=organization, name=name, mode=mode, create_rate_limit=create_rate_limit)
        if credits:
            entry = ledger.grant(
                organization_id=organization.pk,
                amount=credits,
                reference=ids.new("grt"),
                actor=actor,
                reason=f"With key {issued.key}",
            )
            audit.note(
                organization_id=organization.pk,
                actor=None,
                actor_name=actor,
                action="credits.granted",
                target=entry.reference,
                after={"amount": credits},
                reason=entry.reason,
            )
        available, _ = ledger.balance(organization_id=organization.pk)
        return Issued(
            secret=issued.secret,
            organization=organization,
            credits=available,
            signing_secret=secrets.current(organization_id=organization.pk),
        )
