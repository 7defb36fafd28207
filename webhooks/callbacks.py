"""Callbacks of providers: checked as each of them signs, kept as they came, and taken as a hint to ask.

State never comes from a callback: whoever could forge one, or send an old one again, would only make us ask once more.
"""

import enum
import hashlib
from collections.abc import Mapping, Sequence

import structlog
from django.db import transaction
from django.db.models import F

from providers import erasure, jobs, submissions
from providers.adapters.base import Forged
from providers.models import UpstreamJob
from seedancee2.lib import clock, lanes, wakeups
from webhooks.models import Callback

log = structlog.get_logger(__name__)

MAX_BODY_BYTES = 256 * 1024
MAX_KEPT = 50  # different callbacks of one job; more are answered and not kept

# Of a callback's headers those that its signature is made of; none that could carry a secret of ours.
_KEPT_HEADERS = ("webhook-", "x-fal-webhook-", "x-webhook-", "content-type", "user-agent")


class Outcome(enum.Enum):
    """What a callback is answered."""

    TAKEN = 200
    FORGED = 401
    UNKNOWN = 404


def receive(*, channel_name: str, token: str, headers: Mapping[str, str], body: bytes) -> Outcome:
    """Check and keep a callback, and ask about its job now; header names are in lower case.

    A job of an unknown token is no job: the look-up is by the token's digest, so that its time tells nothing.
    """
    job = submissions.find(channel_name=channel_name, token=token)
    if job is None:
        return Outcome.UNKNOWN
    adapter = jobs.open_adapter(job)
    lanes.release_connections()  # keys that callbacks are checked with may have to be fetched
    verdict = adapter.read_callback(headers, body, received_at=clock.now())
    if isinstance(verdict, Forged):
        log.warning("callback_refused", job=str(job), channel=channel_name, detail=verdict.detail)
        _keep(job, headers, body, Callback.Verdict.FORGED, verdict.detail)
        return Outcome.FORGED
    with transaction.atomic():
        _keep(job, headers, body, Callback.Verdict.VERIFIED if verdict.is_verified else Callback.Verdict.HINT, "")
        submissions.hint(job=job, upstream_id=verdict.upstream_id)
        wakeups.on_commit("generations.poll")
    return Outcome.TAKEN


def erase(references: Sequence[str]) -> None:
    """Forget what providers called back with about these tasks; that they called, and when, stays."""
    Callback.objects.filter(job__reference__in=references).update(body=b"", headers={}, detail="")


def _keep(job: UpstreamJob, headers: Mapping[str, str], body: bytes, verdict: Callback.Verdict, detail: str) -> None:
    digest = hashlib.sha256(body).digest()
    same = Callback.objects.filter(job=job, body_sha256=digest, verdict=verdict)
    if same.update(repeat_count=F("repeat_count") + 1) or Callback.objects.filter(job=job).count() >= MAX_KEPT:
        return
    kept = {name: value[:500] for name, value in headers.items() if name.startswith(_KEPT_HEADERS)}
    row = Callback(job=job, headers=kept, body=body, body_sha256=digest, verdict=verdict, detail=detail[:500])
    with transaction.atomic():
        if erasure.among([job.pk]):
            row.headers, row.body, row.detail = {}, b"", ""
        # Of two that come in the same moment one is kept.
        Callback.objects.bulk_create([row], ignore_conflicts=True)
