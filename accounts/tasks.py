"""The Celery task that ends the staff's visits."""

from typing import Any

from celery import shared_task

from accounts import visits


@shared_task(name="accounts.end_visits")
def end_visits(**_: Any) -> int:
    """End the visits whose time is over."""
    return visits.end_overdue()
