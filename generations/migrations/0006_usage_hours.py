"""Add the sums of past hours. Safe on a live table: new tables only, filled by the task generations.count_usage."""

import django.db.models.deletion
from django.db import migrations, models


class Migration(migrations.Migration):
    dependencies = [
        ("accounts", "0002_audit"),
        ("generations", "0005_staff_console"),
    ]

    operations = [
        migrations.CreateModel(
            name="UsageMark",
            fields=[
                ("id", models.BigAutoField(auto_created=True, primary_key=True, serialize=False, verbose_name="ID")),
                ("counted_until", models.DateTimeField()),
            ],
            options={
                "constraints": [
                    models.CheckConstraint(condition=models.Q(("id", 1)), name="generations_usage_one_mark")
                ],
            },
        ),
        migrations.CreateModel(
            name="UsageHour",
            fields=[
                ("id", models.BigAutoField(auto_created=True, primary_key=True, serialize=False, verbose_name="ID")),
                ("is_test", models.BooleanField()),
                ("hour", models.DateTimeField()),
                ("model", models.CharField(max_length=40)),
                ("completed_jobs", models.PositiveIntegerField()),
                ("failed_jobs", models.PositiveIntegerField()),
                ("credits_charged", models.BigIntegerField()),
                ("credits_refunded", models.BigIntegerField()),
                (
                    "organization",
                    models.ForeignKey(
                        db_index=False,
                        on_delete=django.db.models.deletion.PROTECT,
                        related_name="+",
                        to="accounts.organization",
                    ),
                ),
            ],
            options={
                "constraints": [
                    models.UniqueConstraint(
                        fields=("organization", "is_test", "hour", "model"), name="generations_usage_once"
                    )
                ],
            },
        ),
    ]
