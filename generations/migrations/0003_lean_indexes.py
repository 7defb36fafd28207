"""Drop indexes that every creation pays for and nobody reads.

The organization is the first column of the lists' indexes; nothing looks for the tasks of a key alone; `_like` came with
the text key and serves searches by prefix. Safe on a live table: dropped concurrently.
"""

import django.db.models.deletion
from django.db import migrations, models


def drop(name, target):
    return migrations.RunSQL(
        f"DROP INDEX CONCURRENTLY IF EXISTS {name}", f"CREATE INDEX CONCURRENTLY {name} ON {target}"
    )


class Migration(migrations.Migration):
    atomic = False
    dependencies = [("generations", "0002_public_models")]
    operations = [
        migrations.SeparateDatabaseAndState(
            [
                drop("generations_generation_organization_id_72c022f7", "generations_generation (organization_id)"),
                drop("generations_generation_api_key_id_87910ad2", "generations_generation (api_key_id)"),
                drop(
                    "generations_generation_public_id_1377573c_like",
                    "generations_generation (public_id varchar_pattern_ops)",
                ),
            ],
            [
                migrations.AlterField(
                    "generation",
                    "organization",
                    models.ForeignKey(
                        db_index=False,
                        on_delete=django.db.models.deletion.PROTECT,
                        related_name="generations",
                        to="accounts.organization",
                    ),
                ),
                migrations.AlterField(
                    "generation",
                    "api_key",
                    models.ForeignKey(
                        blank=True,
                        db_index=False,
                        null=True,
                        on_delete=django.db.models.deletion.PROTECT,
                        related_name="+",
                        to="accounts.apikey",
                    ),
                ),
            ],
        ),
    ]
