"""Deleting for good: a task's files, prompt and references. The task, its price and its public body stay as they are.

A file is hidden first, in the transaction of the wish; then the storage lets it go, and only then its row says so. A
worker that dies in between leaves the row due, and a file that is deleted twice is deleted.
"""

from collections.abc import Sequence

import structlog
from boto3.exceptions import Boto3Error
from botocore.exceptions import BotoCoreError, ClientError
from django.core.files.storage import default_storage
from django.db import connection, transaction
from django.db.models import QuerySet

from accounts import audit
from accounts.models import User
from generations.models import Generation, OutputAsset
from providers import erasure
from seedancee2.lib import clock, wakeups
from webhooks import callbacks

log = structlog.get_logger(__name__)

BATCH = 100

# What of an input is the customer's content; the rest is what the price was made of.
_NOTHING = (
    '{"prompt": "", "image_urls": [], "video_urls": [], "audio_urls": [], "start_image_url": null,'
    ' "end_image_url": null}'
)


class StillOpen(Exception):
    """The task has not ended: its prompt is still needed, and its files are yet to come."""


def delete(*, public_id: str, organization_id: int, actor: User, reason: str = "") -> Generation:
    """Delete a task's files, prompt and references on a person's demand; a repeat changes nothing.

    Raises:
        Generation.DoesNotExist: the organization has no such task.
        StillOpen: the task has not ended.
    """
    with transaction.atomic():
        generation = Generation.objects.select_for_update().get(pk=public_id, organization_id=organization_id)
        if generation.is_open:
            raise StillOpen(f"{public_id} has not ended.")
        file_count = hide_files([public_id])
        prompt_count = erase_prompts([public_id])
        if file_count or prompt_count:
            audit.note(
                organization_id=organization_id,
                actor=actor,
                action="task.deleted",
                target=public_id,
                before={"files": file_count, "prompts": prompt_count},
                after={"files": 0, "prompts": 0},
                reason=reason,
            )
    generation.refresh_from_db()
    return generation


def hide_files(public_ids: Sequence[str]) -> int:
    """Answer 410 for the files of these tasks from the commit on, and let them be deleted; return how many."""
    shown = OutputAsset.objects.filter(generation__in=public_ids, deletion_asked_at__isnull=True)
    count = shown.update(deletion_asked_at=clock.now())
    if count:
        wakeups.on_commit("generations.delete_files")
    return count


def erase_prompts(public_ids: Sequence[str]) -> int:
    """Erase prompt and references of tasks that have ended, wherever we keep them; return of how many."""
    with connection.cursor() as cursor:
        cursor.execute(
            "UPDATE generations_generation SET input = input || %s::jsonb, prompt_deleted_at = %s"
            " WHERE public_id = ANY(%s) AND prompt_deleted_at IS NULL AND finished_at IS NOT NULL RETURNING public_id",
            [_NOTHING, clock.now(), list(public_ids)],
        )
        erased = [row[0] for row in cursor.fetchall()]
    if erased:
        erasure.erase(erased)
        callbacks.erase(erased)
    return len(erased)


def was_asked(path: str) -> bool:
    """Tell whether a stored file was to be deleted, whether or not it is gone yet."""
    return OutputAsset.objects.filter(path=path, deletion_asked_at__isnull=False).exists()


def sweep() -> int:
    """Delete every file that was given up and is still in the storage; return how many went."""
    count, last = 0, 0
    while batch := list(_due().filter(pk__gt=last).order_by("pk")[:BATCH]):
        last = batch[-1].pk
        for asset in batch:
            try:
                default_storage.delete(asset.path)
            except (OSError, BotoCoreError, ClientError, Boto3Error) as error:
                # Left due: the next sweep tries again, and the others need not wait for this one.
                log.error("file_not_deleted", path=asset.path, error=type(error).__name__)
                continue
            count += _due().filter(pk=asset.pk).update(deleted_at=clock.now())
    return count


def _due() -> QuerySet[OutputAsset]:
    return OutputAsset.objects.filter(deletion_asked_at__isnull=False, deleted_at__isnull=True)
