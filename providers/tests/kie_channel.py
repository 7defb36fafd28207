"""A channel at an emulated Kie, and requests for it."""

import dataclasses
from typing import Any

from providers.adapters.base import Accepted, ChannelAccess, JobRequest, Ref, Submission, Ticket
from providers.adapters.kie import KieAdapter
from providers.emulators.kie import KieEmulator

KEY = "emulator-key"
HMAC_KEY = "kie_test_hmac_key"
PRO = "bytedance/seedance-2"
MODELS = {"pro": PRO, "fast": "bytedance/seedance-2-fast", "mini": "bytedance/seedance-2-mini"}
CREATE = "/api/v1/jobs/createTask"
RECORD = "/api/v1/jobs/recordInfo"
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


def kie(
    base_url: str, *, secret: str = "", output_hosts: tuple[str, ...] = ("127.0.0.1",), **options: Any
) -> KieAdapter:
    """Return an adapter for a channel at this address, with this key for callbacks and these options."""
    return KieAdapter(
        ChannelAccess("kie", base_url, KEY, callback_secret=secret, output_hosts=output_hosts, options=options)
    )


def asking(prompt: str = REQUEST.prompt, **changes: Any) -> JobRequest:
    """Return a request that is as usual but for these changes."""
    return dataclasses.replace(REQUEST, prompt=prompt, **changes)


def send(adapter: KieAdapter, request: JobRequest = REQUEST, *, model: str = "") -> Submission:
    """Submit a request to the model that its public model stands for."""
    return adapter.submit(request, upstream_model=model or MODELS[request.model], ticket=TICKET)


def taken(adapter: KieAdapter, request: JobRequest = REQUEST) -> Ref:
    """Submit a request that is accepted."""
    outcome = send(adapter, request)
    assert isinstance(outcome, Accepted), outcome
    return Ref(outcome.upstream_id, MODELS[request.model])


def calls(emulator: KieEmulator) -> list[tuple[str, str]]:
    """Return method and path of the requests that came, in order."""
    return [(method, path) for _, method, path in emulator.requests]
