"""Check that every credit is explained."""

import dataclasses
import json
from typing import Any

from django.core.management.base import BaseCommand, CommandError, CommandParser

from billing.reconciliation import BEGINNING
from generations import reconciliation


class Command(BaseCommand):
    help = "Compare balances, holds, entries and tasks; exit with 1 and name every discrepancy where there is one."

    def add_arguments(self, parser: CommandParser) -> None:
        """Declare the command's arguments."""
        parser.add_argument("--json", action="store_true", help="Print one JSON object on the last line.")
        parser.add_argument("--all-files", action="store_true", help="Ask the storage for every file.")

    def handle(self, *args: Any, **options: Any) -> None:
        """Print each discrepancy on a line of its own."""
        found = reconciliation.report(since=BEGINNING, is_every_file=options["all_files"])
        if options["json"]:
            self.stdout.write(json.dumps({"discrepancies": [dataclasses.asdict(item) for item in found]}))
        else:
            for discrepancy in found:
                self.stdout.write(str(discrepancy))
        if found:
            raise CommandError(
                f"{len(found)} discrepancies were found; docs/runbook.md tells what to do.", returncode=1
            )
        if not options["json"]:
            self.stdout.write("Every credit is explained: 0 discrepancies.")
