"""Customers as a whole: made by a sign-up, suspended and let back in."""

import itertools

import structlog
from django.db import IntegrityError, transaction

from accounts import audit, signals
from accounts.models import Membership, Organization, User

log = structlog.get_logger(__name__)

_NAME_LENGTH = Organization._meta.get_field("name").max_length or 120


def sign_up(*, owner: User) -> Organization:
    """Make an organization for a newcomer, who owns it, and tell the other applications in the same transaction.

    It is named after the person, else after what stands before the @; where others have the name, with a number.
    """
    wanted = owner.name or owner.email.partition("@")[0]
    with transaction.atomic():
        organization = _create_named(wanted)
        Membership.objects.create(user=owner, organization=organization, role=Membership.Role.OWNER)
        audit.note(
            organization_id=organization.pk,
            actor=owner,
            action="organization.signed_up",
            target=organization.name,
            after={"name": organization.name, "owner": owner.email},
        )
        signals.organization_signed_up.send(sender=Organization, organization=organization, owner=owner)
    log.info("organization_signed_up", organization_id=organization.pk, owner_id=owner.pk)
    return organization


def _create_named(wanted: str) -> Organization:
    for number in itertools.count(1):
        suffix = f" {number}" if number > 1 else ""
        name = wanted[: _NAME_LENGTH - len(suffix)] + suffix
        # The look spares the failed INSERT; the constraint decides between two at the same moment.
        if Organization.objects.filter(name__iexact=name).exists():
            continue
        try:
            with transaction.atomic():
                return Organization.objects.create(name=name)
        except IntegrityError:
            continue
    raise AssertionError  # there is always a next number


def suspend(*, organization: Organization, actor: User) -> Organization:
    """Stop every key of an organization at once; its videos under way are finished."""
    return _set_suspended(organization, True, actor)


def reinstate(*, organization: Organization, actor: User) -> Organization:
    """Let an organization's keys work again."""
    return _set_suspended(organization, False, actor)


def _set_suspended(organization: Organization, is_suspended: bool, actor: User) -> Organization:
    Organization.objects.filter(pk=organization.pk).update(is_suspended=is_suspended)
    organization.refresh_from_db()
    event = "organization_suspended" if is_suspended else "organization_reinstated"
    log.info(event, organization_id=organization.pk, actor_id=actor.pk)
    return organization
