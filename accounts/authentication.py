"""Who calls `/v1`: an API key in a header, never a session."""

import hmac

from rest_framework.authentication import BaseAuthentication
from rest_framework.request import Request

from accounts import keys
from seedancee2.api.errors import InvalidApiKey


class ApiKeyAuthentication(BaseAuthentication):
    """Reads `Authorization: Bearer` or `x-api-key` and makes the key's client the request's user."""

    def authenticate(self, request: Request) -> tuple[keys.Client, None]:
        """Return the client of the key that was sent.

        Raises:
            InvalidApiKey: no key, two different ones, a malformed header, or a key that does not work.
        """
        bearer = _bearer(request.META.get("HTTP_AUTHORIZATION"))
        plain = request.META.get("HTTP_X_API_KEY")
        sent = [value for value in (bearer, plain) if value is not None]
        if not sent or not hmac.compare_digest(sent[0].encode(), sent[-1].encode()):
            raise InvalidApiKey
        return keys.authenticate(sent[0]), None

    def authenticate_header(self, request: Request) -> str:
        """Name the scheme for `WWW-Authenticate`."""
        return "Bearer"


def _bearer(header: str | None) -> str | None:
    if header is None:
        return None
    scheme, _, secret = header.partition(" ")
    if scheme.lower() != "bearer":
        raise InvalidApiKey
    return secret.strip(" ")
