"""Reconciliation inside billing: do the balances, the holds and the entries tell the same story?

One pass over the entries and one over the holds make sums and fingerprints of each account, which agree where every row
is as it should be; only where they do not is an account looked at row by row. Sorting or joining millions of rows to
begin with would take twenty times as long. A look at what moved since a moment begins each account with the balance
after the entry before, and takes holds by the range of their references, so it costs the same however long the past is.
"""

import contextlib
import dataclasses
import datetime as dt
from collections.abc import Iterator
from typing import Any

from django.conf import settings
from django.db import connection, transaction
from django.db.backends.utils import CursorWrapper

from seedancee2.lib import ids
from seedancee2.lib.database import patience

BEGINNING = dt.datetime(2000, 1, 1, tzinfo=dt.UTC)
PATIENCE = 600  # seconds that one check may take
_LATE = dt.timedelta(hours=1)  # how long after its deadline a task may still move


@dataclasses.dataclass(frozen=True, slots=True)
class Discrepancy:
    """One row that does not agree with the others; `rule` is the check it broke."""

    rule: str
    subject: str
    detail: str

    def __str__(self) -> str:
        return f"{self.rule}: {self.subject}: {self.detail}"


# What moved since a moment, and what has not the balance of its last entry, however long it has been at rest; each with
# the sequence number to begin with.
_MOVED = """
    SELECT a.organization_id, coalesce((SELECT min(e.sequence) FROM billing_ledgerentry e
                                         WHERE e.account_id = a.organization_id AND e.created_at >= %(since)s),
                                       last.sequence + 1, 1)
      FROM billing_creditaccount a
      LEFT JOIN LATERAL (SELECT e.available_after, e.reserved_after, e.sequence FROM billing_ledgerentry e
                          WHERE e.account_id = a.organization_id ORDER BY e.sequence DESC LIMIT 1) last ON true
     WHERE a.moved_at >= %(since)s
        OR (a.available, a.reserved, a.sequence)
           IS DISTINCT FROM (last.available_after, last.reserved_after, last.sequence)
"""

_EVERY_ACCOUNT = "SELECT organization_id AS account_id, 1::bigint AS first FROM billing_creditaccount"
_THESE_ACCOUNTS = "SELECT * FROM unnest(%(accounts)s::bigint[], %(firsts)s::bigint[]) AS these (account_id, first)"
# The time is said again, with room for clocks that differ, so that an index leads to the rows.
_THEIR_ENTRIES = """JOIN scope s ON e.account_id = s.account_id AND e.sequence >= s.first
                                   AND e.created_at >= %(since)s - interval '1 hour'"""

# `o`: the entry before the first that is looked at. `chain`: each entry adds the state after it and the state before
# it; in a chain without gap or break all but the first and the last cancel out. `holds`: what the entries say of the
# holds, against what the holds say of themselves.
_ACCOUNTS = """
    WITH scope AS MATERIALIZED ({scope})
    SELECT checked.rule, a.organization_id, checked.detail
      FROM scope s
      JOIN billing_creditaccount a ON a.organization_id = s.account_id
      LEFT JOIN billing_ledgerentry o ON o.account_id = s.account_id AND o.sequence = s.first - 1
      LEFT JOIN (SELECT e.account_id, count(*) AS count, max(sequence) AS top,
                        sum(available_change)::bigint AS available, sum(reserved_change)::bigint AS reserved,
                        bit_xor(hash_record_extended((sequence, available_after, reserved_after), 0)
                                # hash_record_extended((sequence - 1, available_after - available_change,
                                                        reserved_after - reserved_change), 0)) AS chain,
                        sum(hash_record_extended((reference, kind, abs(reserved_change)), 0))
                            FILTER (WHERE kind IN ('reserve', 'capture', 'release')
                                      AND reference >= %(first_reference)s) AS holds
                   FROM billing_ledgerentry e {entries}
                  GROUP BY e.account_id) e ON e.account_id = s.account_id
      LEFT JOIN (SELECT account_id,
                        sum(hash_record_extended((reference, 'reserve'::varchar, amount), 0))
                        + sum(CASE state
                              WHEN 'captured' THEN hash_record_extended((reference, 'capture'::varchar, amount), 0)
                              WHEN 'released' THEN hash_record_extended((reference, 'release'::varchar, amount), 0)
                              ELSE 0 END) AS holds
                   FROM billing_reservation
                  WHERE reference >= %(first_reference)s
                  GROUP BY account_id) r ON r.account_id = s.account_id
     CROSS JOIN LATERAL (SELECT coalesce(o.sequence, 0) AS sequence, coalesce(o.available_after, 0) AS available,
                                coalesce(o.reserved_after, 0) AS reserved) before
     CROSS JOIN LATERAL (SELECT before.sequence + coalesce(e.count, 0) AS count,
                                coalesce(e.top, before.sequence) AS top,
                                before.available + coalesce(e.available, 0) AS available,
                                before.reserved + coalesce(e.reserved, 0) AS reserved) after
     CROSS JOIN LATERAL (VALUES
           ('balance_equals_entries',
            a.available <> after.available OR a.reserved <> after.reserved,
            format('account says %%s available, %%s held; entries sum to %%s and %%s',
                   a.available, a.reserved, after.available, after.reserved)),
           ('sequence_has_no_gap',
            a.sequence <> after.count OR a.sequence <> after.top,
            format('sequence is at %%s, with %%s entries up to %%s', a.sequence, after.count, after.top)),
           ('balances_after_are_a_chain',
            e.chain <> hash_record_extended((e.top, after.available, after.reserved), 0)
                       # hash_record_extended((before.sequence, before.available, before.reserved), 0),
            'the balances after its entries do not follow from each other'),
           ('reservation_has_its_entries',
            coalesce(e.holds, 0) <> coalesce(r.holds, 0),
            'its holds and their entries differ')
           ) AS checked (rule, is_broken, detail)
     WHERE checked.is_broken
"""

# The rows behind a fingerprint that does not fit.
_ROWS = {
    "balances_after_are_a_chain": """
        SELECT 'entry ' || e.id, format('balances after it are %%s and %%s; the one before gives %%s and %%s',
               e.available_after, e.reserved_after, e.available_change + coalesce(before.available_after, 0),
               e.reserved_change + coalesce(before.reserved_after, 0))
          FROM billing_ledgerentry e
          LEFT JOIN billing_ledgerentry before
            ON before.account_id = e.account_id AND before.sequence = e.sequence - 1
         WHERE e.account_id = %(account)s
           AND (before.id IS NULL AND e.sequence > 1
                OR e.available_after <> e.available_change + coalesce(before.available_after, 0)
                OR e.reserved_after <> e.reserved_change + coalesce(before.reserved_after, 0))
    """,
    "reservation_has_its_entries": """
        SELECT 'reservation ' || reference, format('is %%s with entries: %%s', coalesce(min(r.state), 'missing'),
               coalesce(string_agg(e.kind || ' of ' || abs(e.reserved_change), ', ' ORDER BY e.sequence), 'none'))
          FROM (SELECT * FROM billing_reservation WHERE account_id = %(account)s) r
          FULL JOIN (SELECT * FROM billing_ledgerentry
                      WHERE account_id = %(account)s AND kind IN ('reserve', 'capture', 'release')) e USING (reference)
         GROUP BY reference
        HAVING coalesce(string_agg(e.kind, ',' ORDER BY e.sequence), '') <> CASE min(r.state)
               WHEN 'held' THEN 'reserve' WHEN 'captured' THEN 'reserve,capture' WHEN 'released' THEN 'reserve,release'
               ELSE '' END
            OR bool_or(abs(e.reserved_change) <> r.amount)
    """,
}

# These read few rows, by an index of the open holds, of the refunds and of the adjustments.
_CHECKS = {
    "held_equals_open_reservations": """
        SELECT 'organization ' || a.organization_id,
               format('account says %%s held; open reservations sum to %%s', a.reserved, coalesce(r.held, 0))
          FROM billing_creditaccount a
          LEFT JOIN (SELECT account_id, sum(amount) AS held FROM billing_reservation
                      WHERE state = 'held' GROUP BY account_id) r ON r.account_id = a.organization_id
         WHERE a.reserved <> coalesce(r.held, 0)
    """,
    # All refunds that ever were, which are few, and the holds of the time asked for that say they were refunded. Each
    # hold is read by a question of its own: joined, all of them would be.
    "refunds_are_on_the_reservation": """
        WITH refund AS MATERIALIZED (
             SELECT split_part(reference, '/', 1) AS reference, sum(available_change) AS total
               FROM billing_ledgerentry WHERE kind = 'refund' GROUP BY 1)
        SELECT 'reservation ' || reference,
               format('says %%s credits refunded, its entries sum to %%s', coalesce(said, 0), coalesce(total, 0))
          FROM (SELECT reference,
                       (SELECT refunded FROM billing_reservation r WHERE r.reference = known.reference) AS said
                  FROM (SELECT reference FROM refund
                        UNION SELECT reference FROM billing_reservation
                               WHERE refunded > 0 AND reference >= %(first_reference)s) known) looked
          LEFT JOIN refund USING (reference)
         WHERE coalesce(said, 0) <> coalesce(total, 0)
    """,
    # By the month: holds have no index by allowance, which every creation would pay for.
    "allowance_equals_its_holds": """
        SELECT 'allowance of key ' || a.api_key_id || ' in ' || to_char(a.month, 'YYYY-MM'),
               format('says %%s credits used, its holds sum to %%s', a.used, coalesce(r.used, 0))
          FROM billing_keyallowance a
          LEFT JOIN (SELECT allowance_id, sum(CASE state WHEN 'released' THEN 0 ELSE amount - refunded END) AS used
                       FROM billing_reservation
                      WHERE allowance_id IS NOT NULL AND reference >= %(first_reference_of_month)s
                      GROUP BY allowance_id) r ON r.allowance_id = a.id
         WHERE a.month >= %(month)s AND a.used <> coalesce(r.used, 0)
    """,
    "hold_counts_in_its_month": """
        SELECT 'reservation ' || r.reference, format('is of %%s, it counts in the allowance of %%s',
               to_char(r.created_at AT TIME ZONE 'UTC', 'YYYY-MM'), to_char(a.month, 'YYYY-MM'))
          FROM billing_reservation r
          JOIN billing_keyallowance a ON a.id = r.allowance_id
         WHERE r.allowance_id IS NOT NULL AND r.reference >= %(first_reference)s
           AND a.month <> date_trunc('month', r.created_at AT TIME ZONE 'UTC')
    """,
    "adjustment_has_its_entry": """
        SELECT 'adjustment ' || a.adjustment_id, format('%%s credits, moved at %%s, its entry says %%s',
               a.amount, coalesce(a.moved_at::text, 'never'), coalesce(e.available_change::text, 'nothing'))
          FROM billing_adjustment a
          LEFT JOIN billing_ledgerentry e ON e.kind = 'adjust' AND e.reference = a.adjustment_id
         WHERE coalesce(e.available_change, 0) <> CASE WHEN a.moved_at IS NULL THEN 0 ELSE a.amount END
    """,
}


def discrepancies(*, since: dt.datetime = BEGINNING) -> list[Discrepancy]:
    """Return every row that breaks a rule of the ledger, of all accounts or of those that moved since a moment."""
    with looking() as cursor:
        found = _broken(cursor, since)
        for rule, sql in _CHECKS.items():
            found += find(cursor, rule, sql, since=since)
    return found


@contextlib.contextmanager
def looking() -> Iterator[CursorWrapper]:
    """Open a transaction for checks: they read everything, so they may take minutes and some memory."""
    with patience(seconds=PATIENCE), transaction.atomic(), connection.cursor() as cursor:
        cursor.execute("SET LOCAL work_mem = '64MB'")
        yield cursor


def find(cursor: CursorWrapper, rule: str, sql: str, *, since: dt.datetime) -> list[Discrepancy]:
    """Run one check; each row it selects is a subject and what is wrong with it.

    It may ask for `since`, for the `first_reference` of a task that can have moved since then, if it ended in time, and
    for the first day of that `month` with the first reference of it.
    """
    cursor.execute(sql, _bounds(since))
    return [Discrepancy(rule, subject, detail) for subject, detail in cursor.fetchall()]


def _bounds(since: dt.datetime) -> dict[str, Any]:
    if since == BEGINNING:
        return {"since": since, "month": since, "first_reference": "", "first_reference_of_month": ""}
    since -= dt.timedelta(seconds=settings.TASK_DEADLINE_SECONDS) + _LATE
    month = since.replace(day=1, hour=0, minute=0, second=0, microsecond=0)
    return {
        "since": since,
        "month": month,
        "first_reference": ids.first("vid", at=since),
        # A hold is of the month in which it was made, its reference may be of the moment before.
        "first_reference_of_month": ids.first("vid", at=month - _LATE),
    }


def _broken(cursor: CursorWrapper, since: dt.datetime) -> list[Discrepancy]:
    values = _bounds(since)
    if since == BEGINNING:
        sql = _ACCOUNTS.format(scope=_EVERY_ACCOUNT, entries="")
    else:
        cursor.execute(_MOVED, values)
        moved = cursor.fetchall()
        values |= {"accounts": [account for account, _ in moved], "firsts": [first for _, first in moved]}
        sql = _ACCOUNTS.format(scope=_THESE_ACCOUNTS, entries=_THEIR_ENTRIES)
    cursor.execute(sql, values)
    found = []
    for rule, account, detail in cursor.fetchall():
        rows = []
        if rule in _ROWS:
            cursor.execute(_ROWS[rule], {"account": account})
            rows = [Discrepancy(rule, subject, row_detail) for subject, row_detail in cursor.fetchall()]
        found += rows or [Discrepancy(rule, f"organization {account}", detail)]
    return found
