"""Who sends a request under `/v1`: told from the secret of a key, at every request."""

import datetime as dt
import functools
import hmac
from collections.abc import Callable
from dataclasses import dataclass
from typing import ClassVar, NamedTuple

import structlog
from django.db import DatabaseError, transaction
from django.db.models import Q

from accounts import key_secrets, networks
from accounts.models import ApiKey
from seedancee2.api.errors import InvalidApiKey, PermissionDenied
from seedancee2.lib import clock, statements

log = structlog.get_logger(__name__)

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


def authenticate(secret: str, *, find_address: Callable[[], str | None] = lambda: None) -> Client:
    """Tell whose key this is; one query, and no word on why a key is refused.

    `find_address` is asked for the client's address only where the key's list or the note of its use needs it.

    Raises:
        InvalidApiKey: malformed, unknown, revoked or expired, or of a suspended organization.
        PermissionDenied: a good key, from an address that its list does not have.
    """
    if not key_secrets.has_form(secret) or key_secrets.has_bad_checksum(secret):
        raise InvalidApiKey
    digest = key_secrets.digest(secret)
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


@functools.cache
def _question() -> str:
    """Write the query for a key's facts once: measured, building it took a third of a request's CPU time."""
    rows = ApiKey.objects.filter(digest=b"").order_by().values_list(*_COLUMNS)[:1]
    return str(rows.query.sql_with_params()[0])


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
