"""A long history, written quickly. Run: python -m bench.history [TASKS].

TASKS tasks (20,000 unless told) of a thousand organizations in the last thirty days, each with its job, files, hold and
ledger entries: organization 1 has the larger half (1,000,000 of 10,000,000), organization 2 has 10,000, the others
share the rest. One task in 25 failed, one in 50 is a test, one in 200 was refunded in part. All have ended.
"""

import sys
import time
from typing import Any

ORGANIZATIONS = 1_000
LARGE, SMALL = 1, 2  # organizations by id
FUNDS = 10**12
DAYS = 30

# In the order of time, as rows come, and with identifiers that begin with it (seedancee2/lib/ids.py).
_TASKS = """
    CREATE FUNCTION pg_temp.ulid(at timestamptz, n bigint) RETURNS text LANGUAGE sql AS $$
        SELECT string_agg(substr('0123456789abcdefghjkmnpqrstvwxyz',
                   1 + (((extract(epoch FROM at) * 1000)::bigint >> (5 * i)) & 31)::int, 1), '' ORDER BY i DESC)
               || lpad(n::text, 16, '0')
          FROM generate_series(0, 9) i $$;
    CREATE UNLOGGED TABLE bench_task AS
    SELECT n, 'vid_' || pg_temp.ulid(at, n) AS id,
           CASE WHEN hashint8(n) & 1023 < {large_share} THEN {large}
                WHEN hashint8(n + {tasks}) & 65535 < {small_share} THEN {small}
                ELSE 3 + (hashint8(n) & 2147483647) % ({organizations} - 2) END AS organization,
           n % 50 = 7 AS is_test,
           CASE WHEN n % 25 = 3 THEN 'failed' ELSE 'completed' END AS status,
           (ARRAY['mini', 'fast', 'pro'])[1 + n % 3] AS model,
           4 * (5 + 5 * (n % 3)) AS credits,
           CASE WHEN n % 200 = 11 AND n % 25 <> 3 AND n % 50 <> 7 THEN 1 + n % 7 ELSE 0 END AS refunded,
           at
      FROM generate_series(1, {tasks}::bigint) n
     CROSS JOIN LATERAL (SELECT date_trunc('milliseconds', now() - interval '3 hours'
                                - ({tasks} - n) * (interval '{days} days' / {tasks})) AS at) moment
"""

_WRITE = {
    "organizations": """
        INSERT INTO accounts_organization (id, name, is_suspended, is_webhook_signing_enabled, created_at)
        OVERRIDING SYSTEM VALUE
        SELECT n, 'bench ' || n, false, true, now() - interval '{days} days 4 hours'
          FROM generate_series(1, {organizations}) n
    """,
    "tasks": """
        INSERT INTO generations_generation
               (public_id, organization_id, is_test, model, status, input, metadata, callback_url, rate, credits,
                credits_refunded, error_code, error_message, created_at, started_at, finished_at, deadline_at)
        SELECT id, organization, is_test, model, status,
               jsonb_build_object('prompt', 'A cinematic drone shot of waves breaking against black rocks ' || n,
                                  'duration', 4, 'resolution', '480p', 'aspect_ratio', '16:9', 'generate_audio', true,
                                  'watermark', false, 'return_last_frame', false),
               json_build_object('customer_job_id', n), '', credits / 4, credits,
               CASE status WHEN 'failed' THEN credits ELSE refunded END,
               CASE status WHEN 'failed' THEN 'generation_failed' ELSE '' END,
               CASE status WHEN 'failed' THEN 'The video could not be generated.' ELSE '' END,
               at, at + interval '3 seconds', at + interval '90 seconds', at + interval '1 hour'
          FROM bench_task ORDER BY n
    """,
    "jobs": """
        INSERT INTO providers_upstreamjob
               (owner, reference, number, model, traffic, request, status, channel_id, upstream_model, upstream_id,
                upstream_urls, callback_token_digest, result, hinted_id, is_final, error_class, error_reason,
                error_detail, created_at, submit_started_at, submitted_at, finished_at, deadline_at, claim_count,
                poll_count, odd_count)
        SELECT organization::text, id, 1, model, CASE WHEN is_test THEN 'test' ELSE 'live' END,
               jsonb_build_object('model', model, 'prompt', 'A cinematic drone shot of waves ' || n, 'duration', 4,
                                  'resolution', '480p', 'aspect_ratio', '16:9'),
               CASE status WHEN 'failed' THEN 'failed' ELSE 'succeeded' END, (SELECT min(id) FROM providers_channel),
               'sandbox-' || model, 'bench-' || n, '{{}}', sha256(n::text::bytea),
               CASE status WHEN 'completed' THEN jsonb_build_object('video_url', 'sandbox:bench-' || n) END, '', false,
               CASE status WHEN 'failed' THEN 'our_bug' ELSE '' END, '', '', at, at + interval '200 milliseconds',
               at + interval '400 milliseconds', at + interval '80 seconds', at + interval '1 hour', 0, 8, 0
          FROM bench_task ORDER BY n
    """,
    "files": """
        INSERT INTO generations_outputasset
               (generation_id, kind, path, size_bytes, sha256, duration_ms, width, height, stored_at)
        SELECT id, kind, 'bench/' || id || '/' || kind, 1000000, encode(sha256(id::bytea), 'hex'), 4000, 864, 496,
               at + interval '89 seconds'
          FROM bench_task CROSS JOIN (VALUES ('video'), ('thumbnail')) AS file (kind)
         WHERE status = 'completed' ORDER BY n
    """,
    "accounts": """
        INSERT INTO billing_creditaccount (organization_id, available, reserved, sequence)
        SELECT n, 0, 0, 0 FROM generate_series(1, {organizations}) n
    """,
    "holds": """
        INSERT INTO billing_reservation (reference, account_id, amount, refunded, state, created_at, closed_at)
        SELECT id, organization, credits, refunded, CASE status WHEN 'failed' THEN 'released' ELSE 'captured' END, at,
               at + interval '90 seconds'
          FROM bench_task WHERE NOT is_test ORDER BY n
    """,
    "entries": """
        WITH movement AS (
            SELECT n AS organization, 'grant' AS kind, {funds}::bigint AS available, 0::bigint AS reserved,
                   'grt_' || n AS reference, 'system:cli' AS actor, now() - interval '{days} days 4 hours' AS at, 0 AS n
              FROM generate_series(1, {organizations}) n
            UNION ALL
            SELECT organization, step.kind, step.available, step.reserved, step.reference, step.actor,
                   at + step.after, n
              FROM bench_task CROSS JOIN LATERAL (VALUES
                   ('reserve', -credits, credits, id, 'api_key:1', interval '0'),
                   (CASE status WHEN 'failed' THEN 'release' ELSE 'capture' END,
                    CASE status WHEN 'failed' THEN credits ELSE 0 END, -credits, id, 'system:lifecycle',
                    interval '90 seconds'),
                   ('refund', refunded, 0, id || '/' || refunded, 'user:1', interval '30 minutes')
                   ) AS step (kind, available, reserved, reference, actor, after)
             WHERE NOT is_test AND (step.kind <> 'refund' OR refunded > 0)
        )
        INSERT INTO billing_ledgerentry
               (account_id, sequence, kind, available_change, reserved_change, available_after, reserved_after,
                reference, actor, reason, created_at)
        SELECT organization, row_number() OVER account, kind, available, reserved, sum(available) OVER account,
               sum(reserved) OVER account, reference, actor, '', at
          FROM movement
        WINDOW account AS (PARTITION BY organization ORDER BY at, n ROWS UNBOUNDED PRECEDING)
         ORDER BY at, n
    """,
    "balances": """
        UPDATE billing_creditaccount a
           SET available = last.available_after, reserved = last.reserved_after, sequence = last.sequence,
               moved_at = last.created_at
          FROM (SELECT DISTINCT ON (account_id) * FROM billing_ledgerentry
                 ORDER BY account_id, sequence DESC) last
         WHERE last.account_id = a.organization_id
    """,
}


def main() -> None:
    """Write one, and let reconciliation look at it."""
    from bench import system

    tasks = int(sys.argv[1]) if len(sys.argv) > 1 else 20_000
    with system.system(LOG_LEVEL="CRITICAL"):
        write(tasks)
        check()


def write(tasks: int) -> None:
    """Fill the empty tables of this process's database for a benchmark, and print how long it took."""
    from seedancee2.lib.database import patience

    started = time.monotonic()
    with patience(seconds=7200):
        _execute("ALTER SYSTEM SET max_wal_size = '8GB'", "SELECT pg_reload_conf()")
        told = fill(tasks)
        _execute("VACUUM ANALYZE", "CHECKPOINT")
    print(f"{tasks:,} tasks written in {time.monotonic() - started:.0f} s: {', '.join(told)}")


def fill(tasks: int) -> list[str]:
    """Fill the empty tables, in a transaction or outside; return how long each took."""
    large = 1_000_000 / tasks if tasks >= 10_000_000 else 0.5
    values: dict[str, Any] = {
        "tasks": tasks,
        "organizations": ORGANIZATIONS,
        "large": LARGE,
        "small": SMALL,
        "large_share": round(1024 * large),
        "small_share": round(65536 * min(0.02, 10_000 / tasks / (1 - large))),
        "days": DAYS,
        "funds": FUNDS,
    }
    told = []
    # Foreign keys are checked by triggers, one row at a time; these rows are right by the way they are made.
    _execute("SET session_replication_role = replica", "SET work_mem = '256MB'")
    _execute(_TASKS.format(**values), "ANALYZE bench_task")
    for name, sql in _WRITE.items():
        began = time.monotonic()
        if name == "balances":
            # Whoever takes the entries for as few as they were before would read them once for each account.
            _execute("ANALYZE billing_ledgerentry", "ANALYZE billing_creditaccount")
        _execute(sql.format(**values))
        told.append(f"{name} {time.monotonic() - began:.0f} s")
    _execute("DROP TABLE bench_task", "SELECT setval('accounts_organization_id_seq', 1000000)")
    _execute("SET session_replication_role = origin", "RESET work_mem")
    return told


def check() -> None:
    """Let reconciliation look at everything but the files, which are rows only."""
    from seedancee2.lib.database import patience

    began = time.monotonic()
    with patience(seconds=7200):
        found = [item for item in _reconciliation() if item.rule != "file_is_stored_whole"]
    print(
        f"reconciliation looked at everything for {time.monotonic() - began:.0f} s and found {len(found)} discrepancies"
    )
    for item in found[:10]:
        print(f"  {item}")


def _reconciliation() -> list[Any]:
    from generations import reconciliation

    return reconciliation.discrepancies()


def _execute(*statements: str) -> None:
    from django.db import connection

    with connection.cursor() as cursor:
        for sql in statements:
            cursor.execute(sql)


if __name__ == "__main__":
    main()
