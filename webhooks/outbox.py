"""Where an event is put so that it is told: a row beside the change it tells of."""

from seedancee2.lib import clock, destinations, ids, wakeups
from webhooks.models import Delivery


def enqueue(*, organization_id: int, is_test: bool, reference: str, event: str, url: str, body: bytes) -> Delivery:
    """Write an event's delivery in the caller's transaction, due at once; the same event again gives the same row."""
    now = clock.now()
    delivery, is_new = Delivery.objects.get_or_create(
        reference=reference,
        event=event,
        defaults={
            "delivery_id": ids.new("dlv"),
            "organization_id": organization_id,
            "is_test": is_test,
            "url": url,
            "host": _origin(url),
            "body": body,
            "created_at": now,
            "due_at": now,
        },
    )
    if is_new:
        wakeups.on_commit("webhooks.deliver")
    return delivery


def _origin(url: str) -> str:
    # The URL was checked when the task was created. Should the rules be stricter now, the task must still end.
    try:
        return destinations.parse(url).origin
    except destinations.BadDestination:
        return "invalid"
