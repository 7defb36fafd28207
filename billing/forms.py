"""Forms of the console's billing pages."""

import datetime as dt

from django import forms

from billing import alerts, history, topups


class TopUpForm(forms.Form):
    """How many credits, and what for."""

    amount = forms.IntegerField(
        label="Credits",
        min_value=1,
        max_value=topups.MAX_AMOUNT,
        widget=forms.NumberInput(attrs={"inputmode": "numeric"}),
    )
    note = forms.CharField(
        max_length=topups.MAX_TEXT_LENGTH,
        required=False,
        help_text="Optional: an order number, a campaign, when you need them.",
        widget=forms.TextInput(attrs={"autocomplete": "off"}),
    )


class AlertForm(forms.Form):
    """At which balance to send a mail."""

    credits = forms.IntegerField(
        label="Tell us below",
        min_value=1,
        max_value=alerts.MAX_CREDITS,
        help_text="Available credits.",
        widget=forms.NumberInput(attrs={"inputmode": "numeric"}),
    )


class LedgerForm(forms.Form):
    """Which movements to show; it lives in the address."""

    kind = forms.ChoiceField(label="Movement", required=False, choices=[("", "All movements"), *history.LABELS.items()])
    start = forms.DateField(label="From", required=False, widget=forms.DateInput(attrs={"type": "date"}))
    end = forms.DateField(label="Through", required=False, widget=forms.DateInput(attrs={"type": "date"}))
    before = forms.IntegerField(required=False, min_value=0, max_value=2**62, widget=forms.HiddenInput)
    after = forms.IntegerField(required=False, min_value=0, max_value=2**62, widget=forms.HiddenInput)

    def clean(self) -> None:
        """Refuse a range that ends before it starts."""
        start, end = self.cleaned_data.get("start"), self.cleaned_data.get("end")
        if start and end and start > end:
            self.add_error("end", "This day is before the first one.")

    def wanted(self) -> history.Wanted:
        """Return what was asked for; nothing of what could not be read."""
        values = self.cleaned_data
        end = values.get("end")
        return history.Wanted(
            kind=values.get("kind", ""),
            start=_midnight(values.get("start")),
            end=_midnight(end + dt.timedelta(days=1)) if end and end < dt.date.max else None,
            before=values.get("before"),
            after=values.get("after"),
        )


def _midnight(day: dt.date | None) -> dt.datetime | None:
    return dt.datetime.combine(day, dt.time.min, tzinfo=dt.UTC) if day else None
