"""Reconciliation inside billing: do the balances, the holds and the entries tell the same story?

One pass over the entries and one over the holds make sums and fingerprints of each account, which agree where every row
is as it should be; only where they do not is an account looked at row by row. Sorting or joining millions of rows to
begin with would take twenty times as long.
"""

import contextlib
import dataclasses
import datetime as dt
from collections.abc import Iterator

from django.db import connection, transaction
from django.db.backends.utils import CursorWrapper

from seedancee2.lib.database import patience

BEGINNING = dt.datetime(2000, 1, 1, tzinfo=dt.UTC)
PATIENCE = 600  # seconds that one check may take


@dataclasses.dataclass(frozen=True, slots=True)
class Discrepancy:
    """One row that does not agree with the others; `rule` is the check it broke."""

    rule: str
    subject: str
    detail: str

    def __str__(self) -> str:
        return f"{self.rule}: {self.subject}: {self.detail}"


# What moved since a moment, and what has not the balance of its last entry, however long it has been at rest.
_MOVED = """
    SELECT organization_id FROM billing_creditaccount a
     WHERE moved_at >= %(since)s
        OR ROW(available, reserved, sequence) IS DISTINCT FROM
           (SELECT ROW(e.available_after, e.reserved_after, e.sequence) FROM billing_ledgerentry e
             WHERE e.account_id = a.organization_id ORDER BY e.sequence DESC LIMIT 1)
"""

# `chain`: each entry adds the state after it and the state before it; in a chain without gap or break all but the first
# and the last cancel out. `holds`: what the entries say of the holds, against what the holds say of themselves.
_ACCOUNTS = """
    SELECT checked.rule, a.organization_id, checked.detail
      FROM billing_creditaccount a
      LEFT JOIN (SELECT account_id, count(*) AS count, max(sequence) AS top,
                        sum(available_change)::bigint AS available, sum(reserved_change)::bigint AS reserved,
                        bit_xor(hash_record_extended((sequence, available_after, reserved_after), 0)
                                # hash_record_extended((sequence - 1, available_after - available_change,
                                                        reserved_after - reserved_change), 0)) AS chain,
                        sum(hash_record_extended((reference, kind, abs(reserved_change)), 0))
                            FILTER (WHERE kind IN ('reserve', 'capture', 'release')) AS holds
                   FROM billing_ledgerentry
                  WHERE %(accounts)s::bigint[] IS NULL OR account_id = ANY(%(accounts)s)
                  GROUP BY account_id) e ON e.account_id = a.organization_id
      LEFT JOIN (SELECT account_id,
                        sum(hash_record_extended((reference, 'reserve'::varchar, amount), 0))
                        + sum(CASE state
                              WHEN 'captured' THEN hash_record_extended((reference, 'capture'::varchar, amount), 0)
                              WHEN 'released' THEN hash_record_extended((reference, 'release'::varchar, amount), 0)
                              ELSE 0 END) AS holds
                   FROM billing_reservation
                  WHERE %(accounts)s::bigint[] IS NULL OR account_id = ANY(%(accounts)s)
                  GROUP BY account_id) r ON r.account_id = a.organization_id
     CROSS JOIN LATERAL (VALUES
           ('balance_equals_entries',
            a.available <> coalesce(e.available, 0) OR a.reserved <> coalesce(e.reserved, 0),
            format('account says %%s available, %%s held; entries sum to %%s and %%s',
                   a.available, a.reserved, coalesce(e.available, 0), coalesce(e.reserved, 0))),
           ('sequence_has_no_gap',
            a.sequence <> coalesce(e.count, 0) OR a.sequence <> coalesce(e.top, 0),
            format('sequence is at %%s, with %%s entries up to %%s',
                   a.sequence, coalesce(e.count, 0), coalesce(e.top, 0))),
           ('balances_after_are_a_chain',
            e.chain <> hash_record_extended((e.top, e.available, e.reserved), 0)
                       # hash_record_extended((0::bigint, 0::bigint, 0::bigint), 0),
            'the balances after its entries do not follow from each other'),
           ('reservation_has_its_entries',
            coalesce(e.holds, 0) <> coalesce(r.holds, 0),
            'its holds and their entries differ')
           ) AS checked (rule, is_broken, detail)
     WHERE checked.is_broken AND (%(accounts)s::bigint[] IS NULL OR a.organization_id = ANY(%(accounts)s))
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
    "refunds_are_on_the_reservation": """
        SELECT 'reservation ' || coalesce(r.reference, e.reference),
               format('says %%s credits refunded, its entries sum to %%s',
                      coalesce(r.refunded, 0), coalesce(e.total, 0))
          FROM (SELECT reference, refunded FROM billing_reservation WHERE refunded > 0) r
          FULL JOIN (SELECT split_part(reference, '/', 1) AS reference, sum(available_change) AS total
                       FROM billing_ledgerentry WHERE kind = 'refund' GROUP BY 1) e USING (reference)
         WHERE coalesce(r.refunded, 0) <> coalesce(e.total, 0)
    """,
    # One pass over the holds: they have no index by allowance, which every creation would pay for.
    "allowance_equals_its_holds": """
        SELECT 'allowance of key ' || a.api_key_id || ' in ' || to_char(a.month, 'YYYY-MM'),
               format('says %%s credits used, its holds sum to %%s', a.used, coalesce(r.used, 0))
          FROM billing_keyallowance a
          LEFT JOIN (SELECT allowance_id, sum(CASE state WHEN 'released' THEN 0 ELSE amount - refunded END) AS used
                       FROM billing_reservation WHERE allowance_id IS NOT NULL GROUP BY allowance_id) r
            ON r.allowance_id = a.id
         WHERE a.used <> coalesce(r.used, 0)
    """,
    "hold_counts_in_its_month": """
        SELECT 'reservation ' || r.reference, format('is of %%s, it counts in the allowance of %%s',
               to_char(r.created_at AT TIME ZONE 'UTC', 'YYYY-MM'), to_char(a.month, 'YYYY-MM'))
          FROM billing_reservation r
          JOIN billing_keyallowance a ON a.id = r.allowance_id
         WHERE r.allowance_id IS NOT NULL AND a.month <> date_trunc('month', r.created_at AT TIME ZONE 'UTC')
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
        found = _broken(cursor, None if since == BEGINNING else _moved(cursor, since))
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
    """Run one check; each row it selects is a subject and what is wrong with it."""
    cursor.execute(sql, {"since": since})
    return [Discrepancy(rule, subject, detail) for subject, detail in cursor.fetchall()]


def _moved(cursor: CursorWrapper, since: dt.datetime) -> list[int]:
    cursor.execute(_MOVED, {"since": since})
    return [account for (account,) in cursor.fetchall()]


def _broken(cursor: CursorWrapper, accounts: list[int] | None) -> list[Discrepancy]:
    cursor.execute(_ACCOUNTS, {"accounts": accounts})
    found = []
    for rule, account, detail in cursor.fetchall():
        rows = []
        if rule in _ROWS:
            cursor.execute(_ROWS[rule], {"account": account})
            rows = [Discrepancy(rule, subject, row_detail) for subject, row_detail in cursor.fetchall()]
        found += rows or [Discrepancy(rule, f"organization {account}", detail)]
    return found
