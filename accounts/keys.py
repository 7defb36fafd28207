"""API keys: issued, imported, revoked, and recognized at every request.

A key reads `sk_seedancee2_live_` (or `…_test_`), 32 random base62 characters and 6 of checksum.
Only its HMAC is stored.
"""

import datetime as dt
import functools
import hmac
import re
import secrets
import string
import zlib
from dataclasses import dataclass, field
from typing import ClassVar, NamedTuple, NoReturn

import structlog
from django.conf import settings
from django.db import DatabaseError, IntegrityError, transaction
from django.db.models import Q

from accounts.models import ApiKey, Organization, User
from seedancee2.api.errors import InvalidApiKey, InvalidRequest
from seedancee2.lib import clock, vault

log = structlog.get_logger(__name__)

PREFIXES = {ApiKey.Mode.LIVE: "sk_seedancee2_live_", ApiKey.Mode.TEST: "sk_seedancee2_test_"}
RANDOM_LENGTH = 32
CHECKSUM_LENGTH = 6

_ALPHABET = string.digits + string.ascii_uppercase + string.ascii_lowercase
_OWN_FORMAT = re.compile(r"sk_seedancee2_(?:live|test)_[0-9A-Za-z]{38}")
_ANY_FORMAT = re.compile(r"[\x21-\x7e]{16,200}")
_USE_NOTED_EVERY = dt.timedelta(seconds=60)
_RECENT_USES_AT_MOST = 10_000

_COLUMNS = (
    "pk",
    "digest",
    "mode",
    "expires_at",
    "revoked_at",
    "last_used_at",
    "create_rate_limit",
    "request_rate_limit",
    "organization_id",
    "organization__is_suspended",
    "organization__create_rate_limit",
    "organization__request_rate_limit",
)

# Keys whose use this process has noted (or has tried to) within the last minute, so that most requests write nothing.
_recent_uses: dict[int, dt.datetime] = {}


@dataclass(frozen=True, slots=True)
class IssuedKey:
    """A new key together with its secret, which exists nowhere else from now on."""

    key: ApiKey
    secret: str = field(repr=False)


@dataclass(frozen=True, slots=True)
class Client:
    """Who sends a request under `/v1`: the key, its organization and the limits that hold for it."""

    is_authenticated: ClassVar[bool] = True

    organization_id: int
    api_key_id: int
    is_test: bool
    create_rate_limit: int | None
    request_rate_limit: int | None


class _Facts(NamedTuple):
    """What a request needs of a key and its organization, in the order of _COLUMNS."""

    key_id: int
    digest: bytes
    mode: str
    expires_at: dt.datetime | None
    revoked_at: dt.datetime | None
    last_used_at: dt.datetime | None
    create_rate_limit: int | None
    request_rate_limit: int | None
    organization_id: int
    is_suspended: bool
    organization_create_rate_limit: int | None
    organization_request_rate_limit: int | None


_NOBODY = _Facts(0, bytes(32), "live", None, None, None, None, None, 0, False, None, None)


def issue(
    *,
    organization: Organization,
    name: str,
    mode: str,
    created_by: User | None = None,
    expires_at: dt.datetime | None = None,
    create_rate_limit: int | None = None,
    request_rate_limit: int | None = None,
) -> IssuedKey:
    """Make a new key; the secret is in the answer and can never be had again.

    Raises:
        InvalidRequest: the name, the mode, the expiry or a rate limit is not allowed.
    """
    if mode not in ApiKey.Mode.values:
        raise InvalidRequest("mode: must be live or test.")
    secret = _new_secret(ApiKey.Mode(mode))
    key = _store(
        secret,
        organization=organization,
        name=name,
        mode=ApiKey.Mode(mode),
        created_by=created_by,
        expires_at=expires_at,
        create_rate_limit=create_rate_limit,
        request_rate_limit=request_rate_limit,
        is_imported=False,
    )
    return IssuedKey(key=key, secret=secret)


def import_existing(
    *,
    organization: Organization,
    name: str,
    secret: str,
    created_by: User | None = None,
    expires_at: dt.datetime | None = None,
    create_rate_limit: int | None = None,
    request_rate_limit: int | None = None,
) -> ApiKey:
    """Take over a key that a customer already has; it is a test key where it has that prefix, else a live one.

    Raises:
        InvalidRequest: the key has a wrong form or checksum or is known already, or a value beside it is not allowed.
    """
    if _ANY_FORMAT.fullmatch(secret) is None:
        raise InvalidRequest("secret: must be 16 to 200 visible ASCII characters, without spaces.")
    if _has_bad_checksum(secret):
        raise InvalidRequest("secret: has the form of a key of this service, but its checksum is wrong.")
    is_test = secret.startswith(PREFIXES[ApiKey.Mode.TEST])
    return _store(
        secret,
        organization=organization,
        name=name,
        mode=ApiKey.Mode.TEST if is_test else ApiKey.Mode.LIVE,
        created_by=created_by,
        expires_at=expires_at,
        create_rate_limit=create_rate_limit,
        request_rate_limit=request_rate_limit,
        is_imported=True,
    )


def revoke(*, key: ApiKey, revoked_by: User | None) -> ApiKey:
    """End a key for good, at once; the first revocation stands however often it is repeated."""
    with transaction.atomic():
        row = ApiKey.objects.select_for_update(no_key=True).get(pk=key.pk)
        if row.revoked_at is None:
            row.revoked_at = clock.now()
            row.revoked_by = revoked_by
            row.save(update_fields=["revoked_at", "revoked_by"])
    return row


def authenticate(secret: str) -> Client:
    """Tell whose key this is; one query, and no word on why a key is refused.

    Raises:
        InvalidApiKey: malformed, unknown, revoked or expired, or of a suspended organization.
    """
    if _ANY_FORMAT.fullmatch(secret) is None or _has_bad_checksum(secret):
        raise InvalidApiKey
    digest = _digest(secret)
    rows = ApiKey.objects.filter(digest=digest).order_by().values_list(*_COLUMNS)[:1]
    # An unknown key goes the same way with a row that nobody's digest matches, so that the time tells nothing.
    facts = _Facts(*next(iter(rows), _NOBODY))
    now = clock.now()
    is_known = hmac.compare_digest(bytes(facts.digest), digest)
    is_expired = facts.expires_at is not None and facts.expires_at <= now
    if not is_known or is_expired or facts.revoked_at is not None or facts.is_suspended:
        raise InvalidApiKey
    _note_use(facts.key_id, facts.last_used_at, now)
    return Client(
        organization_id=facts.organization_id,
        api_key_id=facts.key_id,
        is_test=facts.mode == ApiKey.Mode.TEST,
        create_rate_limit=_first_set(facts.create_rate_limit, facts.organization_create_rate_limit),
        request_rate_limit=_first_set(facts.request_rate_limit, facts.organization_request_rate_limit),
    )


def _store(secret: str, *, name: str, expires_at: dt.datetime | None, **fields: object) -> ApiKey:
    name = name.strip()
    if not 1 <= len(name) <= 80 or not name.isprintable():
        raise InvalidRequest("name: must be 1 to 80 printable characters.")
    if expires_at is not None and expires_at <= clock.now():
        raise InvalidRequest("expires_at: must lie in the future.")
    for limit in ("create_rate_limit", "request_rate_limit"):
        value = fields[limit]
        if isinstance(value, int) and not 1 <= value <= 1_000_000:
            raise InvalidRequest(f"{limit}: must be 1 to 1,000,000 a minute.")
    key = ApiKey(name=name, digest=_digest(secret), last_four=secret[-4:], expires_at=expires_at, **fields)
    try:
        with transaction.atomic():
            key.save(force_insert=True)
    except IntegrityError as error:
        _refuse_known(error, key)
    return key


def _refuse_known(error: IntegrityError, key: ApiKey) -> NoReturn:
    if ApiKey.objects.filter(digest=key.digest).exists():
        raise InvalidRequest("secret: this key is already known.") from None
    raise error


def _first_set(*values: int | None) -> int | None:
    return next((value for value in values if value is not None), None)


def _note_use(key_id: int, last_used_at: dt.datetime | None, now: dt.datetime) -> None:
    """Write the time of use at most once a minute, without ever waiting for a lock or failing the request."""
    is_fresh = last_used_at is not None and last_used_at > now - _USE_NOTED_EVERY
    noted_at = _recent_uses.get(key_id)
    if is_fresh or (noted_at is not None and noted_at > now - _USE_NOTED_EVERY):
        return
    if len(_recent_uses) >= _RECENT_USES_AT_MOST:
        _recent_uses.clear()
    _recent_uses[key_id] = now
    is_due = Q(last_used_at__isnull=True) | Q(last_used_at__lte=now - _USE_NOTED_EVERY)
    try:
        with transaction.atomic():
            free = ApiKey.objects.select_for_update(skip_locked=True, no_key=True).filter(is_due, pk=key_id)
            ApiKey.objects.filter(pk__in=free.values("pk")).update(last_used_at=now)
    except DatabaseError as error:
        log.warning("api_key_use_not_noted", api_key_id=key_id, error=type(error).__name__)


def _new_secret(mode: ApiKey.Mode) -> str:
    head = PREFIXES[mode] + "".join(secrets.choice(_ALPHABET) for _ in range(RANDOM_LENGTH))
    return head + _checksum(head)


def _checksum(text: str) -> str:
    value = zlib.crc32(text.encode())
    characters = []
    for _ in range(CHECKSUM_LENGTH):
        value, remainder = divmod(value, len(_ALPHABET))
        characters.append(_ALPHABET[remainder])
    return "".join(reversed(characters))


def _has_bad_checksum(secret: str) -> bool:
    if _OWN_FORMAT.fullmatch(secret) is None:
        return False
    return _checksum(secret[:-CHECKSUM_LENGTH]) != secret[-CHECKSUM_LENGTH:]


def _digest(secret: str) -> bytes:
    return hmac.digest(_pepper(settings.API_KEY_PEPPER, settings.SECRET_KEY), secret.encode(), "sha256")


@functools.lru_cache(maxsize=4)
def _pepper(configured: str, _secret_key: str) -> bytes:
    return configured.encode() or vault.derive("api key digest")
