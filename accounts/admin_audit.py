"""The staff's page of the audit log; nobody edits or deletes an entry, not even here."""

from django.contrib import admin
from unfold.paginator import InfinitePaginator

from accounts.models import AuditEntry
from accounts.staff import ReadOnlyAdmin


@admin.register(AuditEntry)
class AuditEntryAdmin(ReadOnlyAdmin):
    """Who did what, the newest first, of all organizations and of the staff themselves."""

    list_display = ("created_at", "actor_name", "action", "target", "organization", "reason")
    list_select_related = ("organization",)
    ordering = ("-pk",)
    paginator = InfinitePaginator
    show_facets = admin.ShowFacets.NEVER
    fields = (
        *("created_at", "actor_name", "is_by_staff", "address", "organization"),
        *("action", "target", "before", "after", "reason"),
    )
