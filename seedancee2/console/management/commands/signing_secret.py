"""Show or rotate an organization's webhook signing secret."""

import json
from typing import Any

from django.core.management.base import BaseCommand, CommandError, CommandParser

from accounts import audit
from seedancee2.console import provisioning
from webhooks import secrets


class Command(BaseCommand):
    help = "Show the secret that signs an organization's webhooks, or replace it."

    def add_arguments(self, parser: CommandParser) -> None:
        """Declare the command's arguments."""
        parser.add_argument("organization", help="Name of the organization.")
        parser.add_argument("--rotate", action="store_true", help="Replace it; the old one signs along for 24 hours.")
        parser.add_argument("--json", action="store_true", help="Print one JSON object on the last line.")

    def handle(self, *args: Any, **options: Any) -> None:
        """Print the current secret as the last line of standard output."""
        try:
            organization = provisioning.find_organization(name=options["organization"])
        except provisioning.UnknownOrganization as error:
            raise CommandError(str(error)) from error
        act = secrets.rotate if options["rotate"] else secrets.current
        secret = act(organization_id=organization.pk)
        action = "signing_secret.rotated" if options["rotate"] else "signing_secret.shown"
        audit.note(
            organization_id=organization.pk, actor=None, actor_name="system:cli", action=action, target="webhooks"
        )
        self.stdout.write(json.dumps({"signing_secret": secret}) if options["json"] else secret)
