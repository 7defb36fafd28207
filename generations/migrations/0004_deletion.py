"""Media and prompts that are deleted on demand or by retention, and who made a task in the playground.

Safe on a live table: columns without a default, and indexes made concurrently, which hold none of the rows there are.
"""

import django.db.models.deletion
from django.conf import settings
from django.contrib.postgres.operations import AddConstraintNotValid, AddIndexConcurrently, ValidateConstraint
from django.db import migrations, models
from django.db.models import F, Q

ON_DEMAND = models.CheckConstraint(
    condition=Q(deleted_at__isnull=True) | Q(deletion_asked_at__isnull=False),
    name="generations_asset_deleted_on_demand",
)


class Migration(migrations.Migration):
    atomic = False
    dependencies = [
        ("accounts", "0002_audit"),
        ("generations", "0003_lean_indexes"),
        migrations.swappable_dependency(settings.AUTH_USER_MODEL),
    ]
    operations = [
        migrations.CreateModel(
            "RetentionMark",
            [
                ("id", models.BigAutoField(auto_created=True, primary_key=True, serialize=False, verbose_name="ID")),
                ("subject", models.CharField(choices=[("media", "Media"), ("prompts", "Prompts")], max_length=7)),
                ("is_test", models.BooleanField()),
                ("until", models.DateTimeField()),
                (
                    "organization",
                    models.ForeignKey(
                        on_delete=django.db.models.deletion.CASCADE, related_name="+", to="accounts.organization"
                    ),
                ),
            ],
            options={
                "constraints": [
                    models.UniqueConstraint(
                        fields=["organization", "subject", "is_test"], name="generations_retention_once"
                    ),
                ],
            },
        ),
        migrations.AddField(
            "generation",
            "created_by",
            models.ForeignKey(
                blank=True,
                db_index=False,
                help_text="Who made it in the playground; empty for tasks that came with a key.",
                null=True,
                on_delete=django.db.models.deletion.SET_NULL,
                related_name="+",
                to=settings.AUTH_USER_MODEL,
            ),
        ),
        migrations.AddField(
            "generation",
            "prompt_deleted_at",
            models.DateTimeField(blank=True, help_text="When prompt and references were erased.", null=True),
        ),
        migrations.AddField(
            "outputasset",
            "deletion_asked_at",
            models.DateTimeField(
                blank=True,
                help_text="From then on its address answers 410; the row stays, as the task's body does.",
                null=True,
            ),
        ),
        migrations.AddField(
            "outputasset",
            "deleted_at",
            models.DateTimeField(blank=True, help_text="When the storage had let it go.", null=True),
        ),
        AddConstraintNotValid("outputasset", ON_DEMAND),
        ValidateConstraint("outputasset", ON_DEMAND.name),
        AddIndexConcurrently(
            "generation",
            models.Index(
                F("created_by"),
                F("organization"),
                F("created_at").desc(),
                F("public_id").desc(),
                condition=Q(created_by__isnull=False),
                name="generations_playground",
            ),
        ),
        AddIndexConcurrently(
            "outputasset",
            models.Index(
                fields=["id"],
                condition=Q(deletion_asked_at__isnull=False, deleted_at__isnull=True),
                name="generations_asset_undeleted",
            ),
        ),
    ]
