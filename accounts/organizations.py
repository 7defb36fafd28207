"""Customers as a whole: suspended and let back in."""

import structlog

from accounts.models import Organization, User

log = structlog.get_logger(__name__)


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
