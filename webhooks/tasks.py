"""The Celery task that sends webhooks."""

from typing import Any

from celery import shared_task

from seedancee2.lib import heartbeats, lanes
from webhooks import delivery


@shared_task(name="webhooks.deliver")
def deliver(**_: Any) -> int:
    """Send due webhooks."""
    heartbeats.note(heartbeats.DELIVER)
    return lanes.drain("deliver", claim=delivery.claim_due, work=delivery.attempt, concurrency=16)
