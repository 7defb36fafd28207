"""The rates of the public page ("Credits"), in credits a second."""

import datetime as dt

from django.db import migrations

RATES = {
    ("pro", "480p"): 10,
    ("pro", "720p"): 20,
    ("pro", "1080p"): 50,
    ("fast", "480p"): 8,
    ("fast", "720p"): 16,
    ("mini", "480p"): 5,
    ("mini", "720p"): 10,
}


def add(apps, schema_editor):
    Rate = apps.get_model("billing", "Rate")
    for (model, resolution), credits in RATES.items():
        Rate.objects.create(
            model=model,
            resolution=resolution,
            credits_per_second=credits,
            effective_at=dt.datetime(2026, 1, 1, tzinfo=dt.UTC),
        )


class Migration(migrations.Migration):
    dependencies = [("billing", "0001_initial")]
    operations = [migrations.RunPython(add, migrations.RunPython.noop)]
