"""Correct an organization's credits by hand."""

import json
from typing import Any

from django.core.management.base import BaseCommand, CommandError, CommandParser

from billing import adjustments, ledger
from seedancee2.api.errors import InsufficientCredits
from seedancee2.console import provisioning


class Command(BaseCommand):
    help = "Add credits to an organization's balance, or take them away with a negative amount."

    def add_arguments(self, parser: CommandParser) -> None:
        """Declare the command's arguments."""
        parser.add_argument("organization", help="Name of the organization.")
        parser.add_argument("amount", type=int, help="Credits; negative to take away.")
        parser.add_argument("--reason", required=True, help="Why, for the ledger.")
        parser.add_argument("--json", action="store_true", help="Print one JSON object on the last line.")

    def handle(self, *args: Any, **options: Any) -> None:
        """Write one ledger entry and print the new balance."""
        try:
            organization = provisioning.find_organization(name=options["organization"])
            adjustments.request(
                organization_id=organization.pk,
                amount=options["amount"],
                reason=options["reason"],
                requested_by=adjustments.CLI,
            )
        except InsufficientCredits as error:
            raise CommandError("The available credits do not cover this; nothing was changed.") from error
        except (provisioning.UnknownOrganization, ValueError) as error:
            raise CommandError(str(error)) from error
        available, held = ledger.balance(organization_id=organization.pk)
        if options["json"]:
            self.stdout.write(json.dumps({"available": available, "held": held}))
            return
        self.stdout.write(f"{organization}: {available} credits available, {held} held.")
