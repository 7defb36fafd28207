"""Telling customers: signing secrets, deliveries and their attempts. Being told by providers: callbacks."""

import datetime as dt

from django.db import models
from django.db.models import F, Q

from accounts.models import Organization
from providers.models import UpstreamJob
from seedancee2.lib import clock


class SigningSecret(models.Model):
    """A webhook secret of an organization, encrypted at rest; those not yet retired sign together, newest first."""

    organization = models.ForeignKey(Organization, on_delete=models.CASCADE, related_name="signing_secrets")
    sealed_secret = models.BinaryField(editable=False)
    created_at = models.DateTimeField(default=clock.now, editable=False)
    retires_at = models.DateTimeField(null=True, blank=True)

    class Meta:
        constraints = [
            # Exactly one secret is current; a race of two first uses ends with one.
            models.UniqueConstraint(
                fields=["organization"], condition=Q(retires_at__isnull=True), name="webhooks_secret_one_current"
            ),
        ]

    def __str__(self) -> str:
        return f"signing secret {self.pk} of organization {self.organization_id}"


class Delivery(models.Model):
    """One event on its way to one URL: the outbox row, with the exact bytes that every attempt sends."""

    class State(models.TextChoices):
        PENDING = "pending"
        DELIVERED = "delivered"
        ABANDONED = "abandoned"

    class Event(models.TextChoices):
        COMPLETED = "video.generation.completed"
        FAILED = "video.generation.failed"

    delivery_id = models.CharField(max_length=40, primary_key=True)
    # The organization is the first column of the lists' index.
    organization = models.ForeignKey(Organization, on_delete=models.PROTECT, related_name="deliveries", db_index=False)
    is_test = models.BooleanField(default=False)
    reference = models.CharField(max_length=40, help_text="The public id of the task that the event tells of.")
    event = models.CharField(max_length=40, choices=Event.choices)
    url = models.TextField()
    host = models.CharField(max_length=300, help_text="Scheme, host and port of the destination.")
    body = models.BinaryField()
    state = models.CharField(max_length=10, choices=State.choices, default=State.PENDING)
    attempt_count = models.PositiveSmallIntegerField(default=0)
    schedule_base = models.PositiveSmallIntegerField(
        default=0, db_default=0, help_text="Attempts made before the schedule last began anew."
    )
    created_at = models.DateTimeField(default=clock.now, editable=False)
    finished_at = models.DateTimeField(null=True, blank=True)
    first_delivered_at = models.DateTimeField(
        null=True, blank=True, help_text="When it first arrived; written when it is sent again after that."
    )
    due_at = models.DateTimeField(null=True, blank=True)
    lease_token = models.UUIDField(null=True, editable=False)
    leased_until = models.DateTimeField(null=True, blank=True)

    class Meta:
        verbose_name_plural = "deliveries"
        permissions = [("redeliver_delivery", "Can send deliveries again")]
        constraints = [
            models.UniqueConstraint(fields=["reference", "event"], name="webhooks_delivery_once"),
            models.CheckConstraint(
                condition=Q(state="pending", due_at__isnull=False, finished_at__isnull=True)
                | Q(state__in=["delivered", "abandoned"], due_at__isnull=True, finished_at__isnull=False),
                name="webhooks_delivery_due_while_pending",
            ),
        ]
        indexes = [
            # Serve delivery.claim_due(): host by host the oldest due, and how many of the host's are leased.
            models.Index(fields=["host", "due_at"], condition=Q(due_at__isnull=False), name="webhooks_delivery_due"),
            models.Index(fields=["host"], condition=Q(leased_until__isnull=False), name="webhooks_delivery_leased"),
            # Serves deliveries.page(): the events and states that are asked for are ranges of it, each in order.
            models.Index(
                F("organization"),
                F("is_test"),
                F("event"),
                F("state"),
                F("created_at").desc(),
                F("delivery_id").desc(),
                name="webhooks_delivery_list",
            ),
            # Serves deliveries.recover().
            models.Index(
                fields=["organization", "is_test", "finished_at"],
                condition=Q(state="abandoned"),
                name="webhooks_delivery_abandoned",
            ),
        ]

    def __str__(self) -> str:
        return self.delivery_id

    @property
    def delivered_at(self) -> dt.datetime | None:
        """When it first arrived, whatever became of it when it was sent again."""
        return self.first_delivered_at or (self.finished_at if self.state == self.State.DELIVERED else None)


class DeliveryAttempt(models.Model):
    """One POST to a customer's URL and what came back."""

    delivery = models.ForeignKey(Delivery, on_delete=models.CASCADE, related_name="attempts")
    number = models.PositiveSmallIntegerField()
    started_at = models.DateTimeField()
    duration_ms = models.PositiveIntegerField()
    status_code = models.PositiveSmallIntegerField(null=True, blank=True)
    error = models.CharField(max_length=200, blank=True)
    response_excerpt = models.TextField(blank=True)

    class Meta:
        constraints = [models.UniqueConstraint(fields=["delivery", "number"], name="webhooks_attempt_number")]

    def __str__(self) -> str:
        return f"attempt {self.number} of {self.delivery_id}"


class SamplePlace(models.Model):
    """A place of an organization for one sample under way; a process that dies leaves it until `ends_at`."""

    organization = models.ForeignKey(Organization, on_delete=models.CASCADE, related_name="+")
    ends_at = models.DateTimeField()

    def __str__(self) -> str:
        return f"a sample of organization {self.organization_id}"


class Callback(models.Model):
    """What a provider called back with, as it came; it is never more than a hint to ask the provider itself."""

    class Verdict(models.TextChoices):
        VERIFIED = "verified", "signature verified"
        HINT = "hint", "not signed, taken as a hint"
        FORGED = "forged", "refused"

    job = models.ForeignKey(UpstreamJob, on_delete=models.CASCADE, related_name="callbacks")
    received_at = models.DateTimeField(default=clock.now, editable=False)
    headers = models.JSONField(default=dict)
    body = models.BinaryField()
    body_sha256 = models.BinaryField(editable=False)
    verdict = models.CharField(max_length=8, choices=Verdict.choices)
    detail = models.CharField(max_length=500, blank=True)
    repeat_count = models.PositiveIntegerField(default=0, help_text="How often the same came again.")

    class Meta:
        constraints = [
            models.UniqueConstraint(fields=["job", "body_sha256", "verdict"], name="webhooks_callback_once"),
        ]
        indexes = [models.Index(fields=["received_at"], name="webhooks_callback_received")]

    def __str__(self) -> str:
        return f"callback about job {self.job_id}"
