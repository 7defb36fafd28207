"""Forms of the console's pages about people and keys."""

import datetime as dt

from django import forms

from accounts.models import ApiKey
from seedancee2.lib import clock


class IssueKeyForm(forms.Form):
    """What a new key is to be."""

    name = forms.CharField(
        max_length=80,
        help_text="Where the key is used, such as “render farm”.",
        widget=forms.TextInput(attrs={"autocomplete": "off", "placeholder": "render farm"}),
    )
    mode = forms.ChoiceField(
        choices=ApiKey.Mode.choices,
        initial=ApiKey.Mode.LIVE,
        help_text="Test keys run on the sandbox and cost no credits.",
    )
    expires_on = forms.DateField(
        label="Last day",
        required=False,
        help_text="Optional. The key works through this day (UTC).",
        widget=forms.DateInput(attrs={"type": "date"}),
    )

    def clean_expires_on(self) -> dt.date | None:
        """Refuse a day that is over."""
        day: dt.date | None = self.cleaned_data["expires_on"]
        if day is not None and day < clock.now().date():
            raise forms.ValidationError("This day is over. Choose today or a later day.")
        if day is not None and day.year > 2200:
            raise forms.ValidationError("Choose a day before the year 2200.")
        return day

    def expires_at(self) -> dt.datetime | None:
        """Give the end of the chosen day."""
        day: dt.date | None = self.cleaned_data["expires_on"]
        if day is None:
            return None
        return dt.datetime.combine(day + dt.timedelta(days=1), dt.time.min, tzinfo=dt.UTC)
