"""The outbound client over TLS: verified against the name, cut in time."""

import datetime as dt
import ssl
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from seedancee2.lib.http import Kind, exchange
from seedancee2.lib.tests.outbound import FakeDNS, failure, get
from tests.receivers import Answer, Receiver


def certificate(name: str) -> tuple[bytes, bytes]:
    """Make a self-signed certificate for a DNS name; return it with its key, as PEM."""
    key = ec.generate_private_key(ec.SECP256R1())
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
    now = dt.datetime.now(dt.UTC)
    made = (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(subject)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - dt.timedelta(days=1))
        .not_valid_after(now + dt.timedelta(days=1))
        .add_extension(x509.SubjectAlternativeName([x509.DNSName(name)]), critical=False)
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        .sign(key, hashes.SHA256())
    )
    return made.public_bytes(serialization.Encoding.PEM), key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )


@pytest.fixture
def tls_receiver(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[tuple[Receiver, list[str]]]:
    """A server for `good.example` whose certificate is trusted, and the names that clients asked it for."""
    for name, content in zip(("cert.pem", "key.pem"), certificate("good.example"), strict=True):
        (tmp_path / name).write_bytes(content)
    asked: list[str] = []
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(tmp_path / "cert.pem", tmp_path / "key.pem")
    context.sni_callback = lambda _socket, name, _context: asked.append(name)
    trusting = ssl.create_default_context(cafile=str(tmp_path / "cert.pem"))
    monkeypatch.setattr(exchange, "_tls_context", lambda: trusting)
    with Receiver(tls=context) as running:
        yield running, asked


def test_tls_is_verified_against_the_name(tls_receiver: tuple[Receiver, list[str]], dns: FakeDNS) -> None:
    receiver, asked = tls_receiver
    dns(["127.0.0.1"])

    reply = get(receiver.url(host="good.example"), allowed_hosts=["good.example"])

    assert (reply.status_code, asked) == (200, ["good.example"])


def test_tls_for_another_name_fails_before_anything_is_sent(
    tls_receiver: tuple[Receiver, list[str]], dns: FakeDNS
) -> None:
    receiver, _ = tls_receiver
    dns(["127.0.0.1"])

    failed = failure(receiver.url(host="other.example"), allowed_hosts=["other.example"])

    assert (failed.kind, failed.was_sent) == (Kind.TLS, False)
    assert receiver.requests == []


def test_untrusted_tls_fails(
    tls_receiver: tuple[Receiver, list[str]], dns: FakeDNS, monkeypatch: pytest.MonkeyPatch
) -> None:
    receiver, _ = tls_receiver
    dns(["127.0.0.1"])
    monkeypatch.setattr(exchange, "_tls_context", ssl.create_default_context)

    failed = failure(receiver.url(host="good.example"), allowed_hosts=["good.example"])

    assert (failed.kind, failed.was_sent) == (Kind.TLS, False)


def test_plain_http_on_a_tls_port_and_the_reverse(tls_receiver: tuple[Receiver, list[str]], receiver: Receiver) -> None:
    tls, _ = tls_receiver

    assert failure(tls.url().replace("https", "http")).was_sent
    assert failure(receiver.url().replace("http", "https")).kind == Kind.TLS


def test_tls_body_drip_is_cut(tls_receiver: tuple[Receiver, list[str]], dns: FakeDNS) -> None:
    receiver, _ = tls_receiver
    dns(["127.0.0.1"])
    receiver.plan("/", Answer(body=b"x" * 1000, body_drip=0.05))
    started = time.monotonic()

    failed = failure(receiver.url(host="good.example"), allowed_hosts=["good.example"], deadline_seconds=1)

    assert failed.kind == Kind.TOO_SLOW
    assert 0.95 < time.monotonic() - started < 1.5
