"""The staff's pages of API keys: facts to read, limits to set, and one thing to do: revoke."""

from typing import Any

from django.contrib import admin, messages
from django.db.models import Model, QuerySet
from django.http import HttpRequest, HttpResponse
from django.shortcuts import redirect
from django.urls import reverse
from unfold.admin import ModelAdmin
from unfold.decorators import action, display

from accounts import keys, lookups
from accounts.models import ApiKey
from accounts.staff import UncountedMixin
from accounts.staff_actions import ReasonForm, ask, person, selected, told

MOST_AT_ONCE = 500  # keys of one revocation: all of them are shown before, and end in one transaction

STATE_COLOURS = {"active": "success", "expired": "warning", "revoked": "danger"}


@admin.register(ApiKey)
class ApiKeyAdmin(UncountedMixin, ModelAdmin):
    """Keys: facts to read, limits to set, and one thing to do: revoke."""

    list_display = ("name", "masked", "organization", "mode", "state_label", "created_at", "last_used_at", "expires_at")
    list_filter = ("mode", ("revoked_at", admin.EmptyFieldListFilter))
    list_select_related = ("organization",)
    search_fields = ("last_four",)
    search_help_text = "The last four characters of a key, or an organization: its number, or how its name begins."
    ordering = ("-pk",)
    fields = (
        "name",
        "masked",
        "organization",
        "mode",
        "state_label",
        "is_imported",
        "scopes",
        "allowed_models",
        "allowed_networks",
        "monthly_credit_cap",
        "create_rate_limit",
        "request_rate_limit",
        "created_at",
        "created_by",
        "last_used_at",
        "last_used_address",
        "expires_at",
        "replaced_by",
        "revoked_at",
        "revoked_by",
    )
    readonly_fields = tuple(
        name for name in fields if name not in {"monthly_credit_cap", "create_rate_limit", "request_rate_limit"}
    )
    actions = ("revoke_selected",)
    actions_detail = ("revoke",)

    def save_model(self, request: HttpRequest, obj: ApiKey, form: Any, change: bool) -> None:
        """Change the limits that somebody changed on the page."""
        with told(request):
            values = {name: form.cleaned_data[name] for name in form.changed_data}
            keys.change(key=obj, changed_by=person(request), **values)

    @display(description="State", label=STATE_COLOURS)
    def state_label(self, key: ApiKey) -> str:
        """Say whether the key works."""
        return key.state

    @display(description="Key")
    def masked(self, key: ApiKey) -> str:
        """Show the key's prefix and last four characters."""
        return key.masked

    def get_search_results(
        self, request: HttpRequest, queryset: QuerySet[ApiKey], search_term: str
    ) -> tuple[QuerySet[ApiKey], bool]:
        """Find keys by what an index leads to."""
        term = search_term.strip()
        # First which, then in order: together PostgreSQL might walk all keys from their end instead.
        return (queryset.filter(pk__in=lookups.keys(term)) if term else queryset), False

    def lookup_allowed(self, lookup: str, value: str, request: HttpRequest) -> bool:
        """Allow the list of one organization's keys, which its page links to."""
        return lookup == "organization__id__exact" or bool(super().lookup_allowed(lookup, value, request))

    def has_add_permission(self, request: HttpRequest) -> bool:
        """Keys are issued on the organization's page, where the secret is shown."""
        return False

    def has_delete_permission(self, request: HttpRequest, obj: Model | None = None) -> bool:
        """Keep every key: it is revoked, not deleted."""
        return False

    def has_revoke_permission(self, request: HttpRequest, object_id: str | int | None = None) -> bool:
        """Offer to revoke a key that is not revoked."""
        if not self.has_change_permission(request):
            return False
        return object_id is None or ApiKey.objects.filter(pk=object_id, revoked_at__isnull=True).exists()

    @action(description="Revoke", url_path="revoke", permissions=["revoke"], icon="block")
    def revoke(self, request: HttpRequest, object_id: str) -> HttpResponse:
        """Ask, then revoke the key."""
        rows = ApiKey.objects.filter(pk=object_id)
        back = reverse("admin:accounts_apikey_change", args=[object_id])
        return self._revoke(request, rows, back=back, is_sent=request.method == "POST", is_list=False)

    @admin.action(description="Revoke the selected keys", permissions=["revoke"])
    def revoke_selected(self, request: HttpRequest, queryset: QuerySet[ApiKey]) -> HttpResponse:
        """Ask, then revoke the keys."""
        back = reverse("admin:accounts_apikey_changelist")
        return self._revoke(request, queryset, back=back, is_sent="confirmed" in request.POST, is_list=True)

    def _revoke(
        self, request: HttpRequest, rows: QuerySet[ApiKey], *, back: str, is_sent: bool, is_list: bool
    ) -> HttpResponse:
        chosen = list(rows.filter(revoked_at=None).select_related("organization").order_by("-pk")[: MOST_AT_ONCE + 1])
        if not chosen or len(chosen) > MOST_AT_ONCE:
            problem = f"Choose 1 to {MOST_AT_ONCE} keys that are not revoked yet."
            self.message_user(request, problem, messages.ERROR)
            return redirect(back)
        expected = str(len(chosen)) if is_list else chosen[0].last_four
        form = ReasonForm(request.POST if is_sent else None, expected=expected)
        if is_sent and form.is_valid():
            reason = form.cleaned_data["reason"]
            count = keys.revoke_all(keys=chosen, revoked_by=person(request), reason=reason)
            self.message_user(request, f"Keys revoked: {count}. {_listed(chosen)}", messages.SUCCESS)
            return redirect(back)
        return ask(
            request,
            self,
            title="Revoke this key?" if len(chosen) == 1 else f"Revoke {len(chosen)} keys?",
            text="Every program that uses it gets 401 from then on. This cannot be undone.",
            verb="Revoke",
            form=form,
            back=back,
            items=[f"{key.name} {key.masked} of {key.organization}, {last_use(key)}" for key in chosen],
            hidden=[("action", "revoke_selected"), ("confirmed", "yes"), *selected(chosen)] if is_list else [],
        )


def last_use(key: ApiKey) -> str:
    """Say when a key was last used."""
    return f"last used {key.last_used_at:%Y-%m-%d %H:%M} UTC" if key.last_used_at else "never used"


def _listed(chosen: list[ApiKey]) -> str:
    names = ", ".join(str(key) for key in chosen[:5])
    return f"{names} and others." if len(chosen) > 5 else f"{names}."
