"""A person's own page: their name, their organizations and their API keys."""

from typing import Any

from django import forms
from django.contrib import messages
from django.contrib.auth.mixins import LoginRequiredMixin
from django.db.models import F
from django.http import HttpRequest, HttpResponse
from django.shortcuts import redirect, render
from django.utils.decorators import method_decorator
from django.views import View
from django.views.decorators.cache import never_cache

from accounts import people, roles, second_factor
from accounts.console import memberships_of
from accounts.models import ApiKey, Membership, User

_ISSUES = (roles.Permission.MANAGE_OWN_KEYS, roles.Permission.MANAGE_ALL_KEYS)
KEYS_SHOWN = 100


class NameForm(forms.Form):
    """How a person is called."""

    name = forms.CharField(
        max_length=120,
        label="Your name",
        help_text="Members of your organizations see it.",
        widget=forms.TextInput(attrs={"autocomplete": "name"}),
    )

    def clean_name(self) -> str:
        """Refuse names that cannot be shown."""
        return people.clean_name(self.cleaned_data["name"])


@method_decorator(never_cache, name="dispatch")
class ProfileView(LoginRequiredMixin, View):
    """The page itself; it belongs to the person and to no organization."""

    def get(self, request: HttpRequest) -> HttpResponse:
        """Show the page."""
        return self._page(request, NameForm(initial={"name": _person(request).name}))

    def post(self, request: HttpRequest) -> HttpResponse:
        """Change the name."""
        form = NameForm(request.POST)
        if not form.is_valid():
            return self._page(request, form)
        people.rename(user=_person(request), name=form.cleaned_data["name"])
        messages.success(request, "Your name is saved.")
        return redirect("account_profile")

    def _page(self, request: HttpRequest, form: NameForm) -> HttpResponse:
        user = _person(request)
        has_factor = second_factor.is_set_up(user)
        rows = [_row(membership, has_factor=has_factor) for membership in memberships_of(user)]
        open_to = [row["membership"].organization_id for row in rows if not row["is_closed"]]
        own_keys = ApiKey.objects.filter(created_by=user, organization__in=open_to).select_related("organization")
        return render(
            request,
            "account/profile.html",
            {
                "form": form,
                "rows": rows,
                "own_keys": own_keys.order_by(F("revoked_at").desc(nulls_first=True), "-pk")[:KEYS_SHOWN],
            },
        )


def _row(membership: Membership, *, has_factor: bool) -> dict[str, Any]:
    """Tell what the page says of one organization; one that waits for a second factor shows nothing of itself."""
    is_closed = membership.organization.demands_second_factor and not has_factor
    may_issue = any(roles.may(membership, permission) for permission in _ISSUES)
    return {"membership": membership, "is_closed": is_closed, "may_issue": may_issue and not is_closed}


def _person(request: HttpRequest) -> User:
    assert isinstance(request.user, User)
    return request.user
