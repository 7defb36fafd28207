"""Sessions of the staff: they end some hours after the sign-in, and sooner where nobody uses them."""

from collections.abc import Callable
from typing import Any, Final

from django.conf import settings
from django.contrib import messages
from django.contrib.auth import logout
from django.contrib.auth.signals import user_logged_in
from django.contrib.sessions.backends.base import SessionBase
from django.http import HttpRequest
from django.http.response import HttpResponseBase

from accounts.models import User
from seedancee2.lib import clock

# Where people are somebody: the API knows keys only, and the public pages are the same for everyone.
PREFIXES: Final = ("/admin", "/console", "/accounts")
GRAIN: Final = 60  # seconds that the last use may lag, so that not every page writes the session

_BEGAN, _USED = "staff_session_began", "staff_session_used"


class StaffSessionMiddleware:
    """Signs staff out whose session is over; the page that they asked for leads to the sign-in by itself."""

    def __init__(self, get_response: Callable[[HttpRequest], HttpResponseBase]) -> None:
        self.get_response = get_response

    def __call__(self, request: HttpRequest) -> HttpResponseBase:
        """Serve the request."""
        if request.path_info.startswith(PREFIXES) and isinstance(request.user, User) and request.user.is_staff:
            now = clock.now().timestamp()
            if _is_over(request.session, now):
                logout(request)
                messages.info(
                    request,
                    f"Sessions of the staff end after {settings.STAFF_SESSION_HOURS} hours, or "
                    f"{settings.STAFF_IDLE_MINUTES} minutes without use. Sign in again.",
                )
            # A page that fetches a part of itself anew is nobody's use of it.
            elif now - request.session[_USED] > GRAIN and "HX-Request" not in request.headers:
                request.session[_USED] = now
        return self.get_response(request)


def listen() -> None:
    """Note of every session when it began: who signs in may become staff meanwhile."""
    user_logged_in.connect(_begin, dispatch_uid="accounts.staff_sessions")


def _begin(*, request: HttpRequest, **_: Any) -> None:
    now = clock.now().timestamp()
    request.session[_BEGAN] = request.session[_USED] = now


def _is_over(session: SessionBase, now: float) -> bool:
    # One that was begun before this was noted is of unknown age.
    began, used = session.get(_BEGAN, 0.0), session.get(_USED, 0.0)
    return bool(now - began >= settings.STAFF_SESSION_HOURS * 3600 or now - used >= settings.STAFF_IDLE_MINUTES * 60)
