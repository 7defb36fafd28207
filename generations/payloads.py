"""The public bodies of a task, the same for replies and webhooks (public page, "Get Video Task")."""

from collections.abc import Iterable
from typing import Any

from django.conf import settings

from generations.models import Generation, OutputAsset
from generations.specs import JobSpec
from seedancee2.lib import clock

Status = Generation.Status

_URL_NAMES = {
    OutputAsset.Kind.VIDEO: "video_url",
    OutputAsset.Kind.THUMBNAIL: "thumbnail_url",
    OutputAsset.Kind.LAST_FRAME: "last_frame_url",
}
# The input's names in the order of the page, each with what it is where nothing is said.
_UNSAID = JobSpec(model="", prompt="").input_json()
_ALWAYS_SAID = ("duration", "resolution", "aspect_ratio")


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


def request(generation: Generation) -> dict[str, Any]:
    """Return the create body that this task was made from, or one that means the same: defaults are left unsaid.

    Duration, resolution and aspect ratio always stand in it, since the price and the picture hang on them.
    """
    stored = generation.input
    said = {
        name: stored[name]
        for name, default in _UNSAID.items()
        if stored.get(name) not in (None, "", []) and (name in _ALWAYS_SAID or stored[name] != default)
    }
    data: dict[str, Any] = {"model": generation.model, "input": said}
    if generation.callback_url:
        data["callback_url"] = generation.callback_url
    if generation.metadata:
        data["metadata"] = generation.metadata
    return data
