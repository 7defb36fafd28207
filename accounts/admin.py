"""The staff's pages for people, organizations and keys."""

import contextlib
from collections.abc import Callable, Iterator
from typing import Any

from allauth.mfa.models import Authenticator
from django import forms
from django.contrib import admin, messages
from django.contrib.admin import helpers
from django.contrib.auth.admin import GroupAdmin as DjangoGroupAdmin
from django.contrib.auth.admin import UserAdmin as DjangoUserAdmin
from django.contrib.auth.models import Group
from django.db import transaction
from django.db.models import Count, Model, Q, QuerySet
from django.http import Http404, HttpRequest, HttpResponse
from django.shortcuts import redirect, render
from django.urls import reverse
from django.utils.cache import add_never_cache_headers
from unfold.admin import ModelAdmin, TabularInline
from unfold.decorators import action, display
from unfold.forms import AdminPasswordChangeForm, UserChangeForm, UserCreationForm
from unfold.widgets import INPUT_CLASSES, UnfoldAdminSelectWidget, UnfoldAdminTextInputWidget

from accounts import audit, keys, members, organizations
from accounts.forms import IssueKeyForm
from accounts.models import ApiKey, Membership, Organization, User
from seedancee2.api.errors import PublicError

admin.site.unregister(Group)
admin.site.unregister(Authenticator)

STATE_COLOURS = {"active": "success", "expired": "warning", "revoked": "danger"}


class ThroughMembers:
    """Saves the memberships of a page by the functions that keep an owner in place and write the audit log."""

    def save_formset(self, request: HttpRequest, form: Any, formset: Any, change: bool) -> None:
        """Add, change and remove one by one; what is refused is told, and the rest is done."""
        assert formset.model is Membership
        formset.save(commit=False)
        actor = _staff(request)
        for row in formset.new_objects:
            members.add(organization=row.organization, user=row.user, role=row.role, actor=actor)
        for row, names in formset.changed_objects:
            if names != ["role"]:
                messages.error(request, f"{row.user} was not changed: remove the membership and add another instead.")
                continue
            with _told(request):
                members.change_role(membership=row, role=row.role, actor=actor, may_touch_owners=True)
        for row in formset.deleted_objects:
            with _told(request):
                members.remove(membership=row, actor=actor, may_touch_owners=True, revokes_keys=False)


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


class MembershipOfOrganization(TabularInline):
    """An organization's people."""

    model = Membership
    extra = 0
    autocomplete_fields = ("user",)
    fields = ("user", "role")
    hide_title = True


@admin.register(User)
class UserAdmin(ThroughMembers, DjangoUserAdmin, ModelAdmin):  # type: ignore[type-arg]  # not subscriptable when run
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


@admin.register(Group)
class GroupAdmin(DjangoGroupAdmin, ModelAdmin):
    """Sets of rights for the staff."""


@admin.register(Authenticator)
class AuthenticatorAdmin(ModelAdmin):
    """Second factors: to be seen, and removed for somebody who lost theirs; the secrets stay hidden."""

    list_display = ("user", "type", "created_at", "last_used_at")
    list_filter = ("type",)
    search_fields = ("user__email",)
    fields = ("user", "type", "created_at", "last_used_at")
    readonly_fields = fields

    def has_add_permission(self, request: HttpRequest) -> bool:
        """Let nobody set up a factor for somebody else."""
        return False


class AdminIssueKeyForm(IssueKeyForm):
    """The console's form, with the admin's widgets."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.fields["name"].widget = UnfoldAdminTextInputWidget(attrs={"autocomplete": "off"})
        self.fields["mode"].widget = UnfoldAdminSelectWidget(choices=ApiKey.Mode.choices)
        self.fields["expires_on"].widget = forms.DateInput(attrs={"type": "date", "class": " ".join(INPUT_CLASSES)})


@admin.register(Organization)
class OrganizationAdmin(ThroughMembers, ModelAdmin):
    """Customers: their people, limits and keys."""

    list_display = ("name", "state", "member_count", "key_count", "created_at")
    list_filter = ("is_suspended",)
    search_fields = ("name",)
    fields = (
        "name",
        "state",
        "is_webhook_signing_enabled",
        "create_rate_limit",
        "request_rate_limit",
        "created_at",
    )
    readonly_fields = ("state", "created_at")
    inlines = (MembershipOfOrganization,)
    actions_detail = ("issue_key", "show_keys", "suspend", "reinstate")

    def save_model(self, request: HttpRequest, obj: Organization, form: Any, change: bool) -> None:
        """Save a new one whole, and of a known one what the form changed: an old page undoes nothing."""
        if not change:
            with transaction.atomic():
                obj.save()
                audit.note(organization_id=obj.pk, actor=_staff(request), action="organization.made", target=obj.name)
            return
        with _told(request):
            values = {name: form.cleaned_data[name] for name in form.changed_data}
            organizations.change(organization=obj, actor=_staff(request), **values)

    def get_queryset(self, request: HttpRequest) -> QuerySet[Organization]:
        """Count members and live keys beside each organization."""
        rows: QuerySet[Organization] = super().get_queryset(request)
        usable = Q(api_keys__revoked_at__isnull=True)
        return rows.annotate(
            members_counted=Count("memberships", distinct=True),
            keys_counted=Count("api_keys", filter=usable, distinct=True),
        )

    @display(description="State", label={"active": "success", "suspended": "danger"})
    def state(self, organization: Organization) -> str:
        """Say whether the organization's keys work."""
        return "suspended" if organization.is_suspended else "active"

    @display(description="Members", ordering="members_counted")
    def member_count(self, organization: Any) -> int:
        """Count the people."""
        return int(organization.members_counted)

    @display(description="Keys not revoked", ordering="keys_counted")
    def key_count(self, organization: Any) -> int:
        """Count the keys that nobody has revoked."""
        return int(organization.keys_counted)

    def has_delete_permission(self, request: HttpRequest, obj: Model | None = None) -> bool:
        """Keep every organization: it is suspended, not deleted."""
        return False

    def has_issue_key_permission(self, request: HttpRequest, object_id: str | int | None = None) -> bool:
        """Let those issue keys who may add them."""
        return request.user.has_perm("accounts.add_apikey")

    def has_show_keys_permission(self, request: HttpRequest, object_id: str | int | None = None) -> bool:
        """Let those see keys who may view them."""
        return request.user.has_perm("accounts.view_apikey")

    def has_suspend_permission(self, request: HttpRequest, object_id: str | int | None = None) -> bool:
        """Offer the suspension of an organization that is not suspended."""
        return self.has_change_permission(request) and not self._is_suspended(object_id)

    def has_reinstate_permission(self, request: HttpRequest, object_id: str | int | None = None) -> bool:
        """Offer the way back to an organization that is suspended."""
        return self.has_change_permission(request) and self._is_suspended(object_id)

    @action(description="Issue key", url_path="issue-key", permissions=["issue_key"], icon="key")
    def issue_key(self, request: HttpRequest, object_id: str) -> HttpResponse:
        """Ask what the key is to be, and show its secret once."""
        organization = self._find(request, object_id)
        form = AdminIssueKeyForm(request.POST or None)
        issued: keys.IssuedKey | None = None
        if request.method == "POST" and form.is_valid():
            try:
                issued = keys.issue(
                    organization=organization,
                    name=form.cleaned_data["name"],
                    mode=form.cleaned_data["mode"],
                    created_by=_staff(request),
                    expires_at=form.expires_at(),
                )
            except PublicError as error:
                self.message_user(request, error.message, messages.ERROR)
            else:
                self.log_change(request, organization, f"Issued the key {issued.key}.")
        context = self._context(request, organization, f"Issue a key for {organization}")
        response = render(request, "admin/accounts/issue_key.html", context | {"form": form, "issued": issued})
        add_never_cache_headers(response)
        return response

    @action(description="Keys", url_path="keys", permissions=["show_keys"], icon="list")
    def show_keys(self, request: HttpRequest, object_id: str) -> HttpResponse:
        """Lead to the list of this organization's keys."""
        return redirect(f"{reverse('admin:accounts_apikey_changelist')}?organization__id__exact={object_id}")

    @action(description="Suspend", url_path="suspend", permissions=["suspend"], icon="block")
    def suspend(self, request: HttpRequest, object_id: str) -> HttpResponse:
        """Ask, then stop every key of the organization."""
        question = "Every key of this organization gets 401 from then on. Videos under way are finished."
        return self._confirm(request, object_id, "Suspend", question, organizations.suspend)

    @action(description="Reinstate", url_path="reinstate", permissions=["reinstate"], icon="check")
    def reinstate(self, request: HttpRequest, object_id: str) -> HttpResponse:
        """Ask, then let the organization's keys work again."""
        question = "The keys of this organization work again from then on."
        return self._confirm(request, object_id, "Reinstate", question, organizations.reinstate)

    def _confirm(
        self,
        request: HttpRequest,
        object_id: str,
        verb: str,
        question: str,
        change: Callable[..., Organization],
    ) -> HttpResponse:
        organization = self._find(request, object_id)
        if request.method == "POST":
            change(organization=organization, actor=_staff(request))
            self.log_change(request, organization, f"{verb}.")
            self.message_user(request, f"{organization}: done ({verb.lower()}).", messages.SUCCESS)
            return redirect("admin:accounts_organization_change", organization.pk)
        context = self._context(request, organization, f"{verb} {organization}?")
        return render(request, "admin/accounts/confirm.html", context | {"question": question, "verb": verb})

    def _context(self, request: HttpRequest, organization: Organization, title: str) -> dict[str, Any]:
        back = reverse("admin:accounts_organization_change", args=[organization.pk])
        shared: dict[str, Any] = self.admin_site.each_context(request)
        return shared | {"opts": self.opts, "title": title, "original": organization, "back": back}

    def _find(self, request: HttpRequest, object_id: str) -> Organization:
        organization: Organization | None = self.get_object(request, object_id)
        if organization is None:
            raise Http404
        return organization

    def _is_suspended(self, object_id: str | int | None) -> bool:
        return object_id is not None and Organization.objects.filter(pk=object_id, is_suspended=True).exists()


@admin.register(ApiKey)
class ApiKeyAdmin(ModelAdmin):
    """Keys: facts to read, limits to set, and one thing to do: revoke."""

    list_display = ("name", "masked", "organization", "mode", "state_label", "created_at", "last_used_at", "expires_at")
    list_filter = ("mode", ("revoked_at", admin.EmptyFieldListFilter), "is_imported")
    list_select_related = ("organization",)
    search_fields = ("name", "last_four", "organization__name")
    search_help_text = "Name, last four characters or organization."
    ordering = ("-pk",)
    fields = (
        "name",
        "masked",
        "organization",
        "mode",
        "state_label",
        "is_imported",
        "scopes",
        "allowed_models",
        "allowed_networks",
        "monthly_credit_cap",
        "create_rate_limit",
        "request_rate_limit",
        "created_at",
        "created_by",
        "last_used_at",
        "last_used_address",
        "expires_at",
        "replaced_by",
        "revoked_at",
        "revoked_by",
    )
    readonly_fields = tuple(
        name for name in fields if name not in {"monthly_credit_cap", "create_rate_limit", "request_rate_limit"}
    )
    actions = ("revoke_selected",)
    actions_detail = ("revoke",)

    def save_model(self, request: HttpRequest, obj: ApiKey, form: Any, change: bool) -> None:
        """Change the limits that the form changed."""
        with _told(request):
            values = {name: form.cleaned_data[name] for name in form.changed_data}
            keys.change(key=obj, changed_by=_staff(request), **values)

    @display(description="State", label=STATE_COLOURS)
    def state_label(self, key: ApiKey) -> str:
        """Say whether the key works."""
        return key.state

    @display(description="Key")
    def masked(self, key: ApiKey) -> str:
        """Show the key's prefix and last four characters."""
        return key.masked

    def lookup_allowed(self, lookup: str, value: str, request: HttpRequest) -> bool:
        """Allow the list of one organization's keys, which its page links to."""
        return lookup == "organization__id__exact" or bool(super().lookup_allowed(lookup, value, request))

    def has_add_permission(self, request: HttpRequest) -> bool:
        """Keys are issued on the organization's page, where the secret is shown."""
        return False

    def has_delete_permission(self, request: HttpRequest, obj: Model | None = None) -> bool:
        """Keep every key: it is revoked, not deleted."""
        return False

    def has_revoke_permission(self, request: HttpRequest, object_id: str | int | None = None) -> bool:
        """Offer to revoke a key that is not revoked."""
        if not self.has_change_permission(request):
            return False
        return object_id is None or ApiKey.objects.filter(pk=object_id, revoked_at__isnull=True).exists()

    @action(description="Revoke", url_path="revoke", permissions=["revoke"], icon="block")
    def revoke(self, request: HttpRequest, object_id: str) -> HttpResponse:
        """Ask, then revoke the key."""
        rows = ApiKey.objects.filter(pk=object_id)
        back = reverse("admin:accounts_apikey_change", args=[object_id])
        return self._confirm(request, rows, back=back, is_confirmed=request.method == "POST")

    @admin.action(description="Revoke the selected keys", permissions=["revoke"])
    def revoke_selected(self, request: HttpRequest, queryset: QuerySet[ApiKey]) -> HttpResponse:
        """Ask, then revoke the keys."""
        back = reverse("admin:accounts_apikey_changelist")
        return self._confirm(request, queryset, back=back, is_confirmed="confirmed" in request.POST)

    def _confirm(self, request: HttpRequest, rows: QuerySet[ApiKey], *, back: str, is_confirmed: bool) -> HttpResponse:
        chosen = list(rows.select_related("organization"))
        if is_confirmed:
            for key in chosen:
                keys.revoke(key=key, revoked_by=_staff(request))
                self.log_change(request, key, "Revoked.")
            self.message_user(request, f"Revoked: {', '.join(str(key) for key in chosen)}.", messages.SUCCESS)
            return redirect(back)
        context = self.admin_site.each_context(request) | {
            "opts": self.opts,
            "title": "Revoke this key?" if len(chosen) == 1 else f"Revoke {len(chosen)} keys?",
            "question": "Every program that uses it gets 401 from then on. This cannot be undone.",
            "verb": "Revoke",
            "back": back,
            "items": [f"{key.name} {key.masked} of {key.organization}" for key in chosen],
            "hidden": [
                ("action", "revoke_selected"),
                ("confirmed", "yes"),
                *((helpers.ACTION_CHECKBOX_NAME, str(key.pk)) for key in chosen),
            ],
        }
        return render(request, "admin/accounts/confirm.html", context)


def _staff(request: HttpRequest) -> User:
    assert isinstance(request.user, User)
    return request.user


@contextlib.contextmanager
def _told(request: HttpRequest) -> Iterator[None]:
    """Tell what the domain refuses, instead of failing."""
    try:
        yield
    except PublicError as error:
        messages.error(request, error.message)
