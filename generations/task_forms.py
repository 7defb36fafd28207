"""Forms of the console's pages about tasks."""

import datetime as dt
from collections.abc import Iterable
from typing import Any

from django import forms

from accounts.models import ApiKey
from generations import catalog, search
from generations.models import Generation

_DATE = forms.DateInput(attrs={"type": "date"})


class TaskFilterForm(forms.Form):
    """Which tasks to list; its names are those of the address, so that a filtered list can be kept as a link."""

    q = forms.CharField(
        label="Search",
        required=False,
        max_length=200,
        widget=forms.TextInput(attrs={"type": "search", "placeholder": "Id, prompt or metadata"}),
    )
    status = forms.ChoiceField(
        required=False, choices=[("", "Any"), *((status.value, status.label) for status in Generation.Status)]
    )
    mode = forms.ChoiceField(required=False, choices=[("", "Live and test"), ("live", "Live"), ("test", "Test")])
    model = forms.ChoiceField(required=False)
    key = forms.ChoiceField(label="API key", required=False)
    callback = forms.ChoiceField(
        label="Webhook", required=False, choices=[("", "With and without"), ("yes", "With"), ("no", "Without")]
    )

    def __init__(self, data: Any = None, *, keys: Iterable[ApiKey]) -> None:
        super().__init__(data)
        # `from` is no name that Python can give to an attribute.
        self.fields["from"] = forms.DateField(label="From", required=False, widget=_DATE)
        self.fields["to"] = forms.DateField(label="To", required=False, widget=_DATE)
        models = [(model.name, model.name) for model in catalog.active_models()]
        self._field("model").choices = [("", "Any"), *models]
        listed = [(str(key.pk), f"{key.name} (…{key.last_four})") for key in keys]
        self._field("key").choices = [("", "Any"), (search.PLAYGROUND, "Playground"), *listed]

    def clean(self) -> dict[str, Any]:
        """Refuse a range that ends before it begins."""
        data: dict[str, Any] = super().clean() or {}
        first, last = data.get("from"), data.get("to")
        if first and last and first > last:
            self.add_error("to", "This day lies before the first one.")
        for name in ("from", "to"):
            if data.get(name) and not 2000 <= data[name].year <= 2200:
                self.add_error(name, "Choose a day between the years 2000 and 2200.")
        return data

    def wanted(self) -> search.Wanted:
        """Return what the form asks for; it must be valid."""
        data = self.cleaned_data
        last: dt.date | None = data["to"]
        return search.Wanted(
            modes={"live": (False,), "test": (True,)}.get(data["mode"], (False, True)),
            status=data["status"],
            model=data["model"],
            key=data["key"],
            has_callback={"yes": True, "no": False}.get(data["callback"]),
            since=_midnight(data["from"]) if data["from"] else None,
            until=_midnight(last + dt.timedelta(days=1)) if last else None,
            text=data["q"],
        )

    def _field(self, name: str) -> forms.ChoiceField:
        field = self.fields[name]
        assert isinstance(field, forms.ChoiceField)
        return field


def _midnight(day: dt.date) -> dt.datetime:
    return dt.datetime.combine(day, dt.time.min, tzinfo=dt.UTC)
