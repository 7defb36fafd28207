"""Sealing every stored secret with the newest key, while the older keys still open what is not done yet.

Rows are read in the order of their primary keys and written a batch at a time, each only where it is still as it was
read: whoever sets a secret meanwhile is not overwritten. A run that is cut short is taken up by the next one, since
what the newest key sealed is passed over.
"""

import dataclasses
from collections.abc import Iterator
from typing import Any

from allauth.mfa.models import Authenticator
from django.apps import apps
from django.db import connection
from django.db.models import BinaryField, Model

from seedancee2.lib import vault

BATCH = 1_000
_TOKEN = "gAAAA"  # noqa: S105 - how every Fernet token of this century begins; no secret


@dataclasses.dataclass(slots=True)
class Count:
    """What became of one column: how many were sealed anew, how many had been, and the keys of rows that none opens."""

    column: str
    resealed: int = 0
    current: int = 0
    unreadable: list[int] = dataclasses.field(default_factory=list)


def run() -> Iterator[Count]:
    """Seal anew whatever an older key sealed; yield what became of each column."""
    for model, field in columns():
        yield _column(model, field)
    yield _second_factors()


def columns() -> "list[tuple[type[Model], BinaryField[Any, Any]]]":
    """Return every column that holds sealed secrets: binary, and called `sealed_...`."""
    return [
        (model, field)
        for model in apps.get_models()
        for field in model._meta.concrete_fields
        if isinstance(field, BinaryField) and field.name.startswith("sealed_")
    ]


def _column(model: type[Model], field: "BinaryField[Any, Any]") -> Count:
    count = Count(f"{model._meta.db_table}.{field.attname}")
    rows = model._default_manager.exclude(**{field.name: b""}).order_by("pk").values_list("pk", field.name)
    last = 0
    while batch := list(rows.filter(pk__gt=last)[:BATCH]):
        last = batch[-1][0]
        changed = []
        for pk, value in batch:
            before = bytes(value)
            try:
                after = vault.reseal(before)
            except vault.UnreadableSecret:
                count.unreadable.append(pk)
                continue
            if after is None:
                count.current += 1
            else:
                changed.append((pk, before, after))
        if changed:
            count.resealed += _write(model._meta.db_table, field.attname, changed)
    return count


def _write(table: str, column: str, changed: list[tuple[int, bytes, bytes]]) -> int:
    name = connection.ops.quote_name
    statement = (
        f"UPDATE {name(table)} SET {name(column)} = resealed.after"  # noqa: S608 - names of our own models
        " FROM unnest(%s::bigint[], %s::bytea[], %s::bytea[]) AS resealed (id, before, after)"
        f" WHERE {name(table)}.id = resealed.id AND {name(table)}.{name(column)} = resealed.before"
    )
    with connection.cursor() as cursor:
        cursor.execute(statement, [list(values) for values in zip(*changed, strict=True)])
        return int(cursor.rowcount)


def _second_factors() -> Count:
    """Seal the seeds and secrets that stand as texts inside the JSON of second factors."""
    count = Count("mfa_authenticator.data")
    for pk, before in Authenticator.objects.order_by("pk").values_list("pk", "data").iterator():
        try:
            after = _resealed(before)
        except vault.UnreadableSecret:
            count.unreadable.append(pk)
            continue
        if after == before:
            count.current += 1
        else:
            count.resealed += Authenticator.objects.filter(pk=pk, data=before).update(data=after)
    return count


def _resealed(data: Any) -> Any:
    if isinstance(data, dict):
        return {name: _resealed(value) for name, value in data.items()}
    if isinstance(data, list):
        return [_resealed(value) for value in data]
    if isinstance(data, str) and data.startswith(_TOKEN):
        after = vault.reseal(data.encode())
        return data if after is None else after.decode()
    return data
