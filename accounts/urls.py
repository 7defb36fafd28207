"""Addresses of the console's pages about people and organizations, under `/console/`."""

from django.urls import path

from accounts import console_audit, console_invitation, console_members, console_settings, views

urlpatterns = [
    path("organization/", views.SwitchOrganizationView.as_view(), name="console-organization"),
    path("members/", console_members.MembersView.as_view(), name="console-members"),
    path("members/<int:member_id>/role/", console_members.ChangeRoleView.as_view(), name="console-member-role"),
    path("members/<int:member_id>/remove/", console_members.RemoveMemberView.as_view(), name="console-member-remove"),
    path("members/gone/<int:user_id>/keys/", console_members.LeaverKeysView.as_view(), name="console-leaver-keys"),
    path("members/leave/", console_members.LeaveView.as_view(), name="console-leave"),
    path(
        "members/invitations/<int:invitation_id>/resend/",
        console_members.ResendInvitationView.as_view(),
        name="console-invitation-resend",
    ),
    path(
        "members/invitations/<int:invitation_id>/withdraw/",
        console_members.WithdrawInvitationView.as_view(),
        name="console-invitation-withdraw",
    ),
    path("invitation/", console_invitation.AcceptInvitationView.as_view(), name="console-invitation-accept"),
    path("invitations/<str:token>/", console_invitation.InvitationLinkView.as_view(), name="console-invitation"),
    path("audit/", console_audit.AuditView.as_view(), name="console-audit"),
    path("settings/", console_settings.SettingsView.as_view(), name="console-settings"),
]
