"""Staff pages of the providers: jobs and calls to look at. Channels and routes have a module of their own."""

from django.contrib import admin
from django.db.models import QuerySet
from django.http import HttpRequest

from accounts.staff import ReadOnlyAdmin, ReadOnlyInline
from providers.admin_channels import ChannelAdmin, ChannelForm, RouteAdmin
from providers.lookups import of_upstream_id
from providers.models import UpstreamCall, UpstreamJob

__all__ = ["ChannelAdmin", "ChannelForm", "RouteAdmin", "UpstreamCallAdmin", "UpstreamJobAdmin"]


class UpstreamCallInline(ReadOnlyInline):
    """The calls made for a job, newest first."""

    model = UpstreamCall
    fields = ["started_at", "kind", "status_code", "duration_ms", "request", "response"]
    readonly_fields = fields
    ordering = ["-id"]


@admin.register(UpstreamJob)
class UpstreamJobAdmin(ReadOnlyAdmin):
    """Submissions to providers."""

    list_display = ["__str__", "status", "model", "traffic", "channel", "upstream_id", "created_at", "finished_at"]
    list_filter = ["status", "traffic", "channel", ("late_at", admin.EmptyFieldListFilter)]
    list_select_related = ["channel"]
    search_fields = ["reference"]
    search_help_text = "The whole id of a task, or the provider's whole id of a job."
    ordering = ["-id"]
    exclude = ["lease_token", "callback_token_digest"]
    inlines = [UpstreamCallInline]

    def get_search_results(
        self, request: HttpRequest, queryset: QuerySet[UpstreamJob], search_term: str
    ) -> tuple[QuerySet[UpstreamJob], bool]:
        """Find jobs by what an index leads to."""
        term = search_term.strip()
        if not term:
            return queryset, False
        if term.startswith("vid_"):
            return queryset.filter(reference=term), False
        return queryset.filter(of_upstream_id(term)), False


@admin.register(UpstreamCall)
class UpstreamCallAdmin(ReadOnlyAdmin):
    """Exchanges with providers, redacted."""

    list_display = ["started_at", "job", "kind", "status_code", "duration_ms"]
    list_select_related = ["job"]
    ordering = ["-id"]
