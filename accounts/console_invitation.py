"""Where the link of an invitation leads: its token goes into the session, then the person accepts, signed in."""

from django.contrib import messages
from django.http import HttpRequest, HttpResponse
from django.http.response import HttpResponseBase
from django.shortcuts import redirect, render
from django.utils.cache import add_never_cache_headers
from django.views import View

from accounts import invitations, invited
from accounts.console import SESSION_KEY
from accounts.models import User


class InvitationLinkView(View):
    """The address in the mail."""

    http_method_names = ["get", "head"]

    def get(self, request: HttpRequest, token: str) -> HttpResponse:
        """Keep the token of an invitation that stands, and get it out of the address bar."""
        try:
            invitation = invitations.find(token)
        except invitations.Unusable as error:
            return render(request, "console/invitation.html", {"problem": str(error)}, status=404)
        invited.remember(request, token=token, email=invitation.email)
        return redirect("console-invitation-accept")


class AcceptInvitationView(View):
    """Who invites, as what, and the button that accepts; to somebody who is not signed in, how to go on."""

    http_method_names = ["get", "head", "post"]

    def dispatch(self, request: HttpRequest, *args: object, **kwargs: object) -> HttpResponseBase:
        """Keep caches from storing the page."""
        response = super().dispatch(request, *args, **kwargs)
        add_never_cache_headers(response)
        return response

    def get(self, request: HttpRequest) -> HttpResponse:
        """Show the invitation; who took it by signing up or in goes on to the console."""
        if invited.waiting(request) is None and request.user.is_authenticated:
            return redirect("console-home")
        try:
            invitation = invitations.find(_token(request))
        except invitations.Unusable as error:
            return render(request, "console/invitation.html", {"problem": str(error)}, status=404)
        context = {"invitation": invitation, "is_for_user": invitations.is_for(invitation, request.user)}
        return render(request, "console/invitation.html", context)

    def post(self, request: HttpRequest) -> HttpResponse:
        """Accept, and go to the organization."""
        if not isinstance(request.user, User):
            return redirect("console-invitation-accept")
        try:
            membership = invitations.accept(_token(request), request.user)
        except (invitations.Unusable, invitations.OtherAddress) as error:
            return render(request, "console/invitation.html", {"problem": str(error)}, status=403)
        invited.forget(request)
        request.session[SESSION_KEY] = membership.organization_id
        messages.success(request, f"Welcome to {membership.organization.name}.")
        return redirect("console-home")


def _token(request: HttpRequest) -> str:
    waiting = invited.waiting(request)
    return waiting.token if waiting else ""
