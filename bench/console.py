"""How fast are the console's pages with many tasks? Run: python -m bench.console [TASKS].

One organization has TASKS live tasks (200,000 unless told), spread evenly over a year, with their ledger, files and
webhooks; a tenth of as many are of others. Each page is asked for through Django itself, by a signed-in owner: the
median of ROUNDS, and its slowest statement.
"""

import os
import shutil
import statistics
import sys
import time
from collections.abc import Callable

from seedancee2.local import postgres, state, throwaway

ROUNDS = 7

# Ids begin with their time, as ours do; every 50th task failed, every 4th has a webhook, every 20,000th says "needle".
_WRITE = """
    INSERT INTO generations_generation (public_id, organization_id, is_test, model, status, input, metadata,
           callback_url, rate, credits, credits_refunded, error_code, error_message, created_at, started_at,
           finished_at, deadline_at)
    SELECT bench_id('vid', at, n), CASE WHEN n % 11 = 10 THEN {other} ELSE {own} END, false,
           (ARRAY['mini', 'fast', 'pro'])[n % 3 + 1], CASE WHEN n % 50 = 0 THEN 'failed' ELSE 'completed' END,
           jsonb_build_object('prompt', 'A cinematic drone shot of waves breaking against black volcanic rocks at '
               || CASE WHEN n % 20000 = 7 THEN 'needle ' ELSE '' END || md5(n::text), 'duration', 5,
               'resolution', '720p', 'aspect_ratio', '16:9', 'image_urls', '[]'::jsonb, 'video_urls', '[]'::jsonb,
               'audio_urls', '[]'::jsonb, 'seed', NULL, 'generation_type', 'omni_reference', 'watermark', false,
               'generate_audio', true, 'return_last_frame', false, 'start_image_url', NULL, 'end_image_url', NULL),
           json_build_object('customer_job_id', 'job_' || n, 'campaign', 'launch_week'),
           CASE WHEN n % 4 = 0 THEN 'https://example.com/hook' ELSE '' END, 10, 50,
           CASE WHEN n % 50 = 0 THEN 50 ELSE 0 END, CASE WHEN n % 50 = 0 THEN 'generation_failed' ELSE '' END, '', at,
           at + interval '2 seconds', at + (30 + n % 60) * interval '1 second', at + interval '1 hour'
      FROM generate_series(1, {rows}) n,
           LATERAL (SELECT date_trunc('milliseconds', now() - n * interval '365 days' / {rows}) AS at) moments;
    INSERT INTO generations_outputasset (generation_id, kind, path, size_bytes, sha256, stored_at)
    SELECT public_id, 'video', 'videos/' || public_id, 1, '', finished_at
      FROM generations_generation WHERE status = 'completed';
    INSERT INTO webhooks_delivery (delivery_id, organization_id, is_test, reference, event, url, host, body, state,
           attempt_count, created_at, finished_at)
    SELECT replace(public_id, 'vid', 'dlv'), organization_id, false, public_id, 'video.generation.' || status,
           callback_url, '', ''::bytea, 'delivered', 1, finished_at, finished_at
      FROM generations_generation WHERE callback_url <> '';
    INSERT INTO billing_creditaccount (organization_id, available, reserved, sequence, moved_at)
    VALUES ({own}, 1000000000, 0, 2 * {rows}, now());
    INSERT INTO billing_ledgerentry (account_id, sequence, kind, available_change, reserved_change, available_after,
           reserved_after, reference, actor, reason, created_at)
    SELECT {own}, 2 * row_number() OVER (ORDER BY public_id) - 1 + half, CASE half WHEN 0 THEN 'reserve' WHEN 1 THEN
           CASE status WHEN 'failed' THEN 'release' ELSE 'capture' END END,
           CASE WHEN half = 0 THEN -50 WHEN status = 'failed' THEN 50 ELSE 0 END, CASE half WHEN 0 THEN 50 ELSE -50 END,
           1000000000, 50, public_id, '', '', CASE half WHEN 0 THEN created_at ELSE finished_at END
      FROM generations_generation, generate_series(0, 1) half WHERE organization_id = {own};
"""
_ID = """
    CREATE FUNCTION bench_id(prefix text, at timestamptz, n bigint) RETURNS text LANGUAGE sql AS $$
        SELECT prefix || '_' || string_agg(
                   substr('0123456789abcdefghjkmnpqrstvwxyz',
                          ((floor(extract(epoch FROM at) * 1000)::bigint >> (45 - 5 * place)) & 31)::int + 1, 1),
                   '' ORDER BY place) || lpad(n::text, 16, '0')
          FROM generate_series(0, 9) place $$;
"""


def main() -> None:
    """Measure and print one table."""
    rows = int(sys.argv[1]) if len(sys.argv) > 1 else 200_000
    folder = state.ensure_folder(state.ensure_var() / f"bench-{os.getpid()}")
    server = postgres.prepare(folder / "postgres", say=lambda _: None)
    try:
        with throwaway._running(server) as database, throwaway.servers() as addresses:
            os.environ.update(addresses | {"DATABASE_URL": database}, LOCAL_MODE="true", SECRET_KEY="bench" * 10)
            os.environ.update(LOG_LEVEL="CRITICAL", DJANGO_SETTINGS_MODULE="seedancee2.settings")
            os.environ.update(ALLOWED_HOSTS="testserver")
            _measure(rows)
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _measure(rows: int) -> None:
    import django
    from django.core.management import call_command

    django.setup()
    call_command("migrate", verbosity=0)
    from django.db import connection
    from django.test import Client

    from accounts.models import Membership, Organization, User
    from generations.models import Generation
    from seedancee2.lib.database import patience

    own, other = Organization.objects.create(name="own"), Organization.objects.create(name="other")
    owner = User.objects.create_user("owner@example.com")
    Membership.objects.create(user=owner, organization=own, role="owner")
    with patience(seconds=3600), connection.cursor() as cursor:
        cursor.execute(_ID)
        cursor.execute(_WRITE.format(rows=rows, own=own.pk, other=other.pk))
        cursor.execute("VACUUM ANALYZE")
    browser = Client()
    browser.force_login(owner)
    task = Generation.objects.filter(organization=own, status="completed").order_by("created_at")[rows // 3].public_id

    def page(address: str) -> Callable[[], int]:
        def look() -> int:
            reply = browser.get(address)
            assert reply.status_code == 200, (address, reply.status_code)
            return len(reply.getvalue())

        return look

    print(f"load {os.getloadavg()[0]:.1f} on {os.cpu_count()} cores; {rows:,} tasks within a year")
    print(f"{'page':<46}{'median':>10}{'slowest statement':>20}{'statements':>12}{'bytes':>13}")
    for title, address in [
        ("home", "/console/"),
        ("tasks, the first page", "/console/tasks/"),
        ("tasks, failed ones", "/console/tasks/?status=failed"),
        ("tasks, by id", f"/console/tasks/?q={task}"),
        ("tasks, search of what is on every page", "/console/tasks/?q=volcanic"),
        ("tasks, search of a rare word", "/console/tasks/?q=needle"),
        ("tasks, search of what is nowhere", "/console/tasks/?q=nowhere"),
        ("tasks, search in failed ones", "/console/tasks/?q=nowhere&status=failed"),
        ("tasks, of a key without any", "/console/tasks/?key=playground&callback=yes&q=nowhere"),
        ("task", f"/console/tasks/{task}/"),
        ("playground", "/console/playground/"),
    ]:
        _row(title, page(address), ROUNDS)
    _row("export of everything", page("/console/tasks/export.csv"), 1)


def _row(title: str, look: Callable[[], int], rounds: int) -> None:
    from django.db import connection
    from django.test.utils import CaptureQueriesContext

    look()
    times, slowest, count, size = [], 0.0, 0, 0
    for _ in range(rounds):
        started = time.perf_counter()
        size = look()
        times.append(time.perf_counter() - started)
    with CaptureQueriesContext(connection) as captured:
        look()
    slowest, count = max(float(query["time"]) for query in captured), len(captured)
    print(f"{title:<46}{1000 * statistics.median(times):>7.0f} ms{1000 * slowest:>17.0f} ms{count:>12}{size:>13,}")


if __name__ == "__main__":
    main()
