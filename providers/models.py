"""Channels, routes, upstream jobs and the calls made for them; nothing here knows a customer or a credit."""

from django.contrib.postgres.fields import ArrayField
from django.core.validators import MinValueValidator, URLValidator
from django.db import models
from django.db.models import F, Q

from seedancee2.lib import clock


class Channel(models.Model):
    """One configured account at a provider."""

    class State(models.TextChoices):
        ACTIVE = "active"
        DRAINING = "draining"
        OFF = "off"

    class UnknownPolicy(models.TextChoices):
        FAIL = "fail", "fail and refund"
        RETRY = "retry", "send again: the provider may be paid twice"

    name = models.SlugField(max_length=60, unique=True)
    adapter = models.CharField(max_length=40)
    base_url = models.CharField(max_length=500, blank=True, validators=[URLValidator(["https", "http"])])
    output_hosts: "ArrayField[list[str], list[str]]" = ArrayField(
        models.CharField(max_length=200),
        default=list,
        blank=True,
        help_text="Hosts that outputs may come from beside the adapter's own; *.example.com covers all names under it.",
    )
    options = models.JSONField(default=dict, blank=True, help_text="What the adapter leaves open; see its module.")
    sealed_callback_secret = models.BinaryField(default=b"", blank=True, editable=False)
    state = models.CharField(max_length=10, choices=State.choices, default=State.ACTIVE)
    max_open = models.PositiveIntegerField(
        null=True, blank=True, help_text="Jobs of one upstream model at a time; empty for no limit."
    )
    max_submits_per_minute = models.PositiveIntegerField(null=True, blank=True, help_text="Empty for no limit.")
    max_polls_per_second = models.PositiveIntegerField(null=True, blank=True, help_text="Empty for no limit.")
    unknown_policy = models.CharField(
        max_length=5,
        choices=UnknownPolicy.choices,
        default=UnknownPolicy.FAIL,
        help_text="What becomes of a submission of which nobody could tell in time whether it arrived. A job that was"
        " taken and of which nothing more is heard moves on if it may be sent again, else it waits for its deadline.",
    )
    unknown_grace_seconds = models.PositiveIntegerField(
        default=900,
        help_text="How long to wait for a callback where the provider has no list to look at, and for an answer about"
        " a job that it took.",
    )
    tried_until = models.DateTimeField(
        null=True, blank=True, editable=False, help_text="Until when at most a test call of the staff is under way."
    )
    created_at = models.DateTimeField(default=clock.now, editable=False)

    def __str__(self) -> str:
        return self.name


class Credential(models.Model):
    """A key of a channel, encrypted; new jobs take the newest, and a job keeps its own for life."""

    channel = models.ForeignKey(Channel, on_delete=models.PROTECT, related_name="credentials")
    sealed_secret = models.BinaryField(editable=False)
    created_at = models.DateTimeField(default=clock.now, editable=False)

    class Meta:
        indexes = [models.Index(F("channel"), F("id").desc(), name="providers_credential_newest")]

    def __str__(self) -> str:
        return f"credential {self.pk} of channel {self.channel_id}"


class ChannelHealth(models.Model):
    """How a channel does with one upstream model, or, where that is empty, as a whole: the circuit breaker's row."""

    channel = models.ForeignKey(Channel, on_delete=models.CASCADE, related_name="health")
    upstream_model = models.CharField(max_length=120, blank=True)
    failure_count = models.PositiveIntegerField(default=0, help_text="Failures in a row.")
    is_of_submit = models.BooleanField(default=True, help_text="Whether the last failure was one to take a job.")
    trip_count = models.PositiveIntegerField(default=0, help_text="Times in a row that the breaker opened.")
    open_until = models.DateTimeField(null=True, blank=True, help_text="No job is sent before, then one at a time.")
    probe_until = models.DateTimeField(null=True, blank=True, editable=False)
    pause_count = models.PositiveIntegerField(default=0)
    paused_until = models.DateTimeField(null=True, blank=True, help_text="The provider had no capacity.")
    reason = models.CharField(max_length=24, blank=True)
    detail = models.TextField(blank=True)
    changed_at = models.DateTimeField(default=clock.now)

    class Meta:
        verbose_name_plural = "channel health"
        constraints = [models.UniqueConstraint(fields=["channel", "upstream_model"], name="providers_health_once")]

    def __str__(self) -> str:
        return f"health of {self.upstream_model or 'all models'} at channel {self.channel_id}"


class Meter(models.Model):
    """When the next call of a kind may go out through a channel, across all workers."""

    class Kind(models.TextChoices):
        SUBMIT = "submit"
        POLL = "poll"

    channel = models.ForeignKey(Channel, on_delete=models.CASCADE, related_name="meters")
    kind = models.CharField(max_length=6, choices=Kind.choices)
    next_at = models.DateTimeField(default=clock.now)

    class Meta:
        constraints = [models.UniqueConstraint(fields=["channel", "kind"], name="providers_meter_once")]

    def __str__(self) -> str:
        return f"{self.kind} meter of channel {self.channel_id}"


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
    resolutions: "ArrayField[list[str], list[str]]" = ArrayField(
        models.CharField(max_length=10),
        default=list,
        blank=True,
        help_text="Empty for those that the adapter knows of.",
    )
    cost_per_second = models.DecimalField(
        max_digits=10,
        decimal_places=4,
        null=True,
        blank=True,
        validators=[MinValueValidator(0)],
        help_text="US cents that the provider takes for a second of video; empty where that is not known.",
    )
    is_active = models.BooleanField(default=True)

    class Meta:
        constraints = [
            models.UniqueConstraint(
                fields=["model", "traffic", "channel", "upstream_model"], name="providers_route_unique"
            ),
            models.CheckConstraint(condition=Q(weight__gte=1), name="providers_route_weight_positive"),
            models.CheckConstraint(condition=Q(cost_per_second__gte=0), name="providers_route_cost"),
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

    SENT = (Status.SUBMITTING, Status.SUBMITTED, Status.RUNNING)
    TERMINAL = (Status.SUCCEEDED, Status.FAILED, Status.EXPIRED)

    owner = models.CharField(max_length=40, blank=True, help_text="Whose turn it uses up where turns are taken.")
    reference = models.CharField(max_length=40, help_text="The public id this job works for.")
    number = models.PositiveSmallIntegerField(default=1)
    model = models.CharField(max_length=40)
    traffic = models.CharField(max_length=4, choices=Route.Traffic.choices)
    request = models.JSONField()
    status = models.CharField(max_length=10, choices=Status.choices, default=Status.QUEUED)

    channel = models.ForeignKey(
        Channel, null=True, blank=True, on_delete=models.PROTECT, db_index=False, related_name="jobs"
    )
    credential = models.ForeignKey(
        Credential, null=True, blank=True, on_delete=models.PROTECT, db_index=False, related_name="jobs"
    )
    upstream_model = models.CharField(max_length=120, blank=True)
    upstream_id = models.CharField(max_length=200, blank=True)
    upstream_urls = models.JSONField(default=dict, blank=True)
    callback_token_digest = models.BinaryField(null=True, editable=False)
    result = models.JSONField(null=True, blank=True)
    error_class = models.CharField(max_length=24, blank=True)
    error_reason = models.CharField(max_length=24, blank=True)
    error_detail = models.TextField(blank=True)
    is_final = models.BooleanField(default=False, help_text="Failed in a way that no other submission may follow.")
    hinted_id = models.CharField(max_length=200, blank=True, help_text="The id that a callback told.")

    created_at = models.DateTimeField(default=clock.now, editable=False)
    submit_started_at = models.DateTimeField(null=True, blank=True)
    submitted_at = models.DateTimeField(null=True, blank=True)
    finished_at = models.DateTimeField(null=True, blank=True)
    deadline_at = models.DateTimeField()

    due_at = models.DateTimeField(null=True, blank=True)
    lease_token = models.UUIDField(null=True, editable=False)
    claim_count = models.PositiveIntegerField(default=0, help_text="Claims since work on it last came to an end.")
    poll_count = models.PositiveIntegerField(default=0)
    odd_count = models.PositiveSmallIntegerField(default=0, help_text="Answers in a row: succeeded, nothing to fetch.")
    unheard_since = models.DateTimeField(
        null=True, blank=True, help_text="Since when nothing that could be read was heard of it; empty while it is."
    )
    watch_at = models.DateTimeField(
        null=True, blank=True, help_text="When to look again for a success that comes too late; its cost is ours."
    )
    late_at = models.DateTimeField(null=True, blank=True, help_text="When a success was found that came too late.")

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
            # Serves claim_queued(): the due rows of one model, owner by owner.
            models.Index(
                fields=["traffic", "model", "owner", "due_at"],
                condition=Q(status="queued", due_at__isnull=False),
                name="providers_job_queue",
            ),
            # Serves claim_queued(): those that no route took in time.
            models.Index(fields=["deadline_at"], condition=Q(status="queued"), name="providers_job_overdue"),
            # Serves claim_polls(), and the count of what a channel has open.
            models.Index(
                fields=["channel", "due_at"],
                condition=Q(status__in=["submitting", "submitted", "running"]),
                name="providers_job_poll",
            ),
            # Serves claim_queued(): how many jobs an owner has open.
            models.Index(
                fields=["owner"],
                condition=Q(status__in=["submitting", "submitted", "running"]),
                name="providers_job_turn",
            ),
            models.Index(fields=["watch_at"], condition=Q(watch_at__isnull=False), name="providers_job_watch"),
            # The staff's lists of what did not succeed, and of what did too late: few, newest first.
            models.Index(
                F("status"), F("id").desc(), condition=Q(status__in=["failed", "expired"]), name="providers_job_failed"
            ),
            models.Index(F("id").desc(), condition=Q(late_at__isnull=False), name="providers_job_late"),
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
