"""Reconciliation inside billing: do the balances, the holds and the entries tell the same story?

Checks of single movements look at what moved since a moment; checks of balances always look at every account, so that a
number changed by hand is found however long the account has been at rest.
"""

import dataclasses
import datetime as dt

from django.db import connection, transaction
from django.db.backends.utils import CursorWrapper

BEGINNING = dt.datetime(2000, 1, 1, tzinfo=dt.UTC)


@dataclasses.dataclass(frozen=True, slots=True)
class Discrepancy:
    """One row that does not agree with the others; `rule` is the check it broke."""

    rule: str
    subject: str
    detail: str

    def __str__(self) -> str:
        return f"{self.rule}: {self.subject}: {self.detail}"


_CHECKS = {
    "balance_equals_entries": """
        SELECT 'organization ' || a.organization_id,
               format('account says %%s available, %%s held; entries sum to %%s and %%s',
                      a.available, a.reserved, coalesce(e.available, 0), coalesce(e.reserved, 0))
          FROM billing_creditaccount a
          LEFT JOIN (SELECT account_id, sum(available_change) AS available, sum(reserved_change) AS reserved
                       FROM billing_ledgerentry GROUP BY account_id) e ON e.account_id = a.organization_id
         WHERE a.available <> coalesce(e.available, 0) OR a.reserved <> coalesce(e.reserved, 0)
    """,
    "held_equals_open_reservations": """
        SELECT 'organization ' || a.organization_id,
               format('account says %%s held; open reservations sum to %%s', a.reserved, coalesce(r.held, 0))
          FROM billing_creditaccount a
          LEFT JOIN (SELECT account_id, sum(amount) AS held FROM billing_reservation
                      WHERE state = 'held' GROUP BY account_id) r ON r.account_id = a.organization_id
         WHERE a.reserved <> coalesce(r.held, 0)
    """,
    "sequence_has_no_gap": """
        SELECT 'organization ' || a.organization_id,
               format('sequence is at %%s, with %%s entries up to %%s',
                      a.sequence, coalesce(e.n, 0), coalesce(e.top, 0))
          FROM billing_creditaccount a
          LEFT JOIN (SELECT account_id, count(*) AS n, max(sequence) AS top
                       FROM billing_ledgerentry GROUP BY account_id) e ON e.account_id = a.organization_id
         WHERE a.sequence <> coalesce(e.n, 0) OR a.sequence <> coalesce(e.top, 0)
    """,
    "balances_after_are_a_chain": """
        SELECT 'entry ' || e.id, format('balances after it are %%s and %%s; the one before gives %%s and %%s',
               e.available_after, e.reserved_after, e.available_change + coalesce(before.available_after, 0),
               e.reserved_change + coalesce(before.reserved_after, 0))
          FROM billing_ledgerentry e
          LEFT JOIN billing_ledgerentry before
            ON before.account_id = e.account_id AND before.sequence = e.sequence - 1
         WHERE e.created_at >= %(since)s
           AND (e.available_after <> e.available_change + coalesce(before.available_after, 0)
                OR e.reserved_after <> e.reserved_change + coalesce(before.reserved_after, 0))
    """,
    "reservation_has_its_entries": """
        SELECT 'reservation ' || r.reference, format('is %%s with entries: %%s', r.state,
               coalesce(string_agg(e.kind, ', ' ORDER BY e.sequence), 'none'))
          FROM billing_reservation r
          LEFT JOIN billing_ledgerentry e ON e.reference = r.reference AND e.kind IN ('reserve', 'capture', 'release')
         WHERE r.created_at >= %(since)s OR r.closed_at >= %(since)s
         GROUP BY r.reference
        HAVING coalesce(string_agg(e.kind, ',' ORDER BY e.sequence), '') <> CASE r.state
               WHEN 'held' THEN 'reserve' WHEN 'captured' THEN 'reserve,capture' ELSE 'reserve,release' END
            OR bool_or(abs(e.reserved_change) <> r.amount)
    """,
    "refunds_are_on_the_reservation": """
        SELECT 'reservation ' || coalesce(r.reference, e.reference),
               format('says %%s credits refunded, its entries sum to %%s', r.refunded, coalesce(e.total, 0))
          FROM (SELECT reference, refunded FROM billing_reservation WHERE refunded > 0) r
          FULL JOIN (SELECT split_part(reference, '/', 1) AS reference, sum(available_change) AS total
                       FROM billing_ledgerentry WHERE kind = 'refund' GROUP BY 1) e USING (reference)
         WHERE coalesce(r.refunded, 0) <> coalesce(e.total, 0)
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
    """Return every row that breaks a rule of the ledger; movements are checked from `since` on."""
    found: list[Discrepancy] = []
    with transaction.atomic(), connection.cursor() as cursor:
        for rule, sql in _CHECKS.items():
            found += find(cursor, rule, sql, since=since)
    return found


def find(cursor: CursorWrapper, rule: str, sql: str, *, since: dt.datetime) -> list[Discrepancy]:
    """Run one check inside a transaction; each row it selects is a subject and what is wrong with it."""
    # A look at every row takes longer than a request may: the limit is lifted for this transaction only.
    cursor.execute("SET LOCAL statement_timeout = 0")
    cursor.execute(sql, {"since": since})
    return [Discrepancy(rule, subject, detail) for subject, detail in cursor.fetchall()]
