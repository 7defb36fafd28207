"""Seal every stored secret with the newest of FIELD_ENCRYPTION_KEYS."""

from typing import Any

from django.core.management.base import BaseCommand, CommandError

from seedancee2.console import reencryption


class Command(BaseCommand):
    help = "Seal webhook secrets, credentials of providers and second factors with the first of FIELD_ENCRYPTION_KEYS."

    def handle(self, *args: Any, **options: Any) -> None:
        """Print a line for each column; a repeat goes on where a run was cut short."""
        unreadable_count = 0
        for count in reencryption.run():
            self.stdout.write(f"{count.column}: {count.resealed} sealed anew, {count.current} had been")
            if count.unreadable:
                some = ", ".join(map(str, count.unreadable[:20]))
                self.stdout.write(f"  no key opens {len(count.unreadable)} rows: {some}")
                unreadable_count += len(count.unreadable)
        if unreadable_count:
            raise CommandError(
                f"{unreadable_count} secrets were not read: keep the old keys, and add the one that sealed these.",
                returncode=1,
            )
