"""Console pages about the people of an organization: who belongs to it, who is invited, and who goes."""

from typing import Any, ClassVar

from allauth.mfa.models import Authenticator
from django.contrib import messages
from django.core.exceptions import PermissionDenied
from django.db.models import Exists, OuterRef, QuerySet
from django.http import Http404, HttpRequest, HttpResponse
from django.shortcuts import get_object_or_404, redirect

from accounts import invitations, members, roles
from accounts.console import ConsoleView
from accounts.forms import ConfirmForm, InviteForm, RemoveMemberForm, add_problem
from accounts.models import ApiKey, Invitation, Membership, User
from seedancee2.api.errors import InvalidRequest

_P = roles.Permission


class MembersView(ConsoleView):
    """The members, the open invitations, and the form for another one."""

    section: ClassVar[str] = "members"

    def get(self, request: HttpRequest) -> HttpResponse:
        """Show the tables and the form."""
        return self._page(self._form())

    def post(self, request: HttpRequest) -> HttpResponse:
        """Invite somebody."""
        if not self.may(_P.MANAGE_MEMBERS):
            raise PermissionDenied
        form = self._form(request.POST)
        if not form.is_valid():
            return self._page(form)
        try:
            invitation = invitations.invite(
                organization=self.membership.organization,
                email=form.cleaned_data["email"],
                role=form.cleaned_data["role"],
                actor=self.user,
                may_touch_owners=self.may(_P.MANAGE_OWNERS),
            )
        except InvalidRequest as error:
            add_problem(form, error)
            return self._page(form)
        except invitations.NotSent as error:
            messages.warning(request, f"{error} Send it again below.")
        else:
            messages.success(request, f"{invitation.email} is invited and has a mail with a link for seven days.")
        return self.to("console-members")

    def _form(self, *values: Any) -> InviteForm:
        return InviteForm(*values, roles=roles_given_by(self.membership))

    def _page(self, form: InviteForm) -> HttpResponse:
        may_invite = self.may(_P.MANAGE_MEMBERS)
        return self.page(
            "console/members.html",
            form=form if may_invite else None,
            rows=[(row, roles.may_manage_member(self.membership, row)) for row in _rows(self.membership)],
            roles_given=roles_given_by(self.membership),
            open_invitations=[
                (row, roles.may_give_role(self.membership, row.role)) for row in pending_invitations(self.membership)
            ]
            if may_invite
            else [],
            leavers=members.leavers(self.membership.organization).items() if self.may(_P.MANAGE_ALL_KEYS) else [],
            role_table=[
                (role.label, [permission.value for permission in _P if permission in roles.TABLE[role]])
                for role in Membership.Role
            ],
        )


class MemberView(ConsoleView):
    """What the steps about one member share."""

    section: ClassVar[str] = "members"
    permission: ClassVar[roles.Permission] = _P.MANAGE_MEMBERS

    def find(self, member_id: int) -> Membership:
        """Return a member of this organization whom the person may manage.

        Raises:
            Http404: there is none in this organization.
            PermissionDenied: an owner, and the person is none.
        """
        row = get_object_or_404(_rows(self.membership), pk=member_id)
        if not roles.may_manage_member(self.membership, row):
            raise PermissionDenied
        return row


class ChangeRoleView(MemberView):
    """Another role for a member."""

    http_method_names = ["post"]

    def post(self, request: HttpRequest, member_id: int) -> HttpResponse:
        """Give the role that the form names."""
        row, role = self.find(member_id), request.POST.get("role", "")
        if role not in Membership.Role.values:
            messages.error(request, "Choose one of the roles.")
            return self.to("console-members")
        try:
            row = members.change_role(
                membership=row, role=role, actor=self.user, may_touch_owners=self.may(_P.MANAGE_OWNERS)
            )
        except InvalidRequest as error:
            messages.error(request, error.message)
        else:
            messages.success(request, f"{row.user.email} is {row.get_role_display().lower()} now.")
        return self.to("console-members")


class RemoveMemberView(MemberView):
    """The step between the wish to remove a member and its end."""

    def get(self, request: HttpRequest, member_id: int) -> HttpResponse:
        """Ask what is to become of their keys, and for their address."""
        return self._page(self.find(member_id))

    def post(self, request: HttpRequest, member_id: int) -> HttpResponse:
        """Remove the member."""
        row = self.find(member_id)
        form = _removal(row, request.POST)
        if not form.is_valid():
            return self._page(row, form)
        try:
            revoked = members.remove(
                membership=row,
                actor=self.user,
                may_touch_owners=self.may(_P.MANAGE_OWNERS),
                revokes_keys=form.revokes_keys,
            )
        except InvalidRequest as error:
            form.add_error(None, error.message)
            return self._page(row, form)
        told = f" {len(revoked)} of their keys are revoked." if revoked else ""
        messages.success(request, f"{row.user.email} is no member any more.{told}")
        return self.to("console-members")

    def _page(self, row: Membership, form: RemoveMemberForm | None = None) -> HttpResponse:
        form = form or _removal(row)
        return self.page("console/member_remove.html", member=row, form=form, keys=members.working_keys(row))


class LeaverKeysView(ConsoleView):
    """The step between the wish to end the keys of somebody who has gone and their end."""

    section: ClassVar[str] = "members"
    permission: ClassVar[roles.Permission] = _P.MANAGE_ALL_KEYS

    def get(self, request: HttpRequest, user_id: int) -> HttpResponse:
        """Show the keys, and ask for the address of who made them."""
        person, keys = self._find(user_id)
        return self._page(person, keys, ConfirmForm(expected=person.email))

    def post(self, request: HttpRequest, user_id: int) -> HttpResponse:
        """Revoke them all."""
        person, keys = self._find(user_id)
        form = ConfirmForm(request.POST, expected=person.email)
        if not form.is_valid():
            return self._page(person, keys, form)
        revoked = members.revoke_keys_of_leaver(organization=self.membership.organization, user=person, actor=self.user)
        messages.success(
            request, f"{len(revoked)} of {person.email}’s keys are revoked. Requests with them get 401 now."
        )
        return self.to("console-members")

    def _find(self, user_id: int) -> tuple[User, list[ApiKey]]:
        for person, keys in members.leavers(self.membership.organization).items():
            if person.pk == user_id:
                return person, keys
        raise Http404

    def _page(self, person: User, keys: list[ApiKey], form: ConfirmForm) -> HttpResponse:
        return self.page("console/leaver_keys.html", person=person, keys=keys, form=form)


class LeaveView(ConsoleView):
    """The step between a member's wish to leave and their going."""

    section: ClassVar[str] = "members"

    def get(self, request: HttpRequest) -> HttpResponse:
        """Ask for the organization's name."""
        return self._page(self._form())

    def post(self, request: HttpRequest) -> HttpResponse:
        """Leave. The member's keys go on working: programs of the organization may depend on them."""
        form = self._form(request.POST)
        if not form.is_valid():
            return self._page(form)
        try:
            members.remove(membership=self.membership, actor=self.user, may_touch_owners=False, revokes_keys=False)
        except InvalidRequest as error:
            form.add_error(None, error.message)
            return self._page(form)
        messages.success(request, f"You have left {self.membership.organization.name}.")
        return redirect("console-home")

    def _form(self, *values: Any) -> ConfirmForm:
        return ConfirmForm(*values, expected=self.membership.organization.name)

    def _page(self, form: ConfirmForm) -> HttpResponse:
        return self.page("console/leave.html", form=form, keys=members.working_keys(self.membership))


class InvitationStepView(ConsoleView):
    """What the steps about an open invitation share."""

    section: ClassVar[str] = "members"
    permission: ClassVar[roles.Permission] = _P.MANAGE_MEMBERS
    http_method_names = ["post"]

    def find(self, invitation_id: int) -> Invitation:
        """Return an open invitation of this organization that the person may decide on.

        Raises:
            Http404: there is none in this organization.
            PermissionDenied: it is for an owner, and the person is none.
        """
        row = get_object_or_404(pending_invitations(self.membership), pk=invitation_id)
        if not roles.may_give_role(self.membership, row.role):
            raise PermissionDenied
        return row


class ResendInvitationView(InvitationStepView):
    """A mail once more."""

    def post(self, request: HttpRequest, invitation_id: int) -> HttpResponse:
        """Send it, with a new link."""
        row = self.find(invitation_id)
        try:
            invitations.resend(invitation=row, actor=self.user, may_touch_owners=self.may(_P.MANAGE_OWNERS))
        except (InvalidRequest, invitations.Unusable, invitations.NotSent) as error:
            messages.error(request, str(error))
        else:
            messages.success(request, f"{row.email} has a new mail; the link of the old one is dead.")
        return self.to("console-members")


class WithdrawInvitationView(InvitationStepView):
    """An invitation taken back."""

    def post(self, request: HttpRequest, invitation_id: int) -> HttpResponse:
        """Take it back."""
        row = self.find(invitation_id)
        try:
            invitations.withdraw(invitation=row, actor=self.user, may_touch_owners=self.may(_P.MANAGE_OWNERS))
        except invitations.Unusable as error:
            messages.error(request, str(error))
        else:
            messages.success(request, f"The invitation of {row.email} is withdrawn; its link is dead.")
        return self.to("console-members")


def roles_given_by(membership: Membership) -> list[tuple[str, str]]:
    """List the roles that a member may give to others."""
    return [(role.value, role.label) for role in Membership.Role if roles.may_give_role(membership, role)]


def pending_invitations(membership: Membership) -> QuerySet[Invitation]:
    """Select the invitations of an organization that nobody accepted or withdrew, expired ones too, newest first."""
    rows = Invitation.objects.filter(organization=membership.organization_id, accepted_at=None, withdrawn_at=None)
    return rows.select_related("invited_by").order_by("-pk")


def _rows(membership: Membership) -> QuerySet[Membership]:
    factors = Authenticator.objects.filter(user=OuterRef("user")).exclude(type=Authenticator.Type.RECOVERY_CODES)
    rows = Membership.objects.filter(organization=membership.organization_id).select_related("user")
    return rows.annotate(has_second_factor=Exists(factors)).order_by("user__email")


def _removal(row: Membership, *values: Any) -> RemoveMemberForm:
    return RemoveMemberForm(*values, expected=row.user.email, has_keys=bool(members.working_keys(row)))
