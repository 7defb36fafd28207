"""Who belongs to an organization: added, given another role, removed or leaving. There is always an owner left.

Every change locks the organization first, so that two owners who unmake each other follow one another.
"""

import datetime as dt
from collections.abc import Collection

from django.core.exceptions import PermissionDenied
from django.db import transaction

from accounts import audit, keys, roles
from accounts.models import ApiKey, Invitation, Membership, Organization, User
from seedancee2.api.errors import InvalidRequest
from seedancee2.lib import clock

Role = Membership.Role

SEEN_NOTED_EVERY = dt.timedelta(minutes=5)


class LastOwner(InvalidRequest):
    """The change would leave the organization without an owner."""

    default_message = "An organization needs an owner. Make somebody else an owner first."


def add(
    *, organization: Organization, user: User, role: str, actor: User | None, action: str = "member.added"
) -> Membership:
    """Make somebody a member; one who is already stays as they are."""
    with transaction.atomic():
        lock(organization.pk)
        membership, is_new = Membership.objects.get_or_create(
            organization=organization, user=user, defaults={"role": Role(role)}
        )
        if is_new:
            _note(action, membership, actor, after={"role": membership.role})
    return membership


def change_role(*, membership: Membership, role: str, actor: User, may_touch_owners: bool) -> Membership:
    """Give a member another role.

    Raises:
        LastOwner: nobody else is an owner.
        PermissionDenied: somebody who is no owner makes or unmakes one.
    """
    with transaction.atomic():
        row = _find(membership)
        before, after = row.role, Role(role).value
        if before == after:
            return row
        _guard_owners(row, is_concerned=Role.OWNER in (before, after), may_touch_owners=may_touch_owners)
        if before == Role.OWNER:
            _insist_on_another_owner(row)
        row.role = after
        row.save(update_fields=["role"])
        _withdraw_invitations(row, actor, [role for role in Role.values if not roles.may_give_role(row, role)])
        _note("member.role_changed", row, actor, before={"role": before}, after={"role": after})
    return row


def remove(*, membership: Membership, actor: User, may_touch_owners: bool, revokes_keys: bool) -> list[ApiKey]:
    """End a membership; return the keys that were revoked with it: those that the member issued and that still work.

    Raises:
        LastOwner: nobody else is an owner.
        PermissionDenied: somebody who is no owner removes one.
    """
    with transaction.atomic():
        row = _find(membership)
        is_leaving = actor.pk == row.user_id
        _guard_owners(row, is_concerned=row.role == Role.OWNER, may_touch_owners=may_touch_owners or is_leaving)
        if row.role == Role.OWNER:
            _insist_on_another_owner(row)
        working = working_keys(row)
        found = working if revokes_keys else []
        keys.revoke_all(keys=found, revoked_by=actor)
        fates = {"keys revoked": len(found), "keys that go on working": len(working) - len(found)}
        told: dict[str, object] = {name: count for name, count in fates.items() if count}
        _withdraw_invitations(row, actor, Role.values)
        action = "member.left" if is_leaving else "member.removed"
        _note(action, row, actor, before={"role": row.role}, after=told)
        row.delete()
    return found


def working_keys(membership: Membership) -> list[ApiKey]:
    """Return the keys that a member issued in the organization and that work."""
    issued = ApiKey.objects.filter(organization=membership.organization_id, created_by=membership.user_id)
    return [key for key in issued.filter(revoked_at__isnull=True).order_by("-pk") if key.state == "active"]


def leavers(organization: Organization) -> dict[User, list[ApiKey]]:
    """Return the keys that work of those who made them and belong to the organization no more; our staff aside."""
    there = Membership.objects.filter(organization=organization).values("user")
    issued = ApiKey.objects.filter(organization=organization, revoked_at__isnull=True, created_by__is_staff=False)
    found: dict[User, list[ApiKey]] = {}
    for key in issued.exclude(created_by__in=there).select_related("created_by").order_by("created_by__email", "-pk"):
        if key.state == "active" and key.created_by is not None:
            found.setdefault(key.created_by, []).append(key)
    return found


def revoke_keys_of_leaver(*, organization: Organization, user: User, actor: User) -> list[ApiKey]:
    """Revoke every key that still works of somebody who has gone; return them."""
    with transaction.atomic():
        lock(organization.pk)
        found = leavers(organization).get(user, [])
        keys.revoke_all(keys=found, revoked_by=actor)
    return found


def note_seen(membership: Membership) -> None:
    """Note that a member used the console, at most once in five minutes."""
    now = clock.now()
    if membership.last_seen_at is None or membership.last_seen_at < now - SEEN_NOTED_EVERY:
        Membership.objects.filter(pk=membership.pk).update(last_seen_at=now)


def lock(organization_id: int) -> None:
    """Let one at a time change who belongs to an organization, until the commit; before its invitations and keys."""
    Organization.objects.select_for_update(no_key=True).get(pk=organization_id)


def _withdraw_invitations(row: Membership, actor: User, given: Collection[str]) -> None:
    """Take back what a member offered in a role that is no longer theirs to give."""
    pending = Invitation.objects.filter(organization=row.organization_id, accepted_at=None, withdrawn_at=None)
    for invitation in pending.filter(invited_by=row.user_id, role__in=given).select_for_update(no_key=True):
        invitation.withdrawn_at = clock.now()
        invitation.save(update_fields=["withdrawn_at"])
        audit.note(
            organization_id=row.organization_id,
            actor=actor,
            action="invitation.withdrawn",
            target=invitation.email,
            after={"role": invitation.role},
            reason=f"{row.user.email}, who invited them, may not any more.",
        )


def _find(membership: Membership) -> Membership:
    """Lock the organization, then read the membership as it is now.

    Raises:
        InvalidRequest: it has ended meanwhile.
    """
    lock(membership.organization_id)
    row = Membership.objects.select_related("user").filter(pk=membership.pk).first()
    if row is None:
        raise InvalidRequest("This person is no member any more.")
    return row


def _guard_owners(row: Membership, *, is_concerned: bool, may_touch_owners: bool) -> None:
    if is_concerned and not may_touch_owners:
        raise PermissionDenied("Only an owner makes and unmakes owners.")


def _insist_on_another_owner(row: Membership) -> None:
    others = Membership.objects.filter(organization=row.organization_id, role=Role.OWNER).exclude(pk=row.pk)
    if not others.exists():
        raise LastOwner


def _note(
    action: str,
    row: Membership,
    actor: User | None,
    *,
    before: dict[str, object] | None = None,
    after: dict[str, object] | None = None,
) -> None:
    audit.note(
        organization_id=row.organization_id,
        actor=actor,
        action=action,
        target=row.user.email,
        before=before,
        after=after,
    )
