"""System checks that refuse a production with unsafe settings; each has an id and a hint."""

from collections.abc import Sequence
from typing import Any

from django.apps.config import AppConfig
from django.conf import settings
from django.core.checks import CheckMessage, Critical, Error, Tags, Warning, register, run_checks
from django.core.exceptions import ImproperlyConfigured
from django.db import DatabaseError

_KNOWN_SECRETS = ("change-me", "changeme", "secret", "django-insecure", "insecure", "example")
_MIN_SECRET_LENGTH = 40
_BACKENDS_THAT_SEND_NOTHING = {
    f"django.core.mail.backends.{name}" for name in ("console", "dummy", "locmem", "filebased")
}


@register(Tags.security)
def check_production(app_configs: Sequence[AppConfig] | None, **kwargs: Any) -> list[CheckMessage]:
    """Refuse what is only right on a local machine; LOCAL_MODE itself switches these checks off."""
    if settings.LOCAL_MODE:
        return _check_local_mode()
    secret = _secret_key()
    found: list[CheckMessage] = []

    def refuse(number: int, message: str, hint: str) -> None:
        found.append(Critical(message, hint=hint, id=f"seedancee2.E{number:03d}"))

    if settings.DEBUG:
        refuse(1, "DEBUG is on.", "Unset DEBUG: it shows settings and source code to anyone who causes an error.")
    if len(secret) < _MIN_SECRET_LENGTH or any(word in secret.lower() for word in _KNOWN_SECRETS):
        refuse(2, "SECRET_KEY is missing, short or a known one.", "Set SECRET_KEY to at least 40 random characters.")
    if "*" in settings.ALLOWED_HOSTS or not settings.ALLOWED_HOSTS:
        refuse(3, "ALLOWED_HOSTS is empty or open.", "List the host names that this service answers to.")
    if not settings.DATABASES["default"]["ENGINE"].endswith("postgresql"):
        refuse(4, "The database is not PostgreSQL.", "Set DATABASE_URL to postgres://user:password@host/name.")
    if settings.OUTBOUND_ALLOWED_HOSTS:
        refuse(
            5,
            "OUTBOUND_ALLOWED_HOSTS opens private addresses to customers' URLs.",
            "Leave OUTBOUND_ALLOWED_HOSTS empty in production.",
        )
    if not settings.PUBLIC_BASE_URL.startswith("https://"):
        refuse(6, "PUBLIC_BASE_URL is not https.", "Set PUBLIC_BASE_URL to the https address of this service.")
    if not settings.MEDIA_BASE_URL.startswith("https://"):
        refuse(7, "MEDIA_BASE_URL is not https.", "Set MEDIA_BASE_URL to the https address of the media host.")
    if settings.EMAIL_BACKEND.rpartition(".")[0] in _BACKENDS_THAT_SEND_NOTHING:
        refuse(10, "EMAIL_BACKEND sends no mail.", "Set EMAIL_BACKEND to a real one: sign-in links must reach people.")
    if settings.BEHIND_TLS_PROXY and not settings.ALLAUTH_TRUSTED_PROXY_COUNT:
        refuse(
            11,
            "TRUSTED_PROXY_COUNT is 0 behind a proxy, so all people share one address and one sign-in limit.",
            "Set TRUSTED_PROXY_COUNT to the number of proxies in front of this service.",
        )
    if not settings.STAFF_NEEDS_SECOND_FACTOR:
        refuse(
            12,
            "STAFF_NEEDS_SECOND_FACTOR is off, so a password alone opens the admin.",
            "Unset STAFF_NEEDS_SECOND_FACTOR: each of the staff sets up an authenticator app or a passkey.",
        )
    if not settings.API_KEY_PEPPER:
        found.append(
            Warning(
                "API_KEY_PEPPER is not set, so API keys depend on SECRET_KEY.",
                hint="Set API_KEY_PEPPER, or every customer's key stops working when SECRET_KEY changes.",
                id="seedancee2.W001",
            )
        )
    return found


@register(Tags.database)
def check_sandbox_routes(
    app_configs: Sequence[AppConfig] | None, databases: Sequence[str] | None = None, **kwargs: Any
) -> list[CheckMessage]:
    """Refuse a production in which live keys would run on the sandbox."""
    from providers.models import Route

    if settings.LOCAL_MODE or not databases:
        return []
    try:
        routes = list(Route.objects.filter(channel__adapter="sandbox", traffic=Route.Traffic.LIVE, is_active=True))
    except DatabaseError:
        return []  # not migrated yet: there is no route either
    return [
        Error(
            f"Live traffic of {route.model} is routed to the sandbox.",
            hint="Deactivate this route in the admin: customers would pay for test pictures.",
            id="seedancee2.E008",
        )
        for route in routes
    ]


def _check_local_mode() -> list[CheckMessage]:
    # Local mode switches the other checks off, so it must not be left on where customers are served.
    if not settings.PUBLIC_BASE_URL.startswith("https://"):
        return []
    hint = "Unset LOCAL_MODE; only `make run` and the tests set it."
    return [Critical("LOCAL_MODE is on for a public https address.", hint=hint, id="seedancee2.E009")]


def _secret_key() -> str:
    try:
        return str(settings.SECRET_KEY)
    except ImproperlyConfigured:  # Django's own refusal of an empty one, which names no remedy
        return ""


def refuse_unsafe_start() -> None:
    """Stop a server process from starting with unsafe settings.

    Raises:
        ImproperlyConfigured: a check of this module failed; the message holds each with its hint.
    """
    failures = [
        message
        for message in run_checks(tags=[Tags.security, Tags.database], databases=["default"])
        if message.is_serious() and (message.id or "").startswith("seedancee2.")
    ]
    if failures:
        lines = [f"{failure.id}: {failure.msg} {failure.hint}" for failure in failures]
        raise ImproperlyConfigured("Refusing to start:\n" + "\n".join(lines))
