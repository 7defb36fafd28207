"""What each role may do: the one table that every page asks."""

import enum

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

TABLE: dict[str, frozenset[Permission]] = {
    _R.OWNER: frozenset(Permission),
    _R.ADMIN: frozenset(Permission) - {_P.MANAGE_OWNERS},
    _R.DEVELOPER: frozenset({_P.VIEW, _P.GENERATE, _P.MANAGE_OWN_KEYS, _P.VIEW_WEBHOOKS, _P.REDELIVER_WEBHOOKS}),
    _R.BILLING: frozenset({_P.VIEW, _P.VIEW_BILLING, _P.REQUEST_CREDITS, _P.SET_BALANCE_ALERTS}),
    _R.VIEWER: frozenset({_P.VIEW, _P.VIEW_ALL_KEYS}),
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
