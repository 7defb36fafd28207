"""The one source of time, so that tests can turn it."""

import datetime as dt

from django.utils import timezone


def now() -> dt.datetime:
    """Return the current time in UTC, cut to the millisecond as it is stored and shown."""
    moment = timezone.now()
    return moment.replace(microsecond=moment.microsecond // 1000 * 1000)


def iso(moment: dt.datetime) -> str:
    """Write a time as the public contract does: UTC, three decimals and Z."""
    return moment.astimezone(dt.UTC).replace(tzinfo=None).isoformat(timespec="milliseconds") + "Z"
