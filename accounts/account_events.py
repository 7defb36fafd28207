"""What people change about their own accounts, written to the audit log for our staff to read."""

from typing import Any

from allauth.account import signals as account
from allauth.account.models import EmailAddress
from allauth.mfa import signals as mfa
from allauth.mfa.models import Authenticator
from allauth.usersessions.models import UserSession
from django.dispatch import Signal
from django.http import HttpRequest

from accounts import audit, second_factor
from accounts.models import User

_ACTIONS: dict[Signal, str] = {
    account.password_changed: "password.changed",
    account.password_set: "password.set",
    account.password_reset: "password.reset",
    account.email_added: "email.added",
    account.email_removed: "email.removed",
    account.email_changed: "email.made_main",
    account.email_confirmed: "email.confirmed",
    mfa.authenticator_added: "second_factor.added",
    mfa.authenticator_removed: "second_factor.removed",
    mfa.authenticator_reset: "second_factor.reset",
}


def listen() -> None:
    """Start to write, and to end sessions that a new second factor has not seen."""
    for signal in _ACTIONS:
        signal.connect(_write, dispatch_uid="accounts.account_events")
    mfa.authenticator_added.connect(_end_other_sessions, dispatch_uid="accounts.account_events.sessions")


def _end_other_sessions(*, request: HttpRequest, user: User, authenticator: Authenticator, **_: Any) -> None:
    # They were opened with the password alone, perhaps by somebody else: who asks for a second factor asks the session.
    if authenticator.type in second_factor.TYPES:
        for session in UserSession.objects.filter(user=user).exclude(session_key=request.session.session_key):
            session.end()


def _write(
    *,
    signal: Signal,
    user: User | None = None,
    email_address: EmailAddress | None = None,
    from_email_address: EmailAddress | None = None,
    to_email_address: EmailAddress | None = None,
    authenticator: Authenticator | None = None,
    **_: Any,
) -> None:
    before, after = {}, {}
    if from_email_address is not None:
        before["email"] = from_email_address.email
    if (address := to_email_address or email_address) is not None:
        after["email"] = address.email
        user = user or address.user
    if authenticator is not None:
        after["type"] = authenticator.get_type_display()
    assert user is not None
    audit.note(organization_id=None, actor=user, action=_ACTIONS[signal], target=user.email, before=before, after=after)
