"""Staff pages of the providers: channels and routes to edit, jobs and calls to look at."""

from typing import Any
from urllib.parse import urlsplit

from django import forms
from django.contrib import admin
from django.db.models import QuerySet
from django.http import HttpRequest
from unfold.admin import ModelAdmin

from accounts.staff import ReadOnlyAdmin, ReadOnlyInline
from providers import adapters, channels, health
from providers.models import Channel, ChannelHealth, Credential, Route, UpstreamCall, UpstreamJob
from seedancee2.lib import clock


class ChannelForm(forms.ModelForm):  # type: ignore[type-arg] # not subscriptable at run time
    """A channel; its secrets can be set anew and are never shown."""

    adapter = forms.ChoiceField(choices=[(name, name) for name in adapters.ADAPTERS])
    credential = forms.CharField(
        required=False,
        widget=forms.PasswordInput(attrs={"autocomplete": "off"}),
        help_text="Leave empty to keep the present one. It is stored encrypted and never shown; jobs under way keep "
        "the one that they were sent with.",
    )
    callback_secret = forms.CharField(
        required=False,
        widget=forms.PasswordInput(attrs={"autocomplete": "off"}),
        help_text="What the provider signs its callbacks with, where it is configured by hand. Never shown.",
    )

    class Meta:
        model = Channel
        fields = [
            "name",
            "adapter",
            "base_url",
            "state",
            "max_open",
            "max_submits_per_minute",
            "max_polls_per_second",
            "unknown_policy",
            "unknown_grace_seconds",
            "output_hosts",
            "options",
        ]

    def clean_adapter(self) -> str:
        """Refuse another adapter for a channel that has jobs: theirs could no longer be asked for."""
        name: str = self.cleaned_data["adapter"]
        if self.instance.pk and name != self.initial.get("adapter") and self.instance.jobs.exists():
            raise forms.ValidationError("This channel has jobs of another adapter; make a new channel instead.")
        return name

    def clean(self) -> dict[str, Any]:
        """Let the keys of a channel go to no other host: whoever moves it has to know the new key."""
        data = super().clean() or self.cleaned_data
        before, after = (urlsplit(url or "") for url in (self.initial.get("base_url"), data.get("base_url")))
        if self.instance.pk and (before.scheme, before.netloc) != (after.scheme, after.netloc):
            if self.instance.jobs.filter(status__in=UpstreamJob.SENT).exists():
                self.add_error("base_url", "Jobs are under way at the present address; drain the channel first.")
            elif self.instance.credentials.exists() and not data.get("credential"):
                self.add_error("credential", "Type the key again: the present one is not sent to another host.")
        return data


class ChannelHealthInline(ReadOnlyInline):
    """What the circuit breakers hold against the channel."""

    model = ChannelHealth
    fields = ["upstream_model", "failure_count", "open_until", "paused_until", "reason", "detail", "changed_at"]
    readonly_fields = fields


class CredentialInline(ReadOnlyInline):
    """Which keys the channel has had; the newest is the one that new jobs take."""

    model = Credential
    fields = ["id", "created_at"]
    readonly_fields = fields
    ordering = ["-id"]
    show_change_link = False


@admin.register(Channel)
class ChannelAdmin(ModelAdmin):
    """Configured accounts at providers; one with jobs can be drained or switched off, never deleted."""

    form = ChannelForm
    list_display = ["name", "adapter", "base_url", "state", "breaker", "open_jobs", "max_open"]
    list_filter = ["state", "adapter"]
    inlines = [ChannelHealthInline, CredentialInline]
    actions = ["drain", "forget_failures"]

    @admin.display(description="Breaker")
    def breaker(self, channel: Channel) -> str:
        """Tell in a word how the channel does."""
        now = clock.now()
        rows = list(channel.health.all())
        if any(row.open_until and row.open_until > now for row in rows):
            return "open"
        if any(row.open_until for row in rows):
            return "half-open"
        return "paused" if any(row.paused_until and row.paused_until > now for row in rows) else "closed"

    @admin.display(description="Open jobs")
    def open_jobs(self, channel: Channel) -> int:
        """Count the jobs that the provider has of this channel."""
        return channel.jobs.filter(status__in=UpstreamJob.SENT).count()

    @admin.action(description="Drain: send no new jobs, finish those under way", permissions=["change"])
    def drain(self, request: HttpRequest, queryset: QuerySet[Channel]) -> None:
        """Take channels out of the routing."""
        for channel in queryset.filter(state=Channel.State.ACTIVE):
            channel.state = Channel.State.DRAINING
            channel.save(update_fields=["state"])
            self.log_change(request, channel, "Drained.")

    @admin.action(description="Forget failures: close the breakers now", permissions=["change"])
    def forget_failures(self, request: HttpRequest, queryset: QuerySet[Channel]) -> None:
        """Close the breakers of channels that were mended."""
        for channel in queryset:
            if health.reset(channel):
                self.log_change(request, channel, "Failures forgotten.")

    def get_queryset(self, request: HttpRequest) -> QuerySet[Channel]:
        """Fetch the health of all channels together."""
        return super().get_queryset(request).prefetch_related("health")  # type: ignore[no-any-return] # the theme has no types

    def has_delete_permission(self, request: HttpRequest, obj: Channel | None = None) -> bool:
        """Jobs keep their channel, so that what was paid for can always be asked for."""
        return super().has_delete_permission(request, obj) and not (obj is not None and obj.jobs.exists())

    def save_model(self, request: HttpRequest, obj: Channel, form: Any, change: bool) -> None:
        """Save the channel, and seal its secrets where new ones were typed."""
        super().save_model(request, obj, form, change)
        if form.cleaned_data.get("credential"):
            channels.set_credential(channel=obj, credential=form.cleaned_data["credential"])
        if form.cleaned_data.get("callback_secret"):
            channels.set_callback_secret(channel=obj, secret=form.cleaned_data["callback_secret"])


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
    list_filter = ["status", "traffic", "channel", ("late_at", admin.EmptyFieldListFilter)]
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
