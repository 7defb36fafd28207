"""Public ids: a prefix and a lower-case ULID, with nothing of a provider in them."""

import datetime as dt
import re

from ulid import ULID

_BODY = re.compile(r"[0-7][0-9abcdefghjkmnpqrstvwxyz]{25}")


def new(prefix: str) -> str:
    """Make an id such as `vid_01jz8b7q4x8k2p9w3m5c6n7r8s`; ids made later sort later."""
    return f"{prefix}_{str(ULID()).lower()}"


def first(prefix: str, *, at: dt.datetime) -> str:
    """Return the first id that could be made at a moment, for ranges over ids."""
    head = str(ULID.from_datetime(at))[:10].lower()
    return f"{prefix}_{head}{'0' * 16}"


def is_valid(value: str, prefix: str) -> bool:
    """Tell whether a text has the form of an id of ours, before the database is asked."""
    head, _, body = value.partition("_")
    return head == prefix and _BODY.fullmatch(body) is not None
