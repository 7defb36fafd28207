"""The forms of sign-in and of the account: allauth's, in our words and with the password asked once.

A password is typed into one field that can be shown; whoever mistypes it unseen can reset it.
"""

# mypy: disable-error-code="misc"

from typing import Any, ClassVar

from allauth.account import forms as account
from allauth.core import context
from allauth.mfa.base import forms as mfa
from allauth.mfa.totp import forms as totp
from allauth.mfa.webauthn import forms as webauthn
from django import forms
from django.conf import settings
from django.db import transaction
from django.http import HttpRequest

from accounts import invited, people
from accounts.models import User

_NEW_PASSWORD_HELP = "At least 10 characters, not only digits, and none that is widely known."  # noqa: S105 -- a sentence


class _InOurWords:
    """Gives fields our labels and help, and takes placeholders away, which repeat the label and vanish on typing."""

    labels: ClassVar[dict[str, str]] = {}
    helps: ClassVar[dict[str, str]] = {}
    left_out: ClassVar[tuple[str, ...]] = ()
    fields: dict[str, forms.Field]

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        for name in self.left_out:
            self.fields.pop(name, None)
        for name, field in self.fields.items():
            field.widget.attrs.pop("placeholder", None)
            field.label = self.labels.get(name, field.label)
            field.help_text = self.helps.get(name, field.help_text)


class LoginForm(_InOurWords, account.LoginForm):
    """E-mail address and password."""

    labels = {"login": "E-mail address", "password": "Password"}


class SignupForm(_InOurWords, account.SignupForm):
    """Name, e-mail address and password of a newcomer."""

    name = forms.CharField(
        max_length=120, label="Your name", widget=forms.TextInput(attrs={"autocomplete": "name", "autofocus": True})
    )
    field_order = ["name", "email", "password1"]
    labels = {"email": "E-mail address", "password1": "Password"}
    helps = {"password1": _NEW_PASSWORD_HELP}

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        if (invitation := invited.waiting(context.request)) is not None:
            self.fields["email"].initial = invitation.email

    def clean_name(self) -> str:
        """Refuse names that cannot be shown."""
        return people.clean_name(self.cleaned_data["name"])

    def clean_email(self) -> str:
        """Hold newcomers to the address that was invited where only an invitation opens the door."""
        email: str = super().clean_email()
        invitation = invited.waiting(context.request)
        if invitation is not None and not invitation.is_for(email) and not settings.SIGNUP_OPEN:
            raise forms.ValidationError(
                f"You were invited as {invitation.email}. Sign up with that address; you can add others later."
            )
        return email

    def save(self, request: HttpRequest) -> User:
        """Write the person, their address and their organization, all or nothing."""
        with transaction.atomic():
            user: User = super().save(request)
        return user


class AddEmailForm(_InOurWords, account.AddEmailForm):
    """One more e-mail address."""

    labels = {"email": "New address"}


class ChangePasswordForm(_InOurWords, account.ChangePasswordForm):
    """The password there is and the one to be."""

    labels = {"oldpassword": "Current password", "password1": "New password"}
    helps = {"password1": _NEW_PASSWORD_HELP}
    left_out = ("password2",)


class SetPasswordForm(_InOurWords, account.SetPasswordForm):
    """The first password of somebody who has none."""

    helps = {"password1": _NEW_PASSWORD_HELP}
    left_out = ("password2",)


class ResetPasswordForm(_InOurWords, account.ResetPasswordForm):
    """The address of somebody who forgot their password."""

    labels = {"email": "E-mail address"}


class NewPasswordForm(_InOurWords, account.ResetPasswordKeyForm):
    """The new password of somebody who followed the link in the mail."""

    labels = {"password1": "New password"}
    helps = {"password1": _NEW_PASSWORD_HELP}
    left_out = ("password2",)


class ConfirmPasswordForm(_InOurWords, account.ReauthenticateForm):
    """The password once more, before something that matters."""


class CodeForm(_InOurWords, mfa.AuthenticateForm):
    """A code of the authenticator app, or a recovery code."""

    helps = {"code": "Six digits of your authenticator app, or one of your recovery codes."}


class ConfirmCodeForm(_InOurWords, mfa.ReauthenticateForm):
    """A code once more, before something that matters."""

    helps = {"code": "Six digits of your authenticator app, or one of your recovery codes."}


class ActivateAppForm(_InOurWords, totp.ActivateTOTPForm):
    """The first code that a new authenticator app shows."""

    labels = {"code": "The code that the app shows now"}


class AddPasskeyForm(_InOurWords, webauthn.AddWebAuthnForm):
    """The name of a new passkey, and whether it signs in alone."""

    labels = {"name": "Name", "passwordless": "Sign in with this passkey alone, without e-mail address and password"}
    helps = {
        "name": "How you will know it again, such as “work laptop”.",
        "passwordless": "It then asks for your fingerprint, face or PIN each time.",
    }


class RenamePasskeyForm(_InOurWords, webauthn.EditWebAuthnForm):
    """Another name for a passkey."""

    labels = {"name": "Name"}
