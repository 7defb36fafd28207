"""Who calls `/v1`: an API key in a header, never a session; and whether the key may do what is asked."""

import hmac
from typing import TYPE_CHECKING

from rest_framework.authentication import BaseAuthentication
from rest_framework.permissions import BasePermission
from rest_framework.request import Request

from accounts import audit, clients
from seedancee2.api.errors import InvalidApiKey, PermissionDenied

if TYPE_CHECKING:
    from rest_framework.views import APIView  # which itself imports this module, as the settings tell it to


class ApiKeyAuthentication(BaseAuthentication):
    """Reads `Authorization: Bearer` or `x-api-key` and makes the key's client the request's user."""

    def authenticate(self, request: Request) -> tuple[clients.Client, None]:
        """Return the client of the key that was sent.

        Raises:
            InvalidApiKey: no key, two different ones, a malformed header, or a key that does not work.
            PermissionDenied: the key may not be used from this address.
        """
        bearer = _bearer(request.META.get("HTTP_AUTHORIZATION"))
        plain = request.META.get("HTTP_X_API_KEY")
        sent = [value for value in (bearer, plain) if value is not None]
        if not sent or not hmac.compare_digest(sent[0].encode(), sent[-1].encode()):
            raise InvalidApiKey
        return clients.authenticate(sent[0], find_address=lambda: audit.client_address(request._request)), None

    def authenticate_header(self, request: Request) -> str:
        """Name the scheme for `WWW-Authenticate`."""
        return "Bearer"


class KeyHasScope(BasePermission):
    """Lets a key do what the view's `scopes` names for the action; an action that is not named there is nobody's."""

    def has_permission(self, request: Request, view: "APIView") -> bool:
        """Tell whether the key may do this.

        Raises:
            InvalidApiKey: nobody was recognized.
            PermissionDenied: the key lacks the scope.
        """
        client: object = request.user
        if not isinstance(client, clients.Client):
            raise InvalidApiKey
        action = getattr(view, "action", None)
        if action is None:  # a method that the path does not have, for which 405 comes next
            return True
        scope = getattr(view, "scopes", {}).get(action)
        if scope not in client.scopes:
            raise PermissionDenied(f"This API key may not do this: it lacks the scope {scope}.")
        return True


def _bearer(header: str | None) -> str | None:
    if header is None:
        return None
    scheme, _, secret = header.partition(" ")
    if scheme.lower() != "bearer":
        raise InvalidApiKey
    return secret.strip(" ")
