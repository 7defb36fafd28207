"""What a channel at each known provider starts from; all of it can be changed in the admin afterwards.

Addresses, model ids and limits as the providers published them in November 2026.
"""

import dataclasses
from collections.abc import Mapping
from typing import Any

from django.db import transaction

from providers import channels
from providers.models import Channel, Route


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Preset:
    """A channel's beginning: `upstream_models` are the provider's names by public model."""

    adapter: str
    base_url: str
    upstream_models: Mapping[str, str]
    max_open: int | None = None
    max_submits_per_minute: int | None = None
    max_polls_per_second: int | None = None
    unknown_grace_seconds: int = 900
    options: Mapping[str, Any] = dataclasses.field(default_factory=dict)


PRESETS = {
    "byteplus": Preset(
        adapter="ark",
        base_url="https://ark.ap-southeast.bytepluses.com/api/v3",
        upstream_models={
            "pro": "dreamina-seedance-2-0-260128",
            "fast": "dreamina-seedance-2-0-fast-260128",
            "mini": "dreamina-seedance-2-0-mini-260615",
        },
        max_open=3,
        max_submits_per_minute=180,
        max_polls_per_second=10,
    ),
    "volcengine": Preset(
        adapter="ark",
        base_url="https://ark.cn-beijing.volces.com/api/v3",
        upstream_models={
            "pro": "doubao-seedance-2-0-260128",
            "fast": "doubao-seedance-2-0-fast-260128",
            "mini": "doubao-seedance-2-0-mini-260615",
        },
        max_open=3,
        max_submits_per_minute=180,
        max_polls_per_second=10,
    ),
    "fal": Preset(
        adapter="fal",
        base_url="https://queue.fal.run",
        upstream_models={
            "pro": "bytedance/seedance-2.0",
            "fast": "bytedance/seedance-2.0/fast",
            "mini": "bytedance/seedance-2.0/mini",
        },
        max_open=20,
        max_polls_per_second=10,
    ),
    "kie": Preset(
        adapter="kie",
        base_url="https://api.kie.ai",
        upstream_models={
            "pro": "bytedance/seedance-2",
            "fast": "bytedance/seedance-2-fast",
            "mini": "bytedance/seedance-2-mini",
        },
        max_open=100,
        max_submits_per_minute=110,
        max_polls_per_second=10,
    ),
    "replicate": Preset(
        adapter="replicate",
        base_url="https://api.replicate.com/v1",
        upstream_models={
            "pro": "bytedance/seedance-2.0",
            "fast": "bytedance/seedance-2.0-fast",
            "mini": "bytedance/seedance-2.0-mini",
        },
        max_submits_per_minute=500,
        max_polls_per_second=40,
    ),
}


# The cloud that an emulator plays, and the path of its API.
_EMULATED = {"ark": ("byteplus", "/api/v3"), "fal": ("fal", ""), "kie": ("kie", ""), "replicate": ("replicate", "/v1")}


def emulated(name: str, *, origin: str) -> Preset:
    """Return the preset for an emulated provider at an address on this machine, which has no limits."""
    preset_name, path = _EMULATED[name]
    options = {"jwks_url": f"{origin}/.well-known/jwks.json"} if name == "fal" else {}
    return dataclasses.replace(
        PRESETS[preset_name],
        base_url=origin + path,
        max_open=None,
        max_submits_per_minute=None,
        max_polls_per_second=None,
        options=options,
    )


def install(
    *, name: str, preset: Preset, credential: str, traffic: str = Route.Traffic.LIVE, is_active: bool = False
) -> Channel:
    """Make a channel with its credential and a route for each public model; routes begin switched off unless told.

    Raises:
        IntegrityError: a channel of this name exists.
    """
    with transaction.atomic():
        channel = Channel.objects.create(
            name=name,
            adapter=preset.adapter,
            base_url=preset.base_url,
            max_open=preset.max_open,
            max_submits_per_minute=preset.max_submits_per_minute,
            max_polls_per_second=preset.max_polls_per_second,
            unknown_grace_seconds=preset.unknown_grace_seconds,
            options=dict(preset.options),
        )
        channels.set_credential(channel=channel, credential=credential)
        Route.objects.bulk_create(
            Route(model=model, traffic=traffic, channel=channel, upstream_model=upstream_model, is_active=is_active)
            for model, upstream_model in preset.upstream_models.items()
        )
    return channel
