"""API keys: issued, imported, changed, rolled, revoked, and recognized at every request.

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
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import Any, ClassVar, NamedTuple, NoReturn, Unpack

import structlog
from django.conf import settings
from django.db import DatabaseError, IntegrityError, transaction
from django.db.models import Q

from accounts import audit, networks, policies, terms
from accounts.models import ApiKey, Organization, User
from accounts.terms import Terms
from seedancee2.api.errors import InvalidApiKey, InvalidRequest, PermissionDenied
from seedancee2.lib import clock, statements, vault

log = structlog.get_logger(__name__)

PREFIXES = {ApiKey.Mode.LIVE: "sk_seedancee2_live_", ApiKey.Mode.TEST: "sk_seedancee2_test_"}
RANDOM_LENGTH = 32
CHECKSUM_LENGTH = 6

_ALPHABET = string.digits + string.ascii_uppercase + string.ascii_lowercase
_OWN_FORMAT = re.compile(r"sk_seedancee2_(?:live|test)_[0-9A-Za-z]{38}")
_ANY_FORMAT = re.compile(r"[\x21-\x7e]{16,200}")
_USE_NOTED_EVERY = dt.timedelta(seconds=60)
_RECENT_USES_AT_MOST = 10_000

# A key that nobody used for so long is pointed out, and so is one that ends so soon.
STALE_AFTER = dt.timedelta(days=90)
EXPIRES_SOON = dt.timedelta(days=14)

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
    "scopes",
    "allowed_networks",
    "allowed_models",
    "monthly_credit_cap",
    "origin_id",
    "organization__callback_hosts",
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
    """Who sends a request under `/v1`: the key, its organization and the limits that hold for it.

    `allowance_id` is the key that the monthly cap is counted for: the first of those that were rolled into this one.
    """

    is_authenticated: ClassVar[bool] = True

    organization_id: int
    api_key_id: int
    is_test: bool
    create_rate_limit: int | None
    request_rate_limit: int | None
    scopes: frozenset[str] = frozenset()
    allowed_models: tuple[str, ...] = ()
    monthly_credit_cap: int | None = None
    allowance_id: int = 0
    callback_hosts: tuple[str, ...] = ()


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
    scopes: list[str]
    allowed_networks: list[str]
    allowed_models: list[str]
    monthly_credit_cap: int | None
    origin_id: int | None
    callback_hosts: list[str]


_NOBODY = _Facts(0, bytes(32), "live", None, None, None, None, None, 0, False, None, None, [], [], [], None, None, [])


def issue(
    *,
    organization: Organization,
    name: str,
    mode: str,
    created_by: User | None = None,
    reason: str = "",
    reference: str | None = None,
    **values: Unpack[Terms],
) -> IssuedKey:
    """Make a new key; the secret is in the answer and can never be had again. Of each `reference` there is one key.

    Raises:
        InvalidRequest: a value is not allowed, by itself or by the organization's policies; it begins with its name.
    """
    if mode not in ApiKey.Mode.values:
        raise InvalidRequest("mode: must be live or test.")
    secret = _new_secret(ApiKey.Mode(mode))
    key = ApiKey(organization=organization, name=name, mode=mode, created_by=created_by, reference=reference, **values)
    with transaction.atomic():
        _store(key, secret, created_by)
        _note("key.issued", key, created_by, after=terms.shown(key), reason=reason)
    return IssuedKey(key=key, secret=secret)


def import_existing(
    *, organization: Organization, name: str, secret: str, created_by: User | None = None, **values: Unpack[Terms]
) -> ApiKey:
    """Take over a key that a customer already has; it is a test key where it has that prefix, else a live one.

    Raises:
        InvalidRequest: the key has a wrong form or checksum or is known already, or a value beside it is not allowed.
    """
    if _ANY_FORMAT.fullmatch(secret) is None:
        raise InvalidRequest("secret: must be 16 to 200 visible ASCII characters, without spaces.")
    if _has_bad_checksum(secret):
        raise InvalidRequest("secret: has the form of a key of this service, but its checksum is wrong.")
    mode = ApiKey.Mode.TEST if secret.startswith(PREFIXES[ApiKey.Mode.TEST]) else ApiKey.Mode.LIVE
    key = ApiKey(organization=organization, name=name, mode=mode, created_by=created_by, is_imported=True, **values)
    with transaction.atomic():
        _store(key, secret, created_by)
        _note("key.imported", key, created_by, after=terms.shown(key))
    return key


def change(
    *,
    key: ApiKey,
    changed_by: User | None,
    name: str | None = None,
    may_loosen: bool = True,
    **values: Unpack[Terms],
) -> ApiKey:
    """Give a key that works another name or other terms; what is left out stays.

    Who may not loosen can make the terms of their key narrower only: what an admin has imposed stays. The keys that it
    replaced take the same terms for as long as they still work, and end no later than it does.

    Raises:
        InvalidRequest: the key no longer works or was rolled, or a value is not allowed; it begins with its name.
    """
    with transaction.atomic():
        family = _lock_family(key)
        row = _lock_working(key)
        if row.replaced_by_id is not None:
            raise InvalidRequest("This key was rolled: change the key that replaced it.")
        loosened = terms.loosened(row, values)
        if loosened and not may_loosen:
            raise InvalidRequest(f"{loosened}: an owner or admin of your organization can allow more, you only less.")
        before = terms.shown(row)
        for field_name, value in {"name": row.name if name is None else name, **values}.items():
            setattr(row, field_name, value)
        # What a policy forbids by now may at least become narrower.
        terms.check(row, changed_by if loosened else None)
        before, after = audit.differences(before, terms.shown(row))
        if before != after:
            row.save(update_fields=["name", *values])
            if replaced := _change_replaced(row, family, values):
                after["keys it replaced, changed too"] = replaced
            _note("key.changed", row, changed_by, before=before, after=after)
    return row


def roll(*, key: ApiKey, rolled_by: User | None, overlap: dt.timedelta) -> IssuedKey:
    """Replace a key by one with the same name and terms; the old one works for the overlap, none ends it at once.

    The new one has a life as long as the old one's, counted from now, and both count against one monthly cap. It stays
    its maker's, whoever rolls it.

    Raises:
        InvalidRequest: the key no longer works, was rolled before, or breaks a policy of the organization by now.
    """
    with transaction.atomic():
        old = _lock_working(key)
        if old.replaced_by_id is not None:
            raise InvalidRequest("This key was rolled already: roll the key that replaced it.")
        now = clock.now()
        secret = _new_secret(ApiKey.Mode(old.mode))
        new = ApiKey(
            organization=old.organization,
            name=old.name,
            mode=old.mode,
            created_by=old.created_by,
            expires_at=_next_end(old, now, rolled_by),
            origin_id=old.origin_id or old.pk,
            scopes=old.scopes,
            allowed_networks=old.allowed_networks,
            allowed_models=old.allowed_models,
            monthly_credit_cap=old.monthly_credit_cap,
            create_rate_limit=old.create_rate_limit,
            request_rate_limit=old.request_rate_limit,
        )
        _store(new, secret, rolled_by)
        old.replaced_by = new
        if overlap:
            old.expires_at = min(old.expires_at or now + overlap, now + overlap)
        else:
            old.revoked_at, old.revoked_by = now, rolled_by
        old.save(update_fields=["replaced_by", "expires_at", "revoked_at", "revoked_by"])
        ends_at = old.revoked_at or old.expires_at
        after = {**terms.shown(new), "replaces": old.masked, "the old key ends": terms.moment(ends_at)}
        _note("key.rolled", new, rolled_by, after=after)
    return IssuedKey(key=new, secret=secret)


def revoke(*, key: ApiKey, revoked_by: User | None, reason: str = "") -> ApiKey:
    """End a key for good, at once; the first revocation stands however often it is repeated."""
    with transaction.atomic():
        row = ApiKey.objects.select_for_update(no_key=True).get(pk=key.pk)
        if row.revoked_at is None:
            row.revoked_at = clock.now()
            row.revoked_by = revoked_by
            row.save(update_fields=["revoked_at", "revoked_by"])
            _note("key.revoked", row, revoked_by, reason=reason)
    return row


def revoke_all(*, keys: Iterable[ApiKey], revoked_by: User, reason: str = "") -> int:
    """End many keys for good, all or none; return how many of them were not ended before."""
    with transaction.atomic():
        # In one order, so that two who revoke the same keys follow one another.
        rows = list(
            ApiKey.objects.select_for_update(no_key=True).filter(pk__in=[key.pk for key in keys]).order_by("pk")
        )
        lasting = [row for row in rows if row.revoked_at is None]
        for row in lasting:
            revoke(key=row, revoked_by=revoked_by, reason=reason)
    return len(lasting)


def authenticate(secret: str, *, find_address: Callable[[], str | None] = lambda: None) -> Client:
    """Tell whose key this is; one query, and no word on why a key is refused.

    `find_address` is asked for the client's address only where the key's list or the note of its use needs it.

    Raises:
        InvalidApiKey: malformed, unknown, revoked or expired, or of a suspended organization.
        PermissionDenied: a good key, from an address that its list does not have.
    """
    if _ANY_FORMAT.fullmatch(secret) is None or _has_bad_checksum(secret):
        raise InvalidApiKey
    digest = _digest(secret)
    with statements.planned_once() as cursor:
        cursor.execute(_question(), [digest])
        row = cursor.fetchone()
    # An unknown key goes the same way with a row that nobody's digest matches, so that the time tells nothing.
    facts = _Facts(*(row or _NOBODY))
    now = clock.now()
    is_known = hmac.compare_digest(bytes(facts.digest), digest)
    is_expired = facts.expires_at is not None and facts.expires_at <= now
    if not is_known or is_expired or facts.revoked_at is not None or facts.is_suspended:
        raise InvalidApiKey
    if facts.allowed_networks:
        address = find_address()
        if not networks.cover(tuple(facts.allowed_networks), address):
            raise PermissionDenied(
                f"This API key may not be used from {address or 'an unknown address'}. "
                "Its list of addresses is kept in the console."
            )
    _note_use(facts.key_id, facts.last_used_at, now, find_address)
    return Client(
        organization_id=facts.organization_id,
        api_key_id=facts.key_id,
        is_test=facts.mode == ApiKey.Mode.TEST,
        create_rate_limit=_first_set(facts.create_rate_limit, facts.organization_create_rate_limit),
        request_rate_limit=_first_set(facts.request_rate_limit, facts.organization_request_rate_limit),
        scopes=frozenset(facts.scopes),
        allowed_models=tuple(facts.allowed_models),
        monthly_credit_cap=facts.monthly_credit_cap,
        allowance_id=facts.origin_id or facts.key_id,
        callback_hosts=tuple(facts.callback_hosts),
    )


def find(*, secrets: Iterable[str]) -> dict[str, ApiKey]:
    """Return the keys that these texts are, whether they work or not; a text that is none is left out."""
    digests = {_digest(text): text for text in secrets if _ANY_FORMAT.fullmatch(text)}
    rows = ApiKey.objects.filter(digest__in=list(digests)).select_related("organization") if digests else ()
    return {digests[bytes(row.digest)]: row for row in rows}


def _store(key: ApiKey, secret: str, actor: User | None) -> None:
    terms.check(key, actor)
    key.digest, key.last_four = _digest(secret), secret[-4:]
    try:
        with transaction.atomic():
            key.save(force_insert=True)
    except IntegrityError as error:
        _refuse_known(error, key)


def _next_end(old: ApiKey, now: dt.datetime, rolled_by: User | None) -> dt.datetime | None:
    ends = [] if old.expires_at is None else [now + (old.expires_at - old.created_at)]
    latest = policies.latest_end(old.organization, since=now)
    if latest is not None and rolled_by is not None and not rolled_by.is_staff:
        ends.append(latest)
    return min(ends, default=None)


def _lock_family(key: ApiKey) -> list[ApiKey]:
    """Lock a key and all that were rolled into it, in the order in which `revoke_all` locks keys."""
    first = key.origin_id or key.pk
    family = ApiKey.objects.select_for_update(no_key=True).filter(Q(pk=first) | Q(origin=first))
    return list(family.order_by("pk"))


def _change_replaced(key: ApiKey, family: Iterable[ApiKey], values: Terms) -> list[str]:
    """Give those of a key's family that still work its terms; return how they are shown."""
    replaced = [old for old in family if old.pk != key.pk and old.state == "active"]
    for old in replaced:
        ends_at = old.expires_at
        for name in values:
            setattr(old, name, getattr(key, name))
        old.expires_at = min(filter(None, (ends_at, key.expires_at)))
        old.save(update_fields=[*values, "expires_at"])
    return [old.masked for old in replaced]


def _lock_working(key: ApiKey) -> ApiKey:
    row = ApiKey.objects.select_for_update(no_key=True, of=("self",)).select_related("organization").get(pk=key.pk)
    if row.state != "active":
        raise InvalidRequest(f"This key is {row.state}; issue another one instead.")
    return row


def _note(
    action: str,
    key: ApiKey,
    actor: User | None,
    *,
    before: dict[str, Any] | None = None,
    after: dict[str, Any] | None = None,
    reason: str = "",
) -> None:
    audit.note(
        organization_id=key.organization_id,
        actor=actor,
        action=action,
        target=f"{key.name} ({key.masked})",
        before=before,
        after=after,
        reason=reason,
    )


@functools.cache
def _question() -> str:
    """Write the query for a key's facts once: measured, building it took a third of a request's CPU time."""
    rows = ApiKey.objects.filter(digest=b"").order_by().values_list(*_COLUMNS)[:1]
    return str(rows.query.sql_with_params()[0])


def _refuse_known(error: IntegrityError, key: ApiKey) -> NoReturn:
    if ApiKey.objects.filter(digest=key.digest).exists():
        raise InvalidRequest("secret: this key is already known.") from None
    if "accounts_apikey_reference" in str(error):
        raise InvalidRequest(
            "This form was sent twice: its key was issued the first time, and only that answer showed the secret. "
            "If nobody copied it, revoke that key and issue another one."
        ) from None
    raise error


def _first_set(*values: int | None) -> int | None:
    return next((value for value in values if value is not None), None)


def _note_use(
    key_id: int, last_used_at: dt.datetime | None, now: dt.datetime, find_address: Callable[[], str | None]
) -> None:
    """Write time and address of use at most once a minute, without ever waiting for a lock or failing the request."""
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
            ApiKey.objects.filter(pk__in=free.values("pk")).update(last_used_at=now, last_used_address=find_address())
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
