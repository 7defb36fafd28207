"""The staff's page of an organization: how it stands, what may be done for it, and a look through its eyes."""

from collections.abc import Callable
from typing import Any

from django import forms
from django.contrib import admin, messages
from django.core.exceptions import PermissionDenied
from django.db import transaction
from django.db.models import Count, Model, OuterRef, QuerySet, Subquery
from django.db.models.functions import Coalesce
from django.http import Http404, HttpRequest, HttpResponse
from django.shortcuts import redirect, render
from django.urls import reverse
from django.utils.cache import add_never_cache_headers
from unfold.admin import ModelAdmin
from unfold.decorators import action, display

from accounts import audit, console_visits, keys, lookups, notes, organizations, visits
from accounts.admin_keys import MOST_AT_ONCE, last_use
from accounts.admin_members import MembershipOfOrganization, ThroughMembers
from accounts.models import ApiKey, Membership, Organization
from accounts.staff import UncountedMixin
from accounts.staff_actions import ReasonForm, ask, person, selected, told
from seedancee2.api.errors import PublicError
from seedancee2.console import staff_organization
from seedancee2.console.organization_forms import AdminIssueKeyForm, NoteForm
from seedancee2.lib import ids

SUSPENDED_AT_ONCE = 50  # organizations; each is shown with what its suspension touches


@admin.register(Organization)
class OrganizationAdmin(ThroughMembers, UncountedMixin, ModelAdmin):
    """Customers: how they stand, their people, limits and keys."""

    list_display = ("name", "state", "member_count", "key_count", "created_at")
    list_filter = ("is_suspended",)
    search_fields = ("name",)
    search_help_text = "Its number, or how its name begins."
    ordering = ("-pk",)
    fields = (
        "name",
        "state",
        "is_webhook_signing_enabled",
        ("create_rate_limit", "request_rate_limit"),
        "policies",
        "created_at",
    )
    readonly_fields = ("state", "policies", "created_at")
    inlines = (MembershipOfOrganization,)
    change_form_outer_before_template = "admin/accounts/organization.html"
    actions = ("suspend_selected",)
    actions_detail = (
        "issue_key",
        "adjust",
        "act_as",
        "write_note",
        {"title": "Keys and service", "items": ["show_keys", "revoke_all", "suspend", "reinstate"]},
    )

    def get_object(self, request: HttpRequest, object_id: str, from_field: str | None = None) -> Organization | None:
        """Read an organization once for a page: each action that is offered asks for it, too."""
        known: Organization | None = getattr(request, "_organization", None)
        if known is None or str(known.pk) != object_id:
            is_number = object_id.isdecimal() and len(object_id) < 19
            known = Organization.objects.filter(pk=object_id).first() if is_number else None
            request._organization = known  # type: ignore[attr-defined] # for this request only
        return known

    def changeform_view(
        self,
        request: HttpRequest,
        object_id: str | None = None,
        form_url: str = "",
        extra_context: dict[str, Any] | None = None,
    ) -> HttpResponse:
        """Show the organization with what other apps keep about it."""
        if request.method == "GET" and object_id and self.has_view_permission(request):
            organization = self.get_object(request, object_id)
            if organization is not None:
                overview = staff_organization.compile(organization)
                extra_context = {**(extra_context or {}), "overview": overview}
        response: HttpResponse = super().changeform_view(request, object_id, form_url, extra_context)
        return response

    def save_model(self, request: HttpRequest, obj: Organization, form: Any, change: bool) -> None:
        """Save a new one whole, and of a known one what was changed on its page: an old page undoes nothing."""
        if not change:
            with transaction.atomic():
                obj.save()
                audit.note(organization_id=obj.pk, actor=person(request), action="organization.made", target=obj.name)
            return
        with told(request):
            values = {name: form.cleaned_data[name] for name in form.changed_data}
            organizations.change(organization=obj, actor=person(request), **values)

    def get_queryset(self, request: HttpRequest) -> QuerySet[Organization]:
        """Count members and live keys beside each organization of the list."""
        rows: QuerySet[Organization] = super().get_queryset(request)
        members = Membership.objects.filter(organization=OuterRef("pk"))
        usable = ApiKey.objects.filter(organization=OuterRef("pk"), revoked_at=None)
        return rows.annotate(members_counted=_counted(members), keys_counted=_counted(usable))

    def get_search_results(
        self, request: HttpRequest, queryset: QuerySet[Organization], search_term: str
    ) -> tuple[QuerySet[Organization], bool]:
        """Find organizations by what an index leads to."""
        term = search_term.strip()
        return (lookups.organizations(queryset, term) if term else queryset), False

    @display(description="State", label={"active": "success", "suspended": "danger"})
    def state(self, organization: Organization) -> str:
        """Say whether the organization's keys work."""
        return "suspended" if organization.is_suspended else "active"

    @display(description="Its own policies")
    def policies(self, organization: Organization) -> str:
        """Say what its admins have decided in the console."""
        days = {
            "files kept for": organization.media_retention_days,
            "prompts kept for": organization.prompt_retention_days,
            "keys live at most": organization.longest_key_days,
        }
        found = [f"{name} {count} days" for name, count in days.items() if count is not None]
        found += ["members need a second factor"] * organization.demands_second_factor
        found += ["live keys need a cap"] * organization.demands_key_caps
        if hosts := organization.callback_hosts:
            found.append(f"webhooks to {', '.join(hosts[:5])}{' and others' if len(hosts) > 5 else ''} only")
        return "; ".join(found) or "none"

    @display(description="Members")
    def member_count(self, organization: Any) -> int:
        """Count the people."""
        return int(organization.members_counted)

    @display(description="Keys not revoked")
    def key_count(self, organization: Any) -> int:
        """Count the keys that nobody has revoked."""
        return int(organization.keys_counted)

    def has_delete_permission(self, request: HttpRequest, obj: Model | None = None) -> bool:
        """Keep every organization: it is suspended, not deleted."""
        return False

    def has_issue_key_permission(self, request: HttpRequest, object_id: str | int | None = None) -> bool:
        """Let those issue keys who may add them."""
        return self._may(request, "accounts.add_apikey")

    def has_show_keys_permission(self, request: HttpRequest, object_id: str | int | None = None) -> bool:
        """Let those see keys who may view them."""
        return self._may(request, "accounts.view_apikey")

    def has_revoke_keys_permission(self, request: HttpRequest, object_id: str | int | None = None) -> bool:
        """Let those revoke keys who may change them."""
        return self._may(request, "accounts.change_apikey")

    def has_adjust_permission(self, request: HttpRequest, object_id: str | int | None = None) -> bool:
        """Who may move credits: those who were given exactly that permission."""
        return self._may(request, "billing.adjust_creditaccount")

    def has_write_note_permission(self, request: HttpRequest, object_id: str | int | None = None) -> bool:
        """Let those write notes who may add them."""
        return self._may(request, "accounts.add_staffnote")

    def has_act_as_permission(self, request: HttpRequest, object_id: str | int | None = None) -> bool:
        """Who may look through a customer's eyes: those who were given exactly that permission."""
        return self._may(request, visits.PERMISSION)

    def has_suspend_permission(self, request: HttpRequest, object_id: str | int | None = None) -> bool:
        """Offer the suspension of an organization that is not suspended."""
        return self.has_change_permission(request) and not self._is_suspended(request, object_id)

    def has_reinstate_permission(self, request: HttpRequest, object_id: str | int | None = None) -> bool:
        """Offer the way back to an organization that is suspended."""
        return self.has_change_permission(request) and self._is_suspended(request, object_id)

    @action(description="Issue key", url_path="issue-key", permissions=["issue_key"], icon="key")
    def issue_key(self, request: HttpRequest, object_id: str) -> HttpResponse:
        """Ask what the key is to be, and show its secret once."""
        organization = self._find(request, object_id)
        form = AdminIssueKeyForm(request.POST or None, initial={"reference": ids.new("key")})
        issued: keys.IssuedKey | None = None
        if request.method == "POST" and form.is_valid():
            try:
                issued = keys.issue(
                    organization=organization,
                    name=form.cleaned_data["name"],
                    mode=form.cleaned_data["mode"],
                    created_by=person(request),
                    reason=form.cleaned_data["reason"],
                    reference=form.cleaned_data["reference"],
                    expires_at=form.expires_at(),
                )
            except PublicError as error:
                self.message_user(request, error.message, messages.ERROR)
            else:
                self.log_change(request, organization, f"Issued the key {issued.key}.")
        context = self.admin_site.each_context(request) | {
            "opts": self.opts,
            "title": f"Issue a key for {organization}",
            "original": organization,
            "back": self._address(organization),
            "form": form,
            "issued": issued,
        }
        response = render(request, "admin/accounts/issue_key.html", context)
        add_never_cache_headers(response)
        return response

    @action(description="Adjust credits", url_path="adjust", permissions=["adjust"], icon="payments")
    def adjust(self, request: HttpRequest, object_id: str) -> HttpResponse:
        """Lead to the one form that adjusts credits."""
        return redirect("admin:billing_creditaccount_adjust", self._find(request, object_id).pk)

    @action(description="Keys", url_path="keys", permissions=["show_keys"], icon="list")
    def show_keys(self, request: HttpRequest, object_id: str) -> HttpResponse:
        """Lead to the list of this organization's keys."""
        return redirect(f"{reverse('admin:accounts_apikey_changelist')}?organization__id__exact={object_id}")

    @action(description="Write a note", url_path="note", permissions=["write_note"], icon="edit_note")
    def write_note(self, request: HttpRequest, object_id: str) -> HttpResponse:
        """Add a note."""
        return self._act(
            request,
            object_id,
            "Write a note",
            NoteForm(request.POST or None),
            "Agreements, warnings, who to call: whatever the next of us should know.",
            lambda row, data: notes.write(organization=row, author=person(request), text=data["text"]),
        )

    @action(description="Look as customer", url_path="act-as", permissions=["act_as"], icon="visibility")
    def act_as(self, request: HttpRequest, object_id: str) -> HttpResponse:
        """Ask why, then lead to the console as the organization sees it."""
        organization = self._find(request, object_id)
        form = ReasonForm(request.POST or None)
        if request.method == "POST" and form.is_valid():
            with transaction.atomic():
                visit = visits.begin(
                    organization=organization, visitor=person(request), reason=form.cleaned_data["reason"]
                )
                console_visits.begin(request, visit)
            return redirect("console-home")
        return ask(
            request,
            self,
            title=f"Look at the console as {organization}?",
            text="You see what its owners see, but no secrets and no playground, and you can change nothing. It ends "
            "after 30 minutes, or with Stop. Their audit log tells of it, as done by the Seedancee2 team.",
            verb="Look as customer",
            form=form,
            back=self._address(organization),
            original=organization,
        )

    @action(description="Revoke all keys", url_path="revoke-all", permissions=["revoke_keys"], icon="key_off")
    def revoke_all(self, request: HttpRequest, object_id: str) -> HttpResponse:
        """Show every key that ends, ask for the name, and revoke them."""
        organization = self._find(request, object_id)
        rows = ApiKey.objects.filter(organization=organization, revoked_at=None).order_by("-pk")
        chosen = list(rows[: MOST_AT_ONCE + 1])
        if not chosen or len(chosen) > MOST_AT_ONCE:
            problem = (
                f"There are more than {MOST_AT_ONCE} keys: suspend the organization, which stops them all at once."
                if chosen
                else "No key is left that could be revoked."
            )
            self.message_user(request, problem, messages.ERROR)
            return redirect(self._address(organization))
        return self._act(
            request,
            object_id,
            "Revoke all keys",
            ReasonForm(request.POST or None, expected=organization.name),
            "Every program that uses one of these gets 401 from then on. This cannot be undone.",
            lambda row, data: keys.revoke_all(keys=chosen, revoked_by=person(request), reason=data["reason"]),
            items=[f"{key.name} {key.masked}, {last_use(key)}" for key in chosen],
        )

    @action(description="Suspend", url_path="suspend", permissions=["suspend"], icon="block")
    def suspend(self, request: HttpRequest, object_id: str) -> HttpResponse:
        """Show what stops, ask why, then stop every key of the organization."""
        return self._act(
            request,
            object_id,
            "Suspend",
            ReasonForm(request.POST or None),
            "Its keys get 401 at once, all of them. Tasks under way are finished, charged and delivered.",
            lambda row, data: organizations.suspend(organization=row, actor=person(request), reason=data["reason"]),
            items=staff_organization.touched([self._find(request, object_id)]),
        )

    @action(description="Reinstate", url_path="reinstate", permissions=["reinstate"], icon="check")
    def reinstate(self, request: HttpRequest, object_id: str) -> HttpResponse:
        """Ask why, then let the organization's keys work again."""
        return self._act(
            request,
            object_id,
            "Reinstate",
            ReasonForm(request.POST or None),
            "The keys of this organization work again from then on.",
            lambda row, data: organizations.reinstate(organization=row, actor=person(request), reason=data["reason"]),
            items=staff_organization.touched([self._find(request, object_id)]),
        )

    @admin.action(description="Suspend the selected organizations", permissions=["suspend"])
    def suspend_selected(self, request: HttpRequest, queryset: QuerySet[Organization]) -> HttpResponse:
        """Show what each suspension touches, ask why and for their number, then suspend them."""
        chosen = list(queryset.filter(is_suspended=False).order_by("pk")[: SUSPENDED_AT_ONCE + 1])
        back = reverse("admin:accounts_organization_changelist")
        if not chosen or len(chosen) > SUSPENDED_AT_ONCE:
            problem = f"Choose 1 to {SUSPENDED_AT_ONCE} organizations that are not suspended yet."
            self.message_user(request, problem, messages.ERROR)
            return redirect(back)
        is_sent = "confirmed" in request.POST
        form = ReasonForm(request.POST if is_sent else None, expected=str(len(chosen)))
        form.fields["confirm"].help_text = "How many organizations lose their service."
        if is_sent and form.is_valid():
            with transaction.atomic():
                for row in chosen:
                    organizations.suspend(organization=row, actor=person(request), reason=form.cleaned_data["reason"])
            self.message_user(request, f"Organizations suspended: {len(chosen)}.", messages.SUCCESS)
            return redirect(back)
        return ask(
            request,
            self,
            title=f"Suspend {len(chosen)} organizations?",
            text="Their keys get 401 at once, all of them. Tasks under way are finished, charged and delivered.",
            verb="Suspend",
            form=form,
            back=back,
            items=staff_organization.touched(chosen),
            hidden=[("action", "suspend_selected"), ("confirmed", "yes"), *selected(chosen)],
        )

    def _act(
        self,
        request: HttpRequest,
        object_id: str,
        verb: str,
        form: forms.Form,
        text: str,
        change: Callable[[Organization, dict[str, Any]], Any],
        items: list[str] | None = None,
    ) -> HttpResponse:
        """Ask for what the form wants to know, then do it."""
        organization = self._find(request, object_id)
        if request.method == "POST" and form.is_valid():
            change(organization, form.cleaned_data)
            self.log_change(request, organization, f"{verb}.")
            self.message_user(request, f"{organization}: done ({verb.lower()}).", messages.SUCCESS)
            return redirect(self._address(organization))
        return ask(
            request,
            self,
            title=f"{verb}: {organization}",
            text=text,
            verb=verb,
            form=form,
            back=self._address(organization),
            items=items or (),
            original=organization,
        )

    def _address(self, organization: Organization) -> str:
        return reverse("admin:accounts_organization_change", args=[organization.pk])

    def _find(self, request: HttpRequest, object_id: str) -> Organization:
        # Whatever else was granted: to do something for an organization one has to see it.
        if not self.has_view_permission(request):
            raise PermissionDenied
        organization = self.get_object(request, object_id)
        if organization is None:
            raise Http404
        return organization

    def _may(self, request: HttpRequest, permission: str) -> bool:
        return bool(request.user.has_perm(permission)) and self.has_view_permission(request)

    def _is_suspended(self, request: HttpRequest, object_id: str | int | None) -> bool:
        organization = self.get_object(request, str(object_id)) if object_id is not None else None
        return organization is not None and organization.is_suspended


def _counted(rows: QuerySet[Any]) -> Coalesce:
    counts = rows.order_by().values("organization").annotate(count=Count("*")).values("count")
    return Coalesce(Subquery(counts), 0)
