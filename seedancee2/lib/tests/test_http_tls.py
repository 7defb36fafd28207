"""The outbound client over TLS: verified against the name of the URL by the context it really uses, cut in time."""

import ssl
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from cryptography.x509.oid import ExtendedKeyUsageOID

from seedancee2.lib.http import Kind, exchange
from seedancee2.lib.tests.certificates import Authority
from seedancee2.lib.tests.nameserver import NameServer
from seedancee2.lib.tests.outbound import failure, get
from tests.receivers import Answer, Receiver

HOSTS = ["good.example", "a.good.example", "a.b.good.example", "other.example"]


@pytest.fixture
def authority(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, nameserver: NameServer) -> Iterator[Authority]:
    """An authority that this machine trusts, and a name server that knows every host as this machine."""
    for host in HOSTS:
        nameserver.answer(host, ["127.0.0.1"])
    trusted = Authority(tmp_path)
    monkeypatch.setenv("SSL_CERT_FILE", str(trusted.path))
    exchange._tls_context.cache_clear()
    yield trusted
    exchange._tls_context.cache_clear()


def test_tls_is_verified_against_the_name(authority: Authority) -> None:
    context = authority.server("good.example")
    asked: list[str] = []
    context.sni_callback = lambda _socket, name, _context: asked.append(name)
    with Receiver(tls=context) as receiver:
        reply = get(receiver.url(host="good.example"), allowed_hosts=HOSTS)
        get(receiver.url(host="GOOD.example."), allowed_hosts=HOSTS)

    assert (reply.status_code, reply.address) == (200, "127.0.0.1")
    assert asked == ["good.example"] * 2
    assert receiver.requests[0].headers["host"] == f"good.example:{receiver.port}"


@pytest.mark.parametrize(
    ("host", "certificate"),
    [
        ("a.good.example", {"names": ["*.good.example"]}),
        ("good.example", {"names": ["other.example", "good.example"]}),
        ("127.0.0.1", {"addresses": ["127.0.0.1"]}),
    ],
)
def test_a_certificate_that_covers_the_host_is_accepted(
    authority: Authority, host: str, certificate: dict[str, Any]
) -> None:
    context = authority.server(*certificate.get("names", []), addresses=tuple(certificate.get("addresses", [])))
    with Receiver(tls=context) as receiver:
        assert get(receiver.url(host=host), allowed_hosts=[host]).status_code == 200


@pytest.mark.parametrize(
    ("host", "names", "options"),
    [
        ("other.example", ["good.example"], {}),
        ("a.good.example", ["good.example"], {}),
        ("good.example", ["*.good.example"], {}),
        ("a.b.good.example", ["*.good.example"], {}),
        ("good.example", ["*.example.", "good.example.org", "xgood.example", "*"], {}),
        ("good.example", [], {"common_name": "good.example"}),
        ("127.0.0.1", ["127.0.0.1"], {"common_name": "127.0.0.1"}),
        ("127.0.0.1", ["good.example"], {"addresses": ("127.0.0.2",)}),
        ("good.example", [], {"addresses": ("127.0.0.1",)}),
        ("good.example", ["good.example"], {"is_self_signed": True}),
        ("good.example", ["good.example"], {"days": (-10, -1)}),
        ("good.example", ["good.example"], {"days": (1, 10)}),
        ("good.example", ["good.example"], {"usage": ExtendedKeyUsageOID.CLIENT_AUTH}),
    ],
    ids=[
        "another name",
        "a name above",
        "a wildcard below",
        "a wildcard one level down",
        "names that are nearly right",
        "the name as common name only",
        "an address as a name",
        "another address",
        "the address instead of the name",
        "signed by itself",
        "expired",
        "not valid yet",
        "of a client",
    ],
)
def test_a_wrong_certificate_is_refused_before_anything_is_sent(
    authority: Authority, host: str, names: list[str], options: dict[str, Any]
) -> None:
    with Receiver(tls=authority.server(*names, **options)) as receiver:
        failed = failure(receiver.url(host=host), allowed_hosts=[host])

    assert (failed.kind, failed.was_sent) == (Kind.TLS, False)
    assert receiver.requests == []


def test_an_authority_that_nobody_trusts_is_refused(authority: Authority, tmp_path: Path) -> None:
    stranger = Authority(tmp_path, "stranger")
    with Receiver(tls=stranger.server("good.example")) as receiver:
        failed = failure(receiver.url(host="good.example"), allowed_hosts=HOSTS)

    assert (failed.kind, failed.was_sent) == (Kind.TLS, False)
    assert receiver.requests == []


@pytest.mark.filterwarnings("ignore:ssl.TLSVersion.TLSv1_1 is deprecated:DeprecationWarning")
def test_an_old_protocol_is_refused(authority: Authority) -> None:
    context = authority.server("good.example")
    context.set_ciphers("ALL:@SECLEVEL=0")
    context.minimum_version = ssl.TLSVersion.TLSv1_1
    context.maximum_version = ssl.TLSVersion.TLSv1_1
    with Receiver(tls=context) as receiver:
        failed = failure(receiver.url(host="good.example"), allowed_hosts=HOSTS)

    assert (failed.kind, failed.was_sent, receiver.requests) == (Kind.TLS, False, [])


def test_plain_http_on_a_tls_port_and_the_reverse(authority: Authority, receiver: Receiver) -> None:
    with Receiver(tls=authority.server("good.example")) as tls:
        assert failure(tls.url().replace("https", "http")).was_sent
        assert tls.requests == []

    assert failure(receiver.url().replace("http", "https")).kind == Kind.TLS


@pytest.mark.parametrize(
    ("answer", "kind"),
    [(Answer(body=b"x" * 1000, body_drip=0.05), Kind.TOO_SLOW), (Answer(header_drip=0.05), Kind.TIMEOUT)],
)
def test_a_drip_over_tls_is_cut(authority: Authority, answer: Answer, kind: Kind) -> None:
    with Receiver(tls=authority.server("good.example")) as receiver:
        receiver.plan("/", answer)
        started = time.monotonic()

        failed = failure(receiver.url(host="good.example"), allowed_hosts=HOSTS, deadline_seconds=0.5)

        assert (failed.kind, failed.was_sent) == (kind, True)
        assert 0.45 < time.monotonic() - started < 1
