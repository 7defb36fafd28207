"""The Celery task that writes mails about credits."""

from typing import Any

from celery import shared_task

from billing import notices


@shared_task(name="billing.tell")
def tell(**_: Any) -> int:
    """Send the mails that are due."""
    return notices.tell()
