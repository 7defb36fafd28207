"""Telling customers: signing secrets, deliveries and their attempts. Being told by providers: callbacks."""

import datetime as dt

import pgtrigger
from django.db import models
from django.db.models import F, Q

from accounts.models import Organization
from providers.models import UpstreamJob
from seedancee2.lib import clock

LONGEST_PAUSE = dt.timedelta(minutes=30)  # of an endpoint that fails; then a delivery's turn has come all the same


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


class Endpoint(models.Model):
    """Where an organization's webhooks go, by origin and mode: how it does, and when it next needs a look.

    `due_at` is never later than the earliest moment at which one of its deliveries may need work: the trigger of
    Delivery moves it to sooner, and only a claim, which holds the row and looks at the deliveries, to later.
    """

    class Standing(models.IntegerChoices):
        GOOD = 0, "the last attempt was taken within a second"
        UNSURE = 1, "not tried yet, slow, or the last attempt failed"
        FAILING = 2, "the last attempts failed"

    organization = models.ForeignKey(
        Organization, on_delete=models.PROTECT, db_index=False, related_name="webhook_endpoints"
    )
    origin = models.CharField(max_length=300, help_text="Scheme, host and port.")
    is_test = models.BooleanField(
        default=False, db_default=False, help_text="Tests fail by themselves: they pause nothing that is live."
    )
    standing = models.PositiveSmallIntegerField(choices=Standing.choices, default=Standing.UNSURE)
    failure_count = models.PositiveIntegerField(default=0, help_text="Failures in a row.")
    failing_since = models.DateTimeField(null=True, blank=True, help_text="The first failure since the last success.")
    last_error = models.CharField(max_length=200, blank=True)
    trip_count = models.PositiveIntegerField(default=0, help_text="Times in a row that the breaker opened.")
    paused_until = models.DateTimeField(
        null=True, blank=True, help_text="Nothing is sent before, then one at a time; empty while all is well."
    )
    told_at = models.DateTimeField(null=True, blank=True, help_text="When its owners were told that it fails.")
    due_at = models.DateTimeField(null=True, blank=True, editable=False)

    class Meta:
        constraints = [
            models.UniqueConstraint(fields=["organization", "origin", "is_test"], name="webhooks_endpoint_one")
        ]
        indexes = [
            # Serves claims.claim(): what is due of each standing, oldest first.
            models.Index(
                fields=["standing", "due_at"], condition=Q(due_at__isnull=False), name="webhooks_endpoint_due"
            ),
            # Serves notices.send() and the alarms: those that fail, those that are paused.
            models.Index(
                fields=["failing_since"], condition=Q(failing_since__isnull=False), name="webhooks_endpoint_failing"
            ),
            models.Index(fields=["told_at"], condition=Q(told_at__isnull=False), name="webhooks_endpoint_told"),
        ]

    def __str__(self) -> str:
        mode = " (test)" if self.is_test else ""
        return f"{self.origin} of organization {self.organization_id}{mode}"


# Whoever writes a delivery, an older version of this program included: its endpoint is there and knows when it needs a
# look. The endpoint stays locked until the writer commits, so that no claim overlooks the delivery meanwhile.
_TELL_ENDPOINT = """
    needed_at := CASE
        WHEN TG_OP = 'INSERT' OR OLD.endpoint_id IS NULL THEN
            CASE WHEN NEW.due_at IS NOT NULL THEN GREATEST(NEW.due_at, NEW.leased_until) END
        WHEN NEW.leased_until IS NULL THEN LEAST(OLD.due_at, NEW.due_at)  -- the old one where a place became free
    END;  -- a claim sees to its endpoints itself
    IF NEW.endpoint_id IS NULL THEN
        SELECT id INTO NEW.endpoint_id FROM webhooks_endpoint
         WHERE organization_id = NEW.organization_id AND origin = NEW.host AND is_test = NEW.is_test;
    END IF;
    IF NEW.endpoint_id IS NULL THEN
        INSERT INTO webhooks_endpoint
               (organization_id, origin, is_test, standing, failure_count, last_error, trip_count)
        VALUES (NEW.organization_id, NEW.host, NEW.is_test, 1, 0, '', 0)
            ON CONFLICT (organization_id, origin, is_test) DO NOTHING;
        SELECT id INTO STRICT NEW.endpoint_id FROM webhooks_endpoint
         WHERE organization_id = NEW.organization_id AND origin = NEW.host AND is_test = NEW.is_test;
    END IF;
    IF needed_at IS NOT NULL THEN
        PERFORM FROM webhooks_endpoint WHERE id = NEW.endpoint_id FOR NO KEY UPDATE;
        UPDATE webhooks_endpoint SET due_at = needed_at
         WHERE id = NEW.endpoint_id AND (due_at IS NULL OR due_at > needed_at);
    END IF;
    RETURN NEW;
"""


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
    organization = models.ForeignKey(Organization, on_delete=models.PROTECT, db_index=False, related_name="deliveries")
    # The database sets it, by organization, host and mode.
    endpoint = models.ForeignKey(
        Endpoint, on_delete=models.PROTECT, db_index=False, editable=False, related_name="deliveries"
    )
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
    pruned_at = models.DateTimeField(
        null=True, blank=True, editable=False, help_text="When body and attempts were deleted; it cannot be sent again."
    )

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
            # Serve delivery.claim_due(): the oldest due of an endpoint, and how many of it are leased until when.
            models.Index(
                fields=["endpoint", "due_at"], condition=Q(due_at__isnull=False), name="webhooks_delivery_ripe"
            ),
            models.Index(
                fields=["endpoint", "leased_until"],
                condition=Q(leased_until__isnull=False),
                name="webhooks_delivery_held",
            ),
            # The staff's list of those that are on their way or were given up, newest first.
            models.Index(
                F("state"),
                F("delivery_id").desc(),
                condition=~Q(state="delivered"),
                name="webhooks_delivery_undelivered",
            ),
            # Serves pruning.prune() and the alarms.
            models.Index(
                fields=["state", "finished_at"],
                condition=Q(finished_at__isnull=False, pruned_at__isnull=True),
                name="webhooks_delivery_ended",
            ),
        ]
        triggers = [
            pgtrigger.Trigger(
                name="tell_endpoint",
                when=pgtrigger.Before,
                operation=pgtrigger.Insert | pgtrigger.UpdateOf("due_at", "leased_until", "endpoint_id"),  # type: ignore[no-untyped-call] # theirs
                declare=[("needed_at", "timestamptz")],
                func=_TELL_ENDPOINT,
            ),
        ]

    def __str__(self) -> str:
        return self.delivery_id

    @property
    def delivered_at(self) -> dt.datetime | None:
        """When it first arrived, whatever became of it when it was sent again."""
        return self.first_delivered_at or (self.finished_at if self.state == self.State.DELIVERED else None)

    @property
    def next_attempt_at(self) -> dt.datetime | None:
        """When it is next tried at the earliest, which a pause of its endpoint puts off; None once it has ended."""
        if self.due_at is None or self.endpoint_id is None:  # one that is not stored has no endpoint yet
            return self.due_at
        paused_until = self.endpoint.paused_until
        if paused_until is None:
            return self.due_at
        return max(self.due_at, min(paused_until, self.due_at + LONGEST_PAUSE))


class DeliveryAttempt(models.Model):
    """One POST to a customer's URL and what came back."""

    delivery = models.ForeignKey(Delivery, on_delete=models.CASCADE, db_index=False, related_name="attempts")
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
        indexes = [
            models.Index(fields=["received_at"], name="webhooks_callback_received"),
            # The staff's list of one verdict, newest first.
            models.Index(F("verdict"), F("id").desc(), name="webhooks_callback_verdict"),
        ]

    def __str__(self) -> str:
        return f"callback about job {self.job_id}"
