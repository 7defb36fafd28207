"""What the staff's pages of webhooks ask for: a customer by name or number, and always a reason."""

from typing import Any

from django import forms
from django.db.models import Q, Value
from django.db.models.functions import Lower
from unfold.widgets import INPUT_CLASSES, UnfoldAdminSelectWidget, UnfoldAdminTextInputWidget

from accounts.models import Organization
from accounts.staff import MadeFilter
from webhooks.forms import MODES, RecoverForm, SampleForm
from webhooks.lookups import is_known

_LARGEST = 2**63 - 1


class DeliveryMadeFilter(MadeFilter):
    """By when a webhook was written."""

    prefix = "dlv"


class OrganizationField(forms.CharField):
    """An organization by its exact name or its number: no list of all customers is drawn."""

    widget = UnfoldAdminTextInputWidget

    def clean(self, value: Any) -> Organization:
        """Find it."""
        text = super().clean(value)
        # `iexact` compares in upper case, and the index is of the lower.
        wanted = Q(low=Lower(Value(text)))
        if text.isdecimal() and int(text) <= _LARGEST:
            wanted |= Q(pk=int(text))
        found: Organization | None = Organization.objects.alias(low=Lower("name")).filter(wanted).first()
        if found is None:
            raise forms.ValidationError("No organization has this name or number.")
        return found


class ReasonForm(forms.Form):
    """Why a member of the staff does what a customer could do."""

    reason = forms.CharField(
        max_length=200,
        help_text="Kept in the audit log for good. The customer reads what was done, but not this.",
        widget=UnfoldAdminTextInputWidget(attrs={"autocomplete": "off"}),
    )


class StaffRecoverForm(RecoverForm, ReasonForm):
    """Whose failed deliveries are sent again, and why."""

    organization = OrganizationField(help_text="Its exact name, or its number.")
    field_order = ("organization", "mode", "since", "reason")

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.fields["mode"].widget = UnfoldAdminSelectWidget(choices=MODES)
        self.fields["since"].widget.attrs["class"] = " ".join(INPUT_CLASSES)


class StaffSampleForm(SampleForm, ReasonForm):
    """Whose secret signs a test webhook, where it goes, and why."""

    organization = OrganizationField(help_text="Its exact name, or its number. Its secret signs the test.")
    field_order = ("organization", "url", "event", "reason")

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.fields["url"].widget = UnfoldAdminTextInputWidget(attrs=self.fields["url"].widget.attrs)
        self.fields["event"].widget = UnfoldAdminSelectWidget(
            choices=self.fields["event"].choices  # type: ignore[attr-defined] # a field of choices has them
        )

    def clean(self) -> dict[str, Any]:
        """Sign for the customer's own servers alone: whoever gets a signed webhook may show it to them as ours."""
        data: dict[str, Any] = super().clean() or self.cleaned_data
        organization, url = data.get("organization"), data.get("url")
        if organization and url and not is_known(organization=organization, url=url):
            self.add_error(
                "url",
                f"{organization} never had a webhook sent to this host and does not list it, so nothing is signed for "
                "it. The customer can send the test from the console.",
            )
        return data
