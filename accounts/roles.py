"""What each role may do: the one table that every page asks."""

import enum

from django.db.models import F, QuerySet

from accounts.models import ApiKey, Membership


class Permission(enum.Enum):
    """Something that a member may be allowed to do in an organization."""

    VIEW = "see tasks and usage"
    GENERATE = "make videos in the playground"
    DELETE_MEDIA = "delete a task's video, prompt and references for good"
    VIEW_ALL_KEYS = "see every API key of the organization"
    MANAGE_OWN_KEYS = "issue and revoke their own API keys"
    MANAGE_ALL_KEYS = "issue and revoke every API key of the organization"
    VIEW_WEBHOOKS = "see webhooks with their attempts and bodies"
    REDELIVER_WEBHOOKS = "send webhooks again, and send test webhooks"
    MANAGE_SIGNING = "read and rotate the webhook signing secret, and switch signing on and off"
    VIEW_BILLING = "see balances, the ledger and statements"
    REQUEST_CREDITS = "ask for more credits"
    SET_BALANCE_ALERTS = "choose at which balances the organization is told by mail"
    VIEW_AUDIT = "read the audit log"
    MANAGE_MEMBERS = "invite, change and remove members other than owners"
    CHANGE_SETTINGS = "change the organization's settings"
    MANAGE_OWNERS = "make and unmake owners"


_P = Permission
_R = Membership.Role
VISITOR = "visitor"  # one of the staff who looks at the console (accounts.visits); no member ever has this role

TABLE: dict[str, frozenset[Permission]] = {
    _R.OWNER: frozenset(Permission),
    _R.ADMIN: frozenset(Permission) - {_P.MANAGE_OWNERS},
    _R.DEVELOPER: frozenset({_P.VIEW, _P.GENERATE, _P.MANAGE_OWN_KEYS, _P.VIEW_WEBHOOKS, _P.REDELIVER_WEBHOOKS}),
    _R.BILLING: frozenset({_P.VIEW, _P.VIEW_BILLING, _P.REQUEST_CREDITS, _P.SET_BALANCE_ALERTS}),
    _R.VIEWER: frozenset({_P.VIEW, _P.VIEW_ALL_KEYS}),
    VISITOR: frozenset({_P.VIEW, _P.VIEW_ALL_KEYS, _P.VIEW_WEBHOOKS, _P.VIEW_BILLING, _P.VIEW_AUDIT}),
}


def may(membership: Membership, permission: Permission) -> bool:
    """Tell whether a member may do something in their organization; an unknown role may do nothing."""
    return permission in TABLE.get(membership.role, frozenset())


def may_manage_key(membership: Membership, key: ApiKey) -> bool:
    """Tell whether a member may revoke this key: any of the organization, or only one that they issued."""
    if key.organization_id != membership.organization_id:
        return False
    is_own = key.created_by_id == membership.user_id
    return may(membership, Permission.MANAGE_ALL_KEYS) or (is_own and may(membership, Permission.MANAGE_OWN_KEYS))


def may_give_role(membership: Membership, role: str) -> bool:
    """Tell whether a member may make somebody this; only an owner makes owners."""
    needed = Permission.MANAGE_OWNERS if role == Membership.Role.OWNER else Permission.MANAGE_MEMBERS
    return may(membership, Permission.MANAGE_MEMBERS) and may(membership, needed)


def may_manage_member(membership: Membership, other: Membership) -> bool:
    """Tell whether a member may change or remove another one: an owner only by an owner."""
    return other.organization_id == membership.organization_id and may_give_role(membership, other.role)


def visible_keys(membership: Membership) -> QuerySet[ApiKey]:
    """Select the keys that a member may see, those that still work first."""
    rows = ApiKey.objects.filter(organization=membership.organization_id)
    if not may(membership, Permission.VIEW_ALL_KEYS):
        is_maker = may(membership, Permission.MANAGE_OWN_KEYS)
        rows = rows.filter(created_by=membership.user_id) if is_maker else rows.none()
    rows = rows.select_related("organization", "created_by", "replaced_by")
    return rows.order_by(F("revoked_at").desc(nulls_first=True), "-pk")
