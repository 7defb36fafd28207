"""An organization's tasks of one model, newest first, without looking through those of the others."""

from django.db import migrations, models
from django.db.models import F

from seedancee2.lib.operations import AddIndexPatiently


class Migration(migrations.Migration):
    atomic = False
    dependencies = [("generations", "0008_claim_of_a_key")]

    operations = [
        AddIndexPatiently(
            model_name="generation",
            index=models.Index(
                F("organization"),
                F("is_test"),
                F("model"),
                F("created_at").desc(),
                F("public_id").desc(),
                name="generations_list_model",
            ),
        ),
    ]
