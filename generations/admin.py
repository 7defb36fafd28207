"""Staff pages of the product: models to edit, runs of reconciliation to look at. Tasks have a module of their own."""

from django.contrib import admin
from django.http import HttpRequest

from accounts.audited import AuditedAdmin
from accounts.staff import ReadOnlyAdmin
from generations.admin_tasks import GenerationAdmin
from generations.models import ModelAlias, PublicModel, ReconciliationRun

__all__ = ["GenerationAdmin", "ModelAliasAdmin", "PublicModelAdmin", "ReconciliationRunAdmin"]


@admin.register(PublicModel)
class PublicModelAdmin(AuditedAdmin):
    """Models as customers know them."""

    list_display = ["name", "position", "is_active", "resolutions", "min_duration", "max_duration"]
    ordering = ["position"]

    def has_delete_permission(self, request: HttpRequest, obj: PublicModel | None = None) -> bool:
        """A model that was sold stays; it is made inactive instead."""
        return False


@admin.register(ModelAlias)
class ModelAliasAdmin(AuditedAdmin):
    """Old names that are still understood."""

    list_display = ["alias", "model"]


@admin.register(ReconciliationRun)
class ReconciliationRunAdmin(ReadOnlyAdmin):
    """The looks of reconciliation in the last thirty days."""

    list_display = ["finished_at", "is_whole", "finding_count", "started_at"]
    list_filter = ["is_whole"]
    ordering = ["-finished_at"]
