"""Telling customers: due deliveries are claimed, sent once, and either done, given up or due again later.

An attempt counts when it is recorded. One that dies between sending and recording has written nothing: its lease runs
out and the same delivery is sent again with the same X-Seedancee2-Delivery and the same X-Seedancee2-Attempt. So a
customer may get an event twice but never loses an attempt to our restarts.
"""

import datetime as dt
import math
import random
import time
from collections.abc import Mapping
from dataclasses import dataclass
from email.utils import parsedate_to_datetime
from types import MappingProxyType
from typing import Final

import structlog
from django.db import OperationalError, transaction

from seedancee2.lib import clock, http, lanes, signing
from webhooks import claims, endpoints, secrets
from webhooks.claims import Held
from webhooks.models import Delivery, DeliveryAttempt, Endpoint

log = structlog.get_logger(__name__)

# Seconds before each attempt, counted from the end of the one before: twelve over 75.7 hours.
SCHEDULE: Final = (0, 5, 30, 120, 600, 1_800, 7_200, 18_000, 36_000, 50_400, 72_000, 86_400)
JITTER: Final = 0.2
DEADLINE_SECONDS: Final = 10.0
LEASE: Final = dt.timedelta(seconds=60)
MAX_RESPONSE_BYTES: Final = 64 * 1024
EXCERPT_CHARACTERS: Final = 2_000
_LONGEST_RETRY_AFTER: Final = 3_600.0

_RECORD_PAUSES: Final = (0.5, 2.0)  # seconds; a lease lasts that much longer than the deadline

# A lease with less than this left is not begun on, lest another worker claims the row while we send.
_LEAST_LEASE: Final = dt.timedelta(seconds=DEADLINE_SECONDS + 15)

_NONE: Final[Held] = MappingProxyType({})

_WORDS: Final = {
    http.Kind.DNS: "The host name could not be resolved.",
    http.Kind.CONNECT: "The host could not be connected to.",
    http.Kind.TLS: "The TLS handshake failed or the certificate could not be verified.",
    http.Kind.TIMEOUT: f"No reply came within {DEADLINE_SECONDS:.0f} seconds.",
    http.Kind.TOO_SLOW: f"The reply had not ended after {DEADLINE_SECONDS:.0f} seconds.",
    http.Kind.RESET: "The connection was closed before the whole reply had come.",
    http.Kind.PROTOCOL: "The reply was not valid HTTP.",
    http.Kind.TOO_LARGE: "The reply was too large.",
}


@dataclass(frozen=True, slots=True)
class Outcome:
    """What came of one POST."""

    status_code: int | None = None
    error: str = ""
    response_excerpt: str = ""
    retry_after: str = ""
    duration_ms: int = 0

    @property
    def is_success(self) -> bool:
        """Whether the receiver took the event."""
        return self.status_code is not None and 200 <= self.status_code < 300


def claim_due(
    limit: int, *, rooms: Mapping[int, int] | None = None, halves: Mapping[int, int] | None = None, held: Held = _NONE
) -> list[Delivery]:
    """Lease due deliveries to the caller, oldest first, few of one endpoint; see `claims.claim` for the shares."""
    everything = dict.fromkeys(Endpoint.Standing.values, limit)
    return claims.claim(limit, lease=LEASE, rooms=rooms or everything, halves=halves or everything, held=held)


def attempt(delivery: Delivery) -> None:
    """Send a claimed delivery once and record what came of it; without the lease it does neither.

    Raises:
        UnreadableSecret: no configured key opens the signing secret; the delivery stays due.
    """
    leased = (
        Delivery.objects.select_related("organization", "endpoint")
        .filter(pk=delivery.pk, lease_token=delivery.lease_token, leased_until__gte=clock.now() + _LEAST_LEASE)
        .first()
    )
    if leased is None:
        log.warning("webhook_lease_lost", delivery=delivery.pk, when="before sending")
        return
    started_at = clock.now()
    _, outcome = send(leased)
    for pause in _RECORD_PAUSES:
        try:
            return _record(leased, started_at, outcome)
        except OperationalError as error:
            # What the customer has taken should not be sent again because our database is busy.
            log.warning("webhook_not_recorded", delivery=delivery.pk, error=type(error).__name__)
            lanes.release_connections()
            time.sleep(pause)
    return _record(leased, started_at, outcome)


def send(delivery: Delivery, *, is_sample: bool = False) -> tuple[dict[str, str], Outcome]:
    """Send once and record nothing; return the request's headers, and what came of it. A sample says that it is one.

    Raises:
        UnreadableSecret: no configured key opens the signing secret; nothing was sent.
    """
    headers = _headers(delivery, timestamp=int(clock.now().timestamp()))
    if is_sample:
        headers["X-Seedancee2-Sample"] = "true"
    # The customer's server may take ten seconds, for which no connection of the pool is kept.
    lanes.release_connections()
    return headers, _post(delivery, headers)


def next_due_at(*, attempt_count: int, outcome: Outcome) -> dt.datetime | None:
    """Return when to try again after so many failed attempts, or None if this was the last."""
    if attempt_count >= len(SCHEDULE) or outcome.status_code == 410:
        return None
    now = clock.now()
    base = float(SCHEDULE[attempt_count])
    seconds = base * (1 + JITTER * random.random())  # noqa: S311 - spreads load, guards nothing
    if outcome.status_code in (429, 503):
        asked = _retry_after_seconds(outcome.retry_after, now)
        seconds = max(seconds, min(asked, max(2 * base, _LONGEST_RETRY_AFTER)))
    # Upwards, since times are kept to the millisecond and jitter never makes an attempt earlier.
    return now + dt.timedelta(milliseconds=math.ceil(seconds * 1000))


def _headers(delivery: Delivery, *, timestamp: int) -> dict[str, str]:
    headers = {
        "Content-Type": "application/json",
        "User-Agent": "Seedancee2-Webhooks/1.0",
        "X-Seedancee2-Event": delivery.event,
        "X-Seedancee2-Delivery": delivery.delivery_id,
        "X-Seedancee2-Attempt": str(delivery.attempt_count + 1),
    }
    if delivery.organization.is_webhook_signing_enabled:
        headers["X-Seedancee2-Signature"] = signing.signature_header(
            body=bytes(delivery.body),
            timestamp=timestamp,
            secrets=secrets.active(organization_id=delivery.organization_id),
        )
    return headers


def _post(delivery: Delivery, headers: dict[str, str]) -> Outcome:
    began = time.monotonic()
    try:
        reply = http.send(
            "POST",
            delivery.url,
            headers=headers,
            body=bytes(delivery.body),
            deadline_seconds=DEADLINE_SECONDS,
            max_response_bytes=MAX_RESPONSE_BYTES,
        )
    except http.Blocked as error:
        return Outcome(error=f"The URL {error.reason}.")
    except http.TransportFailed as error:
        elapsed_ms = round((time.monotonic() - began) * 1000)
        return Outcome(error=_WORDS[error.kind], duration_ms=elapsed_ms)
    return Outcome(
        status_code=reply.status_code,
        error="Redirects are not followed." if 300 <= reply.status_code < 400 else "",
        response_excerpt=reply.body.decode("utf-8", "replace").replace("\x00", "")[:EXCERPT_CHARACTERS],
        retry_after=reply.headers.get("Retry-After", ""),
        duration_ms=reply.duration_ms,
    )


def _record(delivery: Delivery, started_at: dt.datetime, outcome: Outcome) -> None:
    number = delivery.attempt_count + 1
    made = number - delivery.schedule_base
    due_at = None if outcome.is_success else next_due_at(attempt_count=made, outcome=outcome)
    state = Delivery.State.PENDING
    if due_at is None:
        state = Delivery.State.DELIVERED if outcome.is_success else Delivery.State.ABANDONED
    mine = Delivery.objects.filter(
        pk=delivery.pk, lease_token=delivery.lease_token, attempt_count=delivery.attempt_count
    )
    with transaction.atomic():
        is_mine = mine.update(
            attempt_count=number,
            state=state,
            due_at=due_at,
            finished_at=clock.now() if due_at is None else None,
            lease_token=None,
            leased_until=None,
        )
        if not is_mine:
            log.warning("webhook_lease_lost", delivery=delivery.pk, when="after sending")
            return
        DeliveryAttempt.objects.create(
            delivery_id=delivery.pk,
            number=number,
            started_at=started_at,
            duration_ms=outcome.duration_ms,
            status_code=outcome.status_code,
            error=outcome.error,
            response_excerpt=outcome.response_excerpt,
        )
        if outcome.is_success:
            endpoints.note_success(delivery.endpoint, duration_ms=outcome.duration_ms)
        else:
            endpoints.note_failure(delivery.endpoint, error=outcome.error or f"The answer was {outcome.status_code}.")
    log.info(
        "webhook_attempted",
        delivery=delivery.pk,
        reference=delivery.reference,
        attempt=number,
        status_code=outcome.status_code,
        error=outcome.error,
        duration_ms=outcome.duration_ms,
        state=state.value,
    )


def _retry_after_seconds(value: str, now: dt.datetime) -> float:
    text = value.strip()
    if text.isascii() and text.isdigit():
        return float(text[:9])
    try:
        moment = parsedate_to_datetime(text)
    except (ValueError, OverflowError):
        return 0.0
    if moment.tzinfo is None:
        moment = moment.replace(tzinfo=dt.UTC)
    return (moment - now).total_seconds()
