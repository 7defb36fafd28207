"""Deliveries of test mode go to an endpoint of their own, in batches; the trigger finds or makes it."""

from django.db import migrations

BATCH = 2_000


def move(apps, schema_editor):
    """Let the trigger choose anew for each test delivery; one that is being sent stays where its lease is known."""
    last = ""
    with schema_editor.connection.cursor() as cursor:
        while last is not None:
            cursor.execute(
                """
                WITH batch AS MATERIALIZED (
                    SELECT delivery_id FROM webhooks_delivery
                     WHERE is_test AND leased_until IS NULL AND delivery_id > %s ORDER BY delivery_id LIMIT %s
                ), moved AS (
                    UPDATE webhooks_delivery delivery SET endpoint_id = NULL
                      FROM batch WHERE delivery.delivery_id = batch.delivery_id
                )
                SELECT max(delivery_id) FROM batch
                """,
                [last, BATCH],
            )
            (last,) = cursor.fetchone()


class Migration(migrations.Migration):
    atomic = False
    dependencies = [("webhooks", "0005_endpoints_by_mode")]
    operations = [migrations.RunPython(move, migrations.RunPython.noop)]
