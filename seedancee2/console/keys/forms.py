"""Forms of the pages of API keys."""

import datetime as dt
from typing import Any

from django import forms

from accounts import policies, terms
from accounts.forms import IssueKeyForm, Lines
from accounts.models import ApiKey, Organization
from generations import catalog
from seedancee2.lib import clock

# What the domain calls otherwise than the forms.
RENAMED = {"expires_at": "expires_on"}

_NUMBER = {"inputmode": "numeric", "min": "1"}


class TermsForm(IssueKeyForm):
    """What a key may be told; a field of one's own says what the organization's policies leave open."""

    monthly_credit_cap = forms.IntegerField(
        label="Credits a month",
        required=False,
        min_value=1,
        max_value=terms.MAX_CAP,
        widget=forms.NumberInput(attrs=_NUMBER),
    )
    scopes = forms.MultipleChoiceField(
        label="May",
        choices=ApiKey.Scope.choices,
        initial=ApiKey.Scope.values,
        widget=forms.CheckboxSelectMultiple,
        error_messages={"required": "Choose at least one."},
    )
    allowed_models = forms.MultipleChoiceField(
        label="Models",
        required=False,
        help_text="None ticked: all of them, later ones too.",
        widget=forms.CheckboxSelectMultiple,
    )
    allowed_networks = Lines(
        label="Only from these addresses",
        required=False,
        help_text="One a line, such as 203.0.113.7 or 2001:db8::/48. Empty: from anywhere.",
    )
    create_rate_limit = forms.IntegerField(
        label="Creates a minute", required=False, min_value=1, widget=forms.NumberInput(attrs=_NUMBER)
    )
    request_rate_limit = forms.IntegerField(
        label="Other requests a minute", required=False, min_value=1, widget=forms.NumberInput(attrs=_NUMBER)
    )

    advanced = ("scopes", "allowed_models", "allowed_networks", "create_rate_limit", "request_rate_limit")

    def __init__(self, *args: Any, organization: Organization, key: ApiKey | None = None, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        known = [model.name for model in catalog.active_models()]
        names = list(dict.fromkeys([*known, *(key.allowed_models if key else [])]))
        self.fields["allowed_models"].choices = [(name, name) for name in names]  # type: ignore[attr-defined] # a plain Field to the stubs
        self.latest = policies.latest_end(organization, since=key.created_at if key else clock.now())
        self.fields["monthly_credit_cap"].help_text = (
            f"Live keys need one here{', unless a change allows nothing more' if key else ''}. "
            "It begins anew with each month (UTC)."
            if organization.demands_key_caps
            else "Optional. Live keys stop at it until the month (UTC) is over."
        )
        if self.latest is not None:
            last_day = (self.latest - dt.timedelta(days=1)).date()
            field = self.fields["expires_on"]
            field.required, field.initial = True, last_day
            field.widget.attrs["max"] = last_day.isoformat()
            field.help_text = f"Keys here live for at most {organization.longest_key_days} days (UTC)."
        for name, limit in policies.rate_limits(organization).items():
            self.fields[name].help_text = f"Empty: {limit:,}, which is also the most."

    @property
    def plain_fields(self) -> list[Any]:
        """The fields that most keys need."""
        return [self[name] for name in self.fields if name not in self.advanced]

    @property
    def advanced_fields(self) -> list[Any]:
        """The fields that most keys leave as they are."""
        return [self[name] for name in self.advanced]

    @property
    def is_advanced_open(self) -> bool:
        """Whether the second part holds an error, which must not stay hidden."""
        return any(name in self.errors for name in self.advanced) if self.is_bound else False

    def terms(self) -> terms.Terms:
        """Return what the form says."""
        values = self.cleaned_data
        return terms.Terms(
            expires_at=self.expires_at(),
            scopes=values["scopes"],
            allowed_networks=values["allowed_networks"],
            allowed_models=values["allowed_models"],
            monthly_credit_cap=values["monthly_credit_cap"],
            create_rate_limit=values["create_rate_limit"],
            request_rate_limit=values["request_rate_limit"],
        )


class ChangeKeyForm(TermsForm):
    """Other terms for a key that there is; its mode stays."""

    mode = None  # type: ignore[assignment] # Django's way to leave out a field of the base

    def __init__(self, *args: Any, key: ApiKey, **kwargs: Any) -> None:
        initial = {
            "name": key.name,
            "expires_on": (key.expires_at - dt.timedelta(microseconds=1)).date() if key.expires_at else None,
            "monthly_credit_cap": key.monthly_credit_cap,
            "scopes": key.scopes,
            "allowed_models": key.allowed_models,
            "allowed_networks": key.allowed_networks,
            "create_rate_limit": key.create_rate_limit,
            "request_rate_limit": key.request_rate_limit,
        }
        super().__init__(*args, organization=key.organization, key=key, initial=initial, **kwargs)
        if self.latest is not None and (key.expires_at is None or key.expires_at > self.latest):
            # Older than the policy: it may stay as it is, or become narrower.
            field = self.fields["expires_on"]
            field.required = False
            field.widget.attrs.pop("max", None)
        if key.is_test:
            del self.fields["monthly_credit_cap"]
        self.key = key

    def terms(self) -> terms.Terms:
        """Return what the form changes; an expiry of which the day stays keeps its hour."""
        self.cleaned_data.setdefault("monthly_credit_cap", None)
        values = super().terms()
        if "expires_on" not in self.changed_data:
            del values["expires_at"]
        return values


class RollKeyForm(forms.Form):
    """How long the old key is to work beside the new one."""

    OVERLAPS = {
        "0": ("Not at all: it ends at once", dt.timedelta()),
        "1": ("1 hour", dt.timedelta(hours=1)),
        "24": ("24 hours", dt.timedelta(hours=24)),
        "168": ("7 days", dt.timedelta(days=7)),
        "720": ("30 days", dt.timedelta(days=30)),
    }

    overlap = forms.ChoiceField(
        label="The old key goes on working for",
        choices=[(value, label) for value, (label, _) in OVERLAPS.items()],
        initial="24",
        widget=forms.RadioSelect,
    )

    def duration(self) -> dt.timedelta:
        """Return the chosen time."""
        return self.OVERLAPS[self.cleaned_data["overlap"]][1]


class KeyFilters(forms.Form):
    """Which keys are wanted; what makes no sense is left out of the search."""

    q = forms.CharField(label="Name or last four", required=False, widget=forms.TextInput(attrs={"type": "search"}))
    state = forms.ChoiceField(
        required=False,
        choices=[("", "Any state"), ("active", "Active"), ("expired", "Expired"), ("revoked", "Revoked")],
    )
    mode = forms.ChoiceField(required=False, choices=[("", "Live and test"), *ApiKey.Mode.choices])
    maker = forms.ChoiceField(label="Issued by", required=False, choices=[("", "Anybody"), ("me", "Me")])
    flag = forms.ChoiceField(
        label="Attention",
        required=False,
        choices=[("", "All keys"), ("unused", "Unused for 90 days"), ("expiring", "Expires within 14 days")],
    )
