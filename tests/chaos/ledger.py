"""`python -m tests.chaos.ledger`: eight clients on five poor accounts; they and the server are killed again and again.

The clients call `billing.ledger`; what they did is checked by SQL that shares nothing with the product.
"""

import argparse
import contextlib
import os
import random
import signal
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path

import psutil
import psycopg

from seedancee2.local import postgres, processes
from seedancee2.local.processes import Program
from seedancee2.local.state import ROOT
from tests.chaos.ledger_clients import ORGANIZATIONS
from tests.chaos.run import seed_of_run
from tests.chaos.system import until

CHECKS = {
    "what is available is the sum of the entries": """
        SELECT organization_id FROM billing_creditaccount a WHERE available <>
               (SELECT coalesce(sum(available_change), 0) FROM billing_ledgerentry WHERE account_id = organization_id)
    """,
    "what is held is the sum of the entries": """
        SELECT organization_id FROM billing_creditaccount a WHERE reserved <>
               (SELECT coalesce(sum(reserved_change), 0) FROM billing_ledgerentry WHERE account_id = organization_id)
    """,
    "what is held is the sum of the open holds": """
        SELECT organization_id FROM billing_creditaccount WHERE reserved <>
               (SELECT coalesce(sum(amount), 0) FROM billing_reservation
                 WHERE account_id = organization_id AND state = 'held')
    """,
    "sequence numbers run from 1 without a gap": """
        SELECT account_id FROM (
            SELECT account_id, sequence, row_number() OVER (PARTITION BY account_id ORDER BY sequence) AS place
              FROM billing_ledgerentry) e WHERE sequence <> place
         UNION SELECT organization_id FROM billing_creditaccount WHERE sequence <>
               (SELECT count(*) FROM billing_ledgerentry WHERE account_id = organization_id)
    """,
    "each balance follows from the one before": """
        SELECT id FROM (
            SELECT id, available_after, reserved_after,
                   sum(available_change) OVER w AS available, sum(reserved_change) OVER w AS reserved
              FROM billing_ledgerentry WINDOW w AS (PARTITION BY account_id ORDER BY sequence)) e
         WHERE available_after <> available OR reserved_after <> reserved OR available_after < 0 OR reserved_after < 0
    """,
    "a hold has its entry, and exactly one more once it is closed": """
        SELECT reference FROM (
            SELECT r.reference, r.state, r.amount,
                   count(*) FILTER (WHERE e.kind = 'reserve' AND e.reserved_change = r.amount) AS opened,
                   count(*) FILTER (WHERE e.kind = 'capture' AND e.reserved_change = -r.amount) AS captured,
                   count(*) FILTER (WHERE e.kind = 'release' AND e.available_change = r.amount) AS released
              FROM billing_reservation r LEFT JOIN billing_ledgerentry e USING (reference) GROUP BY 1, 2, 3) h
         WHERE (opened, captured, released)
               <> (1, (state = 'captured')::int::bigint, (state = 'released')::int::bigint)
         UNION SELECT reference FROM billing_ledgerentry e
         WHERE kind IN ('reserve', 'capture', 'release')
           AND NOT EXISTS (SELECT FROM billing_reservation r WHERE r.reference = e.reference)
    """,
    "no more is refunded than was charged": """
        SELECT r.reference FROM billing_reservation r
          LEFT JOIN (SELECT split_part(reference, '/', 1) AS reference, sum(available_change) AS total
                       FROM billing_ledgerentry WHERE kind = 'refund' GROUP BY 1) e USING (reference)
         WHERE r.refunded <> coalesce(e.total, 0) OR r.refunded > CASE r.state WHEN 'captured' THEN r.amount ELSE 0 END
    """,
    "what a client was told is there": """
        SELECT reference FROM journal j
         WHERE NOT EXISTS (SELECT FROM billing_ledgerentry e WHERE e.reference = j.reference AND e.kind = j.kind)
    """,
}


def main() -> int:
    """Run, and print what was done and what is wrong."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seconds", type=float, default=90, help="of one round")
    parser.add_argument("--operations", type=int, default=300_000, help="rounds go on until so many were done")
    parser.add_argument("--kills", type=int, default=420, help="of clients in a round, and as many of backends")
    parser.add_argument("--restarts", type=int, default=5, help="in a round")
    parser.add_argument("--seed", type=int, default=seed_of_run())
    given = parser.parse_args()
    _say(f"seed {given.seed}; load average {os.getloadavg()[0]:.1f} on {os.cpu_count()} cores")
    # Not in a folder of ours: PostgreSQL runs as another user if we are root.
    with tempfile.TemporaryDirectory(prefix="seedancee2-chaos-", ignore_cleanup_errors=True) as name:
        return _run(Path(name), given)


def _run(folder: Path, given: argparse.Namespace) -> int:
    server = postgres.prepare(folder / "postgres", say=lambda _: None)
    process = processes.spawn(server.program)
    farm_program = Program(
        name="clients",
        command=[sys.executable, "-m", "tests.chaos.ledger_clients", str(folder), str(given.seed)],
        folder=ROOT,
        environment=_environment(server.url),
        log=folder / "clients.log",
    )
    try:
        until(server.is_ready, 60)
        _prepare(folder, server.url)
        farm = processes.spawn(farm_program)
        struck: Counter[str] = Counter()
        dice = random.Random(f"ledger/{given.seed}")
        began = time.monotonic()
        while _journaled(folder)["operations"] < given.operations or struck["restarts"] == 0:
            round_began = time.monotonic()
            for at, name in _blows(dice, given):
                time.sleep(max(0.0, round_began + at - time.monotonic()))
                if name == "restarts":
                    process.send_signal(signal.SIGQUIT)
                    process.wait()
                    process = processes.spawn(server.program)
                    until(server.is_ready, 60, pause=0.02)
                    struck[name] += 1
                elif name == "clients killed":
                    struck[name] += _kill_one(farm.pid, dice)
                else:
                    struck[name] += _end_one(server.url, dice)
            assert farm.poll() is None, (folder / "clients.log").read_text()
        seconds = time.monotonic() - began
        processes.stop(farm, farm_program)
        done = _journaled(folder)
        wrong = _check(folder, server.url)
    finally:
        processes.stop(process, server.program)
    _say(f"  {seconds:.0f} s, {done.pop('operations'):,} operations ({done.pop('committed'):,} committed movements)")
    for what, count in sorted((done + struck).items()):
        _say(f"  {what:<28} {count:>8,}")
    for what, found in wrong.items():
        _say(f"  {what:<64} {len(found)} violations {found[:5] or ''}")
    return 1 if any(wrong.values()) else 0


def _blows(dice: random.Random, given: argparse.Namespace) -> list[tuple[float, str]]:
    """Draw one round of what is struck, and when."""
    blows = [
        (dice.uniform(0.02, 0.98) * given.seconds, name)
        for name in ("clients killed", "backends ended")
        for _ in range(given.kills)
    ]
    parts = range(given.restarts)
    blows += [(given.seconds * (part + dice.uniform(0.2, 0.8)) / given.restarts, "restarts") for part in parts]
    return sorted(blows)


def _prepare(folder: Path, url: str) -> None:
    migrate = Program(
        name="migrate",
        command=[sys.executable, "manage.py", "migrate", "--verbosity", "0"],
        folder=ROOT,
        environment=_environment(url),
        log=folder / "migrate.log",
    )
    assert processes.spawn(migrate).wait(120) == 0, (folder / "migrate.log").read_text()
    with psycopg.connect(url) as connection:
        for number in ORGANIZATIONS:
            connection.execute(
                "INSERT INTO accounts_organization (id, name, is_suspended, is_webhook_signing_enabled, created_at)"
                " VALUES (%s, %s, false, true, now())",
                [number, f"poor {number}"],
            )
            connection.execute(
                "INSERT INTO billing_creditaccount (organization_id, available, reserved, sequence)"
                " VALUES (%s, 0, 0, 0)",
                [number],
            )


def _environment(url: str) -> dict[str, str]:
    return dict(os.environ) | {
        "DATABASE_URL": url,
        "REDIS_URL": "redis://127.0.0.1:1/0",
        "DJANGO_SETTINGS_MODULE": "seedancee2.settings",
        "LOCAL_MODE": "true",
        "SECRET_KEY": "chaos" * 10,
        "LOG_LEVEL": "CRITICAL",
    }


def _kill_one(farm: int, dice: random.Random) -> int:
    children = psutil.Process(farm).children()
    try:
        dice.choice(children).kill()
    except (IndexError, psutil.NoSuchProcess):  # all of them just died otherwise
        return 0
    return 1


def _end_one(url: str, dice: random.Random) -> int:
    with (
        contextlib.suppress(psycopg.OperationalError),
        psycopg.connect(url, autocommit=True, connect_timeout=5) as connection,
    ):
        backends = connection.execute(
            "SELECT pid FROM pg_stat_activity WHERE backend_type = 'client backend' AND pid <> pg_backend_pid()"
        ).fetchall()
        if not backends:
            return 0
        ended = connection.execute("SELECT pg_terminate_backend(%s)", [dice.choice(backends)[0]]).fetchone()
        return int(bool(ended and ended[0]))
    return 0


def _journaled(folder: Path) -> Counter[str]:
    counts: Counter[str] = Counter()
    for path in folder.glob("journal-*"):
        for line in path.read_text().splitlines():
            what, _, name = line.partition(" ")
            if what == "refused":
                counts[f"refused: {name}"] += 1
            elif what == "uncertain":
                counts["uncertain"] += 1
                continue
            else:
                counts["committed"] += 1
            counts["operations"] += 1
    return counts


def _check(folder: Path, url: str) -> dict[str, list[object]]:
    with psycopg.connect(url) as connection:
        connection.execute("CREATE TEMPORARY TABLE journal (kind text, reference text)")
        with connection.cursor() as cursor, cursor.copy("COPY journal FROM STDIN") as copy:
            for path in folder.glob("journal-*"):
                for line in path.read_text().splitlines():
                    what, _, reference = line.partition(" ")
                    if what not in ("refused", "uncertain"):
                        copy.write_row((what, reference))
        connection.execute("CREATE INDEX ON journal (reference)")
        connection.execute("ANALYZE")
        return {what: [row[0] for row in connection.execute(sql)] for what, sql in CHECKS.items()}


def _say(line: str) -> None:
    sys.stdout.write(f"{line}\n")
    sys.stdout.flush()


if __name__ == "__main__":
    sys.exit(main())
