"""Emulated providers behind the pipeline: real sockets, channels and routes as an operator would set them up."""

import contextlib
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from generations.models import Generation
from generations.tests import pipeline
from providers import emulators, presets
from providers.emulators.server import Emulator, Pace
from providers.models import Channel, Route

QUICK = Pace(queued=0.0, running=0.2)


def prepare_machine(settings: Any, folder: Path) -> None:
    """Let loopback be called, media stay in a folder of the test, and callbacks go where nobody listens."""
    settings.OUTBOUND_ALLOWED_HOSTS = ["127.0.0.1"]
    settings.PUBLIC_BASE_URL = "http://127.0.0.1:9"
    settings.MEDIA_BASE_URL = "https://media.example.com"
    settings.STORAGES = {
        **settings.STORAGES,
        "default": {
            "BACKEND": "django.core.files.storage.FileSystemStorage",
            "OPTIONS": {"location": str(folder), "allow_overwrite": True},
        },
    }


@contextlib.contextmanager
def provider(name: str, *, priority: int = 100, pace: Pace = QUICK) -> Iterator[tuple[Emulator, Channel]]:
    """Run an emulated provider with a channel and live routes to it; refuses connections afterwards."""
    emulator = emulators.find(name)(key=f"key-of-{name}", pace=pace)
    with emulator.serving() as base_url:
        yield emulator, connect(emulator, base_url, priority=priority)


def connect(emulator: Emulator, base_url: str, *, priority: int = 100) -> Channel:
    """Make the channel and live routes to a served emulator."""
    preset = presets.emulated(emulator.name, origin=emulator.origin)
    assert preset.base_url == base_url
    channel = presets.install(
        name=f"channel-{Channel.objects.count()}", preset=preset, credential=emulator.key, is_active=True
    )
    channel.output_hosts = ["127.0.0.1"]
    channel.save(update_fields=["output_hosts"])
    Route.objects.filter(channel=channel).update(priority=priority)
    return channel


def run_until_ended(*generations: Generation, seconds: float = 60.0) -> None:
    """Work on all lanes, by the clock on the wall, until these generations have ended."""
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        worked = sum(pipeline.run(lane) for lane in pipeline.LANES)
        for generation in generations:
            generation.refresh_from_db()
        if not any(generation.is_open for generation in generations):
            return
        if not worked:
            time.sleep(0.02)
    raise AssertionError([str(generation) for generation in generations if generation.is_open])
