"""What every staff page shares: rows that the admin shows and never changes, and lists quick at any length."""

import datetime as dt
from collections.abc import Sequence
from typing import Any, ClassVar

from django.contrib import admin
from django.db.models import Model, QuerySet
from django.http import HttpRequest
from unfold.admin import ModelAdmin, TabularInline
from unfold.paginator import InfinitePaginator

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


class UncountedMixin:
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
