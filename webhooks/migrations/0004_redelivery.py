"""Deliveries that can be sent again, listed and recovered, and places for samples.

Safe on a live table: columns without a rewrite, with defaults that the code before them can do without; indexes built
and dropped concurrently.
"""

import django.db.models.deletion
from django.db import migrations, models
from django.db.models import F, Q

from seedancee2.lib import database

LIST = models.Index(
    F("organization"),
    F("is_test"),
    F("event"),
    F("state"),
    F("created_at").desc(),
    F("delivery_id").desc(),
    name="webhooks_delivery_list",
)
ABANDONED = models.Index(
    fields=["organization", "is_test", "finished_at"],
    condition=Q(state="abandoned"),
    name="webhooks_delivery_abandoned",
)
OF_ORG = "webhooks_delivery_of_org"


def run(*statements):
    def execute(apps, schema_editor):
        # An index of a large table takes longer than a statement of a request may.
        with database.patience(seconds=3600):
            for statement in statements:
                schema_editor.execute(statement)

    return execute


def build(name, columns, condition=""):
    # Whatever an interrupted run left half built must not stand in for the index.
    return (
        f"DROP INDEX CONCURRENTLY IF EXISTS {name}",
        f"CREATE INDEX CONCURRENTLY {name} ON webhooks_delivery ({columns}){condition}",
    )


def drop(name):
    return f"DROP INDEX CONCURRENTLY IF EXISTS {name}"


class Migration(migrations.Migration):
    atomic = False
    dependencies = [("accounts", "0001_initial"), ("webhooks", "0003_endpoints")]
    operations = [
        migrations.AlterModelOptions(
            "delivery",
            {
                "permissions": [("redeliver_delivery", "Can send deliveries again")],
                "verbose_name_plural": "deliveries",
            },
        ),
        migrations.AddField(
            "delivery",
            "schedule_base",
            models.PositiveSmallIntegerField(
                db_default=0, default=0, help_text="Attempts made before the schedule last began anew."
            ),
        ),
        migrations.AddField(
            "delivery",
            "first_delivered_at",
            models.DateTimeField(
                blank=True, help_text="When it first arrived; written when it is sent again after that.", null=True
            ),
        ),
        migrations.CreateModel(
            "SamplePlace",
            [
                ("id", models.BigAutoField(auto_created=True, primary_key=True, serialize=False, verbose_name="ID")),
                ("ends_at", models.DateTimeField()),
                (
                    "organization",
                    models.ForeignKey(
                        on_delete=django.db.models.deletion.CASCADE, related_name="+", to="accounts.organization"
                    ),
                ),
            ],
        ),
        migrations.SeparateDatabaseAndState(
            [
                migrations.RunPython(
                    run(
                        *build(LIST.name, "organization_id, is_test, event, state, created_at DESC, delivery_id DESC"),
                        *build(ABANDONED.name, "organization_id, is_test, finished_at", " WHERE state = 'abandoned'"),
                        drop(OF_ORG),
                    ),
                    run(
                        *build(OF_ORG, "organization_id, delivery_id DESC"),
                        drop(LIST.name),
                        drop(ABANDONED.name),
                    ),
                )
            ],
            [
                migrations.RemoveIndex("delivery", OF_ORG),
                migrations.AddIndex("delivery", LIST),
                migrations.AddIndex("delivery", ABANDONED),
            ],
        ),
    ]
