"""The sandbox channel, and the routes that send every test key's task to it."""

from django.db import migrations


def add(apps, schema_editor):
    Channel = apps.get_model("providers", "Channel")
    Route = apps.get_model("providers", "Route")
    channel = Channel.objects.create(name="sandbox", adapter="sandbox")
    for model in ("pro", "fast", "mini"):
        Route.objects.create(model=model, traffic="test", channel=channel, upstream_model=f"sandbox-{model}")


class Migration(migrations.Migration):
    dependencies = [("providers", "0001_initial")]
    operations = [migrations.RunPython(add, migrations.RunPython.noop)]
