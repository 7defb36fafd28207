"""Notes and visits of the staff, and the right to look at the console as an organization.

Safe on live tables: two new ones, and nothing else.
"""

import datetime
import django.db.models.deletion
import django.db.models.expressions
import pgtrigger.compiler
import pgtrigger.migrations
import seedancee2.lib.clock
from django.conf import settings
from django.db import migrations, models


class Migration(migrations.Migration):
    dependencies = [
        ("accounts", "0003_keys_and_members"),
    ]

    operations = [
        migrations.AlterModelOptions(
            name="organization",
            options={
                "permissions": [
                    ("act_as_organization", "Can look at the console as an organization, and change nothing")
                ]
            },
        ),
        migrations.CreateModel(
            name="StaffVisit",
            fields=[
                ("id", models.BigAutoField(auto_created=True, primary_key=True, serialize=False, verbose_name="ID")),
                ("reason", models.CharField(max_length=500)),
                ("started_at", models.DateTimeField(default=seedancee2.lib.clock.now, editable=False)),
                ("ends_at", models.DateTimeField(help_text="At the latest.")),
                ("ended_at", models.DateTimeField(blank=True, null=True)),
                (
                    "organization",
                    models.ForeignKey(
                        db_index=False,
                        on_delete=django.db.models.deletion.PROTECT,
                        related_name="+",
                        to="accounts.organization",
                    ),
                ),
                (
                    "visitor",
                    models.ForeignKey(
                        db_index=False,
                        on_delete=django.db.models.deletion.CASCADE,
                        related_name="+",
                        to=settings.AUTH_USER_MODEL,
                    ),
                ),
            ],
            options={
                "default_permissions": (),
            },
        ),
        migrations.CreateModel(
            name="StaffNote",
            fields=[
                ("id", models.BigAutoField(auto_created=True, primary_key=True, serialize=False, verbose_name="ID")),
                ("author_name", models.CharField(help_text="The e-mail address at that time.", max_length=254)),
                ("text", models.CharField(max_length=2000)),
                ("created_at", models.DateTimeField(default=seedancee2.lib.clock.now, editable=False)),
                (
                    "author",
                    models.ForeignKey(
                        db_index=False,
                        null=True,
                        on_delete=django.db.models.deletion.SET_NULL,
                        related_name="+",
                        to=settings.AUTH_USER_MODEL,
                    ),
                ),
                (
                    "organization",
                    models.ForeignKey(
                        db_index=False,
                        on_delete=django.db.models.deletion.PROTECT,
                        related_name="staff_notes",
                        to="accounts.organization",
                    ),
                ),
            ],
            options={
                "default_permissions": ("view", "add"),
                "indexes": [
                    models.Index(
                        models.F("organization"),
                        models.OrderBy(models.F("id"), descending=True),
                        name="accounts_note_of_org",
                    )
                ],
                "constraints": [
                    models.CheckConstraint(condition=models.Q(("text", ""), _negated=True), name="accounts_note_text")
                ],
            },
        ),
        pgtrigger.migrations.AddTrigger(
            model_name="staffnote",
            trigger=pgtrigger.compiler.Trigger(
                name="never_deleted",
                sql=pgtrigger.compiler.UpsertTriggerSql(
                    func="RAISE EXCEPTION 'pgtrigger: Cannot delete rows from % table', TG_TABLE_NAME;",
                    hash="f12df40a9f21ee2bf1d0a1eaad9630e4bccdd7c0",
                    operation="DELETE",
                    pgid="pgtrigger_never_deleted_91d2f",
                    table="accounts_staffnote",
                    when="BEFORE",
                ),
            ),
        ),
        pgtrigger.migrations.AddTrigger(
            model_name="staffnote",
            trigger=pgtrigger.compiler.Trigger(
                name="never_rewritten",
                sql=pgtrigger.compiler.UpsertTriggerSql(
                    condition='WHEN (OLD."author_name" IS DISTINCT FROM (NEW."author_name") OR OLD."created_at" IS DISTINCT FROM (NEW."created_at") OR OLD."id" IS DISTINCT FROM (NEW."id") OR OLD."organization_id" IS DISTINCT FROM (NEW."organization_id") OR OLD."text" IS DISTINCT FROM (NEW."text"))',
                    func="RAISE EXCEPTION 'pgtrigger: Cannot update rows from % table', TG_TABLE_NAME;",
                    hash="51d395d147ac3c727e0c92c8fe619457a34404bf",
                    operation="UPDATE",
                    pgid="pgtrigger_never_rewritten_8ee45",
                    table="accounts_staffnote",
                    when="BEFORE",
                ),
            ),
        ),
        migrations.AddIndex(
            model_name="staffvisit",
            index=models.Index(
                condition=models.Q(("ended_at__isnull", True)), fields=["ends_at"], name="accounts_visit_running"
            ),
        ),
        migrations.AddConstraint(
            model_name="staffvisit",
            constraint=models.CheckConstraint(
                condition=models.Q(
                    (
                        "ends_at__lte",
                        django.db.models.expressions.CombinedExpression(
                            models.F("started_at"), "+", models.Value(datetime.timedelta(seconds=1800))
                        ),
                    )
                ),
                name="accounts_visit_short",
            ),
        ),
    ]
