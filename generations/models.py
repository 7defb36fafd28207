"""The product: public models, generations and their stored files."""

from typing import Any

from django.contrib.postgres.fields import ArrayField
from django.db import models
from django.db.backends.base.base import BaseDatabaseWrapper
from django.db.models import F, Q
from psycopg.types.json import Json

from accounts.models import ApiKey, Organization, User
from seedancee2.lib import clock


class PlainJSONField(models.JSONField):
    """JSON kept as it was written: `jsonb` would sort an object's keys and rewrite its numbers."""

    def db_type(self, connection: BaseDatabaseWrapper) -> str:
        """Return the column's type."""
        return "json"

    def get_db_prep_value(self, value: Any, connection: BaseDatabaseWrapper, prepared: bool = False) -> Any:
        """Send the value as `json`, since a cast from `jsonb` would have changed it already."""
        return Json(value)

    def from_db_value(self, value: Any, expression: Any, connection: BaseDatabaseWrapper) -> Any:
        """Return what the driver read."""
        return value


class PublicModel(models.Model):
    """A model as customers know it, with what it can do. Durations are in seconds."""

    name = models.SlugField(max_length=40, primary_key=True)
    position = models.PositiveSmallIntegerField(unique=True, help_text="Order in the list of models.")
    is_active = models.BooleanField(default=True)
    resolutions: "ArrayField[list[str], list[str]]" = ArrayField(models.CharField(max_length=10))
    min_duration = models.PositiveSmallIntegerField()
    max_duration = models.PositiveSmallIntegerField()

    class Meta:
        constraints = [
            models.CheckConstraint(
                condition=Q(min_duration__gte=1, max_duration__gte=F("min_duration")),
                name="generations_model_durations",
            ),
        ]

    def __str__(self) -> str:
        return self.name


class ModelAlias(models.Model):
    """An old name of a model that is still understood and never listed."""

    alias = models.SlugField(max_length=60, primary_key=True)
    model = models.ForeignKey(PublicModel, on_delete=models.PROTECT, related_name="aliases")

    class Meta:
        verbose_name_plural = "model aliases"

    def __str__(self) -> str:
        return f"{self.alias} → {self.model_id}"


class Generation(models.Model):
    """One customer request. Its status, money and output change only in `generations.lifecycle`."""

    class Status(models.TextChoices):
        PENDING = "pending"
        PROCESSING = "processing"
        COMPLETED = "completed"
        FAILED = "failed"

    class ErrorCode(models.TextChoices):
        GENERATION_FAILED = "generation_failed"
        CONTENT_POLICY_VIOLATION = "content_policy_violation"
        INVALID_REFERENCE = "invalid_reference"
        GENERATION_TIMEOUT = "generation_timeout"
        CANCELED = "canceled"

    OPEN = (Status.PENDING, Status.PROCESSING)

    public_id = models.CharField(max_length=40, primary_key=True)
    organization = models.ForeignKey(Organization, on_delete=models.PROTECT, db_index=False, related_name="generations")
    api_key = models.ForeignKey(
        ApiKey, null=True, blank=True, on_delete=models.PROTECT, db_index=False, related_name="+"
    )
    created_by = models.ForeignKey(
        User,
        null=True,
        blank=True,
        on_delete=models.SET_NULL,
        db_index=False,
        related_name="+",
        help_text="Who made it in the playground; empty for tasks that came with a key.",
    )
    is_test = models.BooleanField(default=False)
    model = models.CharField(max_length=40)
    status = models.CharField(max_length=10, choices=Status.choices, default=Status.PENDING)
    input = models.JSONField()
    metadata = PlainJSONField(default=dict)
    callback_url = models.TextField(blank=True)
    rate = models.PositiveIntegerField(help_text="Credits a second, frozen at creation.")
    credits = models.BigIntegerField(help_text="The price: held at creation, captured or released at the end.")
    credits_refunded = models.BigIntegerField(default=0)
    error_code = models.CharField(max_length=40, choices=ErrorCode.choices, blank=True)
    error_message = models.CharField(max_length=500, blank=True)
    created_at = models.DateTimeField(default=clock.now, editable=False)
    started_at = models.DateTimeField(null=True, blank=True)
    finished_at = models.DateTimeField(null=True, blank=True)
    deadline_at = models.DateTimeField()
    prompt_deleted_at = models.DateTimeField(null=True, blank=True, help_text="When prompt and references were erased.")

    class Meta:
        permissions = [
            ("operate_generation", "Can ask for a task now, fail it, and move it to another route"),
            ("refund_generation", "Can give back the credits of a task"),
            ("erase_generation", "Can delete the files and the prompt of a task"),
        ]
        constraints = [
            models.CheckConstraint(condition=Q(credits__gt=0), name="generations_generation_credits"),
            models.CheckConstraint(
                condition=Q(credits_refunded__gte=0, credits_refunded__lte=F("credits")),
                name="generations_generation_refunded",
            ),
            models.CheckConstraint(
                condition=Q(status__in=["pending", "processing"], finished_at__isnull=True, error_code="")
                | Q(status="completed", finished_at__isnull=False, error_code="")
                | (Q(status="failed", finished_at__isnull=False, credits_refunded=F("credits")) & ~Q(error_code="")),
                name="generations_generation_status",
            ),
        ]
        indexes = [
            # The list of an organization's tasks, newest first, all of them, of one status or of one model.
            models.Index(
                F("organization"),
                F("is_test"),
                F("created_at").desc(),
                F("public_id").desc(),
                name="generations_list",
            ),
            models.Index(
                F("organization"),
                F("is_test"),
                F("status"),
                F("created_at").desc(),
                F("public_id").desc(),
                name="generations_list_status",
            ),
            models.Index(
                F("organization"),
                F("is_test"),
                F("model"),
                F("created_at").desc(),
                F("public_id").desc(),
                name="generations_list_model",
            ),
            # The watchdog's look for open tasks past their deadline.
            models.Index(
                fields=["deadline_at"],
                condition=Q(status__in=["pending", "processing"]),
                name="generations_open_deadline",
            ),
            # A person's last tasks of the playground; those that came with a key have no entry.
            models.Index(
                F("created_by"),
                F("organization"),
                F("created_at").desc(),
                F("public_id").desc(),
                condition=Q(created_by__isnull=False),
                name="generations_playground",
            ),
            # The staff's list of failed tasks, newest first.
            models.Index(
                F("error_code"), F("public_id").desc(), condition=~Q(error_code=""), name="generations_failed"
            ),
            # Not here, since it is of a function (migration 0005): generations_metadata, the staff's search by a value.
        ]

    def __str__(self) -> str:
        return self.public_id

    @property
    def is_open(self) -> bool:
        """Whether the generation has not ended yet."""
        return self.status in self.OPEN


class OutputAsset(models.Model):
    """A file of a completed generation in our own storage. `path` is below the media host."""

    class Kind(models.TextChoices):
        VIDEO = "video"
        THUMBNAIL = "thumbnail"
        LAST_FRAME = "last_frame"

    generation = models.ForeignKey(Generation, on_delete=models.PROTECT, related_name="assets")
    kind = models.CharField(max_length=12, choices=Kind.choices)
    path = models.CharField(max_length=200, unique=True)
    size_bytes = models.BigIntegerField()
    sha256 = models.CharField(max_length=64)
    duration_ms = models.PositiveIntegerField(null=True, blank=True)
    width = models.PositiveIntegerField(null=True, blank=True)
    height = models.PositiveIntegerField(null=True, blank=True)
    stored_at = models.DateTimeField(default=clock.now, editable=False)
    deletion_asked_at = models.DateTimeField(
        null=True, blank=True, help_text="From then on its address answers 410; the row stays, as the task's body does."
    )
    deleted_at = models.DateTimeField(null=True, blank=True, help_text="When the storage had let it go.")

    class Meta:
        constraints = [
            models.UniqueConstraint(fields=["generation", "kind"], name="generations_asset_kind"),
            models.CheckConstraint(
                condition=Q(deleted_at__isnull=True) | Q(deletion_asked_at__isnull=False),
                name="generations_asset_deleted_on_demand",
            ),
        ]
        indexes = [
            # Serves deletion.sweep(): files that the storage has still to let go of.
            models.Index(
                fields=["id"],
                condition=Q(deletion_asked_at__isnull=False, deleted_at__isnull=True),
                name="generations_asset_undeleted",
            ),
        ]

    def __str__(self) -> str:
        return self.path


class IdempotencyRecord(models.Model):
    """The first answer to a create request that carried an Idempotency-Key, written in the transaction of its task."""

    organization = models.ForeignKey(Organization, on_delete=models.CASCADE, related_name="+")
    is_test = models.BooleanField(default=False)
    key = models.CharField(max_length=255)
    digest = models.BinaryField(editable=False, help_text="SHA-256 of the body's JSON with sorted keys.")
    reference = models.CharField(max_length=40, help_text="The public id of the task that was made.")
    body = models.TextField()
    ignored_fields = models.TextField(blank=True)
    created_at = models.DateTimeField(default=clock.now, editable=False)

    class Meta:
        constraints = [
            models.UniqueConstraint(fields=["organization", "is_test", "key"], name="generations_idempotency_key"),
        ]
        indexes = [
            # Serves the purge of answers older than a day.
            models.Index(fields=["created_at"], name="generations_idempotency_at"),
        ]

    def __str__(self) -> str:
        return f"{self.key} of organization {self.organization_id}"


class RetentionMark(models.Model):
    """How far an organization's retention was enforced: of tasks created before `until` nothing is kept any more."""

    class Subject(models.TextChoices):
        MEDIA = "media"
        PROMPTS = "prompts"

    organization = models.ForeignKey(Organization, on_delete=models.CASCADE, related_name="+")
    subject = models.CharField(max_length=7, choices=Subject.choices)
    is_test = models.BooleanField()
    until = models.DateTimeField()

    class Meta:
        constraints = [
            models.UniqueConstraint(fields=["organization", "subject", "is_test"], name="generations_retention_once"),
        ]

    def __str__(self) -> str:
        return f"{self.subject} of organization {self.organization_id} until {self.until:%Y-%m-%d}"


class ReconciliationRun(models.Model):
    """One look of reconciliation, and how many discrepancies it found."""

    started_at = models.DateTimeField(default=clock.now)
    finished_at = models.DateTimeField(default=clock.now)
    is_whole = models.BooleanField(default=False, help_text="Everything there is, not only the last day.")
    finding_count = models.PositiveIntegerField()

    class Meta:
        indexes = [models.Index(fields=["-finished_at"], name="generations_run_newest")]

    def __str__(self) -> str:
        return f"{self.finished_at:%Y-%m-%d %H:%M}: {self.finding_count} discrepancies"


class UsageHour(models.Model):
    """What the tasks that an organization created in a past hour came to; written only by `generations.usage_hours`."""

    organization = models.ForeignKey(Organization, on_delete=models.PROTECT, db_index=False, related_name="+")
    is_test = models.BooleanField()
    hour = models.DateTimeField()
    model = models.CharField(max_length=40)
    completed_jobs = models.PositiveIntegerField()
    failed_jobs = models.PositiveIntegerField()
    credits_charged = models.BigIntegerField()
    credits_refunded = models.BigIntegerField()

    class Meta:
        constraints = [
            models.UniqueConstraint(fields=["organization", "is_test", "hour", "model"], name="generations_usage_once"),
        ]
        indexes = [
            # Reconciliation of what moved: the last hours of everybody.
            models.Index(fields=["hour"], name="generations_usage_hour"),
        ]

    def __str__(self) -> str:
        return f"{self.model} of organization {self.organization_id} at {self.hour:%Y-%m-%d %H:00}"


class UsageMark(models.Model):
    """Until when usage is counted: one row, or none yet."""

    counted_until = models.DateTimeField()

    class Meta:
        constraints = [models.CheckConstraint(condition=Q(id=1), name="generations_usage_one_mark")]

    def __str__(self) -> str:
        return f"counted until {self.counted_until:%Y-%m-%d %H:00}"
