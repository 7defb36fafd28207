"""The secret of a key: how it reads, how a new one is made, and the HMAC that is all we store of it.

It reads `sk_seedancee2_live_` (or `…_test_`), 32 random base62 characters and 6 of checksum; one that a customer
brought along has a form of its own.
"""

import functools
import hmac
import re
import secrets
import string
import zlib

from django.conf import settings

from accounts.models import ApiKey
from seedancee2.lib import vault

PREFIXES = {ApiKey.Mode.LIVE: "sk_seedancee2_live_", ApiKey.Mode.TEST: "sk_seedancee2_test_"}
ALPHABET = string.digits + string.ascii_uppercase + string.ascii_lowercase
RANDOM_LENGTH = 32
CHECKSUM_LENGTH = 6

_OWN_FORMAT = re.compile(r"sk_seedancee2_(?:live|test)_[0-9A-Za-z]{38}")
_ANY_FORMAT = re.compile(r"[\x21-\x7e]{16,200}")


def make(mode: ApiKey.Mode) -> str:
    """Return the secret of a new key."""
    return with_checksum(PREFIXES[mode] + "".join(secrets.choice(ALPHABET) for _ in range(RANDOM_LENGTH)))


def with_checksum(head: str) -> str:
    """Return prefix and random characters followed by their checksum."""
    value = zlib.crc32(head.encode())
    characters = []
    for _ in range(CHECKSUM_LENGTH):
        value, remainder = divmod(value, len(ALPHABET))
        characters.append(ALPHABET[remainder])
    return head + "".join(reversed(characters))


def has_form(text: str) -> bool:
    """Whether a text can be the secret of a key at all: 16 to 200 visible ASCII characters."""
    return _ANY_FORMAT.fullmatch(text) is not None


def has_bad_checksum(secret: str) -> bool:
    """Whether a secret has the form of our own, and a checksum that is not that of its characters."""
    return _OWN_FORMAT.fullmatch(secret) is not None and with_checksum(secret[:-CHECKSUM_LENGTH]) != secret


def digest(secret: str) -> bytes:
    """Return the HMAC by which a key is stored and found."""
    return hmac.digest(_pepper(settings.API_KEY_PEPPER, settings.SECRET_KEY), secret.encode(), "sha256")


@functools.lru_cache(maxsize=4)
def _pepper(configured: str, _secret_key: str) -> bytes:
    return configured.encode() or vault.derive("api key digest")
