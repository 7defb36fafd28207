"""A new rate: what it does to the public page's examples is shown before it can be saved."""

import dataclasses
import datetime as dt
from typing import Any

from django import forms
from django.contrib import admin, messages
from django.core.exceptions import PermissionDenied
from django.db import transaction
from django.http import HttpRequest, HttpResponse
from django.shortcuts import redirect, render
from django.urls import reverse
from unfold.widgets import UnfoldAdminIntegerFieldWidget, UnfoldAdminSelectWidget, UnfoldAdminTextInputWidget

from accounts import audit
from accounts.models import User
from billing import rates
from billing.models import Rate
from generations.models import PublicModel
from seedancee2.lib import clock

# Model, resolution and seconds of the requests that the public page and the customers' documentation show.
EXAMPLES = (
    ("mini", "480p", 15),
    ("mini", "720p", 5),
    ("fast", "480p", 4),
    ("fast", "720p", 10),
    ("pro", "480p", 4),
    ("pro", "720p", 4),
    ("pro", "720p", 5),
    ("pro", "1080p", 15),
)


@dataclasses.dataclass(frozen=True, slots=True)
class Example:
    """A request and its price before and after the change."""

    text: str
    before: int | None
    after: int | None

    @property
    def is_changed(self) -> bool:
        """Whether a customer pays something else."""
        return self.before != self.after


class RateForm(forms.Form):
    """What a second costs from when on; `seen` is what a preview was shown of."""

    model = forms.ModelChoiceField(
        PublicModel.objects.order_by("position"), empty_label=None, widget=UnfoldAdminSelectWidget
    )
    resolution = forms.ChoiceField(widget=UnfoldAdminSelectWidget)
    credits_per_second = forms.IntegerField(min_value=1, max_value=1_000_000, widget=UnfoldAdminIntegerFieldWidget)
    effective_at = forms.DateTimeField(
        label="Effective from (UTC)",
        required=False,
        widget=UnfoldAdminTextInputWidget(attrs={"placeholder": "2026-12-01 00:00", "autocomplete": "off"}),
        help_text="Empty for now. Tasks created before keep their price.",
    )
    reason = forms.CharField(
        max_length=500,
        widget=UnfoldAdminTextInputWidget(attrs={"autocomplete": "off"}),
        help_text="Kept in the audit log for good.",
    )
    seen = forms.CharField(required=False, widget=forms.HiddenInput)

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        names = sorted({name for model in PublicModel.objects.all() for name in model.resolutions}, key=_height)
        self.fields["resolution"].choices = [(name, name) for name in names]  # type: ignore[attr-defined]

    def clean_effective_at(self) -> dt.datetime | None:
        """Refuse a moment that is over: what was created since then has its price."""
        moment: dt.datetime | None = self.cleaned_data["effective_at"]
        if moment is not None and moment < clock.now():
            raise forms.ValidationError("This moment is over. Leave it empty for now, or choose a later one.")
        return moment

    def clean(self) -> dict[str, Any]:
        """Refuse a resolution that the model does not make, and a second rate for one moment."""
        data = super().clean() or self.cleaned_data
        model, resolution, moment = (data.get(name) for name in ("model", "resolution", "effective_at"))
        if model and resolution and resolution not in model.resolutions:
            self.add_error("resolution", f"{model} makes {', '.join(model.resolutions)}.")
        elif moment and Rate.objects.filter(model=model, resolution=resolution, effective_at=moment).exists():
            self.add_error("effective_at", "There is a rate from this moment on already; choose another one.")
        return data

    def shown(self) -> str:
        """Return what the preview is of: a change after it asks for another look."""
        names = ("model", "resolution", "credits_per_second", "effective_at")
        return "|".join(str(self.cleaned_data[name]) for name in names)


def add(request: HttpRequest) -> HttpResponse:
    """Ask for a rate, show what it changes, and save it once that was seen.

    Raises:
        PermissionDenied: the person may not add rates.
    """
    if not request.user.has_perm("billing.add_rate"):
        raise PermissionDenied
    form = RateForm(request.POST or None)
    examples: list[Example] = []
    if request.method == "POST" and form.is_valid():
        if form.cleaned_data["seen"] == form.shown():
            rate = _save(request, form.cleaned_data)
            messages.success(request, f"Saved: {rate}.")
            return redirect("admin:billing_rate_changelist")
        examples = preview(
            model=form.cleaned_data["model"].name,
            resolution=form.cleaned_data["resolution"],
            credits_per_second=form.cleaned_data["credits_per_second"],
            at=form.cleaned_data["effective_at"] or clock.now(),
        )
        form = RateForm(request.POST.dict() | {"seen": form.shown()})
    context = admin.site.each_context(request) | {
        "title": "New rate",
        "text": "A rate is never changed: a new one takes its place from a moment on.",
        "verb": "Save this rate" if examples else "Show what it changes",
        "form": form,
        "examples": examples,
        "back": reverse("admin:billing_rate_changelist"),
    }
    return render(request, "admin/staff/rate.html", context)


def preview(*, model: str, resolution: str, credits_per_second: int, at: dt.datetime) -> list[Example]:
    """Return the page's examples, and the chosen model's shortest, with their prices before and after."""
    rows = {*EXAMPLES, (model, resolution, 4)}
    found = []
    for name, size, seconds in sorted(rows, key=lambda row: (row[0], _height(row[1]), row[2])):
        try:
            before: int | None = rates.in_effect(model=name, resolution=size, at=at) * seconds
        except rates.NoRate:
            before = None
        is_this = (name, size) == (model, resolution)
        found.append(
            Example(f"{name}, {size}, {seconds} s", before, credits_per_second * seconds if is_this else before)
        )
    return found


def _save(request: HttpRequest, data: dict[str, Any]) -> Rate:
    assert isinstance(request.user, User)
    model, resolution, at = data["model"].name, data["resolution"], data["effective_at"] or clock.now()
    try:
        before: int | None = rates.in_effect(model=model, resolution=resolution, at=at)
    except rates.NoRate:
        before = None
    with transaction.atomic():
        rate = Rate.objects.create(
            model=model, resolution=resolution, credits_per_second=data["credits_per_second"], effective_at=at
        )
        audit.note(
            organization_id=None,
            actor=request.user,
            action="rate.added",
            target=f"{model} {resolution}",
            before={"credits_per_second": before},
            after={"credits_per_second": rate.credits_per_second, "effective_at": clock.iso(at)},
            reason=data["reason"],
        )
    return rate


def _height(name: str) -> int:
    return int("".join(filter(str.isdigit, name)) or 0)
