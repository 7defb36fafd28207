"""Take over an API key that a customer already has."""

import sys
from typing import Any

from django.core.management.base import BaseCommand, CommandError, CommandParser
from django.db import transaction

from accounts import keys
from seedancee2.api.errors import PublicError
from seedancee2.console import provisioning


class Command(BaseCommand):
    help = "Import an existing key, read from standard input so that it stays out of the shell's history."

    def add_arguments(self, parser: CommandParser) -> None:
        """Declare the command's arguments."""
        parser.add_argument("organization", help="Name of the organization; made where it is unknown.")
        parser.add_argument("--name", default="imported", help="Name of the key.")

    def handle(self, *args: Any, **options: Any) -> None:
        """Store the key's digest; the key itself is neither kept nor printed."""
        secret = sys.stdin.readline().strip()
        if not secret:
            raise CommandError("Give the key on standard input, on one line.")
        try:
            with transaction.atomic():
                organization = provisioning.ensure_organization(name=options["organization"])
                key = keys.import_existing(organization=organization, name=options["name"], secret=secret)
        except PublicError as error:
            raise CommandError(str(error)) from error
        self.stdout.write(f"Imported {key} for {organization}.")
