"""An index for grants, adjustments and refunds: few rows among very many, which the ledger's page asks for by kind.

Safe on a live table: built concurrently, and hardly written to afterwards. Building may take minutes, hence the patience;
after a failure, migrate again: an index that was left half built is dropped first.
"""

from django.db import migrations, models

from seedancee2.lib.database import patience

NAME = "billing_entry_by_hand"
HOUR = 3600


def build(apps, schema_editor):
    with patience(seconds=HOUR):
        schema_editor.execute(f"DROP INDEX CONCURRENTLY IF EXISTS {NAME}")
        schema_editor.execute(
            f"CREATE INDEX CONCURRENTLY {NAME} ON billing_ledgerentry (account_id, sequence)"
            " WHERE kind IN ('grant', 'adjust', 'refund')"
        )


def drop(apps, schema_editor):
    schema_editor.execute(f"DROP INDEX CONCURRENTLY IF EXISTS {NAME}")


class Migration(migrations.Migration):
    atomic = False
    dependencies = [("billing", "0008_top_ups_and_alerts")]
    operations = [
        migrations.SeparateDatabaseAndState(
            [migrations.RunPython(build, drop)],
            [
                migrations.AddIndex(
                    "ledgerentry",
                    models.Index(
                        fields=["account", "sequence"],
                        condition=models.Q(kind__in=["grant", "adjust", "refund"]),
                        name=NAME,
                    ),
                )
            ],
        )
    ]
