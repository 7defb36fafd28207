"""The staff's lists of jobs that did not succeed, or too late. Built beside a live table."""

from django.contrib.postgres.operations import AddIndexConcurrently
from django.db import migrations, models
from django.db.models import F, Q


class Migration(migrations.Migration):
    atomic = False
    dependencies = [("providers", "0005_lean_indexes")]
    operations = [
        AddIndexConcurrently(
            "upstreamjob",
            models.Index(
                F("status"), F("id").desc(), condition=Q(status__in=["failed", "expired"]), name="providers_job_failed"
            ),
        ),
        AddIndexConcurrently(
            "upstreamjob",
            models.Index(F("id").desc(), condition=Q(late_at__isnull=False), name="providers_job_late"),
        ),
    ]
