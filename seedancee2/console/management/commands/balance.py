"""Show an organization's credits."""

import json
from typing import Any

from django.core.management.base import BaseCommand, CommandError, CommandParser

from billing import ledger
from seedancee2.console import provisioning


class Command(BaseCommand):
    help = "Show the available and held credits of an organization."

    def add_arguments(self, parser: CommandParser) -> None:
        """Declare the command's arguments."""
        parser.add_argument("organization", help="Name of the organization.")
        parser.add_argument("--json", action="store_true", help="Print one JSON object on the last line.")

    def handle(self, *args: Any, **options: Any) -> None:
        """Print the balance."""
        try:
            organization = provisioning.find_organization(name=options["organization"])
        except provisioning.UnknownOrganization as error:
            raise CommandError(str(error)) from error
        available, held = ledger.balance(organization_id=organization.pk)
        if options["json"]:
            self.stdout.write(json.dumps({"available": available, "held": held}))
            return
        self.stdout.write(f"{organization}: {available} credits available, {held} held.")
