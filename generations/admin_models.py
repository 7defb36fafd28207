"""The staff's page of a model: what a change does to customers is shown before it can be saved, with a reason."""

from collections.abc import Iterator
from typing import Any

from django import forms
from django.contrib import admin
from django.http import HttpRequest, HttpResponse
from django.urls import reverse
from unfold.widgets import UnfoldAdminTextInputWidget

from accounts.audited import AuditedAdmin
from accounts.staff_actions import MAX_REASON_LENGTH, ask
from billing import rates
from generations.models import PublicModel
from seedancee2.lib import clock


class PublicModelForm(forms.ModelForm):  # type: ignore[type-arg] # not subscriptable at run time
    """A model, and why it is changed."""

    reason = forms.CharField(
        max_length=MAX_REASON_LENGTH,
        widget=UnfoldAdminTextInputWidget(attrs={"autocomplete": "off"}),
        help_text="Kept in the audit log for good. The customer does not read it.",
    )

    class Meta:
        model = PublicModel
        fields = ["name", "position", "is_active", "resolutions", "min_duration", "max_duration"]


@admin.register(PublicModel)
class PublicModelAdmin(AuditedAdmin):
    """Models as customers know them."""

    form = PublicModelForm
    list_display = ["name", "position", "is_active", "resolutions", "min_duration", "max_duration"]
    ordering = ["position"]

    def get_fields(self, request: HttpRequest, obj: PublicModel | None = None) -> list[str]:
        """Ask only those for a reason who may change something."""
        fields = list(super().get_fields(request, obj))
        may = self.has_change_permission(request, obj) if obj else self.has_add_permission(request)
        return [name for name in fields if may or name != "reason"]

    def get_readonly_fields(self, request: HttpRequest, obj: PublicModel | None = None) -> tuple[str, ...]:
        """Keep the name, by which tasks and routes know a model."""
        return ("name",) if obj else ()

    def changeform_view(
        self,
        request: HttpRequest,
        object_id: str | None = None,
        form_url: str = "",
        extra_context: dict[str, Any] | None = None,
    ) -> HttpResponse:
        """Show what a change does to customers; save it once that was seen."""
        before = self.get_object(request, object_id) if object_id else None
        may = self.has_change_permission(request, before) if object_id else self.has_add_permission(request)
        if request.method == "POST" and may and (before or not object_id):
            row = self.get_object(request, object_id) if object_id else None
            form = self.get_form(request, row, change=row is not None)(request.POST, instance=row)
            if form.is_valid():
                effects = list(_effects(before, form.instance))
                if request.POST.get("seen") != "|".join(effects):
                    return self._preview(request, before, form.instance, effects)
        response: HttpResponse = super().changeform_view(request, object_id, form_url, extra_context)
        return response

    def has_delete_permission(self, request: HttpRequest, obj: PublicModel | None = None) -> bool:
        """A model that was sold stays; it is made inactive instead."""
        return False

    def _preview(
        self, request: HttpRequest, before: PublicModel | None, after: PublicModel, effects: list[str]
    ) -> HttpResponse:
        sent = [(name, value) for name, values in request.POST.lists() for value in values]
        page = ("change", [before.pk]) if before else ("add", [])
        return ask(
            request,
            self,
            title=f"Save {after}?",
            text="This is what customers notice, within a second. Tasks that were created before are finished.",
            verb="Save",
            form=forms.Form(),
            back=reverse(f"admin:generations_publicmodel_{page[0]}", args=page[1]),
            items=effects,
            hidden=[
                *((name, str(value)) for name, value in sent if name not in ("seen", "csrfmiddlewaretoken")),
                ("seen", "|".join(effects)),
            ],
            original=before,
        )


def _effects(before: PublicModel | None, after: PublicModel) -> Iterator[str]:
    """Say in sentences what customers notice of a change."""
    old = before if before and before.is_active else None
    if not after.is_active:
        yield f"Requests for {after} are refused." if old else f"Customers do not see {after} while it is inactive."
        return
    for name in after.resolutions:
        if old is None or name not in old.resolutions:
            yield f"Requests for {after} at {name} are taken, {_price(after.name, name)}."
    for name in old.resolutions if old else ():
        if name not in after.resolutions:
            yield f"Requests for {after} at {name} are refused."
    durations = (after.min_duration, after.max_duration)
    if old is None or durations != (old.min_duration, old.max_duration):
        instead = f" instead of {old.min_duration} to {old.max_duration}" if old else ""
        yield f"A video may last {durations[0]} to {durations[1]} seconds{instead}."
    if old is None or after.position != old.position:
        yield f"In the list of models {after} stands at position {after.position}."
    elif after.resolutions == old.resolutions and durations == (old.min_duration, old.max_duration):
        yield "Nothing changes for customers."


def _price(model: str, resolution: str) -> str:
    try:
        return f"for {rates.in_effect(model=model, resolution=resolution, at=clock.now())} credits a second"
    except rates.NoRate:
        return "but have no rate yet: add one first"
