"""Webhooks for the staff: deliveries to have sent again, endpoints to try; no signing secret is shown."""

from typing import Any, cast

from django.contrib import admin, messages
from django.contrib.admin import helpers
from django.db.models import QuerySet
from django.http import Http404, HttpRequest, HttpResponse
from django.shortcuts import redirect, render
from django.urls import reverse
from unfold.decorators import action

from accounts import audit
from accounts.models import User
from accounts.staff import ReadOnlyAdmin, ReadOnlyInline
from seedancee2.api.errors import PublicError
from seedancee2.lib import clock
from webhooks import deliveries, interventions, replies, samples
from webhooks.admin_forms import DeliveryMadeFilter, ReasonForm, StaffRecoverForm, StaffSampleForm
from webhooks.lookups import of_address
from webhooks.models import Callback, Delivery, DeliveryAttempt, Endpoint

MOST_AT_ONCE = 200  # webhooks sent again together, each of which the page before it names


class DeliveryAttemptInline(ReadOnlyInline):
    """What came of each POST."""

    model = DeliveryAttempt
    fields = ("number", "started_at", "duration_ms", "status_code", "error", "response_excerpt")
    readonly_fields = fields
    ordering = ("number",)
    show_change_link = False


@admin.register(Delivery)
class DeliveryAdmin(ReadOnlyAdmin):
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
    list_filter = ("state", DeliveryMadeFilter)
    list_select_related = ("organization",)
    search_fields = ("delivery_id__exact", "reference__exact")
    search_help_text = "The id of a delivery, or of the task that it tells of."
    ordering = ("-delivery_id",)
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
    actions_list = ("recover", "send_test")

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
        chosen = list(rows.defer("body").select_related("organization")[: MOST_AT_ONCE + 1])
        if not chosen or len(chosen) > MOST_AT_ONCE:
            problem = f"Choose 1 to {MOST_AT_ONCE} webhooks. “Recover failed” sends all that one customer did not get."
            self.message_user(request, problem, messages.ERROR)
            return redirect(back)
        form = ReasonForm(request.POST if is_sent else None)
        if is_sent and form.is_valid():
            for row in chosen:
                self._redeliver_one(request, row, form.cleaned_data["reason"])
            return redirect(back)
        context = {
            "title": "Send this webhook again?" if len(chosen) == 1 else f"Send {len(chosen)} webhooks again?",
            "text": "The same body goes out under the same id; what had ended begins its 12 attempts anew.",
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
            "text": "Each begins its 12 attempts anew, under the id that it had.",
            "verb": "Send them again",
            "back": reverse("admin:webhooks_delivery_changelist"),
            "form": form,
        }
        return self._ask(request, context)

    @action(description="Send a test", url_path="send-test", permissions=["redeliver"], icon="send")
    def send_test(self, request: HttpRequest) -> HttpResponse:
        """Try a customer's receiver with a sample, and show what it answered; nothing else is kept of it."""
        form = StaffSampleForm(request.POST or None)
        context: dict[str, Any] = {}
        if form.is_valid():
            organization, url, event = (form.cleaned_data[name] for name in ("organization", "url", "event"))
            audit.note(
                organization_id=organization.pk,
                actor=cast(User, request.user),
                action="webhook.tested",
                target=url[:300],
                after={"event": event},
                reason=form.cleaned_data["reason"],
            )
            try:
                context["sample"] = replies.sample(samples.send(organization=organization, url=url, event=event))
            except PublicError as error:
                form.add_error(None, error.message)
        context |= {
            "title": "Send a test webhook",
            "text": "A sample of the event goes out once, signed as the organization's real ones are.",
            "verb": "Send the test",
            "back": reverse("admin:webhooks_delivery_changelist"),
            "form": form,
        }
        return self._ask(request, context, template="admin/webhooks/test.html")

    def _ask(
        self, request: HttpRequest, context: dict[str, Any], template: str = "admin/staff/act.html"
    ) -> HttpResponse:
        shared = self.admin_site.each_context(request) | {"opts": self.opts}
        return render(request, template, shared | context)


class FailingFilter(admin.SimpleListFilter):
    """Endpoints that fail, and those of them that are paused for it."""

    title = "state"
    parameter_name = "state"

    def lookups(self, request: HttpRequest, model_admin: Any) -> list[tuple[str, str]]:
        """Offer what somebody looks for."""
        return [("failing", "failing"), ("paused", "paused")]

    def queryset(self, request: HttpRequest, queryset: QuerySet[Endpoint]) -> QuerySet[Endpoint]:
        """Keep those that fail; they have an index."""
        if self.value() == "failing":
            return queryset.filter(failing_since__isnull=False)
        if self.value() == "paused":
            return queryset.filter(failing_since__isnull=False, paused_until__gt=clock.now())
        return queryset


@admin.register(Endpoint)
class EndpointAdmin(ReadOnlyAdmin):
    """Where customers' webhooks go: an organization's scheme, host and port, with the breaker that spares it."""

    list_display = (
        "origin",
        "organization",
        "breaker",
        "failure_count",
        "failing_since",
        "paused_until",
        "last_error",
    )
    list_filter = (FailingFilter,)
    list_select_related = ("organization",)
    search_fields = ("origin",)
    search_help_text = "A host, or a whole callback URL."
    ordering = ("-pk",)
    fields = (
        "organization",
        "origin",
        "breaker",
        "standing",
        "failure_count",
        "failing_since",
        "last_error",
        "trip_count",
        "paused_until",
        "told_at",
    )
    actions_detail = ("try_now",)

    def get_search_results(
        self, request: HttpRequest, queryset: QuerySet[Endpoint], search_term: str
    ) -> tuple[QuerySet[Endpoint], bool]:
        """Find the endpoints of an address."""
        if not search_term.strip():
            return queryset, False
        found = of_address(search_term.strip())
        return (queryset.filter(found) if found is not None else queryset.none()), False

    @admin.display(description="Breaker")
    def breaker(self, endpoint: Endpoint) -> str:
        """Say in a word whether anything is sent there."""
        if endpoint.paused_until is None:
            return "closed"
        return "open" if endpoint.paused_until > clock.now() else "half-open"

    def has_try_permission(self, request: HttpRequest, object_id: str | None = None) -> bool:
        """Who may have a paused endpoint tried: those who may have deliveries sent again."""
        return bool(request.user.has_perms(("webhooks.redeliver_delivery", "webhooks.view_endpoint")))

    @action(description="Try now", url_path="try-now", permissions=["try"], icon="sync")
    def try_now(self, request: HttpRequest, object_id: str) -> HttpResponse:
        """Ask why, then let one delivery through the pause."""
        endpoint = self.get_object(request, object_id)
        if endpoint is None:
            raise Http404
        back = reverse("admin:webhooks_endpoint_change", args=[endpoint.pk])
        form = ReasonForm(request.POST or None)
        if form.is_valid():
            try:
                interventions.try_now(
                    endpoint_id=endpoint.pk, actor=cast(User, request.user), reason=form.cleaned_data["reason"]
                )
            except interventions.NotPossible as error:
                self.message_user(request, str(error), messages.ERROR)
            else:
                self.message_user(request, f"{endpoint.origin} is tried now.", messages.SUCCESS)
            return redirect(back)
        context = self.admin_site.each_context(request) | {
            "opts": self.opts,
            "original": endpoint,
            "title": f"Try now: {endpoint.origin}",
            "text": "The next of its deliveries goes out at once, as a probe. If it arrives, the pause ends and every "
            "failure is forgotten; if not, the endpoint is paused again, for longer.",
            "verb": "Try now",
            "back": back,
            "form": form,
        }
        return render(request, "admin/staff/act.html", context)


@admin.register(Callback)
class CallbackAdmin(ReadOnlyAdmin):
    """What providers called back with; their bodies stay in the database, since they may hold addresses that open."""

    list_display = ["received_at", "job", "verdict", "repeat_count", "detail"]
    list_filter = ["verdict"]
    list_select_related = ["job"]
    ordering = ["-id"]
    fields = ["received_at", "job", "verdict", "repeat_count", "detail", "headers"]
