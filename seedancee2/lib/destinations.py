"""Where a customer may point us: what a URL must look like, and which addresses are on the public internet.

`check` reads the text alone: when a task is created, and again before each call. The client in `seedancee2.lib.http`
then asks `is_public` about every address that the name has at that moment; only that keeps us out of our own network.
"""

import ipaddress
import re
import socket
import unicodedata
from collections.abc import Collection
from dataclasses import dataclass
from typing import Final
from urllib.parse import quote, urlsplit

import idna
from django.conf import settings

Address = ipaddress.IPv4Address | ipaddress.IPv6Address

MAX_URL_LENGTH: Final = 8192

NOT_A_URL: Final = "must be an absolute http or https URL"
TOO_LONG: Final = f"must be at most {MAX_URL_LENGTH} characters long"
BAD_CHARACTERS: Final = "must not contain spaces, control characters or backslashes"
USER_NAME: Final = "must not contain a user name or password"
BAD_HOST: Final = "must have a valid host name"
BAD_PORT: Final = "must have a port between 1 and 65535"
PRIVATE: Final = "must not point to a private address"

_DEFAULT_PORTS: Final = {"http": 80, "https": 443}
_PRIVATE_NAMES: Final = ("localhost", "local", "internal")
_LABEL = re.compile(r"[a-z0-9_](?:[a-z0-9_-]{0,61}[a-z0-9_])?")
_BRACKETED = re.compile(r"\[[0-9a-fA-F:.]+\](?::[0-9]*)?")
_ENDS_IN_NUMBER = re.compile(r"(?:.*\.)?(?:[0-9]+|0x[0-9a-f]*)")

# What Python's `is_global` lets through although no customer's server lives there.
_NOT_PUBLIC_V4: Final = tuple(
    ipaddress.IPv4Network(network)
    for network in (
        "100.64.0.0/10",  # shared address space of carriers, and Alibaba's metadata service
        "168.63.129.16/32",  # Azure's wire server
        "192.0.0.0/24",  # protocol assignments, and Oracle's metadata service
        "192.31.196.0/24",  # AS112
        "192.52.193.0/24",  # multicast tunnels
        "192.88.99.0/24",  # 6to4 relays
        "192.175.48.0/24",  # AS112
    )
)
_GLOBAL_UNICAST_V6: Final = ipaddress.IPv6Network("2000::/3")
_NOT_PUBLIC_V6: Final = tuple(
    ipaddress.IPv6Network(network)
    for network in (
        "2001::/23",  # protocol assignments: Teredo, ORCHID, benchmarks
        "2001:db8::/32",  # documentation
        "2002::/16",  # 6to4
        "2620:4f:8000::/48",  # AS112
        "3ffe::/16",  # the old 6bone
        "3fff::/20",  # documentation
    )
)
_ISATAP: Final = (0x00005EFE, 0x02005EFE)


class BadDestination(Exception):
    """A URL that we will not call; `reason` completes a sentence that begins with the field's name."""

    def __init__(self, reason: str) -> None:
        super().__init__(reason)
        self.reason = reason


@dataclass(frozen=True, slots=True)
class Destination:
    """A URL taken apart once, so that nothing later reads it differently."""

    scheme: str
    host: str
    """ASCII, lower case, without brackets or a final dot; an address in its usual notation."""
    port: int
    target: str
    """Path and query as they go on the wire."""

    @property
    def origin(self) -> str:
        """Scheme, host and port in one text, always with the port."""
        return f"{self.scheme}://{f'[{self.host}]' if ':' in self.host else self.host}:{self.port}"


def check(url: str, *, allowed_hosts: Collection[str] | None = None) -> Destination:
    """Take a URL apart, and refuse one that could never be called or fetched; asks no name server.

    Raises:
        BadDestination: `reason` says in words what is wrong.
    """
    destination = parse(url)
    if is_allowed(destination, allowed_hosts):
        return destination
    if destination.host.rpartition(".")[2] in _PRIVATE_NAMES:
        raise BadDestination(PRIVATE)
    address = literal(destination.host)
    if address is not None and not is_public(address):
        raise BadDestination(PRIVATE)
    return destination


def parse(url: str) -> Destination:
    """Take an http or https URL apart, strictly; says nothing about where its host is.

    Raises:
        BadDestination: it is not a URL that two readers would read alike.
    """
    if len(url) > MAX_URL_LENGTH:
        raise BadDestination(TOO_LONG)
    if any(_is_forbidden(character) for character in url):
        raise BadDestination(BAD_CHARACTERS)
    try:
        parts = urlsplit(url)
    except ValueError as error:
        raise BadDestination(BAD_HOST if "://" in url else NOT_A_URL) from error
    if parts.scheme not in _DEFAULT_PORTS or not parts.netloc:
        raise BadDestination(NOT_A_URL)
    if "@" in parts.netloc:
        raise BadDestination(USER_NAME)
    try:
        port = parts.port
    except ValueError as error:
        raise BadDestination(BAD_PORT) from error
    if port == 0:
        raise BadDestination(BAD_PORT)
    path = quote(parts.path or "/", safe=_WIRE_SAFE)
    query = f"?{quote(parts.query, safe=_WIRE_SAFE)}" if parts.query else ""
    return Destination(
        scheme=parts.scheme,
        host=_host(parts.netloc, parts.hostname or ""),
        port=port or _DEFAULT_PORTS[parts.scheme],
        target=path + query,
    )


def literal(host: str) -> Address | None:
    """Return the address that a destination's host is, or None where it is a name."""
    try:
        return ipaddress.ip_address(host)
    except ValueError:
        return None


def is_public(address: Address) -> bool:
    """Tell whether an address is global unicast and reaches nothing but the public internet."""
    if not address.is_global or address.is_multicast or address.is_reserved:
        return False
    if isinstance(address, ipaddress.IPv4Address):
        return not any(address in network for network in _NOT_PUBLIC_V4)
    # Outside 2000::/3 lie mapped, compatible, translated (SIIT, NAT64), site-local and unallocated addresses.
    if address.scope_id or address not in _GLOBAL_UNICAST_V6:
        return False
    is_isatap = (int(address) >> 32) & 0xFFFFFFFF in _ISATAP
    return not is_isatap and not any(address in network for network in _NOT_PUBLIC_V6)


def is_allowed(destination: Destination, allowed_hosts: Collection[str] | None = None) -> bool:
    """Tell whether the operator lets this very host be reached although its address may be private.

    An entry is `host` or `host:port`; without a value OUTBOUND_ALLOWED_HOSTS counts.
    """
    entries = settings.OUTBOUND_ALLOWED_HOSTS if allowed_hosts is None else allowed_hosts
    return any(
        host == destination.host and port in (None, destination.port) for host, port in map(_split_entry, entries)
    )


def is_listed(url: str, hosts: Collection[str]) -> bool:
    """Tell whether a URL names one of these hosts; `*.example.com` is every name below that one.

    Raises:
        BadDestination: it is not a URL.
    """
    host = parse(url).host
    return any(host.endswith(entry[1:]) if entry.startswith("*.") else host == entry for entry in hosts)


# Everything printable in ASCII stays as the customer wrote it: a path that is part of a signature must not change.
_WIRE_SAFE: Final = "".join(map(chr, range(0x21, 0x7F)))


def _is_forbidden(character: str) -> bool:
    return character == "\\" or character.isspace() or unicodedata.category(character) in ("Cc", "Cs")


def _host(netloc: str, host: str) -> str:
    if netloc.startswith("["):
        if not _BRACKETED.fullmatch(netloc):
            raise BadDestination(BAD_HOST)
        try:
            return ipaddress.IPv6Address(host).compressed
        except ValueError as error:
            raise BadDestination(BAD_HOST) from error
    if not host.isascii():
        try:
            host = idna.encode(host, uts46=True).decode()
        except (idna.IDNAError, UnicodeError) as error:
            raise BadDestination(BAD_HOST) from error
    host = host.lower().removesuffix(".")
    if len(host) > 253 or not all(_is_label(label) for label in host.split(".")):
        raise BadDestination(BAD_HOST)
    return _usual_notation(host) if _ENDS_IN_NUMBER.fullmatch(host) else host


def _is_label(label: str) -> bool:
    if not _LABEL.fullmatch(label):
        return False
    if not label.startswith("xn--"):
        return True
    try:
        return bool(label[4:].encode().decode("punycode"))
    except UnicodeError:
        return False


def _usual_notation(host: str) -> str:
    # inet_aton reads decimal, hexadecimal, octal and shortened notations, as a resolver would.
    try:
        return str(ipaddress.IPv4Address(socket.inet_aton(host)))
    except OSError as error:
        raise BadDestination(BAD_HOST) from error


def _split_entry(entry: str) -> tuple[str, int | None]:
    text = entry.strip().lower()
    host, separator, port = text.rpartition(":")
    if text.startswith("["):
        host, _, rest = text[1:].partition("]")
        port = rest.removeprefix(":")
    elif not separator or ":" in host:
        host, port = text, ""
    if ":" in host:
        host = ipaddress.IPv6Address(host).compressed
    return host.removesuffix("."), int(port) if port else None
