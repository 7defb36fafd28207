"""What staff do to an endpoint by hand, with a reason: the change and its audit entry are one transaction."""

from django.db import transaction

from accounts import audit
from accounts.models import User
from seedancee2.lib import clock, wakeups
from webhooks import endpoints
from webhooks.models import Endpoint


class NotPossible(Exception):
    """The endpoint is not in a state for this; the message says why, and nothing was changed."""


def try_now(*, endpoint_id: int, actor: User, reason: str) -> Endpoint:
    """Let the next delivery through a pause as its probe; a success ends the pause and forgets every failure.

    Raises:
        NotPossible: it is not paused.
    """
    if not reason.strip():
        raise ValueError("Say why.")
    with transaction.atomic():
        row = Endpoint.objects.select_for_update(no_key=True).get(pk=endpoint_id)
        if row.paused_until is None or row.paused_until <= clock.now():
            raise NotPossible("This endpoint is not paused: its deliveries go out as they are due.")
        endpoints.probe_soon(row)
        wakeups.on_commit("webhooks.deliver")
        audit.note(
            organization_id=row.organization_id,
            actor=actor,
            action="endpoint.tried",
            target=row.origin,
            before={"paused_until": clock.iso(row.paused_until)},
            reason=reason.strip(),
        )
    return row
