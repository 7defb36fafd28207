"""What a key may do, invitations, and what an organization decides for itself.

Safe on live tables: every new column is empty or has a constant default, so no row is rewritten, and code that does not
know them yet goes on working.
"""

import accounts.models
import django.contrib.postgres.fields
import django.db.models.deletion
import django.db.models.functions.text
import seedancee2.lib.clock
from django.conf import settings
from django.db import migrations, models


class Migration(migrations.Migration):
    dependencies = [
        ("accounts", "0002_audit"),
    ]

    operations = [
        migrations.CreateModel(
            name="Invitation",
            fields=[
                ("id", models.BigAutoField(auto_created=True, primary_key=True, serialize=False, verbose_name="ID")),
                ("email", models.EmailField(max_length=254)),
                (
                    "role",
                    models.CharField(
                        choices=[
                            ("owner", "Owner"),
                            ("admin", "Admin"),
                            ("developer", "Developer"),
                            ("billing", "Billing"),
                            ("viewer", "Viewer"),
                        ],
                        max_length=10,
                    ),
                ),
                ("digest", models.BinaryField(unique=True)),
                ("created_at", models.DateTimeField(default=seedancee2.lib.clock.now, editable=False)),
                (
                    "sent_at",
                    models.DateTimeField(blank=True, help_text="Empty: the mail could not be sent yet.", null=True),
                ),
                ("expires_at", models.DateTimeField()),
                ("accepted_at", models.DateTimeField(blank=True, null=True)),
                ("withdrawn_at", models.DateTimeField(blank=True, null=True)),
            ],
        ),
        migrations.AddField(
            model_name="apikey",
            name="allowed_models",
            field=django.contrib.postgres.fields.ArrayField(
                base_field=models.CharField(max_length=40),
                blank=True,
                db_default=[],
                default=list,
                help_text="None means all.",
                size=None,
            ),
        ),
        migrations.AddField(
            model_name="apikey",
            name="allowed_networks",
            field=django.contrib.postgres.fields.ArrayField(
                base_field=models.CharField(max_length=43),
                blank=True,
                db_default=[],
                default=list,
                help_text="Addresses and networks that requests may come from; none means any.",
                size=None,
            ),
        ),
        migrations.AddField(
            model_name="apikey",
            name="last_used_address",
            field=models.GenericIPAddressField(blank=True, null=True),
        ),
        migrations.AddField(
            model_name="apikey",
            name="monthly_credit_cap",
            field=models.BigIntegerField(
                blank=True,
                help_text="Credits that tasks of one month (UTC) may cost, those given back aside.",
                null=True,
            ),
        ),
        migrations.AddField(
            model_name="apikey",
            name="origin",
            field=models.ForeignKey(
                blank=True,
                help_text="The first key of those that were rolled into this one: their use of a month counts together.",
                null=True,
                on_delete=django.db.models.deletion.PROTECT,
                related_name="+",
                to="accounts.apikey",
            ),
        ),
        migrations.AddField(
            model_name="apikey",
            name="replaced_by",
            field=models.ForeignKey(
                blank=True,
                db_index=False,
                null=True,
                on_delete=django.db.models.deletion.PROTECT,
                related_name="+",
                to="accounts.apikey",
            ),
        ),
        migrations.AddField(
            model_name="apikey",
            name="scopes",
            field=django.contrib.postgres.fields.ArrayField(
                base_field=models.CharField(
                    choices=[
                        ("generate", "Create video tasks"),
                        ("read", "Read tasks and models"),
                        ("usage", "Read usage"),
                        ("webhooks", "Read and repeat webhooks"),
                    ],
                    max_length=10,
                ),
                db_default=["generate", "read", "usage", "webhooks"],
                default=accounts.models.all_scopes,
                size=None,
            ),
        ),
        migrations.AddField(
            model_name="membership",
            name="last_seen_at",
            field=models.DateTimeField(blank=True, editable=False, null=True),
        ),
        migrations.AddField(
            model_name="organization",
            name="callback_hosts",
            field=django.contrib.postgres.fields.ArrayField(
                base_field=models.CharField(max_length=255),
                blank=True,
                db_default=[],
                default=list,
                help_text="Hosts that a callback_url may name; none means any.",
                size=None,
            ),
        ),
        migrations.AddField(
            model_name="organization",
            name="demands_key_caps",
            field=models.BooleanField(db_default=False, default=False),
        ),
        migrations.AddField(
            model_name="organization",
            name="demands_second_factor",
            field=models.BooleanField(db_default=False, default=False),
        ),
        migrations.AddField(
            model_name="organization",
            name="longest_key_days",
            field=models.PositiveIntegerField(blank=True, help_text="Longest life of a member's key.", null=True),
        ),
        migrations.AddField(
            model_name="organization",
            name="media_retention_days",
            field=models.PositiveIntegerField(blank=True, help_text="Empty: files are kept.", null=True),
        ),
        migrations.AddField(
            model_name="organization",
            name="prompt_retention_days",
            field=models.PositiveIntegerField(blank=True, help_text="Empty: prompts are kept.", null=True),
        ),
        migrations.AddConstraint(
            model_name="apikey",
            constraint=models.CheckConstraint(
                condition=models.Q(("monthly_credit_cap__gt", 0)), name="accounts_apikey_cap"
            ),
        ),
        migrations.AddField(
            model_name="invitation",
            name="invited_by",
            field=models.ForeignKey(
                blank=True,
                null=True,
                on_delete=django.db.models.deletion.SET_NULL,
                related_name="+",
                to=settings.AUTH_USER_MODEL,
            ),
        ),
        migrations.AddField(
            model_name="invitation",
            name="organization",
            field=models.ForeignKey(
                on_delete=django.db.models.deletion.CASCADE, related_name="invitations", to="accounts.organization"
            ),
        ),
        migrations.AddConstraint(
            model_name="invitation",
            constraint=models.CheckConstraint(
                condition=models.Q(("email", django.db.models.functions.text.Lower("email"))),
                name="accounts_invitation_email_lower",
            ),
        ),
        migrations.AddConstraint(
            model_name="invitation",
            constraint=models.UniqueConstraint(
                condition=models.Q(("accepted_at__isnull", True), ("withdrawn_at__isnull", True)),
                fields=("organization", "email"),
                name="accounts_invitation_open_once",
            ),
        ),
    ]
