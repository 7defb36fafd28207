"""The staff's search for a key by its last four characters. Built beside a live table."""

from django.contrib.postgres.operations import AddIndexConcurrently
from django.db import migrations, models


class Migration(migrations.Migration):
    atomic = False
    dependencies = [("accounts", "0004_staff_console")]
    operations = [
        AddIndexConcurrently("apikey", models.Index(fields=["last_four"], name="accounts_apikey_last_four")),
    ]
