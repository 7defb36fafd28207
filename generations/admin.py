"""Staff pages of the product: old names of models, runs of reconciliation. Models and tasks have their own modules."""

from django.contrib import admin

from accounts.audited import AuditedAdmin
from accounts.staff import ReadOnlyAdmin
from generations.admin_models import PublicModelAdmin
from generations.admin_tasks import GenerationAdmin
from generations.models import ModelAlias, ReconciliationRun

__all__ = ["GenerationAdmin", "ModelAliasAdmin", "PublicModelAdmin", "ReconciliationRunAdmin"]


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
