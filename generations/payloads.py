"""The public bodies of a task, the same for replies and webhooks (public page, "Get Video Task")."""

from collections.abc import Iterable
from typing import Any

from django.conf import settings

from generations.models import Generation, OutputAsset
from seedancee2.lib import clock

Status = Generation.Status

_URL_NAMES = {
    OutputAsset.Kind.VIDEO: "video_url",
    OutputAsset.Kind.THUMBNAIL: "thumbnail_url",
    OutputAsset.Kind.LAST_FRAME: "last_frame_url",
}


def created(generation: Generation) -> dict[str, Any]:
    """Return the `data` of a create reply."""
    return {
        "id": generation.public_id,
        "status": Status.PENDING.value,
        "model": generation.model,
        "credits_reserved": generation.credits,
        "created_at": clock.iso(generation.created_at),
    }


def task(generation: Generation, assets: Iterable[OutputAsset]) -> dict[str, Any]:
    """Return the `data` of a task in its present state; `assets` are its stored files."""
    data: dict[str, Any] = {
        "id": generation.public_id,
        "status": generation.status,
        "model": generation.model,
        "created_at": clock.iso(generation.created_at),
    }
    if generation.status == Status.COMPLETED:
        assert generation.finished_at is not None
        data["completed_at"] = clock.iso(generation.finished_at)
        data["credits_charged"] = generation.credits
        if generation.credits_refunded:
            data["credits_refunded"] = generation.credits_refunded
        paths = {asset.kind: asset.path for asset in assets}
        data["output"] = {
            name: f"{settings.MEDIA_BASE_URL}/{paths[kind]}" for kind, name in _URL_NAMES.items() if kind in paths
        }
    elif generation.status == Status.FAILED:
        data["credits_charged"] = 0
        data["credits_refunded"] = generation.credits_refunded
        data["error"] = {
            "code": generation.error_code,
            "message": generation.error_message,
            "type": "generation_error",
        }
    data["metadata"] = generation.metadata
    return data
