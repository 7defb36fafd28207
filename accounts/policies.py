"""What an organization demands of the keys that its members issue; our own staff may exceed it."""

import datetime as dt
from collections.abc import Collection

from django.conf import settings

from accounts.models import ApiKey, Organization
from seedancee2.api.errors import InvalidRequest
from seedancee2.lib import destinations

MAX_HOSTS_SHOWN = 10


def check(key: ApiKey) -> None:
    """Hold a key that a member issues, changes or rolls against the policies of its organization.

    Raises:
        InvalidRequest: it breaks one; the message begins with the name of the field.
    """
    organization = key.organization
    latest = latest_end(organization, since=key.created_at)
    if latest is not None and (key.expires_at is None or key.expires_at > latest):
        days = organization.longest_key_days
        raise InvalidRequest(f"expires_at: keys of {organization.name} may live for at most {days} days.")
    if organization.demands_key_caps and not key.is_test and key.monthly_credit_cap is None:
        raise InvalidRequest(f"monthly_credit_cap: {organization.name} demands a cap on every live key.")
    for name, limit in rate_limits(organization).items():
        value = getattr(key, name)
        if value is not None and value > limit:
            raise InvalidRequest(f"{name}: must be at most {limit:,} a minute, which is what {organization.name} has.")


def latest_end(organization: Organization, *, since: dt.datetime) -> dt.datetime | None:
    """Return until when a key made at that time may work: to the end of its last day (UTC); None for any time."""
    if organization.longest_key_days is None:
        return None
    days = dt.timedelta(days=organization.longest_key_days + 1)
    return dt.datetime.combine(since.date() + days, dt.time.min, tzinfo=dt.UTC)


def host_problem(hosts: Collection[str], url: str) -> str:
    """Return what is wrong with calling this URL where an organization lists hosts, to complete a sentence; else empty.

    Raises:
        BadDestination: it is not a URL.
    """
    if not hosts or destinations.is_listed(url, hosts):
        return ""
    shown = ", ".join([*hosts][:MAX_HOSTS_SHOWN]) + (", …" if len(hosts) > MAX_HOSTS_SHOWN else "")
    return (
        f"must name a host that your organization allows: {shown}. Its admins keep the list in the console's settings."
    )


def rate_limits(organization: Organization) -> dict[str, int]:
    """Return the requests a minute that each key of an organization has unless it is told less."""
    return {
        "create_rate_limit": organization.create_rate_limit or settings.RATE_LIMIT_CREATES,
        "request_rate_limit": organization.request_rate_limit or settings.RATE_LIMIT_REQUESTS,
    }
