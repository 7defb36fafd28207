"""The console's list of tasks: filtered, searched and paged, and each page a bounded piece of work.

Organization, mode, status and time are columns of the list's indexes. For all else, rows are looked at one by one: a
page looks through WINDOW tasks at most, says how far back it got, and the next page goes on from there. So nothing is
out of reach, no search costs more than another, and creating a task pays for no further index.
"""

import dataclasses
import datetime as dt
import json
from collections.abc import Iterator
from typing import Final

from django.db.models import Q, QuerySet, TextField
from django.db.models.functions import Cast

from generations.models import Generation
from seedancee2.api import cursors
from seedancee2.lib import ids

WINDOW: Final = 20_000  # tasks of one mode
EXPORT_PAGE: Final = 1_000

PLAYGROUND: Final = "playground"


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Wanted:
    """Which tasks to list: `since` is included, `until` is not; `key` is the id of an API key, or PLAYGROUND."""

    modes: tuple[bool, ...] = (False, True)
    status: str = ""
    model: str = ""
    key: str = ""
    has_callback: bool | None = None
    since: dt.datetime | None = None
    until: dt.datetime | None = None
    text: str = ""

    @property
    def is_indexed(self) -> bool:
        """Whether an index finds these tasks without looking at others."""
        is_id = ids.is_valid(self.text, "vid")
        return is_id or not (self.model or self.key or self.text or self.has_callback is not None)


@dataclasses.dataclass(frozen=True, slots=True)
class Found:
    """One page, newest first; `cursor` leads on where there is more, `looked_back_to` tells where the look stopped."""

    tasks: list[Generation]
    cursor: str | None = None
    looked_back_to: dt.datetime | None = None


def page(*, organization_id: int, wanted: Wanted, limit: int, cursor: str | None = None) -> Found:
    """Return a page of an organization's tasks.

    Raises:
        BadCursor: the cursor cannot be read.
    """
    lists = [_indexed(organization_id, is_test, wanted, cursor) for is_test in wanted.modes]
    ends = [] if wanted.is_indexed else [end for rows in lists if (end := _end_of_window(rows)) is not None]
    # Both modes are shown as one list: it is whole back to the later of their ends.
    end = max(ends, default=None)
    tasks: list[Generation] = []
    for rows in lists:
        chosen = rows.filter(_narrowed(wanted))
        if end is not None:
            chosen = chosen.filter(created_at__gte=end[0])
        tasks += chosen.select_related("api_key", "created_by")[: limit + 1]
    tasks.sort(key=_position, reverse=True)
    if end is not None:
        tasks = [task for task in tasks if _position(task) >= end]
    if len(tasks) > limit:
        tasks = tasks[:limit]
        return Found(tasks, cursors.encode(*_position(tasks[-1])))
    if end is not None:
        return Found(tasks, cursors.encode(*end), end[0])
    return Found(tasks)


def every(*, organization_id: int, wanted: Wanted) -> Iterator[Generation]:
    """Yield all of an organization's tasks that are wanted, newest first, read page by page."""
    cursor: str | None = None
    while True:
        found = page(organization_id=organization_id, wanted=wanted, limit=EXPORT_PAGE, cursor=cursor)
        yield from found.tasks
        if found.cursor is None:
            return
        cursor = found.cursor


def _position(task: Generation) -> tuple[dt.datetime, str]:
    return task.created_at, task.public_id


def _indexed(organization_id: int, is_test: bool, wanted: Wanted, cursor: str | None) -> QuerySet[Generation]:
    rows = Generation.objects.filter(organization_id=organization_id, is_test=is_test)
    rows = rows.order_by("-created_at", "-public_id").alias(written=Cast("metadata", TextField()))
    if wanted.status:
        rows = rows.filter(status=wanted.status)
    if wanted.since is not None:
        rows = rows.filter(created_at__gte=wanted.since)
    if wanted.until is not None:
        rows = rows.filter(created_at__lt=wanted.until)
    return rows if cursor is None else cursors.after(rows, cursor, id_field="public_id", prefix="vid")


def _end_of_window(rows: QuerySet[Generation]) -> tuple[dt.datetime, str] | None:
    last = rows.values_list("created_at", "public_id")[WINDOW - 1 : WINDOW]
    return next(iter(last), None)


def _narrowed(wanted: Wanted) -> Q:
    chosen = Q()
    if wanted.model:
        chosen &= Q(model=wanted.model)
    if wanted.key:
        chosen &= Q(api_key__isnull=True) if wanted.key == PLAYGROUND else Q(api_key=wanted.key)
    if wanted.has_callback is not None:
        chosen &= ~Q(callback_url="") if wanted.has_callback else Q(callback_url="")
    if ids.is_valid(wanted.text, "vid"):
        return chosen & Q(public_id=wanted.text)
    if wanted.text:
        # Metadata is kept as it was written, which is how our JSON writes it: beyond ASCII in escapes.
        written = json.dumps(wanted.text)[1:-1]
        in_text = Q(input__prompt__icontains=wanted.text) | Q(written__icontains=written)
        chosen &= in_text | Q(public_id__startswith=wanted.text)
    return chosen
