"""The models of the public page ("Public Models")."""

from django.db import migrations

MODELS = [
    ("pro", 1, ["480p", "720p", "1080p"]),
    ("fast", 2, ["480p", "720p"]),
    ("mini", 3, ["480p", "720p"]),
]


def add(apps, schema_editor):
    PublicModel = apps.get_model("generations", "PublicModel")
    for name, position, resolutions in MODELS:
        PublicModel.objects.create(
            name=name, position=position, resolutions=resolutions, min_duration=4, max_duration=15
        )


class Migration(migrations.Migration):
    dependencies = [("generations", "0001_initial")]
    operations = [migrations.RunPython(add, migrations.RunPython.noop)]
