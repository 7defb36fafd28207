"""The staff's pages of people, their rights and their second factors; keys have a module of their own.

The page of an organization shows what all applications know of it: `seedancee2/console/admin_organizations.py`.
"""

from typing import Any

from allauth.account.models import EmailAddress
from allauth.mfa.models import Authenticator
from allauth.usersessions.models import UserSession
from django.contrib import admin
from django.contrib.auth.admin import GroupAdmin as DjangoGroupAdmin
from django.contrib.auth.admin import UserAdmin as DjangoUserAdmin
from django.contrib.auth.models import Group
from django.db import transaction
from django.http import HttpRequest, HttpResponse
from unfold.admin import TabularInline
from unfold.forms import AdminPasswordChangeForm, UserChangeForm, UserCreationForm

from accounts import audit
from accounts.admin_audit import AuditEntryAdmin
from accounts.admin_keys import ApiKeyAdmin
from accounts.admin_members import ThroughMembers
from accounts.audited import AuditedAdmin
from accounts.models import Membership, User
from accounts.staff import UncountedMixin
from accounts.staff_actions import person

__all__ = ["ApiKeyAdmin", "AuditEntryAdmin", "AuthenticatorAdmin", "GroupAdmin", "UserAdmin"]

for model in (Group, Authenticator):
    admin.site.unregister(model)
# People see to their addresses and sessions themselves; by hand here nothing would write it down.
for model in (EmailAddress, UserSession):
    admin.site.unregister(model)


class UserAddForm(UserCreationForm):
    """A new person, with a password or without."""

    class Meta:
        model = User
        fields = ("email", "name")


class UserEditForm(UserChangeForm):
    """A person; the password shows as what kind of hash it is."""

    class Meta:
        model = User
        fields = "__all__"


class MembershipOfUser(TabularInline):
    """A person's organizations."""

    model = Membership
    extra = 0
    autocomplete_fields = ("organization",)
    fields = ("organization", "role")
    hide_title = True
    tab = True


@admin.register(User)
# Django's is not subscriptable when run, and declares another paginator.
class UserAdmin(ThroughMembers, UncountedMixin, DjangoUserAdmin, AuditedAdmin):  # type: ignore[type-arg, misc]
    """People, with their organizations and rights."""

    form = UserEditForm
    add_form = UserAddForm
    change_password_form = AdminPasswordChangeForm
    ordering = ("email",)
    list_display = ("email", "name", "is_active", "is_staff", "last_login", "created_at")
    list_filter = ("is_active", "is_staff", "is_superuser")
    search_fields = ("email", "name")
    readonly_fields = ("last_login", "created_at")
    filter_horizontal = ()
    fieldsets = (
        (None, {"fields": ("email", "name", "password")}),
        ("Rights", {"fields": ("is_active", "is_staff", "is_superuser", "groups", "user_permissions")}),
        ("Dates", {"fields": ("last_login", "created_at")}),
    )
    add_fieldsets = ((None, {"fields": ("email", "name", "usable_password", "password1", "password2")}),)
    inlines = (MembershipOfUser,)

    def get_readonly_fields(self, request: HttpRequest, obj: User | None = None) -> tuple[str, ...]:
        """Let only superusers give rights: whoever may edit people could else make themselves one."""
        if request.user.is_superuser:
            return self.readonly_fields
        return (*self.readonly_fields, "is_staff", "is_superuser", "groups", "user_permissions")

    def has_change_permission(self, request: HttpRequest, obj: User | None = None) -> bool:
        """Keep the staff's own accounts, their passwords included, to superusers."""
        if obj is not None and (obj.is_staff or obj.is_superuser) and not request.user.is_superuser:
            return False
        return bool(super().has_change_permission(request, obj))

    def has_delete_permission(self, request: HttpRequest, obj: User | None = None) -> bool:
        """Keep people whose work stands in the books: they are deactivated instead."""
        return False

    def user_change_password(self, request: HttpRequest, id: str, form_url: str = "") -> HttpResponse:
        """Give a person another password, or none; the entry is written where the stored one has changed."""
        with transaction.atomic():
            before = User.objects.select_for_update(no_key=True).filter(pk=id).values_list("password", flat=True)
            kept = before.first() if request.method == "POST" and id.isdecimal() else None
            response: HttpResponse = super().user_change_password(request, id, form_url)
            if kept is not None:
                user = User.objects.get(pk=id)
                if user.password != kept:
                    action = "user.password_set" if user.has_usable_password() else "user.password_removed"
                    audit.note(organization_id=None, actor=person(request), action=action, target=user.email)
        return response


@admin.register(Group)
class GroupAdmin(DjangoGroupAdmin, AuditedAdmin):
    """Sets of rights for the staff: whoever changes one gives rights away, so superusers alone do."""

    def has_add_permission(self, request: HttpRequest) -> bool:
        """Let superusers add one."""
        return bool(request.user.is_superuser)

    def has_change_permission(self, request: HttpRequest, obj: Group | None = None) -> bool:
        """Let superusers change one."""
        return bool(request.user.is_superuser)

    def has_delete_permission(self, request: HttpRequest, obj: Group | None = None) -> bool:
        """Let superusers delete one."""
        return bool(request.user.is_superuser)


@admin.register(Authenticator)
class AuthenticatorAdmin(UncountedMixin, AuditedAdmin):
    """Second factors: to be seen, and removed for somebody who lost theirs; the secrets stay hidden."""

    list_display = ("user", "type", "created_at", "last_used_at")
    list_filter = ("type",)
    list_select_related = ("user",)
    search_fields = ("user__email",)
    fields = ("user", "type", "created_at", "last_used_at")
    readonly_fields = fields

    def audit_name(self, obj: Any) -> str:
        """Say whose and what it is."""
        return f"{obj.user}: {obj.get_type_display()}"

    def has_add_permission(self, request: HttpRequest) -> bool:
        """Let nobody set up a factor for somebody else."""
        return False

    def has_delete_permission(self, request: HttpRequest, obj: Authenticator | None = None) -> bool:
        """Keep the staff's own to superusers: without it a password would do."""
        if obj is not None and obj.user.is_staff and not request.user.is_superuser:
            return False
        return bool(super().has_delete_permission(request, obj))
