"""What Django itself can do with the same statements: two views without middleware, on the same server set-up.

gunicorn runs it like the product: the same configuration, the same database pool. BENCH_STATEMENTS names a file with
the statements of one creation as the product sent them; each is sent again with a fresh id and another organization.
"""

import json
import os
import random
import re
import time
from pathlib import Path
from typing import Any

import django
from django.conf import settings
from django.core.handlers.wsgi import WSGIHandler

os.environ.setdefault("DJANGO_SETTINGS_MODULE", "seedancee2.settings")
settings.ROOT_URLCONF = "bench.bare"
django.setup()
settings.MIDDLEWARE = []  # after the apps have looked whether theirs is there

from django.db import connection, transaction  # noqa: E402 (needs the settings)
from django.http import HttpRequest, JsonResponse  # noqa: E402
from django.urls import path  # noqa: E402

from seedancee2.lib import ids  # noqa: E402

_LOCK = re.compile(r"(?<=generations_claim_key\()-?\d+")


def health(request: HttpRequest) -> JsonResponse:
    """Answer without a look at anything."""
    return _json({"ok": True})


def create(request: HttpRequest, kind: str) -> JsonResponse:
    """Send the statements of one creation."""
    body = json.loads(request.body)
    script = _scripts()[kind]
    fresh = {
        script["reference"]: ids.new("vid"),
        str(script["organization"]): str(random.randint(1, int(request.GET.get("organizations", "1")))),
        script["key"]: str(time.time_ns()) + str(random.random()),
    }
    first = [sql for sql, is_atomic in script["statements"] if not is_atomic]
    rest = [sql for sql, is_atomic in script["statements"] if is_atomic]
    with connection.cursor() as cursor:
        for sql in first:
            cursor.execute(_refreshed(sql, fresh))
            cursor.fetchall()
        with transaction.atomic():
            for sql in rest:
                cursor.execute(_refreshed(sql, fresh))
    return _json({"data": {"id": fresh[script["reference"]], "model": body["model"]}}, status=201)


def retrieve(request: HttpRequest, public_id: str) -> JsonResponse:
    """Read one row by its key."""
    with connection.cursor() as cursor:
        cursor.execute(
            "SELECT public_id, status, model, input::text, metadata, credits, created_at, started_at, finished_at"
            " FROM generations_generation WHERE public_id = %s",
            [public_id],
        )
        row = cursor.fetchone()
    return _json({"data": row})


urlpatterns = [path("healthz", health), path("create/<str:kind>", create), path("tasks/<str:public_id>", retrieve)]
application = WSGIHandler()


def _json(value: dict[str, Any], status: int = 200) -> JsonResponse:
    response = JsonResponse(value, status=status)
    response.headers["Content-Length"] = str(len(response.content))
    return response


def _refreshed(sql: str, fresh: dict[str, str]) -> str:
    for old, new in fresh.items():
        if old:
            sql = sql.replace(old, new)
    return _LOCK.sub(lambda _: str(random.getrandbits(62)), sql)


def _scripts() -> dict[str, Any]:
    global _read
    if _read is None:
        _read = json.loads(Path(os.environ["BENCH_STATEMENTS"]).read_text())
        assert any(_LOCK.search(sql) for sql, _ in _read["idempotent"]["statements"]), "all would take one lock"
    return _read


_read: dict[str, Any] | None = None
