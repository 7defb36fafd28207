"""Channels, routes, upstream jobs and the calls made for them; nothing here knows a customer or a credit."""

from django.core.validators import URLValidator
from django.db import models
from django.db.models import F, Q

from seedancee2.lib import clock


class Channel(models.Model):
    """One configured account at a provider."""

    class State(models.TextChoices):
        ACTIVE = "active"
        DRAINING = "draining"
        OFF = "off"

    name = models.SlugField(max_length=60, unique=True)
    adapter = models.CharField(max_length=40)
    base_url = models.CharField(max_length=500, blank=True, validators=[URLValidator(["https", "http"])])
    sealed_credential = models.BinaryField(default=b"", blank=True, editable=False)
    state = models.CharField(max_length=10, choices=State.choices, default=State.ACTIVE)
    created_at = models.DateTimeField(default=clock.now, editable=False)

    def __str__(self) -> str:
        return self.name


class Route(models.Model):
    """A way from a public model to a channel and the model name used there."""

    class Traffic(models.TextChoices):
        LIVE = "live"
        TEST = "test"

    model = models.CharField(max_length=40)
    traffic = models.CharField(max_length=4, choices=Traffic.choices)
    channel = models.ForeignKey(Channel, on_delete=models.PROTECT, related_name="routes")
    upstream_model = models.CharField(max_length=120)
    priority = models.PositiveSmallIntegerField(default=100, help_text="Lower is tried first.")
    weight = models.PositiveSmallIntegerField(default=1, help_text="Share among routes of the same priority.")
    is_active = models.BooleanField(default=True)

    class Meta:
        constraints = [
            models.UniqueConstraint(
                fields=["model", "traffic", "channel", "upstream_model"], name="providers_route_unique"
            ),
            models.CheckConstraint(condition=Q(weight__gte=1), name="providers_route_weight_positive"),
        ]

    def __str__(self) -> str:
        return f"{self.model} ({self.traffic}) → {self.channel_id}:{self.upstream_model}"


class UpstreamJob(models.Model):
    """One submission of a generation to a provider: the outbox row of submit, poll and settle.

    `due_at` tells when the row next needs work, NULL that it needs none any more. A claim moves it to the end of the
    lease and sets `lease_token`, without which no worker may write.
    """

    class Status(models.TextChoices):
        QUEUED = "queued"
        SUBMITTING = "submitting"
        SUBMITTED = "submitted"
        RUNNING = "running"
        SUCCEEDED = "succeeded"
        FAILED = "failed"
        EXPIRED = "expired"

    TERMINAL = (Status.SUCCEEDED, Status.FAILED, Status.EXPIRED)

    reference = models.CharField(max_length=40, help_text="The public id this job works for.")
    number = models.PositiveSmallIntegerField(default=1)
    model = models.CharField(max_length=40)
    traffic = models.CharField(max_length=4, choices=Route.Traffic.choices)
    request = models.JSONField()
    status = models.CharField(max_length=10, choices=Status.choices, default=Status.QUEUED)

    channel = models.ForeignKey(Channel, null=True, blank=True, on_delete=models.PROTECT, related_name="jobs")
    upstream_model = models.CharField(max_length=120, blank=True)
    upstream_id = models.CharField(max_length=200, blank=True)
    callback_token_digest = models.BinaryField(null=True, editable=False)
    result = models.JSONField(null=True, blank=True)
    error_class = models.CharField(max_length=24, blank=True)
    error_reason = models.CharField(max_length=24, blank=True)
    error_detail = models.TextField(blank=True)

    created_at = models.DateTimeField(default=clock.now, editable=False)
    submit_started_at = models.DateTimeField(null=True, blank=True)
    submitted_at = models.DateTimeField(null=True, blank=True)
    finished_at = models.DateTimeField(null=True, blank=True)
    deadline_at = models.DateTimeField()

    due_at = models.DateTimeField(null=True, blank=True)
    lease_token = models.UUIDField(null=True, editable=False)
    claim_count = models.PositiveIntegerField(default=0, help_text="Claims since work on it last came to an end.")
    poll_count = models.PositiveIntegerField(default=0)

    class Meta:
        constraints = [
            models.UniqueConstraint(fields=["reference", "number"], name="providers_job_reference_number"),
            models.UniqueConstraint(
                fields=["channel", "upstream_id"], condition=~Q(upstream_id=""), name="providers_job_upstream_id"
            ),
            models.UniqueConstraint(
                fields=["callback_token_digest"],
                condition=Q(callback_token_digest__isnull=False),
                name="providers_job_callback_token",
            ),
            # At most one job of a generation is open: the database itself refuses to pay twice.
            models.UniqueConstraint(
                fields=["reference"],
                condition=Q(status__in=["queued", "submitting", "submitted", "running"]),
                name="providers_job_one_open",
            ),
            models.CheckConstraint(
                condition=~Q(status__in=["submitted", "running", "succeeded"]) | ~Q(upstream_id=""),
                name="providers_job_accepted_has_id",
            ),
            models.CheckConstraint(
                condition=Q(status__in=["succeeded", "failed", "expired"], finished_at__isnull=False)
                | (~Q(status__in=["succeeded", "failed", "expired"]) & Q(finished_at__isnull=True)),
                name="providers_job_finished_when_terminal",
            ),
        ]
        indexes = [
            # Serves claim(): due rows of one lane, oldest first.
            models.Index(fields=["status", "due_at"], condition=Q(due_at__isnull=False), name="providers_job_due"),
        ]

    def __str__(self) -> str:
        return f"{self.reference}#{self.number}"


class UpstreamCall(models.Model):
    """One HTTP exchange with a provider, redacted, for the staff."""

    job = models.ForeignKey(UpstreamJob, on_delete=models.CASCADE, related_name="calls")
    kind = models.CharField(max_length=16)
    started_at = models.DateTimeField(default=clock.now)
    duration_ms = models.PositiveIntegerField(default=0)
    status_code = models.PositiveSmallIntegerField(null=True, blank=True)
    request = models.TextField(blank=True)
    response = models.TextField(blank=True)

    class Meta:
        indexes = [models.Index(F("job"), F("id").desc(), name="providers_call_of_job")]

    def __str__(self) -> str:
        return f"{self.kind} {self.status_code or '–'} of job {self.job_id}"


class SandboxRun(models.Model):
    """A job as the sandbox provider itself knows it: its own books, as a real provider would keep them."""

    run_id = models.CharField(max_length=40, primary_key=True)
    request = models.JSONField()
    callback_token_digest = models.BinaryField(unique=True)
    created_at = models.DateTimeField(default=clock.now)

    def __str__(self) -> str:
        return self.run_id
