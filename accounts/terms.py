"""What a key may be told: when it ends, what it may do, from where, for how much and how often."""

import contextlib
import datetime as dt
from collections.abc import Mapping
from typing import Any, TypedDict

from accounts import networks, policies
from accounts.models import ApiKey, User
from seedancee2.api.errors import InvalidRequest
from seedancee2.lib import clock

MAX_CAP = 10**12
MAX_RATE = 1_000_000


class Terms(TypedDict, total=False):
    """What a key may be told beside its name and mode; what is left out is as the model has it.

    `allowed_networks` and `allowed_models` empty mean all; the cap is in credits a month, the rates a minute.
    """

    expires_at: dt.datetime | None
    scopes: list[str]
    allowed_networks: list[str]
    allowed_models: list[str]
    monthly_credit_cap: int | None
    create_rate_limit: int | None
    request_rate_limit: int | None


def check(key: ApiKey, actor: User | None) -> None:
    """Hold a key against what is allowed, and against its organization's policies where a member acts.

    Raises:
        InvalidRequest: the message begins with the name of the field.
    """
    key.name = key.name.strip()
    if not 1 <= len(key.name) <= 80 or not key.name.isprintable():
        raise InvalidRequest("name: must be 1 to 80 printable characters.")
    if key.expires_at is not None and key.expires_at <= clock.now():
        raise InvalidRequest("expires_at: must lie in the future.")
    for name in ("create_rate_limit", "request_rate_limit"):
        value = getattr(key, name)
        if value is not None and not 1 <= value <= MAX_RATE:
            raise InvalidRequest(f"{name}: must be 1 to {MAX_RATE:,} a minute.")
    if not key.scopes or not set(key.scopes) <= set(ApiKey.Scope.values):
        raise InvalidRequest(f"scopes: must be some of {', '.join(ApiKey.Scope.values)}.")
    key.scopes = [scope for scope in ApiKey.Scope.values if scope in key.scopes]
    try:
        key.allowed_networks = networks.normalize(key.allowed_networks)
    except networks.BadNetwork as error:
        raise InvalidRequest(f"allowed_networks: {error}") from None
    if key.monthly_credit_cap is not None:
        if key.is_test:
            raise InvalidRequest("monthly_credit_cap: is for live keys; a test key costs no credits.")
        if not 1 <= key.monthly_credit_cap <= MAX_CAP:
            raise InvalidRequest(f"monthly_credit_cap: must be 1 to {MAX_CAP:,} credits.")
    if actor is not None and not actor.is_staff:
        policies.check(key)


def loosened(key: ApiKey, values: Mapping[str, Any]) -> str:
    """Name the first of the new values that lets a key do more than it may now; empty if none does."""
    told = dict(values)
    # One that cannot be read is refused by `check`, in its own words.
    with contextlib.suppress(networks.BadNetwork):
        told["allowed_networks"] = networks.normalize(values.get("allowed_networks", key.allowed_networks))
    for name, value in told.items():
        now = getattr(key, name)
        if name == "scopes":
            is_more = not set(value) <= set(now)
        elif name in ("allowed_networks", "allowed_models"):
            is_more = bool(now) and not (value and set(value) <= set(now))
        else:
            # A rate that was never told is the organization's.
            usual = policies.rate_limits(key.organization).get(name)
            most, wanted = now or usual, value or usual
            is_more = most is not None and (wanted is None or wanted > most)
        if is_more:
            return name
    return ""


def shown(key: ApiKey) -> dict[str, Any]:
    """Return what the audit log tells of a key: what it was told, without what is as it always is."""
    told = {
        "name": key.name,
        "mode": key.mode,
        "expires": moment(key.expires_at),
        "scopes": None if set(key.scopes) == set(ApiKey.Scope.values) else key.scopes,
        "addresses": key.allowed_networks,
        "models": key.allowed_models,
        "monthly cap": key.monthly_credit_cap,
        "creates a minute": key.create_rate_limit,
        "other requests a minute": key.request_rate_limit,
    }
    return {name: value for name, value in told.items() if value}


def moment(at: dt.datetime | None) -> str | None:
    """Write a time as the audit log shows it."""
    return None if at is None else f"{at:%Y-%m-%d %H:%M} UTC"
