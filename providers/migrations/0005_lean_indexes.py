"""Drop two indexes that every job pays for: open jobs of a channel have their own, and nobody looks for a key's.

Safe on a live table: dropped concurrently.
"""

import django.db.models.deletion
from django.db import migrations, models


def drop(name, target):
    return migrations.RunSQL(
        f"DROP INDEX CONCURRENTLY IF EXISTS {name}", f"CREATE INDEX CONCURRENTLY {name} ON {target}"
    )


def reference(name):
    return models.ForeignKey(
        blank=True,
        db_index=False,
        null=True,
        on_delete=django.db.models.deletion.PROTECT,
        related_name="jobs",
        to=f"providers.{name}",
    )


class Migration(migrations.Migration):
    atomic = False
    dependencies = [("providers", "0004_silence")]
    operations = [
        migrations.SeparateDatabaseAndState(
            [
                drop("providers_upstreamjob_channel_id_0b46ee66", "providers_upstreamjob (channel_id)"),
                drop("providers_upstreamjob_credential_id_3583563a", "providers_upstreamjob (credential_id)"),
            ],
            [
                migrations.AlterField("upstreamjob", "channel", reference("channel")),
                migrations.AlterField("upstreamjob", "credential", reference("credential")),
            ],
        ),
    ]
