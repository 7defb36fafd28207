"""Fewer and narrower indexes: they were more than half of what a movement needs, in bytes and in time.

- What begins with the account was indexed three times; the foreign keys' own indexes served nobody.
- That a reference is used once is told by kind: a reserve's by the primary key of its hold, so that only closings and
  the few other movements need an index for it, and a hold that was captured can no longer be released either.
- The `_like` index came with the text key and serves searches by prefix, which nobody makes here.

Safe on a live table: indexes are built and dropped concurrently, each new one before what it replaces goes; dropping the
constraint locks the table for an instant. Builds may take minutes, hence the patience. After a failure, migrate again:
an index that was left half built is dropped first.
"""

import django.db.models.deletion
from django.db import migrations, models

from seedancee2.lib.database import patience

HOUR = 3600


def patiently(*statements):
    def run(apps, schema_editor):
        with patience(seconds=HOUR):
            for statement in statements:
                schema_editor.execute(statement)

    return run


def build(name, target, *, unique=""):
    there = patiently(
        f"DROP INDEX CONCURRENTLY IF EXISTS {name}", f"CREATE {unique} INDEX CONCURRENTLY {name} ON {target}"
    )
    return migrations.RunPython(there, patiently(f"DROP INDEX CONCURRENTLY IF EXISTS {name}"))


def drop(name, target):
    built = build(name, target)
    return migrations.RunPython(built.reverse_code, built.code)


def account(related_name):
    return models.ForeignKey(
        on_delete=django.db.models.deletion.PROTECT,
        related_name=related_name,
        to="billing.creditaccount",
        db_index=False,
    )


class Migration(migrations.Migration):
    atomic = False
    dependencies = [("billing", "0004_movement_functions")]
    operations = [
        migrations.SeparateDatabaseAndState(
            [
                build("billing_entry_time", "billing_ledgerentry (account_id, created_at)"),
                drop("billing_entry_at", "billing_ledgerentry (account_id, created_at DESC, sequence DESC)"),
                build(
                    "billing_entry_closing",
                    "billing_ledgerentry (reference) WHERE kind IN ('capture', 'release')",
                    unique="UNIQUE",
                ),
                build(
                    "billing_entry_reference_kind",
                    "billing_ledgerentry (reference, kind) WHERE NOT (kind IN ('reserve', 'capture', 'release'))",
                    unique="UNIQUE",
                ),
                migrations.RunPython(
                    patiently("ALTER TABLE billing_ledgerentry DROP CONSTRAINT IF EXISTS billing_entry_reference"),
                    patiently(
                        "ALTER TABLE billing_ledgerentry ADD CONSTRAINT billing_entry_reference UNIQUE (reference, kind)"
                    ),
                ),
                drop("billing_ledgerentry_account_id_ac8d6a24", "billing_ledgerentry (account_id)"),
                drop("billing_reservation_account_id_8446d7d5", "billing_reservation (account_id)"),
                drop(
                    "billing_reservation_reference_cbb619b7_like",
                    "billing_reservation (reference varchar_pattern_ops)",
                ),
            ],
            [
                migrations.RemoveIndex("ledgerentry", "billing_entry_at"),
                migrations.AddIndex(
                    "ledgerentry", models.Index(fields=["account", "created_at"], name="billing_entry_time")
                ),
                migrations.RemoveConstraint("ledgerentry", "billing_entry_reference"),
                migrations.AddConstraint(
                    "ledgerentry",
                    models.UniqueConstraint(
                        fields=["reference"],
                        condition=models.Q(kind__in=["capture", "release"]),
                        name="billing_entry_closing",
                    ),
                ),
                migrations.AddConstraint(
                    "ledgerentry",
                    models.UniqueConstraint(
                        fields=["reference", "kind"],
                        condition=~models.Q(kind__in=["reserve", "capture", "release"]),
                        name="billing_entry_reference_kind",
                    ),
                ),
                migrations.AlterField("ledgerentry", "account", account("entries")),
                migrations.AlterField("reservation", "account", account("reservations")),
            ],
        ),
    ]
