"""What every staff page shares: rows that the admin shows and never changes, lists quick at any length, and forms and
lists that do no more than the page showed to whoever sent it.
"""

import datetime as dt
from collections.abc import Sequence
from typing import Any, ClassVar

from django import forms
from django.contrib import admin, messages
from django.contrib.admin.views.main import SEARCH_VAR
from django.db.models import Model, QuerySet
from django.http import HttpRequest, HttpResponse
from django.http.response import HttpResponseBase
from django.shortcuts import redirect
from unfold.admin import ModelAdmin, TabularInline
from unfold.paginator import InfinitePaginator

from accounts import leaks
from seedancee2.lib import clock, ids


class ReadOnlyMixin:
    """Shows rows; whatever changes them goes through a domain function, never through a form."""

    def has_add_permission(self, request: HttpRequest, obj: Model | None = None) -> bool:
        """Rows are written by the system."""
        return False

    def has_change_permission(self, request: HttpRequest, obj: Model | None = None) -> bool:
        """Rows are read-only."""
        return False

    def has_delete_permission(self, request: HttpRequest, obj: Model | None = None) -> bool:
        """Rows stay."""
        return False


class CarefulMixin:
    """Does what the sender of a page saw and no more: to rows chosen one by one, and to fields that they changed."""

    list_disable_select_all = True

    def changelist_view(self, request: HttpRequest, extra_context: dict[str, Any] | None = None) -> HttpResponseBase:
        """Show the list; who searched it for an API key is led to the key, and it is shown nowhere again."""
        found = leaks.read(request.GET.get(SEARCH_VAR, ""))
        if not found.is_secret:
            shown: HttpResponseBase = super().changelist_view(request, extra_context)  # type: ignore[misc] # the admin's
            return shown
        told = f"An API key was in that: {found.text}. The search box at the left keeps keys out of the address."
        messages.warning(request, told)
        if found.keys and request.user.has_perm("accounts.view_apikey"):
            return redirect("admin:accounts_apikey_change", found.keys[0].pk)
        return redirect(request.path)

    def response_action(self, request: HttpRequest, queryset: QuerySet[Any]) -> HttpResponse | None:
        """Refuse to act on all rows, whether shown or not: nobody has seen which they are."""
        if request.POST.get("select_across", "") not in ("", "0"):
            messages.error(request, "Choose the rows one by one: an action on all of them at once is not possible.")
            return redirect(request.get_full_path())
        response: HttpResponse | None = super().response_action(request, queryset)  # type: ignore[misc] # the admin's
        return response

    def get_form(self, request: HttpRequest, obj: Any = None, change: bool = False, **kwargs: Any) -> Any:
        """Let the form know what its page showed, so that an old page changes what its reader changed and no more."""
        made = super().get_form(request, obj, change=change, **kwargs)  # type: ignore[misc] # the admin's
        return _knowing(made) if change else made


def _knowing(made: Any) -> Any:
    class Knowing(made):
        def __init__(self, *args: Any, **kwargs: Any) -> None:
            super().__init__(*args, **kwargs)
            for field in self.fields.values():
                is_many = isinstance(field, forms.ModelMultipleChoiceField)
                is_secret = isinstance(field.widget, forms.PasswordInput)
                field.show_hidden_initial = not (field.disabled or is_many or is_secret)

    return Knowing


class UncountedMixin(CarefulMixin):
    """A list that reads the rows it shows: it counts none, for pages or filters, and has the one order of an index."""

    sortable_by: Sequence[str] = ()
    paginator = InfinitePaginator
    show_full_result_count = False
    show_facets = admin.ShowFacets.NEVER
    list_per_page = 50


class ReadOnlyAdmin(ReadOnlyMixin, UncountedMixin, ModelAdmin):
    """A list and a page of rows that nobody edits."""


class MadeFilter(admin.SimpleListFilter):
    """By when a row was made, for tables whose ids sort by time: a range of the primary key."""

    title = "made"
    parameter_name = "made"
    prefix: ClassVar[str]  # of the ids
    AGES: ClassVar = {
        "hour": dt.timedelta(hours=1),
        "day": dt.timedelta(days=1),
        "3days": dt.timedelta(days=3),
        "week": dt.timedelta(days=7),
        "month": dt.timedelta(days=30),
    }

    def lookups(self, request: HttpRequest, model_admin: Any) -> list[tuple[str, str]]:
        """Offer a few ages."""
        names = ("in the last hour", "in the last day", "in three days", "in a week", "in 30 days")
        return list(zip(self.AGES, names, strict=True))

    def queryset(self, request: HttpRequest, queryset: QuerySet[Any]) -> QuerySet[Any]:
        """Keep what is not older."""
        age = self.AGES.get(self.value() or "")
        return queryset.filter(pk__gte=ids.first(self.prefix, at=clock.now() - age)) if age else queryset


class ReadOnlyInline(ReadOnlyMixin, TabularInline):
    """Rows of another table on a page, read-only."""

    extra = 0
    can_delete = False
    show_change_link = True
