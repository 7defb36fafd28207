"""Prepare the local machine: a demo organization, keys, a staff member and live routes on the sandbox."""

import json
import os
import secrets as random_secrets
from pathlib import Path
from typing import Any

from django.conf import settings
from django.core.management.base import BaseCommand, CommandError, CommandParser

from accounts import clients
from accounts.models import ApiKey, Membership, User
from providers import channels, health, presets
from providers.models import Channel, Route
from seedancee2.api.errors import InvalidApiKey
from seedancee2.console import provisioning
from webhooks import secrets

ORGANIZATION = "demo"
CREDITS = 100_000
_EMULATOR_SUFFIX = "-emulator"
STAFF_EMAIL = "staff@seedancee2.local"


class Command(BaseCommand):
    help = "Prepare the local machine. Refused outside local mode. A repeat keeps what is still valid."

    def add_arguments(self, parser: CommandParser) -> None:
        """Declare the command's arguments."""
        parser.add_argument("--previous", type=Path, help="var/run.json of an earlier run.")
        parser.add_argument(
            "--emulator",
            action="append",
            default=[],
            metavar="NAME",
            help="Send live traffic to this emulated provider; EMULATOR_<NAME> holds its address and key.",
        )
        parser.add_argument("--json", action="store_true", help="Print one JSON object on the last line.")

    def handle(self, *args: Any, **options: Any) -> None:
        """Make what is missing and print what a person needs to start."""
        if not settings.LOCAL_MODE:
            raise CommandError("prepare_local is for a local machine; set LOCAL_MODE=true if this is one.")
        previous = _read(options["previous"])
        organization = provisioning.ensure_organization(name=ORGANIZATION)
        _route_live_traffic(options["emulator"])
        facts = {
            "api_key": _key(previous.get("api_key", ""), ApiKey.Mode.LIVE),
            "test_key": _key(previous.get("test_key", ""), ApiKey.Mode.TEST),
            "signing_secret": secrets.current(organization_id=organization.pk),
            "staff_email": STAFF_EMAIL,
            "staff_password": _staff_password(previous.get("staff_password", "")),
        }
        Membership.objects.get_or_create(
            user=User.objects.get(email=STAFF_EMAIL),
            organization=organization,
            defaults={"role": Membership.Role.OWNER},
        )
        if options["json"]:
            self.stdout.write(json.dumps(facts))
        else:
            self.stdout.write("\n".join(f"{name}: {value}" for name, value in facts.items()))


def _read(path: Path | None) -> dict[str, str]:
    try:
        data = json.loads(path.read_text()) if path else {}
    except (OSError, ValueError):
        return {}
    return data if isinstance(data, dict) else {}


def _key(previous: str, mode: ApiKey.Mode) -> str:
    try:
        clients.authenticate(previous)
        return previous
    except InvalidApiKey:
        is_first_live = mode == ApiKey.Mode.LIVE and not ApiKey.objects.filter(mode=mode).exists()
        return provisioning.issue_key(
            organization_name=ORGANIZATION,
            name=f"make run ({mode})",
            mode=mode,
            credits=CREDITS if is_first_live else 0,
        ).secret


def _staff_password(previous: str) -> str:
    user = User.objects.filter(email=STAFF_EMAIL).first()
    if user is not None and previous and user.check_password(previous):
        return previous
    password = random_secrets.token_urlsafe(15)
    if user is None:
        User.objects.create_superuser(STAFF_EMAIL, password, name="Local staff")
    else:
        user.set_password(password)
        user.save(update_fields=["password"])
    return password


def _route_live_traffic(emulators: list[str]) -> None:
    """Send live traffic to the emulated providers of this run, or else to the sandbox while there is nothing better."""
    live = Route.objects.filter(traffic=Route.Traffic.LIVE)
    # Emulators of earlier runs are gone; what staff made by hand stays as it is.
    live.filter(channel__name__endswith=_EMULATOR_SUFFIX).update(is_active=False)
    sandbox = Channel.objects.get(name="sandbox")
    for name in emulators:
        _route_to_emulator(name)
    if emulators:
        live.filter(channel=sandbox).update(is_active=False)
    elif not live.filter(is_active=True).exists():
        for model in Route.objects.filter(channel=sandbox, traffic=Route.Traffic.TEST).values_list("model", flat=True):
            live.update_or_create(
                model=model,
                channel=sandbox,
                upstream_model=f"sandbox-{model}",
                defaults={"is_active": True},
                create_defaults={"is_active": True, "traffic": Route.Traffic.LIVE},
            )


def _route_to_emulator(name: str) -> None:
    base_url, _, key = os.environ[f"EMULATOR_{name.upper()}"].partition(" ")
    preset = presets.emulated(name, origin=base_url)
    channel = Channel.objects.filter(name=name + _EMULATOR_SUFFIX).first()
    if channel is None:
        channel = presets.install(name=name + _EMULATOR_SUFFIX, preset=preset, credential=key)
    else:
        channels.set_credential(channel=channel, credential=key)
    Channel.objects.filter(pk=channel.pk).update(
        base_url=preset.base_url, options=dict(preset.options), output_hosts=["127.0.0.1"]
    )
    health.reset(channel)
    channel.routes.update(is_active=True)
