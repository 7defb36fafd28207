"""What the staff's pages of tasks ask for: filters that an index serves, and forms that demand a reason."""

import datetime as dt
from typing import Any

from django import forms
from django.contrib import admin
from django.db.models import QuerySet
from django.http import HttpRequest
from unfold.widgets import UnfoldAdminIntegerFieldWidget, UnfoldAdminSelectWidget, UnfoldAdminTextInputWidget

from accounts.staff import MadeFilter
from billing import adjustments
from generations import interventions
from generations.models import Generation, PublicModel
from providers.models import Channel
from seedancee2.lib import clock

ANY = "any"


class TaskMadeFilter(MadeFilter):
    """By when a task was made."""

    prefix = "vid"


class ModelFilter(admin.SimpleListFilter):
    """By public model; the names come from the short table of models, not from all tasks."""

    title = "model"
    parameter_name = "model"

    def lookups(self, request: HttpRequest, model_admin: Any) -> list[tuple[str, str]]:
        """Offer every model that was ever sold."""
        return [(name, name) for name in PublicModel.objects.order_by("position").values_list("name", flat=True)]

    def queryset(self, request: HttpRequest, queryset: QuerySet[Generation]) -> QuerySet[Generation]:
        """Keep the tasks of the chosen model."""
        return queryset.filter(model=self.value()) if self.value() else queryset


class AgeFilter(admin.SimpleListFilter):
    """Open tasks by how long they have been open."""

    title = "open for"
    parameter_name = "open_for"

    def lookups(self, request: HttpRequest, model_admin: Any) -> list[tuple[str, str]]:
        """Offer the front page's ages, in minutes."""
        return [("0", "any time"), ("5", "5 minutes"), ("15", "15 minutes"), ("60", "an hour"), ("late", "too long")]

    def queryset(self, request: HttpRequest, queryset: QuerySet[Generation]) -> QuerySet[Generation]:
        """Keep open tasks; `late` ones are past their deadline."""
        value, now = self.value(), clock.now()
        if value == "late":
            return queryset.filter(status__in=Generation.OPEN, deadline_at__lt=now)
        if value and value.isdecimal() and len(value) < 6:
            return queryset.filter(status__in=Generation.OPEN, created_at__lte=now - dt.timedelta(minutes=int(value)))
        return queryset


class ReasonForm(forms.Form):
    """Why: no change by hand without it."""

    reason = forms.CharField(
        max_length=interventions.MAX_REASON_LENGTH,
        widget=UnfoldAdminTextInputWidget(attrs={"autocomplete": "off"}),
        help_text="Kept in the audit log for good. The customer does not read it.",
    )


class RefundReasonForm(ReasonForm):
    """Why credits are given back, which the organization reads beside them."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.fields["reason"].help_text = "Kept in the ledger for good, where the customer reads it: name no provider."


class RefundForm(RefundReasonForm):
    """How many credits go back; `refunded_before` makes a second click harmless."""

    amount = forms.IntegerField(min_value=1, max_value=adjustments.MAX_AMOUNT, widget=UnfoldAdminIntegerFieldWidget)
    refunded_before = forms.IntegerField(min_value=0, widget=forms.HiddenInput)
    field_order = ("amount", "reason")


class MoveForm(ReasonForm):
    """Which channel the next submission goes to."""

    channel = forms.ChoiceField(widget=UnfoldAdminSelectWidget)
    field_order = ("channel", "reason")

    def __init__(self, *args: Any, channels: list[Channel], **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        choices = [(str(channel.pk), channel.name) for channel in channels]
        self.fields["channel"].choices = [*choices, (ANY, "any, as the routes say")]  # type: ignore[attr-defined]
