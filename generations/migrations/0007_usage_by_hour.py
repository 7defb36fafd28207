from django.db import migrations, models


class Migration(migrations.Migration):
    dependencies = [("generations", "0006_usage_hours")]

    operations = [
        migrations.AddIndex(
            model_name="usagehour",
            index=models.Index(fields=["hour"], name="generations_usage_hour"),
        ),
    ]
