"""Rows that a form of the admin changes: each change has its audit entry in the same transaction."""

from typing import Any

from django import forms
from django.db import transaction
from django.db.models import Model, QuerySet
from django.http import HttpRequest
from unfold.admin import ModelAdmin

from accounts import audit
from accounts.staff import CarefulMixin
from accounts.staff_actions import person


class AuditedAdmin(CarefulMixin, ModelAdmin):
    """A list and a form; entries are the staff's alone."""

    def audit_name(self, obj: Any) -> str:
        """Say what an entry is about."""
        return str(obj)

    def save_model(self, request: HttpRequest, obj: Any, form: Any, change: bool) -> None:
        """Save what was changed and nothing else of the row, and note it; of a secret only that it was set."""
        # Some fields only steer a form and are no part of what it cleaned.
        changed = [name for name in form.changed_data if name in form.cleaned_data and name != "reason"]
        secret = {name for name in changed if isinstance(form.fields[name].widget, forms.PasswordInput)}
        after = {name: _plain(form.cleaned_data[name]) for name in changed if name not in secret}
        before = {name: _plain(form.initial.get(name)) for name in after} if change else {}
        after = {name: value for name, value in after.items() if not change or value != before[name]}
        with transaction.atomic():
            if change and self.opts.pk.name not in changed:
                columns = {column.name for column in self.opts.concrete_fields}
                obj.save(update_fields=[name for name in changed if name in columns])
            else:
                super().save_model(request, obj, form, change)
            audit.note(
                organization_id=None,
                actor=person(request),
                action=f"{self.opts.model_name}.{'changed' if change else 'added'}",
                target=self.audit_name(obj)[:300],
                before={name: value for name, value in before.items() if name in after},
                after=after | dict.fromkeys(secret, "set anew"),
                reason=form.cleaned_data.get("reason", ""),
            )

    def delete_model(self, request: HttpRequest, obj: Any) -> None:
        """Delete the row, and note what it was."""
        with transaction.atomic():
            name = self.audit_name(obj)[:300]
            super().delete_model(request, obj)
            audit.note(
                organization_id=None, actor=person(request), action=f"{self.opts.model_name}.deleted", target=name
            )

    def delete_queryset(self, request: HttpRequest, queryset: QuerySet[Any]) -> None:
        """Delete rows one by one, so that each is noted."""
        with transaction.atomic():
            for row in queryset:
                self.delete_model(request, row)


def _plain(value: Any) -> Any:
    if isinstance(value, QuerySet) or (isinstance(value, list) and value and isinstance(value[0], Model)):
        return sorted(map(str, value))
    return value if isinstance(value, str | int | float | bool | list | dict | None) else str(value)
