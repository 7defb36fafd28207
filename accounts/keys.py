"""API keys: issued, imported, changed, rolled, revoked, and found by their secrets."""

import datetime as dt
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any, NoReturn, Unpack

from django.db import IntegrityError, transaction
from django.db.models import Q

from accounts import audit, key_secrets, policies, terms
from accounts.models import ApiKey, Organization, User
from accounts.terms import Terms
from seedancee2.api.errors import InvalidRequest
from seedancee2.lib import clock

# A key that nobody used for so long is pointed out, and so is one that ends so soon.
STALE_AFTER = dt.timedelta(days=90)
EXPIRES_SOON = dt.timedelta(days=14)


@dataclass(frozen=True, slots=True)
class IssuedKey:
    """A new key together with its secret, which exists nowhere else from now on."""

    key: ApiKey
    secret: str = field(repr=False)


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
    secret = key_secrets.make(ApiKey.Mode(mode))
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
    if not key_secrets.has_form(secret):
        raise InvalidRequest("secret: must be 16 to 200 visible ASCII characters, without spaces.")
    if key_secrets.has_bad_checksum(secret):
        raise InvalidRequest("secret: has the form of a key of this service, but its checksum is wrong.")
    mode = ApiKey.Mode.TEST if secret.startswith(key_secrets.PREFIXES[ApiKey.Mode.TEST]) else ApiKey.Mode.LIVE
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
        secret = key_secrets.make(ApiKey.Mode(old.mode))
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


def find(*, secrets: Iterable[str]) -> dict[str, ApiKey]:
    """Return the keys that these texts are, whether they work or not; a text that is none is left out."""
    digests = {key_secrets.digest(text): text for text in secrets if key_secrets.has_form(text)}
    rows = ApiKey.objects.filter(digest__in=list(digests)).select_related("organization") if digests else ()
    return {digests[bytes(row.digest)]: row for row in rows}


def _store(key: ApiKey, secret: str, actor: User | None) -> None:
    terms.check(key, actor)
    key.digest, key.last_four = key_secrets.digest(secret), secret[-4:]
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


def _refuse_known(error: IntegrityError, key: ApiKey) -> NoReturn:
    if ApiKey.objects.filter(digest=key.digest).exists():
        raise InvalidRequest("secret: this key is already known.") from None
    if "accounts_apikey_reference" in str(error):
        raise InvalidRequest(
            "This form was sent twice: its key was issued the first time, and only that answer showed the secret. "
            "If nobody copied it, revoke that key and issue another one."
        ) from None
    raise error
