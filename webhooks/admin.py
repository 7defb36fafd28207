"""Deliveries and their attempts for the staff, to look at only; signing secrets are not shown to them."""

from django.contrib import admin
from django.http import HttpRequest
from unfold.admin import ModelAdmin, TabularInline

from accounts.staff import ReadOnlyAdmin
from webhooks.models import Callback, Delivery, DeliveryAttempt


class DeliveryAttemptInline(TabularInline):
    """What came of each POST."""

    model = DeliveryAttempt
    fields = ("number", "started_at", "duration_ms", "status_code", "error", "response_excerpt")
    readonly_fields = fields
    ordering = ("number",)
    extra = 0
    can_delete = False
    show_change_link = False

    def has_add_permission(self, request: HttpRequest, obj: Delivery | None = None) -> bool:
        """Nobody writes attempts by hand."""
        return False

    def has_change_permission(self, request: HttpRequest, obj: DeliveryAttempt | None = None) -> bool:
        """Nobody rewrites what happened."""
        return False


@admin.register(Delivery)
class DeliveryAdmin(ModelAdmin):
    """Events on their way to customers."""

    list_display = (
        "delivery_id",
        "organization",
        "event",
        "reference",
        "state",
        "attempt_count",
        "due_at",
        "created_at",
    )
    list_filter = ("state", "event", "is_test")
    list_select_related = ("organization",)
    search_fields = ("delivery_id__exact", "reference__exact")
    search_help_text = "The id of a delivery, or of the task that it tells of."
    ordering = ("-delivery_id",)
    show_full_result_count = False
    fields = (
        "delivery_id",
        "organization",
        "is_test",
        "event",
        "reference",
        "url",
        "host",
        "body_text",
        "state",
        "attempt_count",
        "created_at",
        "due_at",
        "leased_until",
        "finished_at",
    )
    readonly_fields = fields
    inlines = (DeliveryAttemptInline,)

    @admin.display(description="body")
    def body_text(self, delivery: Delivery) -> str:
        """Show the bytes that every attempt sends."""
        return bytes(delivery.body).decode()

    def has_add_permission(self, request: HttpRequest) -> bool:
        """Only the lifecycle makes deliveries."""
        return False

    def has_change_permission(self, request: HttpRequest, obj: Delivery | None = None) -> bool:
        """Nobody rewrites what was or will be sent."""
        return False

    def has_delete_permission(self, request: HttpRequest, obj: Delivery | None = None) -> bool:
        """Nobody makes an event unsaid."""
        return False


@admin.register(Callback)
class CallbackAdmin(ReadOnlyAdmin):
    """What providers called back with; their bodies stay in the database, since they may hold addresses that open."""

    list_display = ["received_at", "job", "verdict", "repeat_count", "detail"]
    list_filter = ["verdict"]
    list_select_related = ["job"]
    ordering = ["-id"]
    fields = ["received_at", "job", "verdict", "repeat_count", "detail", "headers"]
