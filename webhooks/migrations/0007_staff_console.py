"""The staff's lists of webhooks that did not arrive and of callbacks by verdict. Built beside live tables."""

from django.contrib.postgres.operations import AddIndexConcurrently
from django.db import migrations, models
from django.db.models import F, Q


class Migration(migrations.Migration):
    atomic = False
    dependencies = [("webhooks", "0006_test_deliveries_move")]
    operations = [
        AddIndexConcurrently(
            "delivery",
            models.Index(
                F("state"),
                F("delivery_id").desc(),
                condition=~Q(state="delivered"),
                name="webhooks_delivery_undelivered",
            ),
        ),
        AddIndexConcurrently(
            "callback",
            models.Index(F("verdict"), F("id").desc(), name="webhooks_callback_verdict"),
        ),
    ]
