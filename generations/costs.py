"""Our costs: what a provider made and no customer was charged for. Nothing here is ever charged later."""

from __future__ import annotations

import datetime as dt
from typing import TYPE_CHECKING, TypedDict

from django.db.models import F, OuterRef, Q, QuerySet, Subquery

from generations.models import Generation
from providers.models import UpstreamJob

if TYPE_CHECKING:
    from django_stubs_ext import WithAnnotations


class Ended(TypedDict):
    """What is known of a job's task."""

    ended_at: dt.datetime
    is_late: bool


def uncharged(*, since: dt.datetime) -> QuerySet[WithAnnotations[UpstreamJob, Ended]]:
    """Return the jobs finished since a moment that succeeded although their task failed.

    `is_late` tells why: the task had ended before the provider was done, or else its output was lost on our side.
    """
    failed = Generation.objects.filter(public_id=OuterRef("reference"), status=Generation.Status.FAILED)
    return (
        UpstreamJob.objects.filter(status=UpstreamJob.Status.SUCCEEDED, finished_at__gte=since)
        .annotate(ended_at=Subquery(failed.values("finished_at")))
        .filter(ended_at__isnull=False)
        .annotate(is_late=Q(ended_at__lt=F("finished_at")))
    )
