"""The example bodies of the OpenAPI document about webhooks."""

from typing import Any

_URL = "https://example.com/webhooks/seedancee2"
_TASK = "vid_01jz8b7q4x8k2p9w3m5c6n7r8s"

PENDING: dict[str, Any] = {
    "id": "dlv_01jz8bm2c4v6x8z0b2d4f6h8jk",
    "task_id": _TASK,
    "event": "video.generation.failed",
    "url": _URL,
    "state": "pending",
    "attempt_count": 1,
    "next_attempt_at": "2026-06-29T10:06:25.400Z",
    "created_at": "2026-06-29T10:06:20.000Z",
    "delivered_at": None,
}
REDELIVERED: dict[str, Any] = {"data": {**PENDING, "next_attempt_at": "2026-06-29T10:06:22.000Z"}}
LIST: dict[str, Any] = {"data": [PENDING]}
IN_FULL: dict[str, Any] = {
    "data": {
        **PENDING,
        "attempts": [
            {
                "number": 1,
                "started_at": "2026-06-29T10:06:20.020Z",
                "duration_ms": 180,
                "status_code": 502,
                "response_excerpt": "Bad Gateway",
                "error": "The server answered 502 instead of a 2xx status.",
            }
        ],
        "body": {
            "data": {
                "id": _TASK,
                "status": "failed",
                "model": "pro",
                "created_at": "2026-06-29T10:00:00.000Z",
                "credits_charged": 0,
                "credits_refunded": 100,
                "error": {
                    "code": "generation_failed",
                    "message": "The video could not be generated. Please try again with a different prompt.",
                    "type": "generation_error",
                },
                "metadata": {"customer_job_id": "job_123", "campaign": "launch_week"},
            }
        },
    }
}

SEND_SAMPLE: dict[str, Any] = {"url": _URL, "event": "video.generation.completed"}
SAMPLE: dict[str, Any] = {
    "data": {
        "is_delivered": True,
        "status_code": 200,
        "duration_ms": 84,
        "response_excerpt": "ok",
        "error": None,
        "request": {
            "url": _URL,
            "headers": {
                "Content-Type": "application/json",
                "User-Agent": "Seedancee2-Webhooks/1.0",
                "X-Seedancee2-Event": "video.generation.completed",
                "X-Seedancee2-Delivery": "dlv_01jz8bm2c4v6x8z0b2d4f6h8jm",
                "X-Seedancee2-Attempt": "1",
                "X-Seedancee2-Signature": f"t=1782727580,v1={'5257a869' * 8}",
            },
            "body": '{"data":{"id":"vid_01jz8b7q4x8k2p9w3m5c6n7r8s","status":"completed","model":"pro"}}',
        },
    }
}

RECOVER: dict[str, Any] = {"since": "2026-07-01T00:00:00.000Z"}
RECOVERED: dict[str, Any] = {"data": {"recovered_count": 42, "has_more": False}}
