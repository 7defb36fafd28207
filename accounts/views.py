"""Console pages about people and keys."""

from typing import ClassVar

from django.contrib import messages
from django.core.exceptions import PermissionDenied
from django.core.paginator import Paginator
from django.db.models import F, QuerySet
from django.http import HttpRequest, HttpResponse
from django.shortcuts import get_object_or_404, redirect

from accounts import keys, roles
from accounts.console import SESSION_KEY, ConsoleView
from accounts.forms import IssueKeyForm
from accounts.models import ApiKey, Membership
from seedancee2.api.errors import PublicError

KEYS_ON_A_PAGE = 50


class SwitchOrganizationView(ConsoleView):
    """The organization that the console shows from now on."""

    http_method_names = ["post"]

    def post(self, request: HttpRequest) -> HttpResponse:
        """Remember the organization that the form names."""
        request.session[SESSION_KEY] = self.membership.organization_id
        return redirect("console-home")


class KeysView(ConsoleView):
    """The keys that a member may see, and the form for a new one."""

    section: ClassVar[str] = "keys"

    def get(self, request: HttpRequest) -> HttpResponse:
        """Show the table and the form."""
        return self._page(IssueKeyForm())

    def post(self, request: HttpRequest) -> HttpResponse:
        """Issue a key; its secret is in this response and nowhere else."""
        if not self._may_issue():
            raise PermissionDenied
        form = IssueKeyForm(request.POST)
        if not form.is_valid():
            return self._page(form)
        try:
            issued = keys.issue(
                organization=self.membership.organization,
                name=form.cleaned_data["name"],
                mode=form.cleaned_data["mode"],
                created_by=self.user,
                expires_at=form.expires_at(),
            )
        except PublicError as error:
            form.add_error(None, error.message)
            return self._page(form)
        return self._page(IssueKeyForm(), issued=issued)

    def _page(self, form: IssueKeyForm, *, issued: keys.IssuedKey | None = None) -> HttpResponse:
        page = Paginator(visible_keys(self.membership), KEYS_ON_A_PAGE).get_page(self.request.GET.get("page"))
        return self.page(
            "console/keys.html",
            form=form if self._may_issue() else None,
            issued=issued,
            page_of_keys=page,
            rows=[(key, self._maker_of(key), self._may_revoke(key)) for key in page],
        )

    def _maker_of(self, key: ApiKey) -> str:
        if key.created_by_id == self.user.pk:
            return "you"
        # Customers are told of our staff as a team, never by address.
        return "the Seedancee2 team" if key.created_by is None or key.created_by.is_staff else str(key.created_by)

    def _may_revoke(self, key: ApiKey) -> bool:
        return key.revoked_at is None and roles.may_manage_key(self.membership, key)

    def _may_issue(self) -> bool:
        return self.may(roles.Permission.MANAGE_ALL_KEYS) or self.may(roles.Permission.MANAGE_OWN_KEYS)


class RevokeKeyView(ConsoleView):
    """The step between the wish to revoke a key and its end."""

    section: ClassVar[str] = "keys"

    def get(self, request: HttpRequest, key_id: int) -> HttpResponse:
        """Ask whether it is meant."""
        return self.page("console/key_revoke.html", key=self._find(key_id))

    def post(self, request: HttpRequest, key_id: int) -> HttpResponse:
        """Revoke the key."""
        key = keys.revoke(key=self._find(key_id), revoked_by=self.user)
        messages.success(request, f"The key “{key.name}” ({key.masked}) is revoked. Requests with it get 401 now.")
        return redirect("console-keys")

    def _find(self, key_id: int) -> ApiKey:
        key = get_object_or_404(visible_keys(self.membership), pk=key_id)
        if not roles.may_manage_key(self.membership, key):
            raise PermissionDenied
        return key


def visible_keys(membership: Membership) -> QuerySet[ApiKey]:
    """Select the keys that a member may see, those that still work first."""
    rows = ApiKey.objects.filter(organization=membership.organization_id).select_related("created_by")
    if not roles.may(membership, roles.Permission.VIEW_ALL_KEYS):
        is_maker = roles.may(membership, roles.Permission.MANAGE_OWN_KEYS)
        rows = rows.filter(created_by=membership.user_id) if is_maker else rows.none()
    return rows.order_by(F("revoked_at").desc(nulls_first=True), "-pk")
