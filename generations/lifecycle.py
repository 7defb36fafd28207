"""The life of a generation: the only writer of its status, its money and its outgoing event.

Every transition locks the row, returns it if it is already there, and otherwise changes status, credits and webhook
in one transaction. Lock order: generation, reservation, a key's allowance, credit account.
"""

import datetime as dt
from collections.abc import Collection, Sequence

import structlog
from django.conf import settings
from django.db import transaction

from billing import ledger, rates
from billing.allowances import Allowance
from generations import catalog, failures, payloads, usage_hours
from generations.models import Generation, OutputAsset
from generations.specs import JobSpec
from providers import jobs
from providers.models import Route
from seedancee2.api.errors import InvalidRequest, PermissionDenied
from seedancee2.api.rendering import JSONRenderer
from seedancee2.lib import clock, ids, statements, wakeups
from webhooks import outbox
from webhooks.models import Delivery

log = structlog.get_logger(__name__)

Status = Generation.Status

ACTOR = "system:lifecycle"


class AlreadyEnded(Exception):
    """The generation ended the other way before; nothing was changed."""


def create(
    *,
    organization_id: int,
    api_key_id: int | None,
    is_test: bool,
    spec: JobSpec,
    created_by_id: int | None = None,
    allowed_models: Collection[str] = (),
    allowance: Allowance | None = None,
) -> Generation:
    """Accept a request: one task, one hold and one queued job, or nothing at all.

    It comes with a key, or from a person in the playground. `allowed_models` and `allowance` are the key's; without
    them every model may be used, and every credit.

    Raises:
        ModelNotFound: no active model has this name.
        InvalidRequest: the model lacks this resolution.
        PermissionDenied: the key may not use this model.
        InsufficientCredits: the available credits, or what is left of the allowance, do not cover the price.
    """
    model = catalog.resolve(spec.model)
    if spec.resolution not in model.resolutions:
        supported = ", ".join(model.resolutions)
        raise InvalidRequest(f"input.resolution must be one of {supported} for the model {model.name}.")
    if allowed_models and model.name not in allowed_models:
        names = ", ".join(allowed_models)
        raise PermissionDenied(f"This API key may not use the model {model.name}, only {names}.")
    now = clock.now()
    rate = rates.in_effect(model=model.name, resolution=spec.resolution, at=now)
    generation = Generation(
        public_id=ids.new("vid"),
        organization_id=organization_id,
        api_key_id=api_key_id,
        created_by_id=created_by_id,
        is_test=is_test,
        model=model.name,
        input=spec.input_json(),
        metadata=dict(spec.metadata),
        callback_url=spec.callback_url,
        rate=rate,
        credits=rate * spec.duration,
        created_at=now,
        deadline_at=now + dt.timedelta(seconds=settings.TASK_DEADLINE_SECONDS),
    )
    with transaction.atomic():
        statements.insert(generation)
        jobs.open(
            owner=str(organization_id),
            reference=generation.public_id,
            request=spec.job_request(),
            traffic=Route.Traffic.TEST if is_test else Route.Traffic.LIVE,
            deadline_at=generation.deadline_at,
        )
        if not is_test:
            ledger.reserve(
                organization_id=organization_id,
                amount=generation.credits,
                reference=generation.public_id,
                actor=_actor(api_key_id, created_by_id),
                allowance=allowance,
            )
        wakeups.on_commit("generations.submit")
    log.info("generation_created", task_id=generation.public_id)
    return generation


def start(*, public_ids: Sequence[str]) -> None:
    """Note that work on these videos has begun; generations already past that are left as they are."""
    # Guarded in the statement: no lock is needed, and nearly always there is nothing to write.
    pending = Generation.objects.filter(pk__in=public_ids, status=Status.PENDING)
    pending.update(status=Status.PROCESSING, started_at=clock.now())


def complete(*, public_id: str, assets: Sequence[OutputAsset]) -> Generation:
    """Hand over the stored files and capture the hold; a completed generation is returned as it is.

    Raises:
        AlreadyEnded: it failed before, so the late success is never charged.
    """
    with transaction.atomic():
        generation = _lock(public_id)
        if generation.status == Status.COMPLETED:
            # Whoever comes second has stored the files once more; where they were deleted meanwhile, they go again.
            OutputAsset.objects.filter(generation=generation, deleted_at__isnull=False).update(deleted_at=None)
            return generation
        if generation.status == Status.FAILED:
            raise AlreadyEnded(f"{public_id} failed before; the late success is not charged.")
        generation.status = Status.COMPLETED
        generation.finished_at = clock.now()
        generation.started_at = generation.started_at or generation.finished_at
        generation.save(update_fields=["status", "started_at", "finished_at"])
        OutputAsset.objects.bulk_create(assets)
        if not generation.is_test:
            ledger.capture(reference=public_id, actor=ACTOR)
        _tell(generation, assets, Delivery.Event.COMPLETED)
    log.info("generation_completed", task_id=public_id)
    return generation


def fail(*, public_id: str, code: Generation.ErrorCode, reason: str = "", actor: str = ACTOR) -> Generation:
    """End without a video and give the hold back; a failed generation is returned as it is.

    Raises:
        AlreadyEnded: it was completed before.
    """
    with transaction.atomic():
        generation = _lock(public_id)
        if generation.status == Status.FAILED:
            return generation
        if generation.status == Status.COMPLETED:
            raise AlreadyEnded(f"{public_id} was completed before; it cannot fail.")
        generation.status = Status.FAILED
        generation.finished_at = clock.now()
        generation.error_code = code
        generation.error_message = failures.message_for(code, reason)
        generation.credits_refunded = generation.credits
        generation.save(update_fields=["status", "finished_at", "error_code", "error_message", "credits_refunded"])
        if not generation.is_test:
            ledger.release(reference=public_id, actor=actor, reason=code)
        _tell(generation, [], Delivery.Event.FAILED)
    log.info("generation_failed", task_id=public_id, code=code)
    return generation


def refund(*, public_id: str, amount: int, actor: str, reason: str) -> Generation:
    """Give captured credits of a completed generation back, in whole or in part.

    Raises:
        ValueError: the amount is not positive, or more than is still charged; or the generation was not completed.
    """
    with transaction.atomic():
        generation = _lock(public_id)
        if generation.status != Status.COMPLETED or generation.is_test:
            raise ValueError(f"{public_id} was not charged; there is nothing to refund.")
        usage_hours.add_refund(generation, amount)
        ledger.refund(reference=public_id, amount=amount, actor=actor, reason=reason)
        generation.credits_refunded += amount
        generation.save(update_fields=["credits_refunded"])
    return generation


def _actor(api_key_id: int | None, created_by_id: int | None) -> str:
    if api_key_id:
        return f"api_key:{api_key_id}"
    return f"user:{created_by_id}" if created_by_id else ACTOR


def _lock(public_id: str) -> Generation:
    return Generation.objects.select_for_update().get(pk=public_id)


def _tell(generation: Generation, assets: Sequence[OutputAsset], event: Delivery.Event) -> None:
    if not generation.callback_url:
        return
    outbox.enqueue(
        organization_id=generation.organization_id,
        is_test=generation.is_test,
        reference=generation.public_id,
        event=event,
        url=generation.callback_url,
        body=JSONRenderer().render({"data": payloads.task(generation, assets)}),
    )
