"""What the staff's lists of organizations and keys look for, and what makes a repeated form issue no second key.

Built beside live tables; the new column is empty in every row that there is.
"""

import django.contrib.postgres.indexes
from django.contrib.postgres.operations import AddIndexConcurrently
from django.db import migrations, models
from django.db.models import F, Q
from django.db.models.functions import Lower


class Migration(migrations.Migration):
    atomic = False
    dependencies = [("accounts", "0005_key_last_four")]
    operations = [
        migrations.AddField("apikey", "reference", models.CharField(editable=False, max_length=40, null=True)),
        AddIndexConcurrently(
            "organization",
            models.Index(
                django.contrib.postgres.indexes.OpClass(Lower("name"), name="text_pattern_ops"),
                name="accounts_organization_begins",
            ),
        ),
        AddIndexConcurrently(
            "organization",
            models.Index(F("id").desc(), condition=Q(is_suspended=True), name="accounts_organization_stopped"),
        ),
        AddIndexConcurrently(
            "apikey", models.Index(F("id").desc(), condition=Q(mode="test"), name="accounts_apikey_test")
        ),
        AddIndexConcurrently(
            "apikey",
            models.Index(F("id").desc(), condition=Q(revoked_at__isnull=False), name="accounts_apikey_revoked"),
        ),
        # No row is in this index yet: one look through the keys, which are few beside tasks.
        migrations.AddConstraint(
            "apikey",
            models.UniqueConstraint(
                fields=["reference"], condition=Q(reference__isnull=False), name="accounts_apikey_reference"
            ),
        ),
    ]
