"""What the service may not do to the ledger, its own database user may not either."""

from django.db import migrations


class Migration(migrations.Migration):
    dependencies = [("billing", "0002_rates")]
    operations = [
        migrations.RunSQL(
            "REVOKE UPDATE, DELETE, TRUNCATE ON billing_ledgerentry FROM CURRENT_USER",
            "GRANT UPDATE, DELETE, TRUNCATE ON billing_ledgerentry TO CURRENT_USER",
        ),
    ]
