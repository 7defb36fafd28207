"""Credentials of their own, health and meters of channels, turns of owners, and late ends."""

import django.contrib.postgres.fields
import django.db.models.deletion
import seedancee2.lib.clock
from django.db import migrations, models


def move_credentials(apps, schema_editor):
    """Give every channel's key a row of its own, and jobs the key that they were sent with."""
    Channel = apps.get_model("providers", "Channel")
    Credential = apps.get_model("providers", "Credential")
    UpstreamJob = apps.get_model("providers", "UpstreamJob")
    for channel in Channel.objects.exclude(sealed_credential=b""):
        credential = Credential.objects.create(channel=channel, sealed_secret=channel.sealed_credential)
        UpstreamJob.objects.filter(channel=channel).update(credential=credential)


class Migration(migrations.Migration):
    dependencies = [
        ("providers", "0002_sandbox"),
    ]

    operations = [
        migrations.CreateModel(
            name="Meter",
            fields=[
                ("id", models.BigAutoField(auto_created=True, primary_key=True, serialize=False, verbose_name="ID")),
                ("kind", models.CharField(choices=[("submit", "Submit"), ("poll", "Poll")], max_length=6)),
                ("next_at", models.DateTimeField(default=seedancee2.lib.clock.now)),
            ],
        ),
        migrations.AddField(
            model_name="channel",
            name="max_open",
            field=models.PositiveIntegerField(
                blank=True, help_text="Jobs of one upstream model at a time; empty for no limit.", null=True
            ),
        ),
        migrations.AddField(
            model_name="channel",
            name="max_polls_per_second",
            field=models.PositiveIntegerField(blank=True, help_text="Empty for no limit.", null=True),
        ),
        migrations.AddField(
            model_name="channel",
            name="max_submits_per_minute",
            field=models.PositiveIntegerField(blank=True, help_text="Empty for no limit.", null=True),
        ),
        migrations.AddField(
            model_name="channel",
            name="options",
            field=models.JSONField(blank=True, default=dict, help_text="What the adapter leaves open; see its module."),
        ),
        migrations.AddField(
            model_name="channel",
            name="output_hosts",
            field=django.contrib.postgres.fields.ArrayField(
                base_field=models.CharField(max_length=200),
                blank=True,
                default=list,
                help_text="Hosts that outputs may come from beside the adapter's own; *.example.com covers all names under it.",
                size=None,
            ),
        ),
        migrations.AddField(
            model_name="channel",
            name="sealed_callback_secret",
            field=models.BinaryField(blank=True, default=b""),
        ),
        migrations.AddField(
            model_name="channel",
            name="unknown_grace_seconds",
            field=models.PositiveIntegerField(
                default=900, help_text="How long to wait for a callback where the provider has no list to look at."
            ),
        ),
        migrations.AddField(
            model_name="channel",
            name="unknown_policy",
            field=models.CharField(
                choices=[("fail", "fail and refund"), ("retry", "send again: the provider may be paid twice")],
                default="fail",
                help_text="What becomes of a submission of which nobody could tell in time whether it arrived.",
                max_length=5,
            ),
        ),
        migrations.AddField(
            model_name="route",
            name="resolutions",
            field=django.contrib.postgres.fields.ArrayField(
                base_field=models.CharField(max_length=10),
                blank=True,
                default=list,
                help_text="Empty for those that the adapter knows of.",
                size=None,
            ),
        ),
        migrations.AddField(
            model_name="upstreamjob",
            name="hinted_id",
            field=models.CharField(blank=True, help_text="The id that a callback told.", max_length=200),
        ),
        migrations.AddField(
            model_name="upstreamjob",
            name="is_final",
            field=models.BooleanField(default=False, help_text="Failed in a way that no other submission may follow."),
        ),
        migrations.AddField(
            model_name="upstreamjob",
            name="late_at",
            field=models.DateTimeField(blank=True, help_text="When a success was found that came too late.", null=True),
        ),
        migrations.AddField(
            model_name="upstreamjob",
            name="odd_count",
            field=models.PositiveSmallIntegerField(
                default=0, help_text="Answers in a row: succeeded, nothing to fetch."
            ),
        ),
        migrations.AddField(
            model_name="upstreamjob",
            name="owner",
            field=models.CharField(blank=True, help_text="Whose turn it uses up where turns are taken.", max_length=40),
        ),
        migrations.AddField(
            model_name="upstreamjob",
            name="upstream_urls",
            field=models.JSONField(blank=True, default=dict),
        ),
        migrations.AddField(
            model_name="upstreamjob",
            name="watch_at",
            field=models.DateTimeField(
                blank=True,
                help_text="When to look again for a success that comes too late; its cost is ours.",
                null=True,
            ),
        ),
        migrations.CreateModel(
            name="ChannelHealth",
            fields=[
                ("id", models.BigAutoField(auto_created=True, primary_key=True, serialize=False, verbose_name="ID")),
                ("upstream_model", models.CharField(blank=True, max_length=120)),
                ("failure_count", models.PositiveIntegerField(default=0, help_text="Failures in a row.")),
                (
                    "is_of_submit",
                    models.BooleanField(default=True, help_text="Whether the last failure was one to take a job."),
                ),
                (
                    "trip_count",
                    models.PositiveIntegerField(default=0, help_text="Times in a row that the breaker opened."),
                ),
                (
                    "open_until",
                    models.DateTimeField(blank=True, help_text="No job is sent before, then one at a time.", null=True),
                ),
                ("probe_until", models.DateTimeField(blank=True, editable=False, null=True)),
                ("pause_count", models.PositiveIntegerField(default=0)),
                (
                    "paused_until",
                    models.DateTimeField(blank=True, help_text="The provider had no capacity.", null=True),
                ),
                ("reason", models.CharField(blank=True, max_length=24)),
                ("detail", models.TextField(blank=True)),
                ("changed_at", models.DateTimeField(default=seedancee2.lib.clock.now)),
                (
                    "channel",
                    models.ForeignKey(
                        on_delete=django.db.models.deletion.CASCADE, related_name="health", to="providers.channel"
                    ),
                ),
            ],
            options={
                "verbose_name_plural": "channel health",
            },
        ),
        migrations.CreateModel(
            name="Credential",
            fields=[
                ("id", models.BigAutoField(auto_created=True, primary_key=True, serialize=False, verbose_name="ID")),
                ("sealed_secret", models.BinaryField()),
                ("created_at", models.DateTimeField(default=seedancee2.lib.clock.now, editable=False)),
                (
                    "channel",
                    models.ForeignKey(
                        on_delete=django.db.models.deletion.PROTECT, related_name="credentials", to="providers.channel"
                    ),
                ),
            ],
        ),
        migrations.AddField(
            model_name="upstreamjob",
            name="credential",
            field=models.ForeignKey(
                blank=True,
                null=True,
                on_delete=django.db.models.deletion.PROTECT,
                related_name="jobs",
                to="providers.credential",
            ),
        ),
        migrations.AddIndex(
            model_name="upstreamjob",
            index=models.Index(
                condition=models.Q(("due_at__isnull", False), ("status", "queued")),
                fields=["traffic", "model", "owner", "due_at"],
                name="providers_job_queue",
            ),
        ),
        migrations.AddIndex(
            model_name="upstreamjob",
            index=models.Index(
                condition=models.Q(("status", "queued")), fields=["deadline_at"], name="providers_job_overdue"
            ),
        ),
        migrations.AddIndex(
            model_name="upstreamjob",
            index=models.Index(
                condition=models.Q(("status__in", ["submitting", "submitted", "running"])),
                fields=["channel", "due_at"],
                name="providers_job_poll",
            ),
        ),
        migrations.AddIndex(
            model_name="upstreamjob",
            index=models.Index(
                condition=models.Q(("status__in", ["submitting", "submitted", "running"])),
                fields=["owner"],
                name="providers_job_turn",
            ),
        ),
        migrations.AddIndex(
            model_name="upstreamjob",
            index=models.Index(
                condition=models.Q(("watch_at__isnull", False)), fields=["watch_at"], name="providers_job_watch"
            ),
        ),
        migrations.AddField(
            model_name="meter",
            name="channel",
            field=models.ForeignKey(
                on_delete=django.db.models.deletion.CASCADE, related_name="meters", to="providers.channel"
            ),
        ),
        migrations.AddConstraint(
            model_name="channelhealth",
            constraint=models.UniqueConstraint(fields=("channel", "upstream_model"), name="providers_health_once"),
        ),
        migrations.AddIndex(
            model_name="credential",
            index=models.Index(
                models.F("channel"), models.OrderBy(models.F("id"), descending=True), name="providers_credential_newest"
            ),
        ),
        migrations.AddConstraint(
            model_name="meter",
            constraint=models.UniqueConstraint(fields=("channel", "kind"), name="providers_meter_once"),
        ),
        migrations.RunPython(move_credentials, migrations.RunPython.noop),
        migrations.RemoveField(
            model_name="channel",
            name="sealed_credential",
        ),
    ]
