"""Customers ask for credits, and choose the balances at which they are told. New, empty tables only."""

import django.db.models.deletion
import seedancee2.lib.clock
from django.conf import settings
from django.db import migrations, models


class Migration(migrations.Migration):
    dependencies = [
        ("billing", "0007_key_allowance"),
        migrations.swappable_dependency(settings.AUTH_USER_MODEL),
    ]

    operations = [
        migrations.CreateModel(
            name="BalanceAlert",
            fields=[
                ("id", models.BigAutoField(auto_created=True, primary_key=True, serialize=False, verbose_name="ID")),
                ("credits", models.BigIntegerField()),
                ("is_armed", models.BooleanField(default=True)),
                ("told_at", models.DateTimeField(blank=True, help_text="Of the last mail.", null=True)),
                ("leased_until", models.DateTimeField(blank=True, editable=False, null=True)),
                ("created_at", models.DateTimeField(default=seedancee2.lib.clock.now, editable=False)),
            ],
        ),
        migrations.CreateModel(
            name="TopUpRequest",
            fields=[
                ("request_id", models.CharField(max_length=40, primary_key=True, serialize=False)),
                ("amount", models.BigIntegerField()),
                ("note", models.CharField(blank=True, max_length=500)),
                (
                    "state",
                    models.CharField(
                        choices=[
                            ("open", "Open"),
                            ("granted", "Granted"),
                            ("declined", "Declined"),
                            ("withdrawn", "Withdrawn"),
                        ],
                        default="open",
                        max_length=9,
                    ),
                ),
                (
                    "reply",
                    models.CharField(
                        blank=True, help_text="What the customer is told of the decision.", max_length=500
                    ),
                ),
                ("created_at", models.DateTimeField(default=seedancee2.lib.clock.now, editable=False)),
                ("decided_at", models.DateTimeField(blank=True, null=True)),
                ("staff_told_at", models.DateTimeField(blank=True, null=True)),
                ("customer_told_at", models.DateTimeField(blank=True, null=True)),
                ("leased_until", models.DateTimeField(blank=True, editable=False, null=True)),
            ],
            options={
                "verbose_name": "top-up request",
            },
        ),
        migrations.AddField(
            model_name="balancealert",
            name="account",
            field=models.ForeignKey(
                on_delete=django.db.models.deletion.CASCADE, related_name="alerts", to="billing.creditaccount"
            ),
        ),
        migrations.AddField(
            model_name="topuprequest",
            name="account",
            field=models.ForeignKey(
                on_delete=django.db.models.deletion.PROTECT, related_name="top_up_requests", to="billing.creditaccount"
            ),
        ),
        migrations.AddField(
            model_name="topuprequest",
            name="adjustment",
            field=models.OneToOneField(
                blank=True,
                null=True,
                on_delete=django.db.models.deletion.PROTECT,
                related_name="top_up_request",
                to="billing.adjustment",
            ),
        ),
        migrations.AddField(
            model_name="topuprequest",
            name="requested_by",
            field=models.ForeignKey(
                blank=True,
                null=True,
                on_delete=django.db.models.deletion.SET_NULL,
                related_name="+",
                to=settings.AUTH_USER_MODEL,
            ),
        ),
        migrations.AddConstraint(
            model_name="balancealert",
            constraint=models.CheckConstraint(condition=models.Q(("credits__gt", 0)), name="billing_alert_credits"),
        ),
        migrations.AddConstraint(
            model_name="balancealert",
            constraint=models.UniqueConstraint(fields=("account", "credits"), name="billing_alert_once"),
        ),
        migrations.AddIndex(
            model_name="topuprequest",
            index=models.Index(
                condition=models.Q(
                    ("staff_told_at__isnull", True),
                    models.Q(("customer_told_at__isnull", True), ("state__in", ["granted", "declined"])),
                    _connector="OR",
                ),
                fields=["created_at"],
                name="billing_topup_untold",
            ),
        ),
        migrations.AddConstraint(
            model_name="topuprequest",
            constraint=models.CheckConstraint(condition=models.Q(("amount__gt", 0)), name="billing_topup_amount"),
        ),
        migrations.AddConstraint(
            model_name="topuprequest",
            constraint=models.CheckConstraint(
                condition=models.Q(
                    models.Q(("decided_at__isnull", True), ("state", "open")),
                    models.Q(models.Q(("state", "open"), _negated=True), ("decided_at__isnull", False)),
                    _connector="OR",
                ),
                name="billing_topup_decided",
            ),
        ),
        migrations.AddConstraint(
            model_name="topuprequest",
            constraint=models.UniqueConstraint(
                condition=models.Q(("state", "open")), fields=("account",), name="billing_topup_one_open"
            ),
        ),
    ]
