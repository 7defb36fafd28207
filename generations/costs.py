"""Our costs: what a provider made and no customer was charged for. Nothing here is ever charged later."""

from __future__ import annotations

import datetime as dt
from typing import TYPE_CHECKING, TypedDict

from django.db.models import F, OuterRef, Q, QuerySet, Subquery

from generations.models import Generation
from providers.models import UpstreamJob

if TYPE_CHECKING:
    from django_stubs_ext import WithAnnotations


Status = UpstreamJob.Status


class Ended(TypedDict):
    """What is known of a job's task."""

    ended_at: dt.datetime | None
    ended_as: str
    is_late: bool


def uncharged(*, since: dt.datetime) -> QuerySet[WithAnnotations[UpstreamJob, Ended]]:
    """Return the jobs whose videos were made since a moment, and that no customer was charged for.

    `is_late` tells why: the task had ended, or been given to another provider, before this one was done; or else its
    output was lost, or was not what had been asked for.
    """
    task = Generation.objects.filter(public_id=OuterRef("reference"))
    lately = Q(finished_at__gte=since)
    is_for_nothing = Q(status=Status.SUCCEEDED, ended_as=Generation.Status.FAILED)
    is_spoiled = Q(status=Status.FAILED, result__isnull=False)
    return (
        UpstreamJob.objects.annotate(
            ended_at=Subquery(task.values("finished_at")), ended_as=Subquery(task.values("status"))
        )
        .filter(lately & (is_for_nothing | is_spoiled) | Q(late_at__gte=since))
        .annotate(is_late=Q(late_at__isnull=False) | Q(status=Status.SUCCEEDED, ended_at__lt=F("finished_at")))
    )
