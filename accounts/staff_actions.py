"""What every action of the staff shares: who acts, why, and what it touches, asked before it is done."""

import contextlib
from collections.abc import Iterable, Iterator, Sequence
from typing import Any

from django import forms
from django.contrib import messages
from django.contrib.admin import helpers
from django.db.models import Model
from django.http import HttpRequest, HttpResponse
from django.shortcuts import render
from unfold.admin import ModelAdmin
from unfold.widgets import UnfoldAdminTextInputWidget

from accounts.models import User
from seedancee2.api.errors import PublicError

MAX_REASON_LENGTH = 500


def person(request: HttpRequest) -> User:
    """Return who of the staff sends a request that the admin has let in."""
    assert isinstance(request.user, User)
    return request.user


@contextlib.contextmanager
def told(request: HttpRequest) -> Iterator[None]:
    """Tell what the domain refuses, instead of failing."""
    try:
        yield
    except PublicError as error:
        messages.error(request, error.message)


class ReasonForm(forms.Form):
    """Why: no change by hand without it. What is irreversible names in `expected` what is to be typed, too."""

    reason = forms.CharField(
        max_length=MAX_REASON_LENGTH,
        widget=UnfoldAdminTextInputWidget(attrs={"autocomplete": "off"}),
        help_text="Kept in the audit log for good. The customer does not read it.",
    )
    confirm = forms.CharField(
        widget=UnfoldAdminTextInputWidget(attrs={"autocomplete": "off", "spellcheck": "false"}),
        help_text="This cannot be undone.",
    )

    def __init__(self, *args: Any, expected: str = "", **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.expected = expected
        if expected:
            self.fields["confirm"].label = f"Type “{expected}” to confirm"
        else:
            del self.fields["confirm"]

    def clean_confirm(self) -> str:
        """Refuse anything else."""
        typed: str = self.cleaned_data["confirm"]
        if typed.strip() != self.expected.strip():
            raise forms.ValidationError(f"This is not “{self.expected}”.")
        return typed


def selected(rows: Iterable[Model]) -> list[tuple[str, str]]:
    """Return the hidden fields that send a list's chosen rows once more, now with the answer."""
    return [(helpers.ACTION_CHECKBOX_NAME, str(row.pk)) for row in rows]


def ask(
    request: HttpRequest,
    page: ModelAdmin,
    *,
    title: str,
    text: str,
    verb: str,
    form: forms.Form,
    back: str,
    items: Sequence[str] = (),
    hidden: Sequence[tuple[str, str]] = (),
    original: Model | None = None,
) -> HttpResponse:
    """Ask before something is done: what it touches, and what the form wants to know."""
    context = page.admin_site.each_context(request) | {
        "opts": page.opts,
        "title": title,
        "text": text,
        "verb": verb,
        "form": form,
        "back": back,
        "items": items,
        "hidden": hidden,
        "original": original,
    }
    return render(request, "admin/staff/act.html", context)
