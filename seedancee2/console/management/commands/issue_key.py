"""Issue an API key, for a new or a known organization."""

import json
from typing import Any

from django.core.management.base import BaseCommand, CommandError, CommandParser

from accounts.models import ApiKey
from seedancee2.api.errors import PublicError
from seedancee2.console import provisioning


class Command(BaseCommand):
    help = "Issue an API key. The organization is made where its name is unknown. The key is shown once."

    def add_arguments(self, parser: CommandParser) -> None:
        """Declare the command's arguments."""
        parser.add_argument("organization", help="Name of the organization.")
        parser.add_argument("--name", default="default", help="Name of the key.")
        parser.add_argument("--credits", type=int, default=0, help="Credits to add to the organization's balance.")
        parser.add_argument("--test", action="store_true", help="Issue a test key: sandbox only, no credits moved.")
        parser.add_argument("--rate", type=int, help="Creates a minute for this key.")
        parser.add_argument("--json", action="store_true", help="Print one JSON object on the last line.")

    def handle(self, *args: Any, **options: Any) -> None:
        """Issue the key and print it as the last line of standard output."""
        try:
            issued = provisioning.issue_key(
                organization_name=options["organization"],
                name=options["name"],
                mode=ApiKey.Mode.TEST if options["test"] else ApiKey.Mode.LIVE,
                credits=options["credits"],
                create_rate_limit=options["rate"],
            )
        except PublicError as error:
            raise CommandError(str(error)) from error
        if options["json"]:
            facts = {
                "api_key": issued.secret,
                "organization": issued.organization.name,
                "credits": issued.credits,
                "signing_secret": issued.signing_secret,
            }
            self.stdout.write(json.dumps(facts))
            return
        self.stdout.write(f"Key for {issued.organization} ({issued.credits} credits available), shown only now:")
        self.stdout.write(issued.secret)
