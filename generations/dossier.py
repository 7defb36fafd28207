"""All that one of the staff may know of one task: at most eight bounded reads, and one line of time through them.

What somebody may not see in its own list is not read, and is in no moment of the line, either.
"""

import dataclasses
import datetime as dt
import json
from collections import defaultdict
from collections.abc import Callable
from typing import Any

from django.contrib.postgres.expressions import ArraySubquery
from django.db.models import OuterRef, Q
from django.db.models.functions import JSONObject

from accounts.models import AuditEntry
from billing import lookups
from billing.models import LedgerEntry
from generations import payloads
from generations.models import Generation, OutputAsset
from providers.models import UpstreamCall, UpstreamJob
from webhooks.models import Callback, Delivery, DeliveryAttempt

MOST_CALLS = 60  # shown, of all jobs together; polls without news are not kept anyway
MOST_ROWS = 50


@dataclasses.dataclass(frozen=True, slots=True)
class Moment:
    """Something that happened, and whether it went wrong."""

    at: dt.datetime
    what: str
    detail: str = ""
    is_bad: bool = False

    @property
    def time(self) -> str:
        """Return the moment to the millisecond, which tells what came first."""
        return f"{self.at:%Y-%m-%d %H:%M:%S}.{self.at.microsecond // 1000:03}"


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Dossier:
    """A task with the rows of all apps that tell of it; `public` is what the customer reads, as indented JSON."""

    generation: Generation
    public: str
    request: str
    media: list[tuple[str, str, OutputAsset]]
    jobs: list[tuple[UpstreamJob, list[UpstreamCall], list[Callback]]]
    entries: list[LedgerEntry]
    deliveries: list[Any]
    audit: list[AuditEntry]
    timeline: list[Moment]


def compile(generation: Generation, *, may: Callable[[str], bool]) -> Dossier:
    """Read all there is about a task and may be seen: `may` tells whether its reader has a permission."""
    reference = generation.public_id
    assets = list(generation.assets.all())
    jobs = _jobs(reference, may) if may("providers.view_upstreamjob") else []
    entries = _entries(generation) if may("billing.view_ledgerentry") and not generation.is_test else []
    deliveries = list(_deliveries(reference)) if may("webhooks.view_delivery") else []
    if not may("webhooks.view_deliveryattempt"):
        for delivery in deliveries:
            delivery.tried = []
    audit = _audit(generation) if may("accounts.view_auditentry") else []
    public = payloads.task(generation, assets)
    addresses = public.get("output", {})
    return Dossier(
        generation=generation,
        public=_indented(public),
        request=_indented({"input": generation.input, "callback_url": generation.callback_url}),
        media=[(asset.get_kind_display(), addresses.get(f"{asset.kind}_url", ""), asset) for asset in assets],
        jobs=jobs,
        entries=entries,
        deliveries=deliveries,
        audit=audit,
        timeline=_timeline(generation, jobs, entries, deliveries, audit),
    )


def _jobs(reference: str, may: Callable[[str], bool]) -> list[tuple[UpstreamJob, list[UpstreamCall], list[Callback]]]:
    calls, callbacks = defaultdict(list), defaultdict(list)
    if may("providers.view_upstreamcall"):
        for call in UpstreamCall.objects.filter(job__reference=reference).order_by("-id")[:MOST_CALLS]:
            calls[call.job_id].append(call)
    if may("webhooks.view_callback"):
        for callback in Callback.objects.filter(job__reference=reference).defer("body").order_by("id")[:MOST_ROWS]:
            callbacks[callback.job_id].append(callback)
    jobs = UpstreamJob.objects.filter(reference=reference).select_related("channel").order_by("number")
    return [(job, calls[job.pk], callbacks[job.pk]) for job in jobs]


def _entries(generation: Generation) -> list[LedgerEntry]:
    of_task = lookups.of_task(
        reference=generation.public_id, account_id=generation.organization_id, since=generation.created_at
    )
    return sorted(LedgerEntry.objects.filter(of_task), key=lambda entry: entry.sequence)


def _deliveries(reference: str) -> Any:
    attempts = DeliveryAttempt.objects.filter(delivery=OuterRef("pk")).order_by("number")
    columns = ("number", "started_at", "duration_ms", "status_code", "error", "response_excerpt")
    told = ArraySubquery(attempts.values(row=JSONObject(**{name: name for name in columns})))
    return Delivery.objects.filter(reference=reference).defer("body").annotate(tried=told).order_by("pk")


def _audit(generation: Generation) -> list[AuditEntry]:
    whose = Q(organization_id=generation.organization_id) | Q(organization_id=None)
    found = AuditEntry.objects.filter(whose, target=generation.public_id, created_at__gte=generation.created_at)
    return list(found.order_by("id")[:MOST_ROWS])


def _timeline(
    generation: Generation,
    jobs: list[tuple[UpstreamJob, list[UpstreamCall], list[Callback]]],
    entries: list[LedgerEntry],
    deliveries: list[Any],
    audit: list[AuditEntry],
) -> list[Moment]:
    found = [Moment(generation.created_at, "Task created", f"{generation.credits} credits")]
    if generation.started_at:
        found.append(Moment(generation.started_at, "Work on it began"))
    if generation.finished_at:
        is_failed = generation.status == Generation.Status.FAILED
        found.append(Moment(generation.finished_at, f"Task {generation.status}", generation.error_code, is_failed))
    for job, _, callbacks in jobs:
        found += _of_job(job)
        found += [
            Moment(one.received_at, f"Job {job.number}: called back", one.get_verdict_display()) for one in callbacks
        ]
    for entry in entries:
        moved = f"available {entry.available_change:+}, held {entry.reserved_change:+}"
        found.append(Moment(entry.created_at, f"Ledger: {entry.kind}", moved))
    for delivery in deliveries:
        for row in delivery.tried:
            at, status = dt.datetime.fromisoformat(row["started_at"]), row["status_code"]
            is_bad = not (status and 200 <= status < 300)
            found.append(Moment(at, f"Webhook, attempt {row['number']}", row["error"] or f"answered {status}", is_bad))
    found += [Moment(entry.created_at, f"{entry.actor_name}: {entry.action}", entry.reason) for entry in audit]
    return sorted(found, key=lambda moment: moment.at)


def _of_job(job: UpstreamJob) -> list[Moment]:
    where = f"{job.channel} ({job.upstream_model})" if job.channel else ""
    found = [Moment(job.created_at, f"Job {job.number}: queued")]
    if job.submit_started_at:
        found.append(Moment(job.submit_started_at, f"Job {job.number}: being sent", where))
    if job.submitted_at:
        found.append(Moment(job.submitted_at, f"Job {job.number}: taken", job.upstream_id))
    if job.unheard_since:
        found.append(Moment(job.unheard_since, f"Job {job.number}: nothing heard of it since", where, True))
    if job.finished_at:
        is_bad = job.status != UpstreamJob.Status.SUCCEEDED
        found.append(Moment(job.finished_at, f"Job {job.number}: {job.status}", job.error_detail, is_bad))
    if job.late_at:
        found.append(Moment(job.late_at, f"Job {job.number}: succeeded too late", "Our cost; nobody is charged.", True))
    return found


def _indented(data: object) -> str:
    return json.dumps(data, indent=2, ensure_ascii=False)
