"""How people sign in: django-allauth, with the few decisions that are ours."""

from typing import Any

import structlog
from allauth.account.adapter import DefaultAccountAdapter
from allauth.core.exceptions import ImmediateHttpResponse
from allauth.mfa.adapter import DefaultMFAAdapter
from allauth.mfa.models import Authenticator
from django.conf import settings
from django.contrib import messages
from django.forms import BaseForm
from django.http import HttpRequest, HttpResponse
from django.shortcuts import redirect

from accounts import invited, organizations
from accounts.models import User
from seedancee2.api.errors import PublicError
from seedancee2.lib import vault

log = structlog.get_logger(__name__)


class AccountAdapter(DefaultAccountAdapter):  # type: ignore[misc]  # allauth ships no types
    """Decides who may sign up, what a newcomer gets, and what happens when a mail cannot be sent."""

    error_messages = DefaultAccountAdapter.error_messages | {
        "account_inactive": "This account is switched off. Write to us if you think that is wrong.",
        "duplicate_email": "Your account has this e-mail address already.",
        "email_password_mismatch": (
            "The e-mail address and/or the password are not correct. Check both, or choose a new password."
        ),
        "email_taken": "There is an account with this e-mail address already. Sign in, or reset its password.",
        "enter_current_password": "This is not your current password.",
        "incorrect_code": "This code is not correct, or its time is over. Take the newest one.",
        "incorrect_password": "This password is not correct.",
        "too_many_login_attempts": "Too many failed attempts. Wait five minutes and try again, or reset your password.",
        "unverified_primary_email": "Confirm this address first: follow the link in the mail that we sent to it.",
        "rate_limited": "That was too often. Wait a minute and try again.",
    }

    def is_open_for_signup(self, request: HttpRequest) -> bool:
        """Tell whether the sign-up page takes newcomers: all of them, or those who followed an invitation."""
        return bool(settings.SIGNUP_OPEN) or invited.waiting(request) is not None

    def save_user(self, request: HttpRequest, user: User, form: BaseForm, commit: bool = True) -> User:
        """Write a newcomer, and give them the organization that invited them, else one of their own.

        Runs in the transaction of the sign-up form.
        """
        user.name = form.cleaned_data["name"]
        user = super().save_user(request, user, form, commit)
        invitation = invited.waiting(request)
        if invitation is not None and invitation.is_for(user.email):
            self.stash_verified_email(request, user.email)  # the invitation came by mail to this address
        try:
            has_joined = invited.join(request, user=user)
        except PublicError as error:
            # Raised through the form's transaction, so that nobody is left without an organization.
            messages.error(request, error.message)
            raise ImmediateHttpResponse(redirect("account_login")) from error
        if not has_joined and settings.SIGNUP_MAKES_ORGANIZATION:
            organizations.sign_up(owner=user)
        return user

    def get_reauthentication_methods(self, user: User) -> list[dict[str, Any]]:
        """List the ways to confirm that it is oneself, in our words."""
        words = {
            "reauthenticate": "Use your password",
            "mfa_reauthenticate": "Use a code",
            "mfa_reauthenticate:webauthn": "Use a passkey",
        }
        methods = super().get_reauthentication_methods(user)
        return [method | {"description": words.get(method["id"], method["description"])} for method in methods]

    def post_login(self, request: HttpRequest, user: User, **kwargs: Any) -> HttpResponse:
        """Lead somebody who had an account already back to the invitation that they followed, which a click accepts."""
        response: HttpResponse = super().post_login(request, user, **kwargs)
        invitation = invited.waiting(request)
        return redirect("console-invitation-accept") if invitation and invitation.is_for(user.email) else response

    def send_mail(self, template_prefix: str, email: str, context: dict[str, Any]) -> None:
        """Send a mail; where the mail server is away the page still answers, and says so."""
        try:
            super().send_mail(template_prefix, email, context)
        except OSError as error:  # smtplib's errors are among these
            log.exception("mail_not_sent", template=template_prefix, error=type(error).__name__)
            messages.error(self.request, "We could not send a mail just now. Please try again in a few minutes.")


class MfaAdapter(DefaultMFAAdapter):  # type: ignore[misc]  # allauth ships no types
    """Keeps second-factor secrets encrypted at rest; allauth itself stores them as they are."""

    error_messages = DefaultMFAAdapter.error_messages | {
        "add_email_blocked": (
            "An address cannot be added while a second factor is on: an unconfirmed address could take over the "
            "account. Turn the second factor off, add and confirm the address, and turn it on again."
        ),
        "incorrect_code": "This code is not correct, or its time is over. Take the newest one.",
        "unverified_email": "Confirm your e-mail address first: follow the link in the mail that we sent to it.",
    }

    def encrypt(self, text: str) -> str:
        """Seal a secret for the database."""
        return vault.seal(text).decode()

    def decrypt(self, encrypted_text: str) -> str:
        """Open a sealed secret."""
        return vault.unseal(encrypted_text.encode())

    def generate_authenticator_name(self, user: User, type: str) -> str:
        """Suggest a name for a new passkey."""
        count = Authenticator.objects.filter(user=user, type=type).count()
        return f"Passkey {count + 1}" if count else "My passkey"

    def get_public_key_credential_rp_entity(self) -> dict[str, str]:
        """Name this service as the browser's passkey dialogue shows it."""
        entity: dict[str, str] = super().get_public_key_credential_rp_entity()
        return entity | {"name": "Seedancee2"}
