"""A key's use of a month is counted whether or not it has a cap, so that a cap set later counts what came before it.

Keys that many clients share queue in front of their row as the account's movements do (0006).

Safe on a live table: the function is replaced at once, with the same arguments and result; the code before this one
calls it with a cap always. What a key without a cap used before the upgrade is not counted.
"""

from importlib import import_module

import django.db.models.deletion
from django.db import migrations, models

BEFORE = import_module("billing.migrations.0007_key_allowance").RESERVE_WITHIN.replace(
    "CREATE FUNCTION", "CREATE OR REPLACE FUNCTION", 1
)
RESERVE_WITHIN = """
CREATE OR REPLACE FUNCTION billing_reserve_within(
    p_account bigint, p_amount bigint, p_reference text, p_actor text, p_at timestamptz, p_key bigint, p_cap bigint
) RETURNS billing_ledgerentry LANGUAGE plpgsql AS $$
DECLARE
    this_month date := date_trunc('month', p_at AT TIME ZONE 'UTC');
    cap bigint := coalesce(p_cap, 9223372036854775807);
    allowance billing_keyallowance;
    entry billing_ledgerentry;
BEGIN
    PERFORM pg_advisory_xact_lock('billing_keyallowance'::regclass::oid::int, hashint8(p_key));
    IF p_amount <= cap THEN
        INSERT INTO billing_keyallowance AS a (api_key_id, month, used) VALUES (p_key, this_month, p_amount)
            ON CONFLICT (api_key_id, month) DO UPDATE SET used = a.used + p_amount WHERE a.used + p_amount <= cap
     RETURNING * INTO allowance;
    END IF;
    IF allowance.id IS NULL THEN
        -- A row without an id: nothing may move. What was used tells the cap from the balance.
        entry.available_after := coalesce(
            (SELECT used FROM billing_keyallowance WHERE api_key_id = p_key AND month = this_month), 0);
        RETURN entry;
    END IF;
    INSERT INTO billing_reservation (reference, account_id, amount, state, created_at, allowance_id)
    SELECT p_reference, organization_id, p_amount, 'held', p_at, allowance.id
      FROM billing_creditaccount WHERE organization_id = p_account;
    RETURN billing_move(p_account, 'reserve', -p_amount, p_amount, p_reference, p_actor, '', p_at);
END
$$
"""


class Migration(migrations.Migration):
    dependencies = [("billing", "0010_staff_console")]
    operations = [
        migrations.RunSQL(RESERVE_WITHIN, BEFORE),
        migrations.AlterField(
            model_name="reservation",
            name="allowance",
            field=models.ForeignKey(
                blank=True,
                db_index=False,
                help_text="What of it is not given back counts here; empty where no key was used.",
                null=True,
                on_delete=django.db.models.deletion.PROTECT,
                related_name="reservations",
                to="billing.keyallowance",
            ),
        ),
    ]
