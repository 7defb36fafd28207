"""Make a channel at a known provider, with routes that stay switched off until staff switch them on."""

import os
from getpass import getpass
from typing import Any

from django.core.management.base import BaseCommand, CommandError, CommandParser

from providers import presets
from providers.models import Channel


class Command(BaseCommand):
    help = (
        "Make a channel with its credential and an inactive route for each model; the key is read, never an argument."
    )

    def add_arguments(self, parser: CommandParser) -> None:
        """Declare the command's arguments."""
        parser.add_argument("preset", choices=sorted(presets.PRESETS))
        parser.add_argument("--name", help="The channel's name; the preset's unless given.")

    def handle(self, *args: Any, **options: Any) -> None:
        """Make the channel."""
        name = options["name"] or options["preset"]
        if Channel.objects.filter(name=name).exists():
            raise CommandError(f"A channel named {name} exists; choose another with --name.")
        credential = os.environ.get("PROVIDER_KEY") or getpass("The provider's key: ")
        if not credential.strip():
            raise CommandError("Without a key nothing was made.")
        preset = presets.PRESETS[options["preset"]]
        presets.install(name=name, preset=preset, credential=credential.strip())
        self.stdout.write(
            f"Channel {name} is there, its routes are off. Try it with `manage.py provider_smoke {name}`,"
            " then switch the routes on in the admin."
        )
