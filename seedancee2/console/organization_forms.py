"""What the staff's page of an organization asks for."""

from typing import Any

from django import forms
from unfold.widgets import (
    INPUT_CLASSES,
    UnfoldAdminSelectWidget,
    UnfoldAdminTextareaWidget,
    UnfoldAdminTextInputWidget,
)

from accounts import notes
from accounts.forms import IssueKeyForm
from accounts.models import ApiKey
from accounts.staff_actions import ReasonForm


class AdminIssueKeyForm(IssueKeyForm, ReasonForm):
    """The console's form with the admin's widgets, and why. The reference makes a second click harmless."""

    reference = forms.RegexField(r"\Akey_[0-9a-z]{26}\Z", widget=forms.HiddenInput)
    field_order = ("name", "mode", "expires_on", "reason")

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.fields["name"].widget = UnfoldAdminTextInputWidget(attrs={"autocomplete": "off"})
        self.fields["mode"].widget = UnfoldAdminSelectWidget(choices=ApiKey.Mode.choices)
        self.fields["expires_on"].widget = forms.DateInput(attrs={"type": "date", "class": " ".join(INPUT_CLASSES)})


class NoteForm(forms.Form):
    """What the next of the staff should know."""

    text = forms.CharField(
        label="Note",
        max_length=notes.MAX_LENGTH,
        widget=UnfoldAdminTextareaWidget,
        help_text="Stands for good, with your name and the time. Customers do not read it.",
    )
