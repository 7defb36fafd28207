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

from django.db import connection, transaction
from django.db.models import QuerySet

from generations.models import IdempotencyRecord
from seedancee2.api.errors import IdempotencyKeyInUse, IdempotencyKeyReused, InvalidRequest
from seedancee2.lib import clock

HEADER = "Idempotency-Key"
META_NAME = "HTTP_IDEMPOTENCY_KEY"
REPLAYED_HEADER = "Idempotent-Replayed"
KEPT_FOR = dt.timedelta(hours=24)
BATCH = 1_000  # rows that one transaction deletes, at most

_KEY = re.compile(r"[!-~]{1,255}")


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
    if known := _known(client, key, digest):
        return known
    with transaction.atomic():
        if not _try_lock(client, key):
            raise IdempotencyKeyInUse(headers={"Retry-After": "1"})
        # The first request may have ended between the look and the lock.
        if known := _known(client, key, digest):
            return known
        answer = make()
        _records(client, key).delete()
        IdempotencyRecord.objects.create(
            organization_id=client.organization_id,
            is_test=client.is_test,
            key=key,
            digest=digest,
            reference=answer.reference,
            body=answer.body,
            ignored_fields=answer.ignored_fields,
        )
    return answer


def purge(*, seconds: float = 60.0) -> int:
    """Delete the answers that are no longer kept, in small transactions; return how many.

    Takes no longer than `seconds`, or one batch more; the rest is left to the next hour.
    """
    end, count = time.monotonic() + seconds, 0
    old = IdempotencyRecord.objects.filter(created_at__lte=clock.now() - KEPT_FOR).order_by("created_at")
    while time.monotonic() < end and (batch := list(old.values_list("pk", flat=True)[:BATCH])):
        count += IdempotencyRecord.objects.filter(pk__in=batch).delete()[0]
    return count


def _records(client: Scope, key: str) -> QuerySet[IdempotencyRecord]:
    return IdempotencyRecord.objects.filter(organization_id=client.organization_id, is_test=client.is_test, key=key)


def _known(client: Scope, key: str, digest: bytes) -> Answer | None:
    record = _records(client, key).filter(created_at__gt=clock.now() - KEPT_FOR).first()
    if record is None:
        return None
    if bytes(record.digest) != digest:
        raise IdempotencyKeyReused
    return Answer(reference=record.reference, body=record.body, ignored_fields=record.ignored_fields, is_replayed=True)


def _try_lock(client: Scope, key: str) -> bool:
    # Held until the transaction ends, by commit, by refusal or by the death of the process: no lease to clean up.
    name = f"idempotency:{client.organization_id}:{client.is_test}:{key}"
    number = int.from_bytes(hashlib.sha256(name.encode()).digest()[:8], signed=True)
    with connection.cursor() as cursor:
        cursor.execute("SELECT pg_try_advisory_xact_lock(%s)", [number])
        return bool(cursor.fetchone()[0])


def _digest(body: Mapping[str, Any]) -> bytes:
    return hashlib.sha256(json.dumps(body, sort_keys=True, separators=(",", ":")).encode()).digest()
