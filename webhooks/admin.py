"""Deliveries and their attempts for the staff, to look at and to have sent again; no signing secret is shown."""

from typing import Any, cast

from django import forms
from django.contrib import admin, messages
from django.contrib.admin import helpers
from django.db.models import QuerySet
from django.http import Http404, HttpRequest, HttpResponse
from django.shortcuts import redirect, render
from django.urls import reverse
from unfold.admin import ModelAdmin, TabularInline
from unfold.decorators import action
from unfold.widgets import INPUT_CLASSES, UnfoldAdminSelectWidget, UnfoldAdminTextInputWidget

from accounts.models import Organization, User
from accounts.staff import ReadOnlyAdmin
from seedancee2.api.errors import PublicError
from webhooks import deliveries
from webhooks.forms import MODES, RecoverForm
from webhooks.models import Callback, Delivery, DeliveryAttempt


class ReasonForm(forms.Form):
    """Why a member of the staff does what a customer could do."""

    reason = forms.CharField(
        max_length=200, help_text="Kept in the history of what you change.", widget=UnfoldAdminTextInputWidget
    )


class StaffRecoverForm(RecoverForm, ReasonForm):
    """Whose failed deliveries are sent again, and why."""

    organization = forms.ModelChoiceField(Organization.objects.order_by("name"), widget=UnfoldAdminSelectWidget)
    field_order = ("organization", "mode", "since", "reason")

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.fields["mode"].widget = UnfoldAdminSelectWidget(choices=MODES)
        self.fields["since"].widget.attrs["class"] = " ".join(INPUT_CLASSES)


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
        "schedule_base",
        "created_at",
        "due_at",
        "leased_until",
        "finished_at",
        "first_delivered_at",
    )
    readonly_fields = fields
    inlines = (DeliveryAttemptInline,)
    actions = ("redeliver_selected",)
    actions_detail = ("redeliver",)
    actions_list = ("recover",)

    @admin.display(description="body")
    def body_text(self, delivery: Delivery) -> str:
        """Show the bytes that every attempt sends."""
        return bytes(delivery.body).decode()

    def has_redeliver_permission(self, request: HttpRequest, object_id: str | None = None) -> bool:
        """Who may have deliveries sent again: those who were given exactly that permission."""
        return bool(request.user.has_perm("webhooks.redeliver_delivery"))

    @action(description="Send again", url_path="redeliver", permissions=["redeliver"], icon="redo")
    def redeliver(self, request: HttpRequest, object_id: str) -> HttpResponse:
        """Ask why, then have the delivery sent again."""
        rows = Delivery.objects.filter(pk=object_id)
        if not rows:
            raise Http404
        back = reverse("admin:webhooks_delivery_change", args=[object_id])
        return self._redeliver(request, rows, back=back, is_sent=request.method == "POST")

    @admin.action(description="Send the selected again", permissions=["redeliver"])
    def redeliver_selected(self, request: HttpRequest, queryset: QuerySet[Delivery]) -> HttpResponse:
        """Ask why, then have the deliveries sent again."""
        back = reverse("admin:webhooks_delivery_changelist")
        return self._redeliver(request, queryset, back=back, is_sent="confirmed" in request.POST)

    def _redeliver(self, request: HttpRequest, rows: QuerySet[Delivery], *, back: str, is_sent: bool) -> HttpResponse:
        chosen = list(rows.defer("body").select_related("organization"))
        form = ReasonForm(request.POST if is_sent else None)
        if is_sent and form.is_valid():
            for row in chosen:
                self._redeliver_one(request, row, form.cleaned_data["reason"])
            return redirect(back)
        context = {
            "title": "Send this webhook again?" if len(chosen) == 1 else f"Send {len(chosen)} webhooks again?",
            "question": "The same body goes out under the same id; what had ended begins its 12 attempts anew.",
            "verb": "Send again",
            "back": back,
            "items": [f"{row.pk} of {row.organization} to {row.url}" for row in chosen],
            "form": form,
            "hidden": [
                ("action", "redeliver_selected"),
                ("confirmed", "yes"),
                *((helpers.ACTION_CHECKBOX_NAME, row.pk) for row in chosen),
            ],
        }
        return self._ask(request, context)

    def _redeliver_one(self, request: HttpRequest, row: Delivery, reason: str) -> None:
        try:
            deliveries.redeliver(
                organization_id=row.organization_id,
                is_test=row.is_test,
                delivery_id=row.pk,
                actor=cast(User, request.user),
                reason=reason,
            )
        except PublicError as error:
            self.message_user(request, f"{row.pk}: {error.message}", messages.ERROR)
        else:
            self.log_change(request, row, f"Sent again: {reason}")
            self.message_user(request, f"{row.pk} is being sent again.", messages.SUCCESS)

    @action(description="Recover failed", url_path="recover", permissions=["redeliver"], icon="replay")
    def recover(self, request: HttpRequest) -> HttpResponse:
        """Ask whose and why, then have every delivery sent again that failed since a time."""
        form = StaffRecoverForm(request.POST or None)
        if form.is_valid():
            organization, reason = form.cleaned_data["organization"], form.cleaned_data["reason"]
            try:
                recovery = deliveries.recover(
                    organization_id=organization.pk,
                    is_test=form.cleaned_data["mode"] == "test",
                    since=form.cleaned_data["since"],
                    actor=cast(User, request.user),
                    reason=reason,
                )
            except PublicError as error:
                form.add_error("since", error.message)
            else:
                self.log_change(request, organization, f"Recovered {recovery.count} failed webhooks: {reason}")
                self.message_user(request, f"{organization}: {recovery.sentence}", messages.SUCCESS)
                return redirect("admin:webhooks_delivery_changelist")
        context = {
            "title": "Recover failed webhooks",
            "question": "Each begins its 12 attempts anew, under the id that it had.",
            "verb": "Send them again",
            "back": reverse("admin:webhooks_delivery_changelist"),
            "form": form,
        }
        return self._ask(request, context)

    def _ask(self, request: HttpRequest, context: dict[str, Any]) -> HttpResponse:
        shared = self.admin_site.each_context(request) | {"opts": self.opts}
        return render(request, "admin/webhooks/ask.html", shared | context)

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
