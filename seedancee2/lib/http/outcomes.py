"""What can come of a request."""

from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum


class Kind(StrEnum):
    """Why no whole reply came; a closed list, safe to show and to count."""

    DNS = "dns"
    CONNECT = "connect"
    TLS = "tls"
    TIMEOUT = "timeout"
    TOO_SLOW = "too_slow"
    RESET = "reset"
    PROTOCOL = "protocol"
    TOO_LARGE = "too_large"


class Blocked(Exception):
    """The URL, or the address behind its name, may not be called; nothing was sent."""

    def __init__(self, reason: str) -> None:
        super().__init__(reason)
        self.reason = reason


class TransportFailed(Exception):
    """No whole reply came. `was_sent` is False only where certainly not one byte of the request went out."""

    def __init__(self, kind: Kind, *, was_sent: bool) -> None:
        super().__init__(kind.value)
        self.kind = kind
        self.was_sent = was_sent


@dataclass(frozen=True, slots=True)
class Reply:
    """What the other side answered, of whatever status."""

    status_code: int
    headers: Mapping[str, str]
    """Looked up in any case."""
    body: bytes
    """As it came, never decompressed."""
    is_cut: bool
    """Whether the body was longer than asked for."""
    duration_ms: int
    address: str


@dataclass(frozen=True, slots=True)
class Download:
    """A file fetched, or the status that said there is none (then nothing was written)."""

    status_code: int
    headers: Mapping[str, str]
    byte_count: int
    duration_ms: int
    address: str
