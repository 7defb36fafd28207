"""Channels: opening an adapter on one, and keeping its secrets sealed."""

from urllib.parse import quote

from django.conf import settings

from providers import adapters
from providers.adapters.base import Adapter, ChannelAccess
from providers.models import Channel, Credential
from seedancee2.lib import vault


def open_adapter(channel: Channel, credential: Credential | None = None) -> Adapter:
    """Return an adapter that speaks through this channel, with one of its credentials.

    Raises:
        UnreadableSecret: a stored secret does not open.
    """
    access = ChannelAccess(
        name=channel.name,
        base_url=channel.base_url,
        credential=vault.unseal(bytes(credential.sealed_secret)) if credential else "",
        callback_secret=vault.unseal(bytes(channel.sealed_callback_secret)) if channel.sealed_callback_secret else "",
        output_hosts=tuple(channel.output_hosts),
        options=channel.options,
    )
    return adapters.find(channel.adapter)(access)


def newest_credential(channel: Channel) -> Credential | None:
    """Return the credential that new jobs take; None where the channel needs none."""
    return Credential.objects.filter(channel=channel).order_by("-id").first()


def set_credential(*, channel: Channel, credential: str) -> Credential:
    """Give a channel a new credential, encrypted and never shown again; jobs under way keep theirs."""
    return Credential.objects.create(channel=channel, sealed_secret=vault.seal(credential))


def set_callback_secret(*, channel: Channel, secret: str) -> Channel:
    """Store what the provider signs its callbacks with, encrypted and never shown again."""
    channel.sealed_callback_secret = vault.seal(secret)
    channel.save(update_fields=["sealed_callback_secret"])
    return channel


def callback_url(channel: Channel, token: str) -> str:
    """Return where a provider may call back about the submission of this token."""
    return f"{settings.PUBLIC_BASE_URL}/callbacks/{quote(channel.name)}/{token}"
