"""What a provider takes for a second, and the turn of a test call. Two empty columns on short tables."""

import django.core.validators
from django.db import migrations, models


class Migration(migrations.Migration):
    dependencies = [("providers", "0006_staff_console")]
    operations = [
        migrations.AddField(
            "channel",
            "tried_until",
            models.DateTimeField(
                blank=True,
                editable=False,
                help_text="Until when at most a test call of the staff is under way.",
                null=True,
            ),
        ),
        migrations.AddField(
            "route",
            "cost_per_second",
            models.DecimalField(
                blank=True,
                decimal_places=4,
                help_text="US cents that the provider takes for a second of video; empty where that is not known.",
                max_digits=10,
                null=True,
                validators=[django.core.validators.MinValueValidator(0)],
            ),
        ),
        migrations.AddConstraint(
            "route",
            models.CheckConstraint(condition=models.Q(("cost_per_second__gte", 0)), name="providers_route_cost"),
        ),
    ]
