"""What every console page shares: a signed-in person, and the one of their organizations that the page is about."""

import contextlib
import functools
from typing import Any, ClassVar
from urllib.parse import urlencode

from django.conf import settings
from django.contrib.auth.views import redirect_to_login
from django.core.exceptions import PermissionDenied
from django.db.models.functions import Lower
from django.http import Http404, HttpRequest, HttpResponse
from django.http.response import HttpResponseBase
from django.shortcuts import redirect, render
from django.urls import NoReverseMatch, reverse
from django.utils.cache import add_never_cache_headers
from django.views import View

from accounts import console_visits, members, roles, second_factor
from accounts.models import Membership, User

SESSION_KEY = "console_organization"

_P = roles.Permission
# The console's sections in the order of its tabs: name, title, name of the address, and who sees it.
SECTIONS = (
    ("home", "Home", "console-home", _P.VIEW),
    ("tasks", "Tasks", "console-tasks", _P.VIEW),
    ("playground", "Playground", "console-playground", _P.GENERATE),
    ("keys", "API keys", "console-keys", _P.VIEW),
    ("usage", "Usage", "console-usage", _P.VIEW),
    ("billing", "Billing", "console-billing", _P.VIEW_BILLING),
    ("webhooks", "Webhooks", "console-webhooks", _P.VIEW_WEBHOOKS),
    ("members", "Members", "console-members", _P.VIEW),
    ("audit", "Audit log", "console-audit", _P.VIEW_AUDIT),
    ("settings", "Settings", "console-settings", _P.CHANGE_SETTINGS),
)


@functools.cache
def _addresses() -> dict[str, str]:
    """Tell where each section is; one that no application serves yet has no tab."""
    found = {}
    for name, _, address, _ in SECTIONS:
        with contextlib.suppress(NoReverseMatch):
            found[name] = reverse(address)
    return found


def memberships_of(user: User) -> list[Membership]:
    """List a person's memberships with their organizations, by name."""
    memberships = Membership.objects.filter(user=user).select_related("organization")
    return list(memberships.order_by(Lower("organization__name")))


class ConsoleView(View):
    """A page of the console. It finds the membership, asks the roles table and keeps caches from storing the page.

    The organization is the one that the form or the link names as `organization`, else the one last switched to, else
    the first; so a page that was left open acts on what it shows, whatever another tab has switched to.

    One of the staff who visits is shown the organization of the visit alone, as somebody who may only look.
    """

    permission: ClassVar[roles.Permission] = roles.Permission.VIEW
    section: ClassVar[str] = ""

    user: User
    membership: Membership
    memberships: list[Membership]

    def dispatch(self, request: HttpRequest, *args: Any, **kwargs: Any) -> HttpResponseBase:
        """Let members in who may see the page; others learn what they can do."""
        if not isinstance(request.user, User):
            return redirect_to_login(request.get_full_path())
        self.user = request.user
        visit = console_visits.of(request)
        self.memberships = [console_visits.guest(visit)] if visit else memberships_of(request.user)
        if not self.memberships:
            status = 200 if request.method == "GET" else 403
            response: HttpResponseBase = render(request, "console/no_organization.html", status=status)
        else:
            self.membership = self.choose_membership()
            organization = self.membership.organization
            # Of a visitor the admin has asked for a second factor already.
            if visit is None and second_factor.is_missing(user=self.user, organization=organization):
                response = second_factor.lead_to_set_up(request, demanded_by=organization.name)
            elif not self.may(self.permission):
                raise PermissionDenied
            else:
                if visit is None:
                    members.note_seen(self.membership)
                response = super().dispatch(request, *args, **kwargs)
        add_never_cache_headers(response)
        return response

    def choose_membership(self) -> Membership:
        """Choose the membership that the request is about.

        Raises:
            Http404: an organization is named that the person does not belong to.
        """
        by_organization = {str(membership.organization_id): membership for membership in self.memberships}
        named = self.request.POST.get("organization", self.request.GET.get("organization"))
        if named is not None:
            if named not in by_organization:
                raise Http404
            return by_organization[named]
        return by_organization.get(str(self.request.session.get(SESSION_KEY)), self.memberships[0])

    def may(self, permission: roles.Permission) -> bool:
        """Tell whether the person may do something in this organization."""
        return roles.may(self.membership, permission)

    def to(self, name: str, *args: str | int, anchor: str = "", **parameters: str) -> HttpResponse:
        """Lead to a page of the same organization, whichever another tab has switched to."""
        query = urlencode({"organization": self.membership.organization_id, **parameters})
        return redirect(f"{reverse(name, args=args)}?{query}{f'#{anchor}' if anchor else ''}")

    def page(self, template: str, **context: Any) -> HttpResponse:
        """Render a console page."""
        addresses = _addresses()
        shared = {
            "section": self.section,
            "sections": [
                (name, title, addresses[name])
                for name, title, _, permission in SECTIONS
                if name in addresses and self.may(permission)
            ],
            "membership": self.membership,
            "memberships": self.memberships,
            "organization": self.membership.organization,
            "may": {permission.name: True for permission in roles.Permission if self.may(permission)},
            "base_url": settings.PUBLIC_BASE_URL,
        }
        return render(self.request, template, shared | context)
