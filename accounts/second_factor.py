"""The second factor: who has one, who must have one, and where those without are led."""

from collections.abc import Callable, Iterable
from typing import Any

from allauth.mfa.models import Authenticator
from allauth.mfa.utils import is_mfa_enabled
from django.conf import settings
from django.contrib import messages
from django.http import HttpRequest, HttpResponse
from django.http.response import HttpResponseBase
from django.shortcuts import redirect

from accounts.models import Organization, User

# Recovery codes alone are none: they stand in for one of these.
TYPES = (Authenticator.Type.TOTP, Authenticator.Type.WEBAUTHN)


def is_set_up(user: User) -> bool:
    """Tell whether a person has an authenticator app or a passkey."""
    return bool(is_mfa_enabled(user, types=TYPES))


def is_missing(*, user: User, organization: Organization) -> bool:
    """Tell whether an organization demands a second factor that this member has not set up."""
    return organization.demands_second_factor and not is_set_up(user)


def demanded_by(user: User) -> list[str]:
    """Name those who demand a second factor of a person: organizations, and ourselves of our staff."""
    demanding: Iterable[str] = user.organizations.filter(demands_second_factor=True).values_list("name", flat=True)
    names = sorted(demanding, key=str.lower)
    if user.is_staff and settings.STAFF_NEEDS_SECOND_FACTOR:
        names.append("The Seedancee2 admin")
    return names


def lead_to_set_up(request: HttpRequest, *, demanded_by: str) -> HttpResponse:
    """Lead to the page where a second factor is set up, and say why."""
    messages.warning(
        request,
        f"{demanded_by} asks everyone who enters for a second factor. Set up an authenticator app or a passkey here; "
        "then you can go on.",
    )
    return redirect("mfa_index")


class StaffMiddleware:
    """Lets staff into the admin with a second factor only, where the setting asks for one."""

    def __init__(self, get_response: Callable[[HttpRequest], HttpResponseBase]) -> None:
        self.get_response = get_response

    def __call__(self, request: HttpRequest) -> HttpResponseBase:
        """Serve the request."""
        return self.get_response(request)

    def process_view(self, request: HttpRequest, *view: Any) -> HttpResponse | None:
        """Stop before the admin's views, and before those of ours that stand at addresses below its own."""
        if not request.path_info.startswith("/admin/") or not settings.STAFF_NEEDS_SECOND_FACTOR:
            return None
        if not isinstance(request.user, User) or not request.user.is_staff or is_set_up(request.user):
            return None
        return lead_to_set_up(request, demanded_by="The Seedancee2 admin")
