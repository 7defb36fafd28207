"""Console pages of API keys: listed, issued, changed, rolled and revoked."""

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

from django.contrib import messages
from django.core.exceptions import PermissionDenied
from django.core.paginator import Paginator
from django.db.models import Q, QuerySet
from django.db.models.functions import Coalesce
from django.http import HttpRequest, HttpResponse
from django.shortcuts import get_object_or_404
from django.utils.http import urlencode

from accounts import keys, roles
from accounts.console import ConsoleView
from accounts.forms import ConfirmForm, add_problem
from accounts.models import ApiKey, Membership
from billing import allowances
from seedancee2.api.errors import InvalidRequest
from seedancee2.console.keys.forms import RENAMED, ChangeKeyForm, KeyFilters, RollKeyForm, TermsForm
from seedancee2.lib import clock

KEYS_ON_A_PAGE = 50


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """A key as the pages show it. `used` is what its tasks cost this month, in credits."""

    key: ApiKey
    maker: str
    used: int
    may_manage: bool
    is_stale: bool
    is_ending: bool

    @property
    def limits(self) -> list[str]:
        """The terms that are not what every key has, in a few words each."""
        key = self.key
        told = [
            "" if len(key.scopes) == len(ApiKey.Scope.values) else "may " + ", ".join(key.scopes),
            f"models {', '.join(key.allowed_models)}" if key.allowed_models else "",
            f"from {_first(key.allowed_networks)}" if key.allowed_networks else "",
            f"{key.create_rate_limit:,} creates a minute" if key.create_rate_limit else "",
            f"{key.request_rate_limit:,} other requests a minute" if key.request_rate_limit else "",
        ]
        return [text for text in told if text]

    @property
    def left(self) -> int:
        """Credits that the cap leaves for this month."""
        return max(0, (self.key.monthly_credit_cap or 0) - self.used)


class KeyPage(ConsoleView):
    """What the pages of keys share."""

    section: ClassVar[str] = "keys"

    def rows(self, found: Sequence[ApiKey]) -> list[Row]:
        """Put keys into rows, with two queries however many they are."""
        live = {_allowance_of(key) for key in found if not key.is_test}
        used = allowances.used_this_month(live) if live else {}
        return [self._row(key, used) for key in found]

    def find(self, key_id: int) -> ApiKey:
        """Return a key that the person may manage.

        Raises:
            Http404: they may not see it, or it does not exist.
            PermissionDenied: they may see it and no more.
        """
        key = get_object_or_404(roles.visible_keys(self.membership), pk=key_id)
        if not roles.may_manage_key(self.membership, key):
            raise PermissionDenied
        return key

    def _row(self, key: ApiKey, used: Mapping[int, int]) -> Row:
        now = clock.now()
        is_active = key.state == "active"
        return Row(
            key=key,
            maker=self._maker_of(key),
            used=used.get(_allowance_of(key), 0),
            may_manage=roles.may_manage_key(self.membership, key),
            is_stale=is_active and (key.last_used_at or key.created_at) < now - keys.STALE_AFTER,
            is_ending=is_active and key.expires_at is not None and key.expires_at < now + keys.EXPIRES_SOON,
        )

    def _maker_of(self, key: ApiKey) -> str:
        if key.created_by_id == self.user.pk:
            return "you"
        # Customers are told of our staff as a team, never by address.
        return "the Seedancee2 team" if key.created_by is None or key.created_by.is_staff else str(key.created_by)


class KeysView(KeyPage):
    """The keys that a member may see, and the form for a new one."""

    def get(self, request: HttpRequest) -> HttpResponse:
        """Show the table and the form."""
        return self._page(self._form())

    def post(self, request: HttpRequest) -> HttpResponse:
        """Issue a key; its secret is in this response and nowhere else."""
        if not self._may_issue():
            raise PermissionDenied
        form = self._form(request.POST)
        if not form.is_valid():
            return self._page(form)
        try:
            issued = keys.issue(
                organization=self.membership.organization,
                name=form.cleaned_data["name"],
                mode=form.cleaned_data["mode"],
                created_by=self.user,
                **form.terms(),
            )
        except InvalidRequest as error:
            add_problem(form, error, renamed=RENAMED)
            return self._page(form)
        return self._page(self._form(), issued=issued)

    def _form(self, *values: Any) -> TermsForm:
        return TermsForm(*values, organization=self.membership.organization)

    def _page(self, form: TermsForm, *, issued: keys.IssuedKey | None = None) -> HttpResponse:
        filters = KeyFilters(self.request.GET)
        filters.is_valid()
        wanted = {name: value for name, value in filters.cleaned_data.items() if value}
        found = _filtered(roles.visible_keys(self.membership), wanted, self.membership)
        page = Paginator(found, KEYS_ON_A_PAGE).get_page(self.request.GET.get("page"))
        return self.page(
            "console/keys.html",
            form=form if self._may_issue() else None,
            filters=filters,
            wanted=wanted,
            query=urlencode({"organization": self.membership.organization_id, **wanted}),
            issued=issued,
            page_of_keys=page,
            rows=self.rows(list(page)),
            resets_at=allowances.resets_at(clock.now()),
        )

    def _may_issue(self) -> bool:
        return self.may(roles.Permission.MANAGE_ALL_KEYS) or self.may(roles.Permission.MANAGE_OWN_KEYS)


class KeyView(KeyPage):
    """One key with all its terms, and the form to change them."""

    def get(self, request: HttpRequest, key_id: int) -> HttpResponse:
        """Show the key; to those who may not manage it without the form."""
        key = get_object_or_404(roles.visible_keys(self.membership), pk=key_id)
        return self._page(key, ChangeKeyForm(key=key) if self._may_change(key) else None)

    def post(self, request: HttpRequest, key_id: int) -> HttpResponse:
        """Change the key."""
        key = self.find(key_id)
        form = ChangeKeyForm(request.POST, key=key)
        if not form.is_valid():
            return self._page(key, form)
        try:
            keys.change(
                key=key,
                changed_by=self.user,
                name=form.cleaned_data["name"],
                may_loosen=self.may(roles.Permission.MANAGE_ALL_KEYS),
                **form.terms(),
            )
        except InvalidRequest as error:
            add_problem(form, error, renamed=RENAMED)
            return self._page(key, form)
        messages.success(request, f"The key “{form.cleaned_data['name']}” is changed. It holds for the next request.")
        return self.to("console-key", key_id)

    def _may_change(self, key: ApiKey) -> bool:
        is_current = key.state == "active" and key.replaced_by_id is None
        return is_current and roles.may_manage_key(self.membership, key)

    def _page(self, key: ApiKey, form: ChangeKeyForm | None) -> HttpResponse:
        [row] = self.rows([key])
        return self.page(
            "console/key.html",
            row=row,
            key=key,
            form=form,
            predecessor=ApiKey.objects.filter(replaced_by=key).first(),
            resets_at=allowances.resets_at(clock.now()),
        )


class RollKeyView(KeyPage):
    """The step between the wish for a new secret and the secret."""

    def get(self, request: HttpRequest, key_id: int) -> HttpResponse:
        """Ask how long the old key is to go on."""
        return self._page(self.find(key_id), RollKeyForm())

    def post(self, request: HttpRequest, key_id: int) -> HttpResponse:
        """Roll the key; the new secret is in this response and nowhere else."""
        key = self.find(key_id)
        form = RollKeyForm(request.POST)
        if not form.is_valid():
            return self._page(key, form)
        try:
            issued = keys.roll(key=key, rolled_by=self.user, overlap=form.duration())
        except InvalidRequest as error:
            form.add_error(None, error.message.partition(": ")[2].capitalize() or error.message)
            return self._page(key, form)
        key.refresh_from_db()
        return self._page(key, form, issued=issued)

    def _page(self, key: ApiKey, form: RollKeyForm, *, issued: keys.IssuedKey | None = None) -> HttpResponse:
        return self.page("console/key_roll.html", key=key, form=form, issued=issued)


class RevokeKeyView(KeyPage):
    """The step between the wish to revoke a key and its end."""

    def get(self, request: HttpRequest, key_id: int) -> HttpResponse:
        """Ask whether it is meant."""
        key = self.find(key_id)
        return self._page(key, ConfirmForm(expected=key.name))

    def post(self, request: HttpRequest, key_id: int) -> HttpResponse:
        """Revoke the key."""
        key = self.find(key_id)
        form = ConfirmForm(request.POST, expected=key.name)
        if not form.is_valid():
            return self._page(key, form)
        keys.revoke(key=key, revoked_by=self.user)
        messages.success(request, f"The key “{key.name}” ({key.masked}) is revoked. Requests with it get 401 now.")
        return self.to("console-keys")

    def _page(self, key: ApiKey, form: ConfirmForm) -> HttpResponse:
        return self.page("console/key_revoke.html", key=key, form=form)


def _filtered(rows: QuerySet[ApiKey], wanted: Mapping[str, str], membership: Membership) -> QuerySet[ApiKey]:
    now = clock.now()
    is_over = Q(expires_at__lte=now)
    is_active = Q(revoked_at=None) & (Q(expires_at=None) | Q(expires_at__gt=now))
    states = {"active": is_active, "expired": Q(revoked_at=None) & is_over, "revoked": Q(revoked_at__isnull=False)}
    if text := wanted.get("q"):
        rows = rows.filter(
            Q(name__icontains=text) | Q(last_four=text[-4:]) if len(text) >= 4 else Q(name__icontains=text)
        )
    if state := wanted.get("state"):
        rows = rows.filter(states[state])
    if mode := wanted.get("mode"):
        rows = rows.filter(mode=mode)
    if wanted.get("maker") == "me":
        rows = rows.filter(created_by=membership.user_id)
    match wanted.get("flag"):
        case "unused":
            used_at = Coalesce("last_used_at", "created_at")
            rows = rows.annotate(used_at=used_at).filter(is_active, used_at__lt=now - keys.STALE_AFTER)
        case "expiring":
            rows = rows.filter(is_active, expires_at__lt=now + keys.EXPIRES_SOON)
    return rows


def _allowance_of(key: ApiKey) -> int:
    return key.origin_id or key.pk


def _first(networks: Sequence[str]) -> str:
    return networks[0] if len(networks) == 1 else f"{networks[0]} and {len(networks) - 1} more"
