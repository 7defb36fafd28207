"""Places in a list that is sorted by creation, newest first: the last row shown, written so that nobody reads it."""

import base64
import binascii
import datetime as dt
import re
from typing import TypeVar

from django.db.models import Model, Q, QuerySet

_EPOCH = dt.datetime(1970, 1, 1, tzinfo=dt.UTC)
_MILLISECOND = dt.timedelta(milliseconds=1)
_POSITION = re.compile(r"([0-9]{1,15})\.([a-z]{3}_[0-9a-z]{26})")

PATTERN = "^[A-Za-z0-9_-]+=*$"

Row = TypeVar("Row", bound=Model)


class BadCursor(Exception):
    """A cursor that none of our links carried."""


def encode(created_at: dt.datetime, public_id: str) -> str:
    """Write the place after a row."""
    position = f"{(created_at - _EPOCH) // _MILLISECOND}.{public_id}"
    return base64.urlsafe_b64encode(position.encode()).decode().rstrip("=")


def after(rows: QuerySet[Row], cursor: str, *, id_field: str, prefix: str) -> QuerySet[Row]:
    """Select what comes after a place; `prefix` is that of the ids, so that no other list's cursor is taken.

    Raises:
        BadCursor: the cursor cannot be read.
    """
    created_at, public_id = _decoded(cursor)
    if not public_id.startswith(f"{prefix}_"):
        raise BadCursor
    # The first condition is what the index can use; the second breaks ties within its millisecond.
    earlier = Q(created_at__lt=created_at) | Q(**{f"{id_field}__lt": public_id})
    return rows.filter(created_at__lte=created_at).filter(earlier)


def _decoded(cursor: str) -> tuple[dt.datetime, str]:
    try:
        text = base64.b64decode(cursor + "=" * (-len(cursor) % 4), altchars=b"-_", validate=True).decode("ascii")
        match = _POSITION.fullmatch(text)
        if match is None:
            raise BadCursor
        return _EPOCH + int(match[1]) * _MILLISECOND, match[2]
    except (binascii.Error, ValueError, OverflowError) as error:
        raise BadCursor from error
