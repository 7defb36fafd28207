"""A task that shows that a worker takes messages and runs them, and that beat sends them."""

import os
import time

import redis
from celery import shared_task


@shared_task(name="chaos.canary", ignore_result=True)
def canary(*, name: str) -> None:
    """Sing: note in Valkey, past the proxy, when this was run."""
    with redis.Redis.from_url(os.environ["CHAOS_VALKEY_URL"], socket_timeout=2) as client:
        client.set(f"canary:{name}", time.time())
