"""A channel at an emulated Replicate, and requests for it."""

import dataclasses
from typing import Any

from providers.adapters.base import Accepted, ChannelAccess, JobRequest, Ref, Submission, Ticket
from providers.adapters.replicate import ReplicateAdapter
from providers.emulators.replicate import ReplicateEmulator

KEY = "emulator-key"
PRO = "bytedance/seedance-2.0"
MODELS = {"pro": PRO, "fast": "bytedance/seedance-2.0-fast", "mini": "bytedance/seedance-2.0-mini"}
CREATE = f"/v1/models/{PRO}/predictions"
PREDICTIONS = "/v1/predictions"
SECRET = "/v1/webhooks/default/secret"
ID = "7tq2v0w8e5rmr0cvm9hbe4xzj8"
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
TICKET = Ticket(token="t0ken-of-ours-that-nobody-guesses-0123456789", callback_url="", tag="5eed" * 8)


def replicate(
    base_url: str,
    *,
    key: str = KEY,
    secret: str = "",
    output_hosts: tuple[str, ...] = ("127.0.0.1",),
    **options: Any,
) -> ReplicateAdapter:
    """Return an adapter for a channel at this address, with this secret for callbacks and these options."""
    return ReplicateAdapter(
        ChannelAccess("replicate", base_url, key, callback_secret=secret, output_hosts=output_hosts, options=options)
    )


def asking(prompt: str = REQUEST.prompt, **changes: Any) -> JobRequest:
    """Return a request that is as usual but for these changes."""
    return dataclasses.replace(REQUEST, prompt=prompt, **changes)


def called_back(url: str, *, token: str = TICKET.token) -> Ticket:
    """Return a ticket with a callback address below this one."""
    return Ticket(token, f"{url}/callbacks/replicate/{token}", TICKET.tag)


def send(
    adapter: ReplicateAdapter, request: JobRequest = REQUEST, *, model: str = "", ticket: Ticket = TICKET
) -> Submission:
    """Submit a request to the model that its public model stands for."""
    return adapter.submit(request, upstream_model=model or MODELS[request.model], ticket=ticket)


def taken(adapter: ReplicateAdapter, request: JobRequest = REQUEST, *, ticket: Ticket = TICKET) -> Ref:
    """Submit a request that is accepted."""
    outcome = send(adapter, request, ticket=ticket)
    assert isinstance(outcome, Accepted), outcome
    return Ref(outcome.upstream_id, MODELS[request.model])


def calls(emulator: ReplicateEmulator) -> list[tuple[str, str]]:
    """Return method and path of the requests that came, in order."""
    return [(method, path) for _, method, path in emulator.requests]
