"""The Celery tasks that send webhooks, and tell of those that cannot be sent."""

import random
from functools import partial
from typing import Any

from celery import shared_task

from seedancee2.lib import heartbeats, lanes
from webhooks import claims, delivery, endpoints, notices

THREADS = 48  # which mostly wait for customers' servers


@shared_task(name="webhooks.deliver")
def deliver(**_: Any) -> int:
    """Send due webhooks."""
    pulse = partial(heartbeats.note, heartbeats.DELIVER)
    pulse()
    # By chance, so that the lanes of several processes do not end together.
    patience = random.uniform(60.0, 120.0)  # noqa: S311 - spreading, not secrecy
    desk = claims.Desk(delivery.claim_due, threads=THREADS, patience=patience)
    return lanes.drain(
        "deliver",
        claim=desk.claim,
        work=desk.served(delivery.attempt),
        concurrency=THREADS,
        # This process has no other lane: it ends when what may hang has ended, so that nobody waits for that.
        budget=patience + delivery.DEADLINE_SECONDS + 2,
        longest=patience + 30,
        pulse=pulse,
    )


@shared_task(name="webhooks.notify")
def notify(**_: Any) -> int:
    """Mail the owners of endpoints that have long failed, or that work again."""
    return notices.send()


@shared_task(name="webhooks.give_up")
def give_up(**_: Any) -> int:
    """Give up what waits in vain at endpoints that have long failed."""
    return endpoints.give_up_everywhere()
