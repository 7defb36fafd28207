"""A channel at an emulated fal, requests for it, and every error that its sheet knows."""

import dataclasses
from typing import Any

from providers.adapters.base import Accepted, ChannelAccess, ErrorClass, JobRequest, Ref, Submission, Ticket
from providers.adapters.fal import FalAdapter
from providers.emulators.fal import FalEmulator

KEY = "key-id:key-secret"
APP = "/bytedance/seedance-2.0"
PRO = "bytedance/seedance-2.0"
MODELS = {"pro": PRO, "fast": f"{PRO}/fast", "mini": f"{PRO}/mini"}
JWKS = "/.well-known/jwks.json"
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

INPUT, MODERATION = ErrorClass.CUSTOMER_INPUT, ErrorClass.CUSTOMER_MODERATION
TRANSIENT, BUG, UNKNOWN = ErrorClass.TRANSIENT, ErrorClass.OUR_BUG, ErrorClass.UNKNOWN
# Every type of the sheet's §5.1 and §5.2, its status and its class.
TYPES: list[tuple[str, int, ErrorClass]] = [
    ("content_policy_violation", 422, MODERATION),
    ("content_policy_violation/person", 422, MODERATION),
    ("file_download_error", 422, INPUT),
    ("image_load_error", 422, INPUT),
    ("image_too_small", 422, INPUT),
    ("image_too_large", 422, INPUT),
    ("file_too_large", 422, INPUT),
    ("unsupported_image_format", 422, INPUT),
    ("unsupported_audio_format", 422, INPUT),
    ("unsupported_video_format", 422, INPUT),
    ("unsupported_codec", 422, INPUT),
    ("audio_duration_too_long", 422, INPUT),
    ("audio_duration_too_short", 422, INPUT),
    ("video_duration_too_long", 422, INPUT),
    ("video_duration_too_short", 422, INPUT),
    ("missing", 422, BUG),
    ("one_of", 422, BUG),
    ("literal_error", 422, BUG),
    ("value_error", 422, BUG),
    ("greater_than", 422, BUG),
    ("greater_than_equal", 422, BUG),
    ("less_than", 422, BUG),
    ("less_than_equal", 422, BUG),
    ("multiple_of", 422, BUG),
    ("feature_not_supported", 422, BUG),
    ("no_media_generated", 422, MODERATION),
    ("internal_server_error", 500, TRANSIENT),
    ("generation_timeout", 504, TRANSIENT),
    ("downstream_service_error", 400, TRANSIENT),
    ("downstream_service_unavailable", 500, TRANSIENT),
    ("request_timeout", 504, TRANSIENT),
    ("startup_timeout", 504, TRANSIENT),
    ("runner_scheduling_failure", 503, TRANSIENT),
    ("runner_connection_timeout", 503, TRANSIENT),
    ("runner_disconnected", 503, TRANSIENT),
    ("runner_connection_refused", 503, TRANSIENT),
    ("runner_connection_error", 503, TRANSIENT),
    ("runner_incomplete_response", 502, TRANSIENT),
    ("runner_server_error", 500, TRANSIENT),
    ("internal_error", 500, TRANSIENT),
    ("client_disconnected", 499, BUG),
    ("client_cancelled", 499, BUG),
    ("bad_request", 400, BUG),
]
# What the provider says of trying again, and the class that it makes of a type.
TOLD: list[tuple[str, ErrorClass]] = [
    ("internal_server_error/not-retryable", BUG),
    ("internal_server_error/not-retryable/older", BUG),
    ("downstream_service_error/not-retryable", BUG),
    ("downstream_service_error/not-retryable/no-header", TRANSIENT),
    ("runner_disconnected/not-retryable", BUG),
    ("request_timeout/user", BUG),
    ("request_timeout/user/no-header", BUG),
    ("value_error/retryable", TRANSIENT),
    ("value_error/retryable/older", TRANSIENT),
    ("no_media_generated/retryable", TRANSIENT),
    # Whoever's words and files were refused is told so, and nobody else is asked.
    ("content_policy_violation/retryable", MODERATION),
    ("file_download_error/retryable", INPUT),
    ("file_download_error/not-retryable", INPUT),
    ("client_cancelled/retryable", BUG),
]
# The shapes of `detail` (§9.7); where the body tells no type, a header does.
SHAPES: list[tuple[str, ErrorClass]] = [
    (f"{kind}/{shape}", error_class)
    for kind, error_class in (("content_policy_violation", MODERATION), ("image_too_small", INPUT))
    for shape in ("string", "object", "no-detail")
]


def fal(base_url: str, *, output_hosts: tuple[str, ...] = ("127.0.0.1",), **options: Any) -> FalAdapter:
    """Return an adapter for a channel at this address, where the keys are too, with these options."""
    options = {"jwks_url": base_url + JWKS, **options}
    return FalAdapter(ChannelAccess("fal", base_url, KEY, output_hosts=output_hosts, options=options))


def asking(prompt: str = REQUEST.prompt, **changes: Any) -> JobRequest:
    """Return a request that is as usual but for these changes."""
    return dataclasses.replace(REQUEST, prompt=prompt, **changes)


def send(adapter: FalAdapter, request: JobRequest = REQUEST, *, model: str = "", callback_url: str = "") -> Submission:
    """Submit a request to the model that its public model stands for."""
    ticket = dataclasses.replace(TICKET, callback_url=callback_url)
    return adapter.submit(request, upstream_model=model or MODELS[request.model], ticket=ticket)


def taken(adapter: FalAdapter, request: JobRequest = REQUEST, *, callback_url: str = "") -> Ref:
    """Submit a request that is accepted."""
    outcome = send(adapter, request, callback_url=callback_url)
    assert isinstance(outcome, Accepted), outcome
    return Ref(outcome.upstream_id, MODELS[request.model], outcome.urls)


def calls(emulator: FalEmulator) -> list[tuple[str, str]]:
    """Return method and path of the requests that came, in order."""
    return [(method, path) for _, method, path in emulator.requests]
