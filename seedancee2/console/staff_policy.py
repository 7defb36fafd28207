"""The Content-Security-Policy of /admin: as strict as everywhere, but for what its theme cannot do without.

Alpine reads the expressions in the theme's attributes by `Function`, hence `unsafe-eval`. No inline script runs; but
against an attribute of Alpine's that a row would bring along, escaping is the one defence, and the `x-ignore` of our
own pages the second. Of styles, those in attributes are allowed, and two elements by their hashes; a test in a browser
tells when a new version of the theme has others.
"""

from collections.abc import Callable
from typing import Any

from django.conf import settings
from django.http import HttpRequest, HttpResponseBase

PREFIX = "/admin"
STYLE_HASHES = [
    "'sha256-CftXQ/6rIQ3AMOrJUsQzoK+KGLgk4scJJlfXyvE/1mQ='",  # the theme's colours
    "'sha256-bsV5JivYxvGywDAZ22EZJKBFip65Ng9xoJVLbBg7bdo='",  # htmx's indicator
]


def policy() -> dict[str, list[str]]:
    """Return the directives for the staff's pages."""
    everywhere: Any = settings.CONTENT_SECURITY_POLICY
    directives: dict[str, list[str]] = everywhere["DIRECTIVES"]
    styles = ["'self'", *STYLE_HASHES]
    return directives | {
        "script-src": ["'self'", "'unsafe-eval'"],
        "style-src": styles,
        "style-src-elem": styles,
        "style-src-attr": ["'unsafe-inline'"],
    }


class StaffPolicyMiddleware:
    """Tells django-csp, which stands above it, that a staff page has a policy of its own."""

    def __init__(self, get_response: Callable[[HttpRequest], HttpResponseBase]) -> None:
        self.get_response = get_response
        self.policy = policy()

    def __call__(self, request: HttpRequest) -> HttpResponseBase:
        """Serve one request."""
        response = self.get_response(request)
        if request.path_info.startswith(PREFIX):
            response._csp_config = self.policy  # type: ignore[attr-defined] # the seam that django-csp has for this
        return response
