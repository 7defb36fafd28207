"""A key's monthly cap, counted in the movement's own call: taken with the hold, given back with a release or a refund.

A hold knows the allowance it was taken from, so what is given back goes to the month of the hold, whenever that is. Keys
without a cap go the way they went: `billing_reserve` is as it was.

Safe on a live table: the new column is empty, so no row is rewritten and nothing is checked; functions are replaced at
once, with the same arguments and results. Lock order: reservation, allowance, then the account.
"""

from importlib import import_module

import django.db.models.deletion
from django.db import migrations, models

RESERVE_WITHIN = """
CREATE FUNCTION billing_reserve_within(
    p_account bigint, p_amount bigint, p_reference text, p_actor text, p_at timestamptz, p_key bigint, p_cap bigint
) RETURNS billing_ledgerentry LANGUAGE plpgsql AS $$
DECLARE
    this_month date := date_trunc('month', p_at AT TIME ZONE 'UTC');
    allowance billing_keyallowance;
    entry billing_ledgerentry;
BEGIN
    IF p_amount <= p_cap THEN
        INSERT INTO billing_keyallowance AS a (api_key_id, month, used) VALUES (p_key, this_month, p_amount)
            ON CONFLICT (api_key_id, month) DO UPDATE SET used = a.used + p_amount WHERE a.used + p_amount <= p_cap
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
BEFORE = import_module("billing.migrations.0004_movement_functions")
GIVE_BACK = """IF hold.allowance_id IS NOT NULL THEN
        UPDATE billing_keyallowance SET used = used - {amount} WHERE id = hold.allowance_id;
    END IF;
    """
RELEASE = "RETURN billing_move(hold.account_id, 'release'"
REFUND = "RETURN billing_move(hold.account_id, 'refund'"


def replaced(source, old="", new=""):
    return source.replace("CREATE FUNCTION", "CREATE OR REPLACE FUNCTION", 1).replace(old, new + old, 1)


CLOSE = replaced(BEFORE.CLOSE, RELEASE, GIVE_BACK.format(amount="hold.amount"))
REFUNDED = replaced(BEFORE.REFUND, REFUND, GIVE_BACK.format(amount="p_amount"))


class Migration(migrations.Migration):
    dependencies = [
        ("accounts", "0003_keys_and_members"),
        ("billing", "0006_queue_for_the_account"),
    ]

    operations = [
        migrations.CreateModel(
            name="KeyAllowance",
            fields=[
                ("id", models.BigAutoField(auto_created=True, primary_key=True, serialize=False, verbose_name="ID")),
                ("month", models.DateField(help_text="Its first day.")),
                ("used", models.BigIntegerField()),
                (
                    "api_key",
                    models.ForeignKey(
                        db_index=False,
                        on_delete=django.db.models.deletion.PROTECT,
                        related_name="allowances",
                        to="accounts.apikey",
                    ),
                ),
            ],
        ),
        migrations.AddField(
            model_name="reservation",
            name="allowance",
            field=models.ForeignKey(
                blank=True,
                db_index=False,
                help_text="What of it is not given back counts here; empty for a key without a cap.",
                null=True,
                on_delete=django.db.models.deletion.PROTECT,
                related_name="reservations",
                to="billing.keyallowance",
            ),
        ),
        migrations.AddConstraint(
            model_name="keyallowance",
            constraint=models.UniqueConstraint(fields=("api_key", "month"), name="billing_allowance_once"),
        ),
        migrations.AddConstraint(
            model_name="keyallowance",
            constraint=models.CheckConstraint(condition=models.Q(("used__gte", 0)), name="billing_allowance_used"),
        ),
        migrations.RunSQL(RESERVE_WITHIN, "DROP FUNCTION billing_reserve_within"),
        migrations.RunSQL(CLOSE, replaced(BEFORE.CLOSE)),
        migrations.RunSQL(REFUNDED, replaced(BEFORE.REFUND)),
    ]
