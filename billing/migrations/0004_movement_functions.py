"""How credits move, as functions of the database: one call, planned once a session instead of at every call.

`billing_move` is the only statement that changes a balance: the guard, the balance, its sequence number and the entry
cannot come apart. The others begin at the hold, so that the account, which others of the same organization wait for,
is locked last. Where nothing may move they give a row of NULLs, and the caller must roll back.

Safe on a live table: new functions that nobody calls yet. A later change is a new migration with CREATE OR REPLACE.
"""

from django.db import migrations

MOVE = """
CREATE FUNCTION billing_move(
    p_account bigint, p_kind text, p_available bigint, p_reserved bigint, p_reference text, p_actor text,
    p_reason text, p_at timestamptz
) RETURNS billing_ledgerentry LANGUAGE plpgsql AS $$
DECLARE
    account billing_creditaccount;
    entry billing_ledgerentry;
BEGIN
    -- The time follows the sequence although it was taken before the wait for the row, so that a past balance is the
    -- last entry's.
    UPDATE billing_creditaccount
       SET available = available + p_available, reserved = reserved + p_reserved, sequence = sequence + 1,
           moved_at = greatest(moved_at, p_at)
     WHERE organization_id = p_account AND available + p_available >= 0
 RETURNING * INTO account;
    IF NOT FOUND THEN
        RETURN NULL;
    END IF;
    INSERT INTO billing_ledgerentry
           (account_id, sequence, kind, available_change, reserved_change, available_after, reserved_after,
            reference, actor, reason, created_at)
    VALUES (p_account, account.sequence, p_kind, p_available, p_reserved, account.available, account.reserved,
            p_reference, p_actor, p_reason, account.moved_at)
 RETURNING * INTO entry;
    RETURN entry;
END
$$
"""
RESERVE = """
CREATE FUNCTION billing_reserve(p_account bigint, p_amount bigint, p_reference text, p_actor text, p_at timestamptz)
RETURNS billing_ledgerentry LANGUAGE plpgsql AS $$
BEGIN
    INSERT INTO billing_reservation (reference, account_id, amount, state, created_at)
    SELECT p_reference, organization_id, p_amount, 'held', p_at
      FROM billing_creditaccount WHERE organization_id = p_account;
    RETURN billing_move(p_account, 'reserve', -p_amount, p_amount, p_reference, p_actor, '', p_at);
END
$$
"""
CLOSE = """
CREATE FUNCTION billing_close(p_reference text, p_state text, p_actor text, p_reason text, p_at timestamptz)
RETURNS billing_ledgerentry LANGUAGE plpgsql AS $$
DECLARE
    hold billing_reservation;
BEGIN
    UPDATE billing_reservation SET state = p_state, closed_at = p_at
     WHERE reference = p_reference AND state = 'held'
 RETURNING * INTO hold;
    IF NOT FOUND THEN
        RETURN NULL;
    END IF;
    IF p_state = 'captured' THEN
        RETURN billing_move(hold.account_id, 'capture', 0, -hold.amount, p_reference, p_actor, p_reason, p_at);
    END IF;
    RETURN billing_move(hold.account_id, 'release', hold.amount, -hold.amount, p_reference, p_actor, p_reason, p_at);
END
$$
"""
REFUND = """
CREATE FUNCTION billing_refund(p_reference text, p_amount bigint, p_actor text, p_reason text, p_at timestamptz)
RETURNS billing_ledgerentry LANGUAGE plpgsql AS $$
DECLARE
    hold billing_reservation;
BEGIN
    -- The guard is in the statement, so that two partial refunds can never exceed the charge together.
    UPDATE billing_reservation SET refunded = refunded + p_amount
     WHERE reference = p_reference AND state = 'captured' AND p_amount > 0 AND refunded + p_amount <= amount
 RETURNING * INTO hold;
    IF NOT FOUND THEN
        RETURN NULL;
    END IF;
    RETURN billing_move(hold.account_id, 'refund', p_amount, 0, p_reference || '/' || hold.refunded, p_actor, p_reason,
                        p_at);
END
$$
"""


class Migration(migrations.Migration):
    dependencies = [("billing", "0003_append_only")]
    operations = [
        migrations.RunSQL(MOVE, "DROP FUNCTION billing_move"),
        migrations.RunSQL(RESERVE, "DROP FUNCTION billing_reserve"),
        migrations.RunSQL(CLOSE, "DROP FUNCTION billing_close"),
        migrations.RunSQL(REFUND, "DROP FUNCTION billing_refund"),
    ]
