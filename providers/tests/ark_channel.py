"""A channel at an emulated Ark, and requests for it."""

import dataclasses
from typing import Any

from providers.adapters.ark import ArkAdapter
from providers.adapters.base import Accepted, ChannelAccess, JobRequest, Ref, Submission, Ticket
from providers.emulators.ark import ArkEmulator

KEY = "emulator-key"
PRO = "dreamina-seedance-2-0-260128"
FAST = "dreamina-seedance-2-0-fast-260128"
MINI = "dreamina-seedance-2-0-mini-260615"
MODELS = {"pro": PRO, "fast": FAST, "mini": MINI}
TASKS = "/contents/generations/tasks"
PATH = f"/api/v3{TASKS}"
REQUEST = JobRequest(
    model="pro",
    prompt="A secret lighthouse",
    duration=4,
    resolution="480p",
    aspect_ratio="16:9",
    generate_audio=True,
    watermark=False,
    return_last_frame=False,
)
TICKET = Ticket(token="t0ken", callback_url="", tag="5eed" * 8)


def ark(base_url: str, *, output_hosts: tuple[str, ...] = ("127.0.0.1",), **options: Any) -> ArkAdapter:
    """Return an adapter for a channel at this address, with these options."""
    return ArkAdapter(ChannelAccess("ark", base_url, KEY, output_hosts=output_hosts, options=options))


def asking(prompt: str = REQUEST.prompt, **changes: Any) -> JobRequest:
    """Return a request that is as usual but for these changes."""
    return dataclasses.replace(REQUEST, prompt=prompt, **changes)


def send(adapter: ArkAdapter, request: JobRequest = REQUEST, *, model: str = "", tag: str = TICKET.tag) -> Submission:
    """Submit a request under a tag, to the model that its public model stands for."""
    ticket = dataclasses.replace(TICKET, tag=tag)
    return adapter.submit(request, upstream_model=model or MODELS[request.model], ticket=ticket)


def taken(adapter: ArkAdapter, request: JobRequest = REQUEST, *, model: str = "", tag: str = TICKET.tag) -> Ref:
    """Submit a request that is accepted."""
    outcome = send(adapter, request, model=model, tag=tag)
    assert isinstance(outcome, Accepted), outcome
    return Ref(outcome.upstream_id, model or MODELS[request.model])


def calls(emulator: ArkEmulator) -> list[str]:
    """Return the requests for tasks that came, as method and what follows the path of all tasks."""
    return [f"{method} {path.removeprefix(PATH)}" for _, method, path in emulator.requests if path.startswith(PATH)]
