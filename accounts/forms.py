"""Forms of the console's pages about people and keys."""

import datetime as dt
from collections.abc import Mapping
from typing import Any

from django import forms

from accounts.models import ApiKey, Membership
from accounts.organizations import MAX_DAYS
from seedancee2.api.errors import PublicError
from seedancee2.lib import clock


def add_problem(form: forms.Form, error: PublicError, *, renamed: Mapping[str, str] | None = None) -> None:
    """Put a refusal beside the field that it begins with, `name: must …`, else above the form.

    `renamed` tells what the form calls a field that the domain calls otherwise.
    """
    name, separator, text = error.message.partition(": ")
    name = (renamed or {}).get(name, name)
    if separator and name in form.fields:
        form.add_error(name, text[:1].upper() + text[1:])
    else:
        form.add_error(None, error.message)


class Lines(forms.CharField):
    """A list, one item a line; commas separate too."""

    widget = forms.Textarea(attrs={"rows": 3, "autocomplete": "off", "spellcheck": "false"})

    def prepare_value(self, value: Any) -> Any:
        """Show a list as lines."""
        return "\n".join(value) if isinstance(value, list) else value

    def clean(self, value: Any) -> Any:
        """Return the items."""
        text: str = super().clean(value)
        return [item.strip() for line in text.splitlines() for item in line.split(",") if item.strip()]


class ConfirmForm(forms.Form):
    """The name of what is about to end, typed by hand."""

    confirm = forms.CharField(widget=forms.TextInput(attrs={"autocomplete": "off", "spellcheck": "false"}))

    def __init__(self, *args: Any, expected: str, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.expected = expected
        self.fields["confirm"].label = f"Type “{expected}” to confirm"

    def clean_confirm(self) -> str:
        """Refuse another name."""
        typed: str = self.cleaned_data["confirm"]
        if typed.strip() != self.expected.strip():
            raise forms.ValidationError(f"This is not “{self.expected}”.")
        return typed


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


class InviteForm(forms.Form):
    """Who is to join, and as what."""

    email = forms.EmailField(
        label="E-mail address",
        max_length=254,
        widget=forms.EmailInput(attrs={"autocomplete": "off", "placeholder": "ada@example.com"}),
    )
    role = forms.ChoiceField(initial=Membership.Role.DEVELOPER)

    def __init__(self, *args: Any, roles: list[tuple[str, str]], **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.fields["role"].choices = roles  # type: ignore[attr-defined] # the stubs know a plain Field here


class RemoveMemberForm(ConfirmForm):
    """Whether the keys of who goes are to go on working, where there are any."""

    keys = forms.ChoiceField(
        label="Their keys",
        choices=[
            ("revoke", "Revoke them now: programs that use them get 401"),
            ("keep", "Keep them working: owners and admins can revoke them later"),
        ],
        widget=forms.RadioSelect,
    )
    field_order = ("keys", "confirm")

    def __init__(self, *args: Any, has_keys: bool, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        if not has_keys:
            del self.fields["keys"]

    @property
    def revokes_keys(self) -> bool:
        """Whether the keys go too."""
        return self.cleaned_data.get("keys") == "revoke"


class SettingsForm(forms.Form):
    """What an organization decides for itself."""

    name = forms.CharField(max_length=120, widget=forms.TextInput(attrs={"autocomplete": "organization"}))
    callback_hosts = Lines(
        label="Hosts that webhooks may go to",
        required=False,
        help_text="One a line, such as hooks.example.com, or *.example.com for every name below. Empty: any host.",
    )
    media_retention_days = forms.IntegerField(
        label="Keep videos and pictures for (days)",
        required=False,
        min_value=1,
        max_value=MAX_DAYS,
        help_text="Then the files are deleted for good. Empty: they are kept.",
    )
    prompt_retention_days = forms.IntegerField(
        label="Keep prompts and references for (days)",
        required=False,
        min_value=1,
        max_value=MAX_DAYS,
        help_text="Then the texts are deleted for good; the bill stays. Empty: they are kept.",
    )
    demands_second_factor = forms.BooleanField(
        label="Every member needs a second factor",
        required=False,
        help_text="Members without one are led to set it up before they see anything here.",
    )
    demands_key_caps = forms.BooleanField(
        label="Every live key needs a monthly cap",
        required=False,
        help_text="Holds for keys issued or rolled from then on, and for changes that allow a key more.",
    )
    longest_key_days = forms.IntegerField(
        label="Longest life of a key (days)",
        required=False,
        min_value=1,
        max_value=MAX_DAYS,
        help_text="Holds for keys issued or rolled from then on, and for changes that allow a key more. Empty: any.",
    )
