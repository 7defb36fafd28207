"""One request over one connection, watched by a clock."""

import functools
import http.client
import socket
import ssl
import threading
import time
from collections.abc import Collection, Iterator, Mapping
from contextlib import ExitStack, contextmanager, suppress
from typing import Any, Final, Self

import certifi
from urllib3 import BaseHTTPResponse, HTTPHeaderDict
from urllib3.connection import HTTPConnection, HTTPSConnection
from urllib3.exceptions import HTTPError, ReadTimeoutError, SSLError
from urllib3.util.ssl_match_hostname import CertificateError

from seedancee2.lib import destinations
from seedancee2.lib.destinations import Address
from seedancee2.lib.http import lookups
from seedancee2.lib.http.outcomes import Blocked, Kind, TransportFailed
from seedancee2.lib.http.replies import Meter, MeteredResponse

DNS_SECONDS: Final = 5.0
CONNECT_SECONDS: Final = 5.0
_MAX_TRIED_ADDRESSES: Final = 3
_CHUNK_BYTES: Final = 64 * 1024


class Exchange:
    """One request and its reply over one connection, cut off at the deadline whatever the other side does."""

    def __init__(self, url: str, deadline_seconds: float, allowed_hosts: Collection[str] | None) -> None:
        try:
            self.destination = destinations.check(url, allowed_hosts=allowed_hosts)
        except destinations.BadDestination as error:
            raise Blocked(error.reason) from error
        self.address = ""
        self.is_sent = False
        self.meter = Meter()
        self._is_any_address_fine = destinations.is_allowed(self.destination, allowed_hosts)
        self._has_reply = False
        self._is_over = False
        self._started_at = time.monotonic()
        self.deadline_seconds = deadline_seconds
        connection_class = _TLSConnection if self.destination.scheme == "https" else _PlainConnection
        self._connection = connection_class(self)
        self._response: BaseHTTPResponse | None = None
        self._watched: socket.socket | None = None
        self._watch_lock = threading.Lock()
        self._timer = threading.Timer(deadline_seconds, self._cut)
        self._timer.daemon = True

    def __enter__(self) -> Self:
        self._timer.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._timer.cancel()
        with self._watch_lock:
            if self._watched is not None:
                self._watched.close()
                self._watched = None
        # Urllib3 hands the socket over to the response once its headers are read.
        if self._response is not None:
            self._response.close()
        self._connection.close()

    @property
    def duration_ms(self) -> int:
        """How long the exchange has taken so far."""
        return round((time.monotonic() - self._started_at) * 1000)

    def request(self, method: str, headers: Mapping[str, str] | None, body: bytes) -> BaseHTTPResponse:
        """Send the request and read the reply up to the end of its headers."""
        sent_headers = HTTPHeaderDict(headers or {})
        sent_headers.discard("Host")
        sent_headers.setdefault("User-Agent", "Seedancee2/1.0")
        sent_headers["Accept-Encoding"] = "identity"
        sent_headers["Connection"] = "close"
        with self._translated():
            try:
                self._connection.request(
                    method,
                    self.destination.target,
                    body=body or None,
                    headers=sent_headers,
                    preload_content=False,
                    decode_content=False,
                )
            except BrokenPipeError:
                # A server that refuses early may close its side while we still send; its reply can be read then.
                if not self.is_sent:
                    raise
            self._response = self._connection.getresponse()
            self._refuse_if_cut()
            self._has_reply = True
            return self._response

    def chunks(self, response: BaseHTTPResponse, limit: int) -> Iterator[bytes]:
        """Yield the body as it comes, at most `limit` bytes of it."""
        self.meter.expect(limit)
        while limit > 0:
            with self._translated():
                chunk = response.read(min(_CHUNK_BYTES, limit), decode_content=False)
                self._refuse_if_cut()
            if not chunk:
                return
            limit -= len(chunk)
            yield chunk

    def open_socket(self) -> socket.socket:
        """Connect to one of the host's addresses, all of which have been checked."""
        addresses = self._checked_addresses()
        for address in addresses[:_MAX_TRIED_ADDRESSES]:
            seconds = self._at_most(CONNECT_SECONDS)
            family = socket.AF_INET if address.version == 4 else socket.AF_INET6
            with suppress(OSError), ExitStack() as undone:
                candidate = undone.enter_context(socket.socket(family, socket.SOCK_STREAM))
                candidate.settimeout(seconds)
                candidate.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
                candidate.connect((str(address), self.destination.port))
                self._watch(candidate)
                self.address = str(address)
                undone.pop_all()
                return candidate
        self._at_most(CONNECT_SECONDS)
        raise TransportFailed(Kind.CONNECT, was_sent=False)

    def _checked_addresses(self) -> list[Address]:
        address = destinations.literal(self.destination.host)
        if address is not None:
            addresses = [address]
        else:
            # With its final dot a name is looked for as it stands, and not below the search domains of this machine.
            name = self.destination.host + ("" if self._is_any_address_fine else ".")
            addresses = lookups.resolve(name, seconds=self._at_most(DNS_SECONDS))
        if not self._is_any_address_fine and not all(map(destinations.is_public, addresses)):
            raise Blocked(destinations.PRIVATE)
        return addresses

    def _at_most(self, seconds: float) -> float:
        left = self.deadline_seconds - (time.monotonic() - self._started_at)
        if self._is_over or left <= 0:
            raise TransportFailed(Kind.TIMEOUT, was_sent=False)
        return min(seconds, left)

    def _watch(self, connected: socket.socket) -> None:
        # A duplicate stays valid when TLS takes the socket over, so that the handshake can be cut too.
        connected.settimeout(self.deadline_seconds)
        with self._watch_lock:
            self._watched = connected.dup()
        if self._is_over:
            self._cut()

    def _cut(self) -> None:
        # Timeouts of sockets count anew with each byte; shutting the socket down ends any read or write there is.
        self._is_over = True
        with self._watch_lock:
            if self._watched is not None:
                with suppress(OSError):
                    self._watched.shutdown(socket.SHUT_RDWR)

    def _refuse_if_cut(self) -> None:
        # Headers, and a body without a length, seem to end well where they were cut.
        if self._is_over:
            raise TimeoutError

    @contextmanager
    def _translated(self) -> Iterator[None]:
        try:
            yield
        except (OSError, http.client.HTTPException, HTTPError, CertificateError) as error:
            raise self._failure(error) from error

    def _failure(self, error: Exception) -> TransportFailed:
        late = Kind.TOO_SLOW if self._has_reply else Kind.TIMEOUT
        if self._is_over or isinstance(error, TimeoutError | ReadTimeoutError):
            kind = late
        elif isinstance(error, ssl.SSLError | SSLError | CertificateError):
            kind = Kind.TLS
        elif isinstance(error, ConnectionError | http.client.IncompleteRead) or isinstance(
            error.__cause__, ConnectionError | http.client.IncompleteRead
        ):
            kind = Kind.RESET
        else:
            kind = Kind.PROTOCOL
        return TransportFailed(kind, was_sent=self.is_sent)


class _PlainConnection(HTTPConnection):
    """A connection that is made where the exchange says, and that notes when the first byte leaves."""

    def __init__(self, exchange: Exchange, **options: Any) -> None:
        super().__init__(
            exchange.destination.host, exchange.destination.port, timeout=exchange.deadline_seconds, **options
        )
        self._exchange = exchange
        # http.client calls it as it would call the class.
        self.response_class = functools.partial(MeteredResponse, meter=exchange.meter)  # type: ignore[assignment] # see above

    def _new_conn(self) -> socket.socket:
        return self._exchange.open_socket()

    def send(self, data: Any) -> None:
        """Send, having noted that from here on it is not certain that nothing was sent."""
        if self.sock is None:
            self.connect()
        self._exchange.is_sent = True
        super().send(data)


class _TLSConnection(_PlainConnection, HTTPSConnection):
    """The same over TLS, verified against the name of the URL."""

    def __init__(self, exchange: Exchange) -> None:
        super().__init__(exchange, ssl_context=_tls_context())


@functools.cache
def _tls_context() -> ssl.SSLContext:
    # The system's authorities, so that SSL_CERT_FILE works, and certifi's for images that ship none.
    context = ssl.create_default_context()
    context.load_verify_locations(certifi.where())
    # Names stand in the extension made for them (RFC 9525 §6.3); the common name is any text.
    context.hostname_checks_common_name = False
    return context
