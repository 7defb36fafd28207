"""Sessions of the browser: when each was last seen, for the page that lists them."""

from collections.abc import Callable

from allauth.usersessions.models import UserSession
from django.core.cache import cache
from django.http import HttpRequest
from django.http.response import HttpResponseBase

# Seconds that "last seen" may lag; allauth's own middleware would write a row with every page.
GRAIN = 60


class LastSeenMiddleware:
    """Notes once a minute that a session is in use, and from which address and browser."""

    def __init__(self, get_response: Callable[[HttpRequest], HttpResponseBase]) -> None:
        self.get_response = get_response

    def __call__(self, request: HttpRequest) -> HttpResponseBase:
        """Serve the request."""
        response = self.get_response(request)
        # What never asked for the session, as /v1 does not, is no use of it and costs no query here.
        if request.session.accessed and request.user.is_authenticated:
            key = request.session.session_key
            if key and cache.add(f"seen:{key}", 1, GRAIN):
                UserSession.objects.create_from_request(request)
        return response
