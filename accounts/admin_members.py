"""Memberships on the staff's pages: saved by the functions that keep an owner in place, a page of them at a time."""

from collections.abc import Sequence
from typing import Any

from django import forms
from django.contrib import admin, messages
from django.contrib.admin.widgets import AutocompleteSelect
from django.db.models import ForeignKey, QuerySet
from django.http import HttpRequest
from unfold.admin import TabularInline

from accounts import members
from accounts.models import Membership, User
from accounts.staff_actions import person, told


class ThroughMembers:
    """Saves the memberships of a page by the functions that keep an owner in place and write the audit log."""

    def save_formset(self, request: HttpRequest, form: Any, formset: Any, change: bool) -> None:
        """Add, change and remove one by one; what is refused is told, and the rest is done."""
        assert formset.model is Membership
        formset.save(commit=False)
        actor = person(request)
        for row in formset.new_objects:
            members.add(organization=row.organization, user=row.user, role=row.role, actor=actor)
        for row, names in formset.changed_objects:
            if names != ["role"]:
                messages.error(request, f"{row.user} was not changed: remove the membership and add another instead.")
                continue
            with told(request):
                members.change_role(membership=row, role=row.role, actor=actor, may_touch_owners=True)
        for row in formset.deleted_objects:
            with told(request):
                members.remove(membership=row, actor=actor, may_touch_owners=True, revokes_keys=False)


class MemberSelect(AutocompleteSelect):
    """The choice of a person, which asks the database nothing about the one who is chosen already."""

    known: User | None = None

    def optgroups(self, name: str, value: Sequence[str], attrs: dict[str, Any] | None = None) -> list[Any]:
        """Show who is chosen."""
        if self.known is None or list(value) != [str(self.known.pk)]:
            groups: list[Any] = super().optgroups(name, value, attrs)
            return groups
        return [(None, [self.create_option(name, self.known.pk, str(self.known), True, 0)], 0)]


class MembershipForm(forms.ModelForm):  # type: ignore[type-arg]  # not subscriptable when run
    """A row that knows its person."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        if self.instance.pk and "user" in self.fields:
            wrapper: Any = self.fields["user"].widget
            wrapper.widget.known = self.instance.user
            # What the page showed, so that an old one gives nobody their former role back.
            self.fields["role"].show_hidden_initial = True


class MembershipOfOrganization(TabularInline):
    """An organization's people."""

    model = Membership
    form = MembershipForm
    extra = 0
    per_page = 10
    autocomplete_fields = ("user",)
    fields = ("user", "role")
    ordering = ("pk",)
    hide_title = True
    verbose_name_plural = "members"

    def get_queryset(self, request: HttpRequest) -> QuerySet[Membership]:
        """Read the people with the rows."""
        rows: QuerySet[Membership] = super().get_queryset(request)
        return rows.select_related("user")

    def formfield_for_foreignkey(self, db_field: ForeignKey[Any, Any], request: HttpRequest, **kwargs: Any) -> Any:
        """Choose a person by a widget that asks little."""
        if db_field.name == "user":
            kwargs["widget"] = MemberSelect(db_field, admin.site)
        return super().formfield_for_foreignkey(db_field, request, **kwargs)
