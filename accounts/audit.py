"""The audit log: who did what in an organization, with what was before and after; it only ever grows."""

from collections.abc import Callable, Mapping
from contextvars import ContextVar
from typing import Any, Final

from allauth.account.adapter import get_adapter
from django.core.exceptions import ImproperlyConfigured, PermissionDenied
from django.db.models import QuerySet
from django.http import HttpRequest
from django.http.response import HttpResponseBase

from accounts.models import AuditEntry, User

# Set by the middleware; there is none in commands and workers.
_request: ContextVar[HttpRequest | None] = ContextVar("request", default=None)

SYSTEM: Final = "system"
# Steps of the staff towards a correction, which may come to nothing; what moves is told as `credits.adjusted`.
INTERNAL: Final = (
    *("credits.adjustment_requested", "credits.adjustment_approved", "credits.adjustment_declined"),
    "credits.request_awaits_approval",
)


def note(
    *,
    organization_id: int | None,
    actor: User | None,
    action: str,
    target: str,
    before: Mapping[str, Any] | None = None,
    after: Mapping[str, Any] | None = None,
    reason: str = "",
    actor_name: str = SYSTEM,
    is_by_staff: bool | None = None,
) -> AuditEntry:
    """Write one entry in the caller's transaction, beside what it tells of.

    `action` reads `noun.verb`, such as `key.issued`; `before` and `after` hold only what changed, and never a secret.
    Without an organization the entry is the staff's alone; `actor_name` says who acted where it was no person.
    `is_by_staff` is for what tells of somebody who was of the staff, where they may be no more.
    """
    return AuditEntry.objects.create(
        organization_id=organization_id,
        actor=actor,
        actor_name=actor.email if actor else actor_name,
        is_by_staff=bool(actor and actor.is_staff) if is_by_staff is None else is_by_staff,
        action=action,
        target=target,
        before=dict(before or {}),
        after=dict(after or {}),
        reason=reason,
        address=client_address(_request.get()),
    )


def differences(before: Mapping[str, Any], after: Mapping[str, Any]) -> tuple[dict[str, Any], dict[str, Any]]:
    """Return of two descriptions what differs, as it was and as it is; a name that one of them lacks is None there."""
    names = [name for name in {**before, **after} if before.get(name) != after.get(name)]
    return {name: before.get(name) for name in names}, {name: after.get(name) for name in names}


def told_to_customer(organization_id: int) -> QuerySet[AuditEntry]:
    """Select what an organization's own people may read of their log: all but what our staff weigh among themselves."""
    return AuditEntry.objects.filter(organization=organization_id).exclude(action__in=INTERNAL)


class AuditMiddleware:
    """Remembers the request, so that an entry it writes has the client's address."""

    def __init__(self, get_response: Callable[[HttpRequest], HttpResponseBase]) -> None:
        self.get_response = get_response

    def __call__(self, request: HttpRequest) -> HttpResponseBase:
        """Serve the request."""
        token = _request.set(request)
        try:
            return self.get_response(request)
        finally:
            _request.reset(token)


def client_address(request: HttpRequest | None) -> str | None:
    """Return the address that a request came from, as the trusted proxies tell it; None where it cannot be known."""
    if request is None:
        return None
    # The proxies that may be believed are counted in one setting, for the limits of sign-in and for this.
    try:
        return str(get_adapter().get_client_ip(request))
    except PermissionDenied:  # no address at all, as behind a socket of the file system
        return None
    except ImproperlyConfigured:  # fewer proxies than are trusted: somebody came past them, so nothing is believed
        return None
