"""Channels: opening an adapter on one, and keeping its credential sealed."""

from providers import adapters
from providers.adapters.base import Adapter, ChannelAccess
from providers.models import Channel
from seedancee2.lib import vault


def open_adapter(channel: Channel) -> Adapter:
    """Return an adapter that speaks through this channel.

    Raises:
        UnreadableSecret: the stored credential does not open.
    """
    credential = vault.unseal(bytes(channel.sealed_credential)) if channel.sealed_credential else ""
    access = ChannelAccess(name=channel.name, base_url=channel.base_url, credential=credential)
    return adapters.find(channel.adapter)(access)


def set_credential(*, channel: Channel, credential: str) -> Channel:
    """Store a new credential, encrypted; it is never shown again."""
    channel.sealed_credential = vault.seal(credential)
    channel.save(update_fields=["sealed_credential"])
    return channel
