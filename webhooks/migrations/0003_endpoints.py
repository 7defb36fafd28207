"""Endpoints: where an organization's webhooks go, by host; and indexes that deliveries pay for and nobody reads go.

Safe on a live table: new rows get their endpoint from the trigger, old ones in batches, indexes are made and dropped
concurrently, and no constraint is checked under a lock that writers wait for. Deliverers of the version before go on
claiming by host meanwhile.
"""

import django.db.models.deletion
import pgtrigger.compiler
import pgtrigger.migrations
from django.contrib.postgres.operations import AddIndexConcurrently, RemoveIndexConcurrently
from django.db import migrations, models

BATCH = 2_000


def give_endpoints(apps, schema_editor):
    """Give each delivery its endpoint; the trigger then knows which of them need a look."""
    last = ""
    with schema_editor.connection.cursor() as cursor:
        while last is not None:
            cursor.execute(
                """
                WITH batch AS MATERIALIZED (
                    SELECT delivery_id, organization_id, host FROM webhooks_delivery
                     WHERE delivery_id > %(last)s ORDER BY delivery_id LIMIT %(batch)s
                ), made AS (
                    INSERT INTO webhooks_endpoint
                           (organization_id, origin, standing, failure_count, last_error, trip_count)
                    SELECT DISTINCT organization_id, host, 1, 0, '', 0 FROM batch
                     ORDER BY organization_id, host ON CONFLICT (organization_id, origin) DO NOTHING
                )
                SELECT max(delivery_id) FROM batch
                """,
                {"last": last, "batch": BATCH},
            )
            (until,) = cursor.fetchone()
            if until is not None:
                cursor.execute(
                    """
                    UPDATE webhooks_delivery delivery SET endpoint_id = endpoint.id FROM webhooks_endpoint endpoint
                     WHERE delivery.endpoint_id IS NULL AND delivery.delivery_id > %s AND delivery.delivery_id <= %s
                       AND endpoint.organization_id = delivery.organization_id AND endpoint.origin = delivery.host
                    """,
                    [last, until],
                )
            last = until


def drop(name, target):
    return migrations.RunSQL(
        f"DROP INDEX CONCURRENTLY IF EXISTS {name}", f"CREATE INDEX CONCURRENTLY {name} ON {target}"
    )


class Migration(migrations.Migration):
    atomic = False
    dependencies = [
        ("accounts", "0001_initial"),
        ("webhooks", "0002_callbacks"),
    ]
    operations = [
        # An index of a great table may take longer than a request's statement may.
        migrations.RunSQL("SET statement_timeout = 0", "RESET statement_timeout"),
        migrations.CreateModel(
            name="Endpoint",
            fields=[
                ("id", models.BigAutoField(auto_created=True, primary_key=True, serialize=False, verbose_name="ID")),
                ("origin", models.CharField(help_text="Scheme, host and port.", max_length=300)),
                (
                    "standing",
                    models.PositiveSmallIntegerField(
                        choices=[
                            (0, "the last attempt was taken within a second"),
                            (1, "not tried yet, slow, or the last attempt failed"),
                            (2, "the last attempts failed"),
                        ],
                        default=1,
                    ),
                ),
                ("failure_count", models.PositiveIntegerField(default=0, help_text="Failures in a row.")),
                (
                    "failing_since",
                    models.DateTimeField(blank=True, help_text="The first failure since the last success.", null=True),
                ),
                ("last_error", models.CharField(blank=True, max_length=200)),
                (
                    "trip_count",
                    models.PositiveIntegerField(default=0, help_text="Times in a row that the breaker opened."),
                ),
                (
                    "paused_until",
                    models.DateTimeField(
                        blank=True,
                        help_text="Nothing is sent before, then one at a time; empty while all is well.",
                        null=True,
                    ),
                ),
                (
                    "told_at",
                    models.DateTimeField(blank=True, help_text="When its owners were told that it fails.", null=True),
                ),
                ("due_at", models.DateTimeField(blank=True, editable=False, null=True)),
                (
                    "organization",
                    models.ForeignKey(
                        db_index=False,
                        on_delete=django.db.models.deletion.PROTECT,
                        related_name="webhook_endpoints",
                        to="accounts.organization",
                    ),
                ),
            ],
            options={
                "indexes": [
                    models.Index(
                        condition=models.Q(("due_at__isnull", False)),
                        fields=["standing", "due_at"],
                        name="webhooks_endpoint_due",
                    ),
                    models.Index(
                        condition=models.Q(("failing_since__isnull", False)),
                        fields=["failing_since"],
                        name="webhooks_endpoint_failing",
                    ),
                    models.Index(
                        condition=models.Q(("told_at__isnull", False)),
                        fields=["told_at"],
                        name="webhooks_endpoint_told",
                    ),
                ],
                "constraints": [
                    models.UniqueConstraint(fields=("organization", "origin"), name="webhooks_endpoint_once")
                ],
            },
        ),
        migrations.AddField(
            model_name="delivery",
            name="pruned_at",
            field=models.DateTimeField(
                blank=True,
                editable=False,
                help_text="When body and attempts were deleted; it cannot be sent again.",
                null=True,
            ),
        ),
        migrations.SeparateDatabaseAndState(
            [
                migrations.RunSQL(
                    "ALTER TABLE webhooks_delivery ADD COLUMN endpoint_id bigint",
                    "ALTER TABLE webhooks_delivery DROP COLUMN endpoint_id",
                ),
                migrations.RunSQL(
                    "ALTER TABLE webhooks_delivery ADD CONSTRAINT webhooks_delivery_endpoint_id_fk"
                    " FOREIGN KEY (endpoint_id) REFERENCES webhooks_endpoint (id)"
                    " DEFERRABLE INITIALLY DEFERRED NOT VALID",
                    migrations.RunSQL.noop,
                ),
            ],
            [
                migrations.AddField(
                    model_name="delivery",
                    name="endpoint",
                    field=models.ForeignKey(
                        db_index=False,
                        default=0,
                        editable=False,
                        on_delete=django.db.models.deletion.PROTECT,
                        related_name="deliveries",
                        to="webhooks.endpoint",
                    ),
                    preserve_default=False,
                ),
            ],
        ),
        pgtrigger.migrations.AddTrigger(
            model_name="delivery",
            trigger=pgtrigger.compiler.Trigger(
                name="tell_endpoint",
                sql=pgtrigger.compiler.UpsertTriggerSql(
                    declare="DECLARE needed_at timestamptz;",
                    func="\n    needed_at := CASE\n        WHEN TG_OP = 'INSERT' OR OLD.endpoint_id IS NULL THEN\n            CASE WHEN NEW.due_at IS NOT NULL THEN GREATEST(NEW.due_at, NEW.leased_until) END\n        WHEN NEW.leased_until IS NULL THEN LEAST(OLD.due_at, NEW.due_at)  -- the old one where a place became free\n    END;  -- a claim sees to its endpoints itself\n    IF NEW.endpoint_id IS NULL THEN\n        SELECT id INTO NEW.endpoint_id FROM webhooks_endpoint\n         WHERE organization_id = NEW.organization_id AND origin = NEW.host;\n    END IF;\n    IF NEW.endpoint_id IS NULL THEN\n        INSERT INTO webhooks_endpoint (organization_id, origin, standing, failure_count, last_error, trip_count)\n        VALUES (NEW.organization_id, NEW.host, 1, 0, '', 0) ON CONFLICT (organization_id, origin) DO NOTHING;\n        SELECT id INTO STRICT NEW.endpoint_id FROM webhooks_endpoint\n         WHERE organization_id = NEW.organization_id AND origin = NEW.host;\n    END IF;\n    IF needed_at IS NOT NULL THEN\n        PERFORM FROM webhooks_endpoint WHERE id = NEW.endpoint_id FOR NO KEY UPDATE;\n        UPDATE webhooks_endpoint SET due_at = needed_at\n         WHERE id = NEW.endpoint_id AND (due_at IS NULL OR due_at > needed_at);\n    END IF;\n    RETURN NEW;\n",
                    hash="27d806657a97cb2c96648edd2bfbd1fa81f46c57",
                    operation='INSERT OR UPDATE OF "due_at", "leased_until", "endpoint_id"',
                    pgid="pgtrigger_tell_endpoint_e9617",
                    table="webhooks_delivery",
                    when="BEFORE",
                ),
            ),
        ),
        migrations.RunPython(give_endpoints, migrations.RunPython.noop),
        migrations.RunSQL(
            "ALTER TABLE webhooks_delivery VALIDATE CONSTRAINT webhooks_delivery_endpoint_id_fk",
            migrations.RunSQL.noop,
        ),
        # With such a constraint proven, SET NOT NULL need not read the table under its lock.
        migrations.RunSQL(
            "ALTER TABLE webhooks_delivery ADD CONSTRAINT webhooks_delivery_has_endpoint"
            " CHECK (endpoint_id IS NOT NULL) NOT VALID",
            migrations.RunSQL.noop,
        ),
        migrations.RunSQL(
            "ALTER TABLE webhooks_delivery VALIDATE CONSTRAINT webhooks_delivery_has_endpoint",
            migrations.RunSQL.noop,
        ),
        migrations.RunSQL(
            "ALTER TABLE webhooks_delivery ALTER COLUMN endpoint_id SET NOT NULL", migrations.RunSQL.noop
        ),
        migrations.RunSQL(
            "ALTER TABLE webhooks_delivery DROP CONSTRAINT webhooks_delivery_has_endpoint", migrations.RunSQL.noop
        ),
        AddIndexConcurrently(
            "delivery",
            models.Index(
                condition=models.Q(("due_at__isnull", False)),
                fields=["endpoint", "due_at"],
                name="webhooks_delivery_ripe",
            ),
        ),
        AddIndexConcurrently(
            "delivery",
            models.Index(
                condition=models.Q(("leased_until__isnull", False)),
                fields=["endpoint", "leased_until"],
                name="webhooks_delivery_held",
            ),
        ),
        AddIndexConcurrently(
            "delivery",
            models.Index(
                condition=models.Q(("finished_at__isnull", False), ("pruned_at__isnull", True)),
                fields=["state", "finished_at"],
                name="webhooks_delivery_ended",
            ),
        ),
        RemoveIndexConcurrently("delivery", "webhooks_delivery_due"),
        RemoveIndexConcurrently("delivery", "webhooks_delivery_leased"),
        migrations.SeparateDatabaseAndState(
            [
                drop("webhooks_delivery_organization_id_a565623c", "webhooks_delivery (organization_id)"),
                drop(
                    "webhooks_delivery_delivery_id_c74ea288_like", "webhooks_delivery (delivery_id varchar_pattern_ops)"
                ),
                drop("webhooks_deliveryattempt_delivery_id_a3a82286", "webhooks_deliveryattempt (delivery_id)"),
                drop(
                    "webhooks_deliveryattempt_delivery_id_a3a82286_like",
                    "webhooks_deliveryattempt (delivery_id varchar_pattern_ops)",
                ),
            ],
            [
                migrations.AlterField(
                    "delivery",
                    "organization",
                    models.ForeignKey(
                        db_index=False,
                        on_delete=django.db.models.deletion.PROTECT,
                        related_name="deliveries",
                        to="accounts.organization",
                    ),
                ),
                migrations.AlterField(
                    "deliveryattempt",
                    "delivery",
                    models.ForeignKey(
                        db_index=False,
                        on_delete=django.db.models.deletion.CASCADE,
                        related_name="attempts",
                        to="webhooks.delivery",
                    ),
                ),
            ],
        ),
        migrations.RunSQL("RESET statement_timeout", "SET statement_timeout = 0"),
    ]
