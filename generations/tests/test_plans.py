"""The plans of the hot paths on tables with a history: none reads a big table whole or sorts more than a page."""

import contextlib
import datetime as dt
import json
from collections import Counter
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from django.db import connection, transaction
from django.db.backends.postgresql.psycopg_any import mogrify

from accounts.clients import Client
from bench import history
from billing import ledger
from generations import deletion, idempotency, queries, reconciliation, retention, runner, search, usage, usage_hours
from providers import claims, late
from providers.models import Channel
from seedancee2.api import cursors
from seedancee2.api.errors import TaskNotFound
from seedancee2.lib import clock, database, ids
from webhooks import deliveries, delivery, pruning

pytestmark = [pytest.mark.django_db, pytest.mark.xdist_group("plans")]  # filled once

TASKS, COUNTED_HOURS = 50_000, 48
BIG = {
    "billing_ledgerentry",
    "billing_reservation",
    "generations_generation",
    "generations_idempotencyrecord",
    "generations_outputasset",
    "generations_usagehour",
    "providers_upstreamcall",
    "providers_upstreamjob",
    "webhooks_delivery",
    "webhooks_deliveryattempt",
    "webhooks_endpoint",
}
PAGE = 101  # the largest page, and the row that tells whether there is another
SORTED = 3 * PAGE  # rows that may be sorted, as planned: turns between the owners of three models are planned at 303

# Indexes that serve the same look-up equally well.
FILES, JOB, QUEUE, DELIVERY = "files of a task", "job by key", "queued jobs", "delivery by key"
SAME = {
    "generations_asset_kind": FILES,
    "generations_outputasset_generation_id_c2fc111a": FILES,
    "generations_outputasset_generation_id_c2fc111a_like": FILES,
    "providers_job_overdue": QUEUE,
    "providers_job_queue": QUEUE,
    "providers_upstreamjob_pkey": JOB,
    "webhooks_delivery_pkey": DELIVERY,
    "webhooks_delivery_delivery_id_c74ea288_like": DELIVERY,
}

# Beside what has ended: the newest tasks are at every stage, some told their callbacks, some came with a key.
_AT_WORK = """
    CREATE TEMPORARY TABLE newest ON COMMIT DROP AS
    SELECT public_id, row_number() OVER (ORDER BY public_id DESC) AS n
      FROM generations_generation ORDER BY public_id DESC LIMIT 1500;
    UPDATE generations_generation SET status = 'processing', finished_at = NULL, error_code = '', credits_refunded = 0
      FROM newest WHERE newest.public_id = generations_generation.public_id;
    UPDATE providers_upstreamjob
       SET status = CASE WHEN n <= 500 THEN 'queued' WHEN n <= 1300 THEN 'running' ELSE 'succeeded' END,
           finished_at = CASE WHEN n <= 1300 THEN NULL ELSE finished_at END, due_at = now() - n * interval '1 second',
           deadline_at = now() + interval '1 hour' - n * interval '1 second', error_class = ''
      FROM newest WHERE public_id = reference;
    UPDATE providers_upstreamjob SET watch_at = now() WHERE id % 1000 = 1 AND due_at IS NULL;
    INSERT INTO webhooks_endpoint (organization_id, origin, standing, failure_count, last_error, trip_count, due_at)
    SELECT o.id, 'https://h' || n || '.example:443', 0, 0, '', 0, CASE WHEN o.id % 10 = 1 THEN now() END
      FROM accounts_organization o CROSS JOIN generate_series(0, 4) n;
    INSERT INTO webhooks_delivery (delivery_id, organization_id, endpoint_id, is_test, reference, event, url, host,
                                   body, state, attempt_count, created_at, finished_at, due_at)
    SELECT 'dlv_' || public_id, g.organization_id, e.id, false, public_id, 'video.generation.completed', '', origin, '',
           'delivered', 1, created_at, created_at, NULL
      FROM generations_generation g
      JOIN webhooks_endpoint e ON e.organization_id = g.organization_id
       AND origin = 'https://h' || right(public_id, 10)::int % 5 || '.example:443'
     ORDER BY public_id LIMIT 30000;
    UPDATE webhooks_delivery SET state = 'pending', finished_at = NULL, due_at = now()
     WHERE right(delivery_id, 10)::int % 100 = 1;
    UPDATE webhooks_delivery SET state = 'abandoned' WHERE right(delivery_id, 10)::int % 100 = 2;
    INSERT INTO webhooks_deliveryattempt (delivery_id, number, started_at, duration_ms, error, response_excerpt)
    SELECT delivery_id, 1, created_at, 80, '', '' FROM webhooks_delivery;
    INSERT INTO providers_upstreamcall (job_id, kind, started_at, duration_ms, request, response)
    SELECT id, 'poll', created_at, 80, '', '' FROM providers_upstreamjob ORDER BY id LIMIT 30000;
    UPDATE generations_outputasset SET deletion_asked_at = now() WHERE hashint8(id) % 1000 = 1;
    INSERT INTO generations_idempotencyrecord (organization_id, is_test, key, digest, reference, body, ignored_fields,
                                               created_at)
    SELECT organization_id, false, public_id, '', public_id, '', '', now() - row_number() OVER () * interval '5 seconds'
      FROM generations_generation LIMIT 20000;
"""

CLAIMED = {
    "webhooks_delivery_held",
    "webhooks_delivery_ripe",
    "webhooks_endpoint_due",
    "webhooks_endpoint_pkey",
    DELIVERY,
}
PRUNED = {
    "providers_upstreamcall_pkey",
    "webhooks_attempt_number",
    "webhooks_deliveryattempt_pkey",
    "webhooks_delivery_ended",
    DELIVERY,
    JOB,
}
LARGE = Client(
    organization_id=history.LARGE, api_key_id=0, is_test=False, create_rate_limit=None, request_rate_limit=None
)


@pytest.fixture(scope="module")
def full(django_db_setup: None, django_db_blocker: Any) -> Iterator[None]:
    """Fill the tables for the tests of this module, and empty them again."""
    with django_db_blocker.unblock():
        with transaction.atomic(), database.patience(seconds=120):
            history.fill(TASKS)
            for _ in range(COUNTED_HOURS):
                assert usage_hours.count_next()
            with connection.cursor() as cursor:
                cursor.execute("SET session_replication_role = replica")
                cursor.execute(_AT_WORK)
                cursor.execute("SET session_replication_role = origin")
                cursor.execute("ANALYZE")
            Channel.objects.update(max_polls_per_second=None)
            yield
            transaction.set_rollback(True)
        with connection.cursor() as cursor:
            # How many rows a table has is noted outside of transactions: later tests are not to plan for these.
            cursor.execute("VACUUM ANALYZE")
        connection.close()


def page(count=PAGE - 1, **wanted):
    found, _ = queries.page(client=LARGE, wanted=queries.Page(limit=PAGE - 1, **wanted))
    assert len(found) == count


def cursor_at(offset):
    row = queries.for_client(LARGE).order_by("-created_at", "-public_id")[offset]
    return cursors.encode(row.created_at, row.public_id)


def read():
    with contextlib.suppress(TaskNotFound):
        queries.get(client=LARGE, public_id=ids.new("vid"))


def sum_up(hours):
    """Sum up so many hours; all but the first and the last minutes of them are counted."""
    end = usage_hours.counted_until() + dt.timedelta(minutes=7)
    start = end - dt.timedelta(hours=hours)
    usage.summarize(organization_id=history.LARGE, is_test=False, start=start, end=end, limit=30)


def chart(hours):
    """Sum up for the console's chart, from whole days on."""
    end = usage_hours.counted_until()
    start = end - dt.timedelta(hours=hours)
    usage.break_down(organization_id=history.LARGE, is_test=False, start=start, end=end, by=usage.By.MODEL)


def look_through(mode):
    wanted = search.Wanted(modes=(mode,))
    assert len(search.page(organization_id=history.LARGE, wanted=wanted, limit=PAGE - 1).tasks) == PAGE - 1


def retire():
    """Find what an organization does not want kept any longer."""
    rows = retention._after((retention._BEGINNING, ""), history.LARGE, False, clock.now() - dt.timedelta(days=7))
    assert len(rows[: retention.BATCH]) == retention.BATCH


def list_deliveries():
    deliveries.page(organization_id=history.LARGE, is_test=False, wanted=deliveries.Page(limit=PAGE - 1))


@pytest.mark.parametrize(
    ("call", "expected"),
    [
        (page, {"generations_list", FILES}),
        (lambda: page(cursor=cursor_at(15_000)), {"generations_list", FILES}),
        (lambda: page(status="failed"), {"generations_list_status", FILES}),
        (lambda: page(model="pro"), {"generations_list_model", FILES}),
        (lambda: page(count=0, model="none"), {"generations_list_model"}),
        (lambda: page(created_before=clock.now() - dt.timedelta(days=20)), {"generations_list", FILES}),
        (read, {"generations_generation_pkey", FILES}),
        (lambda: sum_up(40), {"generations_list", "generations_usage_once"}),
        (lambda: chart(40), {"generations_list", "generations_usage_once"}),
        (usage_hours.count_next, {"generations_list", "generations_open_deadline"}),
        (lambda: claims.claim_queued(16), {QUEUE, "providers_job_turn", JOB}),
        (lambda: claims.claim_polls(16), {"providers_job_poll", JOB}),
        (lambda: claims.claim_finished(16), {"providers_job_due", JOB}),
        (lambda: late.claim_due(16), {"providers_job_watch", JOB}),
        (lambda: delivery.claim_due(16), CLAIMED),
        (lambda: runner.overdue(100), {"generations_open_deadline"}),
        (idempotency.purge, {"generations_idempotency_at", "generations_idempotencyrecord_pkey"}),
        (pruning.prune, PRUNED),
        (retire, {"generations_list"}),
        (lambda: deletion._due().order_by("pk")[:100].count(), {"generations_asset_undeleted"}),
        (lambda: look_through(False), {"generations_list"}),
        (
            lambda: ledger.balance_at(organization_id=history.LARGE, moment=clock.now() - dt.timedelta(days=20)),
            {"billing_entry_time"},
        ),
        (list_deliveries, {"webhooks_delivery_list", "webhooks_endpoint_pkey", DELIVERY}),
    ],
    ids=[
        "first page",
        "far page",
        "page of a status",
        "page of a model",
        "page of a model that was never used",
        "page of the past",
        "one task",
        "usage",
        "chart of usage",
        "count usage",
        "claim to submit",
        "claim to poll",
        "claim to settle",
        "claim to look late",
        "claim to deliver",
        "past the deadline",
        "purge of keys",
        "pruning",
        "retention",
        "files to delete",
        "console's page",
        "past balance",
        "page of deliveries",
    ],
)
def test_a_hot_path_reads_by_its_index(full: None, call: Callable[[], object], expected: set[str]) -> None:
    used: set[str] = set()
    for sql, nodes in plans(call):
        for node in nodes:
            kind, relation = node["Node Type"], node.get("Relation Name")
            assert kind != "Seq Scan" or relation not in BIG, sql
            # Rows in the order of their time: only those of one instant are sorted then.
            is_in_order = any("created_at" in key for key in node.get("Presorted Key", ()))
            assert "Sort" not in kind or is_in_order or node["Plan Rows"] <= SORTED, sql
            if (relation in BIG or kind == "Bitmap Index Scan") and "Index Name" in node:
                used.add(SAME.get(node["Index Name"], node["Index Name"]))

    assert used == expected


def test_a_look_at_what_moved_reads_no_big_table_whole(full: None) -> None:
    # The history ends three hours ago; every five minutes such a look goes back for a day.
    for sql, nodes in plans(lambda: reconciliation.discrepancies(since=clock.now() - dt.timedelta(hours=4))):
        read_whole = {node["Relation Name"] for node in nodes if node["Node Type"] == "Seq Scan"} & BIG
        # What a key has used is summed up over the month, and this history is hardly longer.
        assert not read_whole or "AS used" in sql, (read_whole, sql)


def test_the_servers_functions_read_no_big_table_whole(full: None) -> None:
    """EXPLAIN does not look into them: the server's counters of this transaction tell."""
    with transaction.atomic():
        before = reads()

        idempotency._claim(LARGE, "key", b"")
        held = reserve()
        ledger.capture(reference=held, actor="test")
        ledger.release(reference=reserve(), actor="test", reason="test")

        whole, by_index = (after - known for after, known in zip(reads(), before, strict=True))
        transaction.set_rollback(True)
    assert not whole
    assert set(by_index) == {
        "generations_idempotency_key",
        "billing_reservation_held",
        "billing_creditaccount_pkey",
    }


def reserve():
    held = ids.new("vid")
    ledger.reserve(organization_id=history.LARGE, amount=5, reference=held, actor="test")
    return held


def reads():
    """Count how often this transaction has read each table whole, and how often by each index."""
    with connection.cursor() as cursor:
        cursor.execute("SELECT relname, seq_scan FROM pg_stat_xact_user_tables")
        whole = Counter(dict(cursor.fetchall()))
        cursor.execute("SELECT indexrelname, pg_stat_get_xact_numscans(indexrelid) FROM pg_stat_user_indexes")
        return whole, Counter(dict(cursor.fetchall()))


def plans(call: Callable[[], object]) -> list[tuple[str, list[dict[str, Any]]]]:
    """Return the statements of a call, which changes nothing in the end, with the nodes of their plans."""
    found: list[str] = []

    def note(execute: Any, sql: str, params: Any, many: bool, context: Any) -> Any:
        result = execute(sql, params, many, context)
        found.append(mogrify(sql, params, connection))
        return result

    before = transaction.savepoint()
    with connection.execute_wrapper(note):
        call()
    transaction.savepoint_rollback(before)
    made = []
    with connection.cursor() as cursor:
        for sql in found:
            if sql.lstrip("( \n").startswith(("SELECT", "WITH", "UPDATE", "INSERT", "DELETE")):
                cursor.execute("EXPLAIN (FORMAT JSON) " + sql)
                plan = cursor.fetchone()[0]
                made.append((sql, list(_nodes((json.loads(plan) if isinstance(plan, str) else plan)[0]["Plan"]))))
    assert made
    return made


def _nodes(node: dict[str, Any]) -> Iterator[dict[str, Any]]:
    yield node
    for part in node.get("Plans", ()):
        yield from _nodes(part)
