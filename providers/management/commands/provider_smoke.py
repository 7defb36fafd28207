"""Try a channel with one real generation, and see which of our assumptions about its provider hold."""

from typing import Any

from django.core.management.base import BaseCommand, CommandError, CommandParser

from providers import smoke
from providers.models import Channel, Route


class Command(BaseCommand):
    help = "Make one real generation of 4 seconds through a channel and check what we assume of its provider."

    def add_arguments(self, parser: CommandParser) -> None:
        """Declare the command's arguments."""
        parser.add_argument("channel", help="The channel's name; a channel that is off will do.")
        parser.add_argument("--model", default="mini", help="The public model whose route is taken.")
        parser.add_argument("--patience", type=float, default=900, help="Seconds to wait for the end.")
        parser.add_argument("--yes", action="store_true", help="Do not ask: it costs money.")

    def handle(self, *args: Any, **options: Any) -> None:
        """Run the checks and print a table."""
        channel = Channel.objects.filter(name=options["channel"]).first()
        if channel is None:
            names = ", ".join(Channel.objects.order_by("name").values_list("name", flat=True))
            raise CommandError(f"There is no channel named {options['channel']!r}. There are: {names}.")
        route = Route.objects.filter(channel=channel, model=options["model"]).order_by("priority").first()
        if route is None:
            raise CommandError(
                f"The channel has no route for {options['model']}; add one in the admin, inactive will do."
            )
        if not options["yes"] and input(f"This makes a real video at {channel.base_url}. Go on? [y/N] ").lower() != "y":
            raise CommandError("Nothing was sent.")
        checks = []
        for check in smoke.run(channel, route, patience=options["patience"], say=self._tell):
            checks.append(check)
            self.stdout.write(f"  {check.verdict:<9} {check.assumption}\n            {check.seen}")
        failed = [check for check in checks if check.verdict == smoke.Verdict.DIFFERS]
        self.stdout.write(f"{len(checks)} checks, {len(failed)} of them differ from what we assume.")
        if failed:
            raise CommandError("Mend the adapter, its options or the channel before live traffic goes there.")

    def _tell(self, line: str) -> None:
        self.stdout.write(f"… {line}")
        self.stdout.flush()
