"""Staff pages of the providers: channels and routes to edit, jobs and calls to look at."""

from typing import Any

from django import forms
from django.contrib import admin
from django.http import HttpRequest
from unfold.admin import ModelAdmin

from accounts.staff import ReadOnlyAdmin, ReadOnlyInline
from providers import adapters, channels
from providers.models import Channel, Route, UpstreamCall, UpstreamJob


class ChannelForm(forms.ModelForm):  # type: ignore[type-arg] # not subscriptable at run time
    """A channel; the credential can be set anew and is never shown."""

    adapter = forms.ChoiceField(choices=[(name, name) for name in adapters.ADAPTERS])
    credential = forms.CharField(
        required=False,
        widget=forms.PasswordInput(attrs={"autocomplete": "off"}),
        help_text="Leave empty to keep the present one. It is stored encrypted and never shown.",
    )

    class Meta:
        model = Channel
        fields = ["name", "adapter", "base_url", "state"]


@admin.register(Channel)
class ChannelAdmin(ModelAdmin):
    """Configured accounts at providers; one with jobs cannot be deleted."""

    form = ChannelForm
    list_display = ["name", "adapter", "base_url", "state"]
    list_filter = ["state", "adapter"]

    def save_model(self, request: HttpRequest, obj: Channel, form: Any, change: bool) -> None:
        """Save the channel, and seal its credential where a new one was typed."""
        super().save_model(request, obj, form, change)
        if form.cleaned_data.get("credential"):
            channels.set_credential(channel=obj, credential=form.cleaned_data["credential"])


@admin.register(Route)
class RouteAdmin(ModelAdmin):
    """Which channel serves which public model."""

    list_display = ["model", "traffic", "channel", "upstream_model", "priority", "weight", "is_active"]
    list_filter = ["traffic", "is_active", "channel"]
    list_select_related = ["channel"]


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
    list_filter = ["status", "traffic", "channel"]
    list_select_related = ["channel"]
    search_fields = ["=reference", "=upstream_id"]
    ordering = ["-id"]
    exclude = ["lease_token", "callback_token_digest"]
    inlines = [UpstreamCallInline]


@admin.register(UpstreamCall)
class UpstreamCallAdmin(ReadOnlyAdmin):
    """Exchanges with providers, redacted."""

    list_display = ["started_at", "job", "kind", "status_code", "duration_ms"]
    list_filter = ["kind"]
    list_select_related = ["job"]
    ordering = ["-id"]
