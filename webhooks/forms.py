"""Forms of the console's pages about webhooks."""

import datetime as dt

from django import forms

from seedancee2.lib import clock, destinations
from webhooks import deliveries, replies, signing
from webhooks.models import Delivery

MODES = [("live", "Live"), ("test", "Test")]
_EVENTS = [(event, event) for event in Delivery.Event.values]
_STATES = [(state, state.capitalize()) for state in replies.DELIVERY_STATES]


def _day(label: str) -> forms.DateField:
    return forms.DateField(label=label, required=False, widget=forms.DateInput(attrs={"type": "date"}))


class FilterForm(forms.Form):
    """Which deliveries to show; it stands in the URL, so that a view can be kept and passed on."""

    mode = forms.ChoiceField(choices=MODES, required=False)
    state = forms.ChoiceField(choices=[("", "Any"), *_STATES], required=False)
    event = forms.ChoiceField(choices=[("", "Any"), *_EVENTS], required=False)
    task = forms.CharField(
        label="Task", max_length=100, required=False, widget=forms.TextInput({"placeholder": "vid_…"})
    )
    first_day = _day("From (UTC)")
    last_day = _day("Through (UTC)")
    cursor = forms.CharField(max_length=200, required=False, widget=forms.HiddenInput)

    @property
    def is_test(self) -> bool:
        """Whether the test webhooks are asked for."""
        return bool(self.cleaned_data.get("mode") == "test")

    def wanted(self) -> deliveries.Page:
        """Return what was asked for."""
        values = self.cleaned_data
        return deliveries.Page(
            task_id=values["task"] or None,
            event=values["event"] or None,
            state=replies.state_named(values["state"] or None),
            created_after=_midnight(values["first_day"]),
            created_before=_midnight(values["last_day"], days_later=1),
            cursor=values["cursor"] or None,
        )


class SampleForm(forms.Form):
    """Where to send a test webhook."""

    url = forms.CharField(
        label="URL",
        max_length=destinations.MAX_URL_LENGTH,
        help_text="Your receiver, public as a callback_url must be.",
        widget=forms.URLInput(attrs={"placeholder": "https://example.com/webhooks/seedancee2"}),
    )
    event = forms.ChoiceField(choices=_EVENTS)

    def clean_url(self) -> str:
        """Refuse what could never be called."""
        url: str = self.cleaned_data["url"]
        try:
            destinations.check(url)
        except destinations.BadDestination as error:
            raise forms.ValidationError(f"The URL {error.reason}.") from None
        return url


class RecoverForm(forms.Form):
    """From when on failed deliveries are sent again."""

    mode = forms.ChoiceField(choices=MODES)
    since = forms.DateTimeField(
        label="Since (UTC)",
        help_text=f"What was given up at this time or later, within the last {deliveries.KEPT_FOR.days} days.",
        widget=forms.DateTimeInput(attrs={"type": "datetime-local"}, format="%Y-%m-%dT%H:%M"),
    )

    def __init__(self, *args: object, **kwargs: object) -> None:
        super().__init__(*args, **kwargs)  # type: ignore[arg-type] # handed on as they came
        self.fields["since"].initial = clock.now() - dt.timedelta(days=1)


class RotateForm(forms.Form):
    """For how long the old secret goes on signing."""

    overlap = forms.TypedChoiceField(
        label="How long the old secret goes on signing beside the new one",
        choices=list(signing.OVERLAPS.items()),
        coerce=int,
        initial=86_400,
    )


def _midnight(day: dt.date | None, *, days_later: int = 0) -> dt.datetime | None:
    if day is None or day.year > 9990:
        return None
    return dt.datetime.combine(day + dt.timedelta(days=days_later), dt.time.min, tzinfo=dt.UTC)
