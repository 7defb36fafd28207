"""People who followed an invitation before they had signed in: who they are, and how they join.

The page of the invitation remembers it here; a sign-up joins with it, a sign-in leads back to that page. The session
lives in our database, so what is in it was put there by us: only a page that has checked the token may call `remember`.
"""

import dataclasses

from django.http import HttpRequest

from accounts import invitations
from accounts.console import SESSION_KEY as ORGANIZATION_KEY
from accounts.models import User

SESSION_KEY = "invitation"


@dataclasses.dataclass(frozen=True, slots=True)
class Invited:
    """An invitation that waits for its person: the token from the mail, and the address it was sent to."""

    token: str = dataclasses.field(repr=False)
    email: str

    def is_for(self, email: str) -> bool:
        """Tell whether this is the address that the invitation was sent to."""
        return email.strip().lower() == self.email.lower()


def remember(request: HttpRequest, *, token: str, email: str) -> None:
    """Keep a checked invitation until its person has signed up or in."""
    request.session[SESSION_KEY] = {"token": token, "email": email}


def waiting(request: HttpRequest) -> Invited | None:
    """Return the invitation that was followed in this session."""
    kept = request.session.get(SESSION_KEY)
    return Invited(**kept) if isinstance(kept, dict) else None


def forget(request: HttpRequest) -> None:
    """Drop the invitation."""
    request.session.pop(SESSION_KEY, None)


def join(request: HttpRequest, *, user: User) -> bool:
    """Accept the waiting invitation if it was sent to this person, and tell whether they have joined.

    Raises:
        PublicError: the invitation was withdrawn, has expired or was used.
    """
    invited = waiting(request)
    if invited is None or not invited.is_for(user.email):
        return False
    forget(request)
    membership = invitations.accept(invited.token, user)
    request.session[ORGANIZATION_KEY] = membership.organization_id
    return True
