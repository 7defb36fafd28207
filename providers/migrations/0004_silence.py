from django.db import migrations, models


class Migration(migrations.Migration):
    dependencies = [
        ("providers", "0003_routing"),
    ]

    operations = [
        migrations.AlterField(
            model_name="channel",
            name="unknown_policy",
            field=models.CharField(
                choices=[("fail", "fail and refund"), ("retry", "send again: the provider may be paid twice")],
                default="fail",
                help_text="What becomes of a submission of which nobody could tell in time whether it arrived. A job that was taken and of which nothing more is heard moves on if it may be sent again, else it waits for its deadline.",
                max_length=5,
            ),
        ),
        migrations.AlterField(
            model_name="channel",
            name="unknown_grace_seconds",
            field=models.PositiveIntegerField(
                default=900,
                help_text="How long to wait for a callback where the provider has no list to look at, and for an answer about a job that it took.",
            ),
        ),
        migrations.AddField(
            model_name="upstreamjob",
            name="unheard_since",
            field=models.DateTimeField(
                blank=True,
                help_text="Since when nothing that could be read was heard of it; empty while it is.",
                null=True,
            ),
        ),
    ]
