"""Staff pages of channels and routes: limits and keys to set, and what may be done to a channel by hand."""

import datetime as dt
from collections.abc import Callable, Iterator
from typing import Any
from urllib.parse import urlsplit

from django import forms
from django.contrib import admin, messages
from django.db import transaction
from django.db.models import Count, OuterRef, QuerySet, Subquery
from django.http import Http404, HttpRequest, HttpResponse, HttpResponseBase, StreamingHttpResponse
from django.shortcuts import redirect, render
from django.template.loader import render_to_string
from django.urls import reverse
from django.utils.html import format_html
from unfold.decorators import action
from unfold.widgets import INPUT_CLASSES, UnfoldAdminSelectWidget, UnfoldAdminTextInputWidget

from accounts import audit
from accounts.audited import AuditedAdmin
from accounts.models import User
from accounts.staff import ReadOnlyInline
from providers import adapters, channels, figures, interventions, smoke
from providers.models import Channel, ChannelHealth, Credential, Route, UpstreamJob
from seedancee2.lib import charts, clock, lanes

PATIENCE = 240.0  # seconds that a test call may take
_HERE = "<!--checks-->"


class ChannelForm(forms.ModelForm):  # type: ignore[type-arg] # not subscriptable at run time
    """A channel; its secrets can be set anew and are never shown."""

    adapter = forms.ChoiceField(choices=[(name, name) for name in adapters.ADAPTERS], widget=UnfoldAdminSelectWidget)
    credential = forms.CharField(
        required=False,
        widget=forms.PasswordInput(attrs={"autocomplete": "off", "class": " ".join(INPUT_CLASSES)}),
        help_text="Leave empty to keep the present one. It is stored encrypted and never shown; jobs under way keep "
        "the one that they were sent with.",
    )
    callback_secret = forms.CharField(
        required=False,
        widget=forms.PasswordInput(attrs={"autocomplete": "off", "class": " ".join(INPUT_CLASSES)}),
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


class StateForm(forms.Form):
    """Why a channel is taken out or let in."""

    reason = forms.CharField(
        max_length=500,
        widget=UnfoldAdminTextInputWidget(attrs={"autocomplete": "off"}),
        help_text="Kept in the audit log for good.",
    )


class TestCallForm(StateForm):
    """Which of a channel's routes is tried, and why."""

    route = forms.ModelChoiceField(queryset=Route.objects.none(), widget=UnfoldAdminSelectWidget, empty_label=None)
    field_order = ("route", "reason")

    def __init__(self, *args: Any, channel: Channel, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        routes = Route.objects.filter(channel=channel).order_by("model", "traffic")
        self.fields["route"].queryset = routes  # type: ignore[attr-defined]


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
class ChannelAdmin(AuditedAdmin):
    """Configured accounts at providers; one with jobs can be drained or switched off, never deleted."""

    form = ChannelForm
    list_display = ["name", "adapter", "base_url", "state", "breaker", "open_jobs", "max_open"]
    list_filter = ["state", "adapter"]
    inlines = [ChannelHealthInline, CredentialInline]
    actions_detail = ["drain", "switch_off", "activate", "forget_failures", "test_call"]
    change_form_outer_before_template = "admin/providers/channel.html"

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
        return int(getattr(channel, "open_counted", None) or 0)

    def changeform_view(
        self,
        request: HttpRequest,
        object_id: str | None = None,
        form_url: str = "",
        extra_context: dict[str, Any] | None = None,
    ) -> HttpResponse:
        """Show how the channel did in the last day above its form."""
        if request.method == "GET" and object_id and object_id.isdecimal() and self.has_view_permission(request):
            hours = figures.hours(channel_id=int(object_id))
            extra_context = {**(extra_context or {}), "hours": hours, "charts": _charts(hours)}
        response: HttpResponse = super().changeform_view(request, object_id, form_url, extra_context)
        return response

    def get_readonly_fields(self, request: HttpRequest, obj: Channel | None = None) -> tuple[str, ...]:
        """Let the actions alone change the state of a channel: they say what it touches and ask why."""
        return ("state",) if obj else ()

    def has_drain_permission(self, request: HttpRequest, object_id: str | None = None) -> bool:
        """Offer to drain a channel that is not draining."""
        return self._may_become(request, object_id, Channel.State.DRAINING)

    def has_switch_off_permission(self, request: HttpRequest, object_id: str | None = None) -> bool:
        """Offer to switch a channel off that is not."""
        return self._may_become(request, object_id, Channel.State.OFF)

    def has_activate_permission(self, request: HttpRequest, object_id: str | None = None) -> bool:
        """Offer to activate a channel that is not active."""
        return self._may_become(request, object_id, Channel.State.ACTIVE)

    @action(description="Drain", url_path="drain", permissions=["drain"], icon="water_drop")
    def drain(self, request: HttpRequest, object_id: str) -> HttpResponse:
        """Show what it touches, then send no new jobs and finish those under way."""
        return self._set_state(request, object_id, "Drain", Channel.State.DRAINING)

    @action(description="Switch off", url_path="switch-off", permissions=["switch_off"], icon="power_settings_new")
    def switch_off(self, request: HttpRequest, object_id: str) -> HttpResponse:
        """Show what it touches, then send no new jobs; those under way are still asked for."""
        return self._set_state(request, object_id, "Switch off", Channel.State.OFF)

    @action(description="Activate", url_path="activate", permissions=["activate"], icon="play_arrow")
    def activate(self, request: HttpRequest, object_id: str) -> HttpResponse:
        """Let the channel take jobs again."""
        return self._set_state(request, object_id, "Activate", Channel.State.ACTIVE)

    @action(description="Forget failures", url_path="forget-failures", permissions=["change"], icon="healing")
    def forget_failures(self, request: HttpRequest, object_id: str) -> HttpResponse:
        """Close the breakers of a channel that was mended."""
        channel = self._find(request, object_id)
        return self._act(
            request,
            channel,
            "Forget failures",
            "Its breakers close now, and the next tasks go there at once. Mend what opened them first.",
            lambda reason: interventions.forget_failures(channel=channel, actor=_staff(request), reason=reason),
        )

    @action(description="Test call", url_path="test-call", permissions=["change"], icon="science")
    def test_call(self, request: HttpRequest, object_id: str) -> HttpResponseBase:
        """Make one real video of 4 seconds and show each check as it is made."""
        channel = self._find(request, object_id)
        form = TestCallForm(request.POST or None, channel=channel)
        context = self._context(request, channel, "Test call") | {
            "form": form,
            "text": f"This makes one video of {smoke.DURATION} seconds at {channel.base_url or channel.adapter}, "
            "which the provider charges us for; no customer and no task of ours is touched. "
            f"It may take {PATIENCE / 60:.0f} minutes.",
        }
        if request.method != "POST" or not form.is_valid():
            return render(request, "admin/staff/act.html", context)
        route = form.cleaned_data["route"]
        with transaction.atomic():
            until = interventions.begin_trial(channel=channel, seconds=PATIENCE + 60)
            if until is None:
                problem = "A test call of this channel is under way: each one costs money, so wait for its end."
                self.message_user(request, problem, messages.ERROR)
                return redirect("admin:providers_channel_change", channel.pk)
            audit.note(
                organization_id=None,
                actor=_staff(request),
                action="channel.tried",
                target=str(channel),
                after={"route": str(route)},
                reason=form.cleaned_data["reason"],
            )
        page = render_to_string("admin/providers/test_call.html", context | {"here": _HERE, "route": route}, request)
        # Told as it happens: a provider takes minutes, and nobody looks at an empty page for so long.
        return StreamingHttpResponse(_told(page, channel, route, until), headers={"Cache-Control": "no-store"})

    def get_queryset(self, request: HttpRequest) -> QuerySet[Channel]:
        """Fetch the health and the open jobs of all channels together."""
        sent = UpstreamJob.objects.filter(channel=OuterRef("pk"), status__in=UpstreamJob.SENT).order_by()
        counted = Subquery(sent.values("channel").annotate(count=Count("pk")).values("count"))
        rows: QuerySet[Channel] = super().get_queryset(request)
        return rows.annotate(open_counted=counted).prefetch_related("health")

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

    def _may_become(self, request: HttpRequest, object_id: str | None, state: Channel.State) -> bool:
        is_offer = request.resolver_match is not None and request.resolver_match.url_name == "providers_channel_change"
        if not self.has_change_permission(request) or not (is_offer and object_id):
            return bool(self.has_change_permission(request))
        known = getattr(request, "_channel_state", None)
        if known is None:
            known = Channel.objects.filter(pk=object_id).values_list("state", flat=True).first() or ""
            request._channel_state = known  # type: ignore[attr-defined] # for this request only
        return bool(known != state)

    def _set_state(self, request: HttpRequest, object_id: str, verb: str, state: Channel.State) -> HttpResponse:
        channel = self._find(request, object_id)
        seen = interventions.foresee_draining(channel)
        if state == Channel.State.ACTIVE:
            text = "Its active routes take new tasks again."
        else:
            stranded = (
                f"No other way is left for {', '.join(seen.stranded)}: those tasks wait. " if seen.stranded else ""
            )
            text = f"No new task goes there; {seen.open_count} jobs under way run out and are asked for. {stranded}"
        return self._act(
            request,
            channel,
            verb,
            text,
            lambda reason: interventions.set_state(channel=channel, state=state, actor=_staff(request), reason=reason),
        )

    def _act(
        self, request: HttpRequest, channel: Channel, verb: str, text: str, change: Callable[[str], Any]
    ) -> HttpResponse:
        form = StateForm(request.POST or None)
        if request.method == "POST" and form.is_valid():
            change(form.cleaned_data["reason"])
            self.log_change(request, channel, f"{verb}.")
            self.message_user(request, f"{channel}: done ({verb.lower()}).", messages.SUCCESS)
            return redirect("admin:providers_channel_change", channel.pk)
        return render(
            request, "admin/staff/act.html", self._context(request, channel, verb) | {"form": form, "text": text}
        )

    def _context(self, request: HttpRequest, channel: Channel, verb: str) -> dict[str, Any]:
        shared: dict[str, Any] = self.admin_site.each_context(request)
        back = reverse("admin:providers_channel_change", args=[channel.pk])
        title = f"{verb}: {channel}"
        return shared | {"opts": self.opts, "original": channel, "title": title, "verb": verb, "back": back}

    def _find(self, request: HttpRequest, object_id: str) -> Channel:
        channel: Channel | None = self.get_object(request, object_id)
        if channel is None:
            raise Http404
        return channel


@admin.register(Route)
class RouteAdmin(AuditedAdmin):
    """Which channel serves which public model."""

    list_display = [
        "model",
        "traffic",
        "channel",
        "upstream_model",
        "priority",
        "weight",
        "cost_per_second",
        "is_active",
    ]
    list_filter = ["traffic", "is_active", "channel"]
    list_select_related = ["channel"]


def _charts(hours: list[figures.Hour]) -> list[charts.Chart]:
    def column(hour: figures.Hour, *values: int) -> charts.Column:
        name = f"{hour.begins_at:%H:%M}"
        return charts.Column(name, name, values)

    ended = charts.stacked(
        title="Succeeded, and not",
        unit="jobs",
        series=[charts.Series("succeeded", "k0"), charts.Series("did not", "k1")],
        columns=[column(hour, hour.succeeded_count, hour.ended_count - hour.succeeded_count) for hour in hours],
    )
    slow = charts.stacked(
        title="Seconds from taken to done",
        unit="seconds",
        series=[charts.Series("half took less", "k0")],
        columns=[column(hour, round(hour.seconds or 0)) for hour in hours],
    )
    return [ended, slow]


def _told(page: str, channel: Channel, route: Route, until: dt.datetime) -> Iterator[str]:
    head, _, tail = page.partition(_HERE)
    yield head
    said: list[str] = []
    differ_count = 0
    try:
        for check in smoke.run(channel, route, patience=PATIENCE, say=said.append):
            lanes.release_connections()
            yield from (format_html("<li>… {}</li>", line) for line in said)
            said.clear()
            differ_count += check.verdict == smoke.Verdict.DIFFERS
            row = '<li class="{}"><b>{}</b> {} <span>{}</span></li>'
            is_bad = "is-bad" if check.verdict == smoke.Verdict.DIFFERS else ""
            yield format_html(row, is_bad, check.verdict, check.assumption, check.seen)
    except Exception as error:  # noqa: BLE001 - whatever broke is what the test was made to show
        yield format_html('<li class="is-bad"><b>It broke:</b> {}</li>', type(error).__name__)
        differ_count += 1
    # Not where the reader has gone before the end: the provider goes on, and the channel is free when it must be done.
    interventions.end_trial(channel=channel, until=until)
    end = (
        "All that could be seen is as we assume." if not differ_count else f"{differ_count} of them differ: mend first."
    )
    yield format_html("<li><b>Done.</b> {}</li>", end)
    yield tail


def _staff(request: HttpRequest) -> User:
    assert isinstance(request.user, User)
    return request.user
