"""What the staff's console looks for: failed tasks, tasks by a value in their metadata, and the looks of reconciliation.

Metadata is `json` (ADR 0004), and values may be longer than an entry of an index: so the index holds a hash of each
value at the top level, and a look-up compares the values themselves. Built beside a live table.
"""

from django.contrib.postgres.operations import AddIndexConcurrently
from django.db import migrations, models

import seedancee2.lib.clock

HASHES = """
CREATE OR REPLACE FUNCTION generations_metadata_hashes(metadata json) RETURNS bigint[]
LANGUAGE sql IMMUTABLE STRICT PARALLEL SAFE AS $$
    SELECT array_agg(DISTINCT hashtextextended(value, 0))
      FROM json_each_text(CASE json_typeof(metadata) WHEN 'object' THEN metadata ELSE '{}'::json END)
     WHERE value <> ''
$$
"""
# A short pending list: whoever fills it sorts it in, and that is a creation.
INDEX = """
CREATE INDEX CONCURRENTLY IF NOT EXISTS generations_metadata
    ON generations_generation USING gin (generations_metadata_hashes(metadata))
  WITH (fastupdate = on, gin_pending_list_limit = 256)
 WHERE metadata::text <> '{}'
"""


class Migration(migrations.Migration):
    atomic = False
    dependencies = [("generations", "0004_deletion")]
    operations = [
        migrations.AlterModelOptions(
            "generation",
            {
                "permissions": [
                    ("operate_generation", "Can ask for a task now, fail it, and move it to another route"),
                    ("refund_generation", "Can give back the credits of a task"),
                    ("erase_generation", "Can delete the files and the prompt of a task"),
                ]
            },
        ),
        AddIndexConcurrently(
            "generation",
            models.Index(
                models.F("error_code"),
                models.F("public_id").desc(),
                condition=~models.Q(error_code=""),
                name="generations_failed",
            ),
        ),
        migrations.RunSQL(HASHES, "DROP FUNCTION IF EXISTS generations_metadata_hashes(json)"),
        migrations.RunSQL(INDEX, "DROP INDEX CONCURRENTLY IF EXISTS generations_metadata"),
        migrations.CreateModel(
            "ReconciliationRun",
            [
                ("id", models.BigAutoField(auto_created=True, primary_key=True, serialize=False, verbose_name="ID")),
                ("started_at", models.DateTimeField(default=seedancee2.lib.clock.now)),
                ("finished_at", models.DateTimeField(default=seedancee2.lib.clock.now)),
                (
                    "is_whole",
                    models.BooleanField(default=False, help_text="Everything there is, not only the last day."),
                ),
                ("finding_count", models.PositiveIntegerField()),
            ],
            options={"indexes": [models.Index(fields=["-finished_at"], name="generations_run_newest")]},
        ),
    ]
