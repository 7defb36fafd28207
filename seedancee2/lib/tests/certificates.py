"""An authority of the tests' own and the certificates that it, or nobody, has signed."""

import datetime as dt
import ipaddress
import ssl
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID, ObjectIdentifier

DAY = dt.timedelta(days=1)


class Authority:
    """Signs certificates; `path` is the file that makes others trust it."""

    def __init__(self, folder: Path, name: str = "authority") -> None:
        self._folder = folder
        self._count = 0
        self._key = ec.generate_private_key(ec.SECP256R1())
        self._name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
        self._made_at = dt.datetime.now(dt.UTC)
        made = (
            x509.CertificateBuilder()
            .subject_name(self._name)
            .issuer_name(self._name)
            .public_key(self._key.public_key())
            .serial_number(x509.random_serial_number())
            .not_valid_before(self._made_at - 100 * DAY)
            .not_valid_after(self._made_at + 100 * DAY)
            .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
            .sign(self._key, hashes.SHA256())
        )
        self.path = folder / f"{name}.pem"
        self.path.write_bytes(made.public_bytes(serialization.Encoding.PEM))

    def server(
        self,
        *names: str,
        addresses: tuple[str, ...] = (),
        common_name: str = "server",
        days: tuple[int, int] = (-1, 1),
        usage: ObjectIdentifier = ExtendedKeyUsageOID.SERVER_AUTH,
        is_self_signed: bool = False,
    ) -> ssl.SSLContext:
        """Return the context of a server with a certificate for these names, valid from and to these days from now."""
        key = ec.generate_private_key(ec.SECP256R1())
        subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, common_name)])
        builder = (
            x509.CertificateBuilder()
            .subject_name(subject)
            .issuer_name(subject if is_self_signed else self._name)
            .public_key(key.public_key())
            .serial_number(x509.random_serial_number())
            .not_valid_before(self._made_at + days[0] * DAY)
            .not_valid_after(self._made_at + days[1] * DAY)
            .add_extension(x509.ExtendedKeyUsage([usage]), critical=False)
        )
        held = [*map(x509.DNSName, names), *(x509.IPAddress(ipaddress.ip_address(entry)) for entry in addresses)]
        if held:
            builder = builder.add_extension(x509.SubjectAlternativeName(held), critical=False)
        made = builder.sign(key if is_self_signed else self._key, hashes.SHA256())
        self._count += 1
        path = self._folder / f"server-{self._count}.pem"
        path.write_bytes(
            made.public_bytes(serialization.Encoding.PEM)
            + key.private_bytes(
                serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
            )
        )
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(path)
        return context
