"""Secrets at rest: encrypted with keys that only the process's environment holds."""

import base64
import functools

from cryptography.fernet import Fernet, InvalidToken, MultiFernet
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.kdf.hkdf import HKDF
from django.conf import settings


class UnreadableSecret(Exception):
    """A stored secret does not open with any configured key."""


def derive(purpose: str, *, length: int = 32) -> bytes:
    """Derive a key of `length` bytes for one purpose from SECRET_KEY (HKDF-SHA256, RFC 5869)."""
    kdf = HKDF(algorithm=hashes.SHA256(), length=length, salt=None, info=purpose.encode())
    return kdf.derive(settings.SECRET_KEY.encode())


def seal(text: str) -> bytes:
    """Encrypt a text for storage with the newest key."""
    return _fernet().encrypt(text.encode())


def unseal(sealed: bytes) -> str:
    """Decrypt what `seal` made, with any configured key.

    Raises:
        UnreadableSecret: no configured key opens it.
    """
    try:
        return _fernet().decrypt(bytes(sealed)).decode()
    except InvalidToken as error:
        raise UnreadableSecret("Add the key that sealed this secret to FIELD_ENCRYPTION_KEYS.") from error


def reseal(sealed: bytes) -> bytes | None:
    """Encrypt with the newest key what another one sealed; None where the newest one did.

    Raises:
        UnreadableSecret: no configured key opens it.
    """
    try:
        _newest().decrypt(bytes(sealed))
    except InvalidToken:
        return seal(unseal(sealed))
    return None


def _newest() -> Fernet:
    return _newest_for(tuple(settings.FIELD_ENCRYPTION_KEYS), settings.SECRET_KEY)


def _fernet() -> MultiFernet:
    return _fernet_for(tuple(settings.FIELD_ENCRYPTION_KEYS), settings.SECRET_KEY)


@functools.lru_cache(maxsize=4)
def _fernet_for(keys: tuple[str, ...], _secret_key: str) -> MultiFernet:
    return MultiFernet([Fernet(key) for key in keys] or [_newest_for(keys, _secret_key)])


@functools.lru_cache(maxsize=4)
def _newest_for(keys: tuple[str, ...], _secret_key: str) -> Fernet:
    return Fernet(keys[0] if keys else base64.urlsafe_b64encode(derive("field encryption")))
