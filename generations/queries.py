"""Look-ups of generations, each of them scoped to who asks."""

import dataclasses
import datetime as dt

from django.db import connection
from django.db.models import QuerySet, prefetch_related_objects

from accounts.clients import Client
from generations.models import Generation, ModelAlias, OutputAsset
from seedancee2.api import cursors
from seedancee2.api.errors import TaskNotFound
from seedancee2.lib import ids, statements

# What a reply shows of a task and of each of its files, and what is asked of it on the way; in the order of the models.
_SHOWN = (
    *("public_id", "model", "status", "metadata", "credits", "credits_refunded", "error_code", "error_message"),
    *("created_at", "finished_at"),
)
_SHOWN_OF_FILE = ("kind", "path")
# Written out, and the files with the task: measured, building two queries took a third of a request's CPU time.
_ONE = f"""
    SELECT {", ".join(_SHOWN)},
           (SELECT json_agg(json_build_array({", ".join(_SHOWN_OF_FILE)}) ORDER BY id) FROM generations_outputasset
             WHERE generation_id = public_id)
      FROM generations_generation
     WHERE public_id = %s AND organization_id = %s AND is_test = %s
"""  # noqa: S608 - made of column names only


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Page:
    """Which tasks a list shows: `created_after` is included, `created_before` is not."""

    limit: int = 20
    status: str | None = None
    model: str | None = None
    created_after: dt.datetime | None = None
    created_before: dt.datetime | None = None
    cursor: str | None = None


def for_client(client: Client) -> QuerySet[Generation]:
    """Return the tasks that a client may see: its organization's, of the key's own mode."""
    return Generation.objects.filter(organization_id=client.organization_id, is_test=client.is_test)


def get(*, client: Client, public_id: str) -> tuple[Generation, list[OutputAsset]]:
    """Return one task with its files, of each only what a reply shows.

    Raises:
        TaskNotFound: malformed, unknown, or another's; the answer is the same.
    """
    if not ids.is_valid(public_id, "vid"):
        raise TaskNotFound
    with statements.planned_once() as cursor:
        cursor.execute(_ONE, [public_id, client.organization_id, client.is_test])
        row = cursor.fetchone()
    if row is None:
        raise TaskNotFound
    *values, files = row
    generation = Generation.from_db(connection.alias, _SHOWN, values)
    return generation, [OutputAsset.from_db(connection.alias, _SHOWN_OF_FILE, file) for file in files or ()]


def page(*, client: Client, wanted: Page) -> tuple[list[Generation], str | None]:
    """Return one page of tasks, newest first, and the cursor of the next page where there is one.

    The position is the last row shown, not a count: tasks created meanwhile move nothing.

    Raises:
        BadCursor: the cursor cannot be read.
    """
    rows = for_client(client).order_by("-created_at", "-public_id")
    if wanted.status is not None:
        rows = rows.filter(status=wanted.status)
    if wanted.created_after is not None:
        rows = rows.filter(created_at__gte=wanted.created_after)
    if wanted.created_before is not None:
        rows = rows.filter(created_at__lt=wanted.created_before)
    if wanted.cursor is not None:
        rows = cursors.after(rows, wanted.cursor, id_field="public_id", prefix="vid")
    # Each name is read by itself, since an index has the tasks of one in order, but not those of two.
    lists = [rows] if wanted.model is None else [rows.filter(model=name) for name in _names(wanted.model)]
    found = sorted(
        (task for tasks in lists for task in tasks[: wanted.limit + 1]),
        key=lambda task: (task.created_at, task.public_id),
        reverse=True,
    )
    shown = found[: wanted.limit]
    prefetch_related_objects(shown, "assets")
    has_more = len(found) > wanted.limit
    return shown, cursors.encode(shown[-1].created_at, shown[-1].public_id) if has_more else None


def _names(model: str) -> set[str]:
    """Return the names under which the tasks of a model are kept: its own, and the present one of an old name."""
    return {model, *ModelAlias.objects.filter(alias=model).values_list("model_id", flat=True)}
