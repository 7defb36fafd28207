"""The example bodies of the OpenAPI document, those of the public page where it has them."""

from typing import Any

_ID = "vid_01jz8b7q4x8k2p9w3m5c6n7r8s"
_CREATED_AT = "2026-06-29T10:00:00.000Z"
_MEDIA = "https://media.seedancee2.ai"
_METADATA = {"customer_job_id": "job_123", "campaign": "launch_week"}

CREATE_MINIMAL: dict[str, Any] = {
    "model": "mini",
    "input": {
        "prompt": "A cinematic drone shot of waves breaking against black volcanic rocks",
        "duration": 5,
        "resolution": "720p",
        "aspect_ratio": "16:9",
    },
    "metadata": {"customer_job_id": "job_123"},
}

CREATE_FULL: dict[str, Any] = {
    "model": "pro",
    "callback_url": "https://example.com/webhooks/seedancee2",
    "input": {
        "prompt": "A cinematic tracking shot through a rain-soaked neon market at night",
        "image_urls": ["https://example-cdn.com/reference-1.png", "https://example-cdn.com/reference-2.png"],
        "duration": 5,
        "resolution": "720p",
        "aspect_ratio": "16:9",
        "generate_audio": True,
        "return_last_frame": True,
    },
    "metadata": _METADATA,
}

CREATE_FRAMES: dict[str, Any] = {
    "model": "fast",
    "input": {
        "prompt": "The flower opens slowly in the morning light",
        "generation_type": "first_and_last_frames",
        "start_image_url": "https://example-cdn.com/bud.png",
        "end_image_url": "https://example-cdn.com/blossom.png",
        "duration": 4,
        "resolution": "480p",
    },
}

CREATED: dict[str, Any] = {
    "data": {"id": _ID, "status": "pending", "model": "pro", "credits_reserved": 100, "created_at": _CREATED_AT}
}

PENDING: dict[str, Any] = {
    "data": {"id": _ID, "status": "pending", "model": "pro", "created_at": _CREATED_AT, "metadata": _METADATA}
}

PROCESSING: dict[str, Any] = {"data": {**PENDING["data"], "status": "processing"}}

COMPLETED: dict[str, Any] = {
    "data": {
        "id": _ID,
        "status": "completed",
        "model": "pro",
        "created_at": _CREATED_AT,
        "completed_at": "2026-06-29T10:06:20.000Z",
        "credits_charged": 100,
        "output": {
            "video_url": f"{_MEDIA}/videos/2026/06/29/{_ID}.mp4",
            "thumbnail_url": f"{_MEDIA}/video-posters/2026/06/29/{_ID}.jpg",
            "last_frame_url": f"{_MEDIA}/video-posters/2026/06/29/{_ID}_last.jpg",
        },
        "metadata": _METADATA,
    }
}

FAILED: dict[str, Any] = {
    "data": {
        "id": _ID,
        "status": "failed",
        "model": "pro",
        "created_at": _CREATED_AT,
        "credits_charged": 0,
        "credits_refunded": 100,
        "error": {
            "code": "generation_failed",
            "message": "The video could not be generated. Please try again with a different prompt.",
            "type": "generation_error",
        },
        "metadata": _METADATA,
    }
}

LIST: dict[str, Any] = {"data": [COMPLETED["data"]]}

MODELS: dict[str, Any] = {
    "data": [
        {"id": name, "status": "active", "resolutions": resolutions, "duration": {"min": 4, "max": 15}}
        for name, resolutions in (
            ("pro", ["480p", "720p", "1080p"]),
            ("fast", ["480p", "720p"]),
            ("mini", ["480p", "720p"]),
        )
    ]
}


def _sums(*numbers: int) -> dict[str, int]:
    names = ("total", "pending", "processing", "completed", "failed")
    charged, refunded = numbers[5:]
    return {
        **{f"{name}_jobs": number for name, number in zip(names, numbers[:5], strict=True)},
        "credits_charged": charged,
        "credits_refunded": refunded,
        "net_credits": charged - refunded,
    }


USAGE: dict[str, Any] = {
    "data": {
        "range": {"start": "2026-07-01T00:00:00.000Z", "end": "2026-07-31T23:59:59.999Z"},
        "summary": _sums(12, 1, 2, 8, 1, 280, 40),
        "by_model": [
            {"model": "mini", **_sums(7, 0, 1, 5, 1, 120, 20)},
            {"model": "pro", **_sums(5, 1, 1, 3, 0, 160, 20)},
        ],
        "timeline": [
            {"date": "2026-07-01", **_sums(4, 0, 1, 3, 0, 100, 0)},
            {"date": "2026-07-02", **_sums(8, 1, 1, 5, 1, 180, 40)},
        ],
    }
}
