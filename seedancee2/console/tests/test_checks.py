"""Production refuses unsafe settings, each with an id and a hint."""

import os
import subprocess
import sys

import pytest
from django.core.exceptions import ImproperlyConfigured

from providers.models import Channel, Route
from seedancee2.console import checks

SAFE = {
    "LOCAL_MODE": False,
    "DEBUG": False,
    "SECRET_KEY": "kJ8" * 20,
    "ALLOWED_HOSTS": ["api.example.com"],
    "OUTBOUND_ALLOWED_HOSTS": [],
    "PUBLIC_BASE_URL": "https://api.example.com",
    "MEDIA_BASE_URL": "https://media.example.com",
    "API_KEY_PEPPER": "pepper" * 8,
    "EMAIL_BACKEND": "django.core.mail.backends.smtp.EmailBackend",
    "STAFF_NEEDS_SECOND_FACTOR": True,
}


@pytest.fixture
def production(settings):
    """Settings as a production should have them."""
    for name, value in SAFE.items():
        setattr(settings, name, value)
    return settings


def test_safe_settings_pass(production):
    assert checks.check_production(None) == []


@pytest.mark.parametrize(
    ("name", "value", "id"),
    [
        ("DEBUG", True, "seedancee2.E001"),
        ("SECRET_KEY", "", "seedancee2.E002"),
        ("SECRET_KEY", "short", "seedancee2.E002"),
        ("SECRET_KEY", "django-insecure-" + "k" * 60, "seedancee2.E002"),
        ("ALLOWED_HOSTS", [], "seedancee2.E003"),
        ("ALLOWED_HOSTS", ["*"], "seedancee2.E003"),
        ("OUTBOUND_ALLOWED_HOSTS", ["127.0.0.1"], "seedancee2.E005"),
        ("PUBLIC_BASE_URL", "http://api.example.com", "seedancee2.E006"),
        ("MEDIA_BASE_URL", "http://media.example.com", "seedancee2.E007"),
        ("API_KEY_PEPPER", "", "seedancee2.W001"),
        ("EMAIL_BACKEND", "django.core.mail.backends.console.EmailBackend", "seedancee2.E010"),
        ("BEHIND_TLS_PROXY", True, "seedancee2.E011"),
        ("STAFF_NEEDS_SECOND_FACTOR", False, "seedancee2.E012"),
    ],
)
def test_each_unsafe_setting_is_named(production, name, value, id):
    setattr(production, name, value)

    (message,) = checks.check_production(None)

    assert message.id == id
    assert message.hint


def test_sqlite_is_refused(production, monkeypatch):
    monkeypatch.setitem(production.DATABASES["default"], "ENGINE", "django.db.backends.sqlite3")

    (message,) = checks.check_production(None)

    assert message.id == "seedancee2.E004"


@pytest.mark.django_db
def test_live_routes_on_the_sandbox_are_refused(production):
    assert checks.check_sandbox_routes(None, databases=["default"]) == []
    Route.objects.create(
        model="pro", traffic="live", channel=Channel.objects.get(name="sandbox"), upstream_model="sandbox-pro"
    )

    (message,) = checks.check_sandbox_routes(None, databases=["default"])

    assert message.id == "seedancee2.E008"


@pytest.mark.django_db
def test_a_server_process_refuses_to_start(production):
    production.DEBUG = True

    with pytest.raises(ImproperlyConfigured, match=r"seedancee2\.E001: DEBUG is on\."):
        checks.refuse_unsafe_start()


def test_local_mode_is_refused_for_a_public_address(production):
    production.LOCAL_MODE = True

    (message,) = checks.check_production(None)

    assert message.id == "seedancee2.E009"


@pytest.mark.parametrize(
    "command",
    [
        ["gunicorn", "--check-config", "seedancee2.wsgi"],
        ["celery", "-A", "seedancee2", "worker", "-P", "solo", "-Q", "nothing"],
        ["celery", "-A", "seedancee2", "beat"],
    ],
)
@pytest.mark.parametrize(
    ("changes", "id"),
    [
        ({"DEBUG": "true"}, "E001"),
        ({"DATABASE_URL": "sqlite:////tmp/nothing.db"}, "E004"),
        ({"OUTBOUND_ALLOWED_HOSTS": "10.0.0.1,metadata.internal:80"}, "E005"),
    ],
)
def test_no_process_starts_with_unsafe_settings(command, changes, id):
    environment = {
        "PATH": os.environ["PATH"],
        "DATABASE_URL": os.environ["DATABASE_URL"],
        "REDIS_URL": os.environ["REDIS_URL"],
        **{name: ",".join(value) if isinstance(value, list) else str(value) for name, value in SAFE.items()},
        **changes,
    }

    result = subprocess.run(
        [sys.executable, "-m", *command], env=environment, capture_output=True, text=True, timeout=60, check=False
    )

    assert result.returncode != 0
    assert f"seedancee2.{id}" in result.stderr
