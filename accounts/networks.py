"""The addresses that a key may be used from: single ones and networks, of IPv4 and IPv6."""

import functools
import ipaddress
from collections.abc import Iterable

MAX_NETWORKS = 50

Network = ipaddress.IPv4Network | ipaddress.IPv6Network


class BadNetwork(ValueError):
    """A text is no address and no network; the message says what it may have meant."""


def normalize(texts: Iterable[str]) -> list[str]:
    """Write networks in their one form, each once, in the order given.

    Raises:
        BadNetwork: one of them is no network, or there are too many.
    """
    found = list(dict.fromkeys(_shown(_parsed(text.strip())) for text in texts if text.strip()))
    if len(found) > MAX_NETWORKS:
        raise BadNetwork(f"at most {MAX_NETWORKS} addresses and networks are allowed.")
    return found


@functools.lru_cache(maxsize=4096)
def cover(networks: tuple[str, ...], address: str | None) -> bool:
    """Tell whether an address lies in one of the networks; an unknown address does not."""
    try:
        place = ipaddress.ip_address(address or "")
    except ValueError:
        return False
    if isinstance(place, ipaddress.IPv6Address) and place.ipv4_mapped:
        place = place.ipv4_mapped
    return any(place in ipaddress.ip_network(network) for network in networks)


def _parsed(text: str) -> Network:
    try:
        meant = ipaddress.ip_network(text, strict=False)
    except ValueError:
        meant = None
    if meant is None or "%" in text:  # a zone names a cable of one machine, not a place
        raise BadNetwork(f"“{text[:60]}” is no address and no network, such as 203.0.113.7 or 2001:db8::/48.")
    if ipaddress.ip_interface(text).ip != meant.network_address:
        raise BadNetwork(f"“{text[:60]}” is within a network; write {meant} for all of it.")
    return meant


def _shown(network: Network) -> str:
    return str(network.network_address) if network.num_addresses == 1 else str(network)
