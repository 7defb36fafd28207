"""What every staff page shares: rows that the admin shows and never changes."""

from django.db.models import Model
from django.http import HttpRequest
from unfold.admin import ModelAdmin, TabularInline


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


class ReadOnlyAdmin(ReadOnlyMixin, ModelAdmin):
    """A list and a page of rows that nobody edits; large tables are not counted."""

    show_full_result_count = False
    list_per_page = 50


class ReadOnlyInline(ReadOnlyMixin, TabularInline):
    """Rows of another table on a page, read-only."""

    extra = 0
    can_delete = False
    show_change_link = True
