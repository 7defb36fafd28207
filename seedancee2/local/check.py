"""The part of `make check` that needs Django: as in production, on servers that are thrown away."""

from __future__ import annotations

import os
import secrets
import subprocess
import sys

from seedancee2.local import throwaway
from seedancee2.local.state import ROOT, CannotStart

_PRODUCTION = {
    "DEBUG": "false",
    "LOCAL_MODE": "false",
    "ALLOWED_HOSTS": "api.seedancee2.ai",
    "PUBLIC_BASE_URL": "https://api.seedancee2.ai",
    "MEDIA_BASE_URL": "https://media.seedancee2.ai",
    "MEDIA_STORAGE_URL": "s3://media?region_name=eu-central-1",
    "OUTBOUND_ALLOWED_HOSTS": "",
    "EMAIL_BACKEND": "django.core.mail.backends.smtp.EmailBackend",
    "SENTRY_DSN": "",
}
_SECRETS = ("SECRET_KEY", "API_KEY_PEPPER")
_COMMANDS = (
    ["makemigrations", "--check", "--dry-run"],
    ["check", "--deploy", "--fail-level=WARNING"],
    ["spectacular", "--validate", "--fail-on-warn", f"--file={os.devnull}"],
)


def main() -> int:
    """Run every command, and fail where one of them does."""
    statuses = []
    try:
        with throwaway.servers() as addresses:
            environment = os.environ | _PRODUCTION | addresses | {name: secrets.token_urlsafe(48) for name in _SECRETS}
            for command in _COMMANDS:
                sys.stdout.write(f"manage.py {' '.join(command)}\n")
                sys.stdout.flush()
                line = [sys.executable, "manage.py", *command]
                statuses.append(subprocess.call(line, cwd=ROOT, env=environment))  # noqa: S603 (the list above)
    except CannotStart as error:
        sys.stderr.write(f"{error}\n")
        return 1
    return max(statuses)


if __name__ == "__main__":
    sys.exit(main())
