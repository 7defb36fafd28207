"""Forms of the console's usage page."""

import datetime as dt

from django import forms

from generations import usage
from seedancee2.lib import clock

MAX_DAYS = 366
DEFAULT_RANGE = "30"
_LAST_OF_DAY = dt.time(23, 59, 59, 999000)

RANGES = [
    ("7", "7 days"),
    ("30", "30 days"),
    ("90", "90 days"),
    ("month", "This month"),
    ("last-month", "Last month"),
]


class UsageForm(forms.Form):
    """What usage to show; it lives in the address."""

    range = forms.ChoiceField(choices=[*RANGES, ("custom", "Custom")], required=False, widget=forms.HiddenInput)
    start = forms.DateField(label="From", required=False, widget=forms.DateInput(attrs={"type": "date"}))
    end = forms.DateField(label="Through", required=False, widget=forms.DateInput(attrs={"type": "date"}))
    mode = forms.ChoiceField(choices=[("live", "Live"), ("test", "Test")], required=False)
    by = forms.ChoiceField(
        label="Split by",
        choices=[("model", "Model"), ("key", "API key"), ("status", "Status"), ("metadata", "Metadata value")],
        required=False,
    )
    key = forms.CharField(
        label="Metadata key",
        max_length=200,
        required=False,
        help_text="For a split by metadata.",
        widget=forms.TextInput(attrs={"list": "metadata-keys", "autocomplete": "off"}),
    )
    show = forms.ChoiceField(label="Show", choices=[("credits", "Net credits"), ("jobs", "Tasks")], required=False)

    def clean(self) -> None:
        """Refuse a range that is empty or too long, and a split by metadata without a key."""
        values = self.cleaned_data
        start, end = values.get("start"), values.get("end")
        chosen = values.get("range") or DEFAULT_RANGE
        # The fields hold the days that are shown; other days in them are what the person wants now.
        is_own = bool(start or end) and (chosen == "custom" or (start, end) != _preset(chosen))
        values["range"] = "custom" if is_own else chosen
        if values["range"] == "custom":
            for name in ("start", "end"):
                if not values.get(name) and name not in self.errors:
                    self.add_error(name, "Choose a day.")
        if start and end and start > end:
            self.add_error("end", "This day is before the first one.")
        elif start and end and (end - start).days >= MAX_DAYS:
            self.add_error("end", f"At most {MAX_DAYS} days can be shown at once.")
        if values.get("by") == "metadata" and not values.get("key") and "key" not in self.errors:
            self.add_error("key", "Name the metadata key whose values you want to compare.")

    @property
    def days(self) -> tuple[dt.date, dt.date]:
        """The first and the last day (UTC); the default where they could not be read."""
        chosen = self.value("range", DEFAULT_RANGE)
        if chosen == "custom":
            return self.cleaned_data["start"], self.cleaned_data["end"]
        return _preset(chosen)

    @property
    def moments(self) -> tuple[dt.datetime, dt.datetime]:
        """The range as `GET /v1/usage` understands two bare dates: both days whole."""
        start, end = self.days
        return (
            dt.datetime.combine(start, dt.time.min, tzinfo=dt.UTC),
            dt.datetime.combine(end, _LAST_OF_DAY, tzinfo=dt.UTC),
        )

    def value(self, name: str, default: str) -> str:
        """Return what was chosen, or the default where nothing usable was."""
        return str((self.cleaned_data if self.is_valid() else {}).get(name) or default)

    @property
    def by_what(self) -> usage.By:
        """What to split by."""
        return usage.By(self.value("by", usage.By.MODEL))


def _preset(chosen: str) -> tuple[dt.date, dt.date]:
    today = clock.now().date()
    if chosen == "month":
        return today.replace(day=1), today
    if chosen == "last-month":
        last = today.replace(day=1) - dt.timedelta(days=1)
        return last.replace(day=1), last
    return today - dt.timedelta(days=int(chosen) - 1), today
