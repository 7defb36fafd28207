"""Samples: a webhook of either event sent to a URL at once, so that a receiver can be tried; nothing is kept of it."""

import contextlib
import datetime as dt
import threading
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Final

from django.conf import settings
from django.db import transaction

from accounts import policies
from accounts.models import Organization
from seedancee2.api import rendering
from seedancee2.api.errors import InvalidRequest, RateLimitExceeded
from seedancee2.lib import clock, destinations, ids
from webhooks import delivery
from webhooks.models import Delivery, SamplePlace

MAX_AT_ONCE: Final = 2  # of one organization
_LONGEST: Final = dt.timedelta(seconds=delivery.DEADLINE_SECONDS + 5)

# A sample keeps a thread of the web server for up to ten seconds; so many in a process leave enough for the others.
_threads = threading.BoundedSemaphore(2)


@dataclass(frozen=True, slots=True)
class Sample:
    """What was sent, and what came of it."""

    url: str
    headers: dict[str, str]
    body: bytes
    outcome: delivery.Outcome


def send(*, organization: Organization, url: str, event: str) -> Sample:
    """Send a sample of an event, signed and limited as a real webhook, and return what happened; it is not repeated.

    Raises:
        InvalidRequest: the organization's list of hosts does not have this one.
        RateLimitExceeded: as many samples of the organization as may be are under way.
        UnreadableSecret: no configured key opens the signing secret; nothing was sent.
    """
    if problem := policies.host_problem(organization.callback_hosts, url):
        raise InvalidRequest(f"The url {problem}")
    sample = Delivery(
        delivery_id=ids.new("dlv"),
        organization=organization,
        event=event,
        url=url,
        host=destinations.parse(url).origin,
        body=body(event),
    )
    with _thread(), _place(organization):
        headers, outcome = delivery.send(sample, is_sample=True)
    return Sample(url, headers, bytes(sample.body), outcome)


def body(event: str) -> bytes:
    """Return the body of a sample: that of the public page ("Webhooks"), with this installation's media host."""
    task_id, media = "vid_01jz8b7q4x8k2p9w3m5c6n7r8s", settings.MEDIA_BASE_URL
    data: dict[str, Any] = {"id": task_id, "status": "failed", "model": "pro", "created_at": "2026-06-29T10:00:00.000Z"}
    if event == Delivery.Event.COMPLETED:
        data |= {
            "status": "completed",
            "completed_at": "2026-06-29T10:06:20.000Z",
            "credits_charged": 100,
            "output": {
                "video_url": f"{media}/videos/2026/06/29/{task_id}.mp4",
                "thumbnail_url": f"{media}/video-posters/2026/06/29/{task_id}.jpg",
            },
        }
    else:
        data |= {
            "credits_charged": 0,
            "credits_refunded": 100,
            "error": {
                "code": "generation_failed",
                "message": "The video could not be generated. Please try again with a different prompt.",
                "type": "generation_error",
            },
        }
    data["metadata"] = {"customer_job_id": "job_123", "campaign": "launch_week"}
    return rendering.encode({"data": data})


def _too_many() -> RateLimitExceeded:
    message = f"{MAX_AT_ONCE} test webhooks can be under way at once. Send the next when one of them has ended."
    return RateLimitExceeded(message, headers={"Retry-After": "2"})


@contextlib.contextmanager
def _thread() -> Iterator[None]:
    if not _threads.acquire(blocking=False):
        raise _too_many()
    try:
        yield
    finally:
        _threads.release()


@contextlib.contextmanager
def _place(organization: Organization) -> Iterator[None]:
    """Hold one of the organization's places; a row and no lock, since no connection is kept while we wait."""
    now = clock.now()
    with transaction.atomic():
        Organization.objects.select_for_update(no_key=True).get(pk=organization.pk)
        places = SamplePlace.objects.filter(organization=organization)
        places.filter(ends_at__lte=now).delete()
        if places.count() >= MAX_AT_ONCE:
            raise _too_many()
        place = SamplePlace.objects.create(organization=organization, ends_at=now + _LONGEST)
    try:
        yield
    finally:
        place.delete()
