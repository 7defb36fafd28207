"""Idempotency keys: a retry of a create request gives the first answer again, and nothing is made or held twice.

The answer is stored in the transaction that makes the task, so neither exists without the other; a refusal stores
nothing.
"""

import dataclasses
import datetime as dt
import hashlib
import json
import re
import time
from collections.abc import Callable, Mapping
from typing import Any, Protocol

from django.db import transaction

from generations.models import IdempotencyRecord
from seedancee2.api.errors import IdempotencyKeyInUse, IdempotencyKeyReused, InvalidRequest
from seedancee2.lib import clock, statements

HEADER = "Idempotency-Key"
META_NAME = "HTTP_IDEMPOTENCY_KEY"
REPLAYED_HEADER = "Idempotent-Replayed"
KEPT_FOR = dt.timedelta(hours=24)
BATCH = 1_000  # rows that one transaction deletes, at most

_KEY = re.compile(r"[!-~]{1,255}")
_CLAIM = "SELECT * FROM generations_claim_key(%s, %s, %s, %s, %s)"
_KEEP = """
    INSERT INTO generations_idempotencyrecord
           (organization_id, is_test, key, digest, reference, body, ignored_fields, created_at)
    VALUES (%s, %s, %s, %s, %s, %s, %s, %s)
        ON CONFLICT ON CONSTRAINT generations_idempotency_key DO UPDATE
       SET (digest, reference, body, ignored_fields, created_at)
           = (excluded.digest, excluded.reference, excluded.body, excluded.ignored_fields, excluded.created_at)
"""


class Scope(Protocol):
    """Whose keys they are: an organization's, live or test."""

    @property
    def organization_id(self) -> int:
        """The organization."""

    @property
    def is_test(self) -> bool:
        """Whether it is about test tasks."""


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Answer:
    """A create reply; `reference` is the task's public id."""

    reference: str
    body: str
    ignored_fields: str = ""
    is_replayed: bool = False


def once(*, client: Scope, key: str | None, body: Mapping[str, Any], make: Callable[[], Answer]) -> Answer:
    """Call `make`, or return what it gave for the same key and body within the last 24 hours.

    Keys are the organization's and the mode's, not the API key's: they survive its rotation.

    Raises:
        InvalidRequest: the key is not 1 to 255 visible ASCII characters.
        IdempotencyKeyReused: the key was used with another body.
        IdempotencyKeyInUse: the first request with it is still under way.
    """
    if key is None:
        return make()
    if not _KEY.fullmatch(key):
        raise InvalidRequest(f"The {HEADER} header must be 1 to 255 visible ASCII characters.")
    digest = _digest(body)
    with transaction.atomic():
        is_first, known = _claim(client, key, digest)
        if known is not None:
            return known
        if not is_first:
            raise IdempotencyKeyInUse(headers={"Retry-After": "1"})
        answer = make()
        _keep(client, key, digest, answer)
    return answer


def purge(*, seconds: float = 60.0) -> int:
    """Delete the answers that are no longer kept, in small transactions; return how many.

    Takes no longer than `seconds`, or one batch more; the rest is left to the next hour.
    """
    end, count = time.monotonic() + seconds, 0
    old = IdempotencyRecord.objects.filter(created_at__lte=clock.now() - KEPT_FOR).order_by("created_at")
    while time.monotonic() < end and (batch := list(old.values_list("pk", flat=True)[:BATCH])):
        # Still old when they go: a key may have been used anew meanwhile, in the same row.
        count += old.filter(pk__in=batch).delete()[0]
    return count


def _claim(client: Scope, key: str, digest: bytes) -> tuple[bool, Answer | None]:
    """Tell whether nobody else has this key under way, and what it was answered with within the last 24 hours.

    The lock is held until the transaction ends, by commit, by refusal or by the death of the process: no lease to clean
    up. The function looks once it has tried for the lock (migration 0008): the first request may have ended meanwhile.
    """
    name = f"idempotency:{client.organization_id}:{client.is_test}:{key}"
    number = int.from_bytes(hashlib.sha256(name.encode()).digest()[:8], signed=True)
    with statements.planned_once() as cursor:
        since = clock.now() - KEPT_FOR
        cursor.execute(_CLAIM, [number, client.organization_id, client.is_test, key, since])
        is_first, reference, known_digest, body, ignored_fields = cursor.fetchone()
    if reference is None:
        return is_first, None
    if known_digest != digest:
        raise IdempotencyKeyReused
    return is_first, Answer(reference=reference, body=body, ignored_fields=ignored_fields, is_replayed=True)


def _keep(client: Scope, key: str, digest: bytes, answer: Answer) -> None:
    """Store an answer, in place of one that is older than a day."""
    place = (client.organization_id, client.is_test, key)
    kept = (digest, answer.reference, answer.body, answer.ignored_fields, clock.now())
    with statements.planned_once() as cursor:
        cursor.execute(_KEEP, [*place, *kept])


def _digest(body: Mapping[str, Any]) -> bytes:
    return hashlib.sha256(json.dumps(body, sort_keys=True, separators=(",", ":")).encode()).digest()
