"""A page of deliveries costs a page, however many there are and however few of them fit."""

import datetime as dt
import json
from collections.abc import Iterator
from typing import Any

import pytest
from django.db import connection
from django.test.utils import CaptureQueriesContext

from accounts.tests.factories import OrganizationFactory
from seedancee2.lib import clock
from webhooks import deliveries
from webhooks.models import Delivery

pytestmark = pytest.mark.django_db

ROWS = 30_000
LIMIT = 20
NOW = dt.datetime(2026, 7, 1, tzinfo=dt.UTC)

_FILL = """
    INSERT INTO webhooks_delivery (delivery_id, organization_id, is_test, reference, event, url, host, body, state,
                                   attempt_count, schedule_base, created_at, finished_at, due_at)
    SELECT 'dlv_' || lpad(n::text, 26, '0'), %(organization)s, n %% 1000 = 7, 'vid_' || lpad(n::text, 26, '0'),
           CASE WHEN n %% 5000 = 0 THEN 'video.generation.failed' ELSE 'video.generation.completed' END,
           'https://customer.example/hook', 'https://customer.example:443', '{}',
           CASE WHEN n %% 10000 = 0 THEN 'abandoned' ELSE 'delivered' END,
           1, 0, %(now)s - n * interval '1 second', %(now)s - n * interval '1 second', NULL
      FROM generate_series(1, %(rows)s) n
"""

FILTERS: list[dict[str, Any]] = [
    {},
    {"state": "abandoned"},
    {"state": "pending"},
    {"state": "delivered"},
    {"event": "video.generation.failed"},
    {"event": "video.generation.failed", "state": "abandoned"},
    {"task_id": f"vid_{ROWS - 5:026}"},
    {"created_before": NOW - dt.timedelta(seconds=ROWS - 100)},
    {"created_before": NOW - dt.timedelta(seconds=ROWS - 100), "state": "abandoned"},
    {"created_after": NOW - dt.timedelta(seconds=5)},
]


@pytest.fixture
def scope() -> dict[str, Any]:
    """The owner of very many deliveries."""
    organization = OrganizationFactory.create()
    with connection.cursor() as cursor:
        cursor.execute(_FILL, {"organization": organization.pk, "rows": ROWS, "now": NOW})
        cursor.execute("ANALYZE webhooks_delivery")
    return {"organization_id": organization.pk, "is_test": False}


def scans(sql: str) -> Iterator[dict[str, Any]]:
    """Run a query and yield the nodes of its plan that read the table."""
    with connection.cursor() as cursor:
        cursor.execute(f"EXPLAIN (ANALYZE, FORMAT JSON) {sql}")
        [(found,)] = cursor.fetchall()
    nodes = [(json.loads(found) if isinstance(found, str) else found)[0]["Plan"]]
    while nodes:
        node = nodes.pop()
        nodes += node.get("Plans", [])
        if node.get("Relation Name") == "webhooks_delivery":
            yield node


@pytest.mark.parametrize("filters", FILTERS, ids=str)
def test_a_page_reads_no_more_rows_than_it_could_show(scope: dict[str, Any], filters: dict[str, Any]) -> None:
    with CaptureQueriesContext(connection) as queries:
        deliveries.page(**scope, wanted=deliveries.Page(limit=LIMIT, **filters))

    nodes = [node for query in queries for node in scans(query["sql"])]
    assert {node["Node Type"] for node in nodes} <= {"Index Scan", "Index Only Scan", "Bitmap Heap Scan"}
    read = sum((node["Actual Rows"] + node.get("Rows Removed by Filter", 0)) * node["Actual Loops"] for node in nodes)
    ranges = len(Delivery.Event.values) * len(Delivery.State.values)
    assert read <= ranges * (LIMIT + 1) + LIMIT


def test_the_page_after_one_far_back_reads_no_more_either(scope: dict[str, Any]) -> None:
    far_back = NOW - dt.timedelta(seconds=ROWS - 200)
    first, cursor = deliveries.page(**scope, wanted=deliveries.Page(limit=LIMIT, created_before=far_back))

    with CaptureQueriesContext(connection) as queries:
        second, _ = deliveries.page(**scope, wanted=deliveries.Page(limit=LIMIT, cursor=cursor))

    assert second[0].created_at < first[-1].created_at
    nodes = [node for query in queries for node in scans(query["sql"])]
    read = sum((node["Actual Rows"] + node.get("Rows Removed by Filter", 0)) * node["Actual Loops"] for node in nodes)
    # The last row shown is read again and left out, in its range.
    assert read <= 6 * (LIMIT + 1) + LIMIT + 1


def test_recovery_finds_the_failed_without_reading_the_others(scope: dict[str, Any]) -> None:
    Delivery.objects.filter(state="abandoned").update(finished_at=clock.now())
    since = clock.now() - dt.timedelta(days=1)

    with CaptureQueriesContext(connection) as queries:
        recovery = deliveries.recover(**scope, since=since, actor="nobody")

    assert (recovery.count, recovery.has_more) == (3, False)
    locking = [query["sql"] for query in queries if query["sql"].startswith("SELECT") and "FOR NO KEY" in query["sql"]]
    chosen = [sql for sql in locking if 'FROM "webhooks_delivery"' in sql]
    for sql in chosen:
        assert {node.get("Index Name") for node in scans(sql)} == {"webhooks_delivery_abandoned"}
    assert len(chosen) == 2
