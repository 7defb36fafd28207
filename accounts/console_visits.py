"""The browser's side of the staff's visits: what the session remembers, and the one place that refuses every write."""

from collections.abc import Callable
from typing import Any, Final

from django.contrib import messages
from django.contrib.auth.signals import user_logged_out
from django.core.exceptions import PermissionDenied
from django.http import HttpRequest, HttpResponse
from django.http.response import HttpResponseBase
from django.shortcuts import redirect
from django.urls import reverse
from django.views.decorators.http import require_POST
from django_htmx.http import HttpResponseClientRedirect

from accounts import roles, visits
from accounts.models import Membership, StaffVisit, User

SESSION_KEY: Final = "staff_visit"
PREFIX: Final = "/console/"
_READING: Final = ("GET", "HEAD", "OPTIONS")


class VisitMiddleware:
    """Makes every page of the console one to look at, as long as the session is on a visit."""

    def __init__(self, get_response: Callable[[HttpRequest], HttpResponseBase]) -> None:
        self.get_response = get_response

    def __call__(self, request: HttpRequest) -> HttpResponseBase:
        """Serve the request, refuse it, or lead back to the admin when the visit is over."""
        return self.get_response(request)

    def process_view(self, request: HttpRequest, *_: Any) -> HttpResponseBase | None:
        """Look for the visit, and refuse what would change something, before any view has its turn."""
        if not request.path_info.startswith(PREFIX) or SESSION_KEY not in request.session:
            return None
        visit = _find(request)
        if visit is None:
            return _over(request)
        request.staff_visit = visit  # type: ignore[attr-defined] # for this request only
        if request.method not in _READING:
            raise PermissionDenied
        return None


def of(request: HttpRequest) -> StaffVisit | None:
    """Return the visit that a request belongs to."""
    return getattr(request, "staff_visit", None)


def guest(visit: StaffVisit) -> Membership:
    """Return who a visitor is to the console: somebody of a role that no member has, in no row of the database."""
    return Membership(user=visit.visitor, organization=visit.organization, role=roles.VISITOR)


def begin(request: HttpRequest, visit: StaffVisit) -> None:
    """Let the session be on a visit, after the one it is on."""
    _end(request)
    request.session[SESSION_KEY] = visit.pk


@require_POST
def stop(request: HttpRequest) -> HttpResponse:
    """End the visit, and lead to the organization's page."""
    visit = _end(request)
    if visit is None:
        return redirect("admin:index")
    messages.success(request, f"You are yourself again; the visit to {visit.organization} has ended.")
    return redirect("admin:accounts_organization_change", visit.organization_id)


def listen() -> None:
    """End visits with the session that they are bound to."""
    user_logged_out.connect(_end_with_session, dispatch_uid="accounts.console_visits")


def _end_with_session(*, request: HttpRequest | None, **_: Any) -> None:
    if request is not None and isinstance(getattr(request, "user", None), User):
        _end(request)


def _find(request: HttpRequest) -> StaffVisit | None:
    number = request.session.get(SESSION_KEY)
    if number is None or not isinstance(request.user, User):
        return None
    return visits.running(number=number, visitor=request.user)


def _end(request: HttpRequest) -> StaffVisit | None:
    visit = _find(request)
    request.session.pop(SESSION_KEY, None)
    if visit is not None:
        visits.end(visit=visit)
    return visit


def _over(request: HttpRequest) -> HttpResponse:
    request.session.pop(SESSION_KEY, None)
    messages.warning(request, "The visit has ended. You are yourself again.")
    address = reverse("admin:index")
    return HttpResponseClientRedirect(address) if "HX-Request" in request.headers else redirect(address)
