"""How people sign in: django-allauth, with the few decisions that are ours."""

from allauth.account.adapter import DefaultAccountAdapter
from allauth.mfa.adapter import DefaultMFAAdapter
from django.conf import settings
from django.http import HttpRequest

from seedancee2.lib import vault


class AccountAdapter(DefaultAccountAdapter):  # type: ignore[misc]  # allauth ships no types
    """Decides whether newcomers may sign up by themselves."""

    def is_open_for_signup(self, request: HttpRequest) -> bool:
        """Tell whether the sign-up page takes newcomers."""
        return bool(settings.SIGNUP_OPEN)


class MfaAdapter(DefaultMFAAdapter):  # type: ignore[misc]  # allauth ships no types
    """Keeps second-factor secrets encrypted at rest; allauth itself stores them as they are."""

    def encrypt(self, text: str) -> str:
        """Seal a secret for the database."""
        return vault.seal(text).decode()

    def decrypt(self, encrypted_text: str) -> str:
        """Open a sealed secret."""
        return vault.unseal(encrypted_text.encode())
