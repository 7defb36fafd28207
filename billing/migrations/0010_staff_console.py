"""The staff's list of grants, adjustments and refunds, which are few among very many entries. Built beside a live table."""

from django.contrib.postgres.operations import AddIndexConcurrently
from django.db import migrations, models
from django.db.models import F, Q


class Migration(migrations.Migration):
    atomic = False
    dependencies = [("billing", "0009_entries_by_hand")]
    operations = [
        AddIndexConcurrently(
            "ledgerentry",
            models.Index(
                F("kind"),
                F("id").desc(),
                condition=Q(kind__in=["grant", "adjust", "refund"]),
                name="billing_entry_by_kind",
            ),
        ),
    ]
