from django.db import migrations, models


class Migration(migrations.Migration):
    dependencies = [("accounts", "0002_audit")]

    operations = [
        migrations.AddField(
            model_name="organization",
            name="demands_second_factor",
            field=models.BooleanField(default=False, help_text="Members enter the console with a second factor only."),
        ),
    ]
