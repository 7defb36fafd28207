"""Staff pages of the product: models to edit, tasks to look at."""

import json

from django.contrib import admin
from django.http import HttpRequest
from django.urls import reverse
from django.utils.html import format_html, format_html_join
from django.utils.http import urlencode
from django.utils.safestring import SafeString
from unfold.admin import ModelAdmin

from accounts.staff import ReadOnlyAdmin, ReadOnlyInline
from generations.models import Generation, ModelAlias, OutputAsset, PublicModel


@admin.register(PublicModel)
class PublicModelAdmin(ModelAdmin):
    """Models as customers know them."""

    list_display = ["name", "position", "is_active", "resolutions", "min_duration", "max_duration"]
    ordering = ["position"]

    def has_delete_permission(self, request: HttpRequest, obj: PublicModel | None = None) -> bool:
        """A model that was sold stays; it is made inactive instead."""
        return False


@admin.register(ModelAlias)
class ModelAliasAdmin(ModelAdmin):
    """Old names that are still understood."""

    list_display = ["alias", "model"]


class OutputAssetInline(ReadOnlyInline):
    """The stored files of a task."""

    model = OutputAsset
    fields = ["kind", "path", "size_bytes", "duration_ms", "width", "height", "stored_at"]
    readonly_fields = fields


@admin.register(Generation)
class GenerationAdmin(ReadOnlyAdmin):
    """Customers' tasks, newest first."""

    list_display = [
        "public_id",
        "organization",
        "model",
        "status",
        "is_test",
        "credits",
        "credits_refunded",
        "error_code",
        "created_at",
        "finished_at",
    ]
    list_filter = ["status", "model", "is_test", "error_code"]
    list_select_related = ["organization"]
    search_fields = ["=public_id"]
    ordering = ["-created_at", "-public_id"]
    exclude = ["input", "metadata"]
    readonly_fields = ["related", "input_shown", "metadata_shown"]
    inlines = [OutputAssetInline]

    @admin.display(description="see also")
    def related(self, generation: Generation) -> SafeString:
        """Link to the rows that other apps keep for this task."""
        places = {
            "jobs and calls": "admin:providers_upstreamjob_changelist",
            "webhooks": "admin:webhooks_delivery_changelist",
            "ledger": "admin:billing_ledgerentry_changelist",
        }
        links = ((f"{reverse(name)}?{urlencode({'q': generation.public_id})}", text) for text, name in places.items())
        return format_html_join(" · ", '<a href="{}" class="text-primary-600">{}</a>', links)

    @admin.display(description="input")
    def input_shown(self, generation: Generation) -> SafeString:
        """Show the input as indented JSON."""
        return _indented(generation.input)

    @admin.display(description="metadata")
    def metadata_shown(self, generation: Generation) -> SafeString:
        """Show the metadata as indented JSON."""
        return _indented(generation.metadata)


def _indented(data: object) -> SafeString:
    return format_html("<pre>{}</pre>", json.dumps(data, indent=2, ensure_ascii=False))
