"""How much: rates, balances, holds and the ledger that explains every unit. Credits are integers."""

import pgtrigger
from django.contrib.postgres.indexes import BrinIndex
from django.db import models
from django.db.models import F, Q

from accounts.models import ApiKey, Organization, User
from seedancee2.lib import clock


class Rate(models.Model):
    """Credits a second for one model and resolution, from a date on."""

    model = models.CharField(max_length=40)
    resolution = models.CharField(max_length=10)
    credits_per_second = models.PositiveIntegerField()
    effective_at = models.DateTimeField(default=clock.now)

    class Meta:
        constraints = [
            models.UniqueConstraint(fields=["model", "resolution", "effective_at"], name="billing_rate_once"),
            models.CheckConstraint(condition=Q(credits_per_second__gte=1), name="billing_rate_positive"),
        ]

    def __str__(self) -> str:
        return f"{self.model} {self.resolution}: {self.credits_per_second} credits/s from {self.effective_at:%Y-%m-%d}"


class CreditAccount(models.Model):
    """An organization's balance. Written only by `billing.ledger`, in one guarded UPDATE."""

    organization = models.OneToOneField(
        Organization, primary_key=True, on_delete=models.PROTECT, related_name="credit_account"
    )
    available = models.BigIntegerField(default=0)
    reserved = models.BigIntegerField(default=0)
    sequence = models.BigIntegerField(default=0)
    moved_at = models.DateTimeField(null=True, blank=True, help_text="Of the last movement; never goes back.")

    class Meta:
        permissions = [("adjust_creditaccount", "Can adjust credits")]
        constraints = [
            models.CheckConstraint(condition=Q(available__gte=0), name="billing_account_available"),
            models.CheckConstraint(condition=Q(reserved__gte=0), name="billing_account_reserved"),
        ]

    def __str__(self) -> str:
        return f"credit account of organization {self.organization_id}"


class KeyAllowance(models.Model):
    """What the tasks of a key, and of those rolled into it, cost in one month (UTC), what was given back aside.

    Written only by the functions of the database that move credits, in the movement's own call.
    """

    api_key = models.ForeignKey(ApiKey, on_delete=models.PROTECT, db_index=False, related_name="allowances")
    month = models.DateField(help_text="Its first day.")
    used = models.BigIntegerField()

    class Meta:
        constraints = [
            models.UniqueConstraint(fields=["api_key", "month"], name="billing_allowance_once"),
            models.CheckConstraint(condition=Q(used__gte=0), name="billing_allowance_used"),
        ]

    def __str__(self) -> str:
        return f"{self.used} credits used by key {self.api_key_id} in {self.month:%Y-%m}"


class Reservation(models.Model):
    """Credits held for one generation until they are captured or released, exactly once."""

    class State(models.TextChoices):
        HELD = "held"
        CAPTURED = "captured"
        RELEASED = "released"

    reference = models.CharField(max_length=40, primary_key=True, help_text="The public id the credits are held for.")
    # No index of its own: nobody asks for all holds of an account, and the open ones have theirs below.
    account = models.ForeignKey(CreditAccount, on_delete=models.PROTECT, db_index=False, related_name="reservations")
    amount = models.BigIntegerField()
    refunded = models.BigIntegerField(default=0, db_default=0, help_text="Given back after the charge.")
    state = models.CharField(max_length=8, choices=State.choices, default=State.HELD)
    allowance = models.ForeignKey(
        KeyAllowance,
        null=True,
        blank=True,
        on_delete=models.PROTECT,
        db_index=False,
        related_name="reservations",
        help_text="What of it is not given back counts here; empty where no key was used.",
    )
    created_at = models.DateTimeField(default=clock.now, editable=False)
    closed_at = models.DateTimeField(null=True, blank=True)

    class Meta:
        constraints = [
            models.CheckConstraint(condition=Q(amount__gt=0), name="billing_reservation_amount"),
            models.CheckConstraint(
                condition=Q(refunded=0) | Q(refunded__gt=0, refunded__lte=F("amount"), state="captured"),
                name="billing_reservation_refunded",
            ),
            models.CheckConstraint(
                condition=Q(state="held", closed_at__isnull=True)
                | Q(state__in=["captured", "released"], closed_at__isnull=False),
                name="billing_reservation_closed",
            ),
        ]
        indexes = [
            # Serves the reconciliation of reserved credits against open holds.
            models.Index(fields=["account"], condition=Q(state="held"), name="billing_reservation_held"),
        ]

    def __str__(self) -> str:
        return f"{self.amount} credits {self.state} for {self.reference}"


class Adjustment(models.Model):
    """A correction somebody asked for: above the limit frozen on it, nothing moves until somebody else approves."""

    adjustment_id = models.CharField(max_length=40, primary_key=True)
    account = models.ForeignKey(CreditAccount, on_delete=models.PROTECT, related_name="adjustments")
    amount = models.BigIntegerField()
    limit = models.BigIntegerField(help_text="Up to this amount, up or down, one person may act alone.")
    reason = models.CharField(max_length=500)
    requested_by = models.CharField(max_length=120)
    approved_by = models.CharField(max_length=120, blank=True)
    created_at = models.DateTimeField(default=clock.now, editable=False)
    moved_at = models.DateTimeField(null=True, blank=True)
    declined_at = models.DateTimeField(null=True, blank=True)

    class Meta:
        constraints = [
            models.CheckConstraint(condition=~Q(amount=0) & ~Q(reason=""), name="billing_adjustment_amount"),
            # Four eyes: nobody moves more than the limit alone, whatever the code does.
            models.CheckConstraint(
                condition=Q(moved_at__isnull=True)
                | Q(amount__gte=-1 * F("limit"), amount__lte=F("limit"))
                | (~Q(approved_by="") & ~Q(approved_by=F("requested_by"))),
                name="billing_adjustment_four_eyes",
            ),
            models.CheckConstraint(
                condition=Q(moved_at__isnull=True) | Q(declined_at__isnull=True), name="billing_adjustment_one_end"
            ),
        ]
        indexes = [
            models.Index(
                fields=["created_at"],
                condition=Q(moved_at__isnull=True, declined_at__isnull=True),
                name="billing_adjustment_waiting",
            ),
        ]

    def __str__(self) -> str:
        return f"{self.amount:+} credits for organization {self.account_id}"


class TopUpRequest(models.Model):
    """A customer's wish for credits, and what became of it; an organization has one open request at a time."""

    class State(models.TextChoices):
        OPEN = "open"
        GRANTED = "granted"
        DECLINED = "declined"
        WITHDRAWN = "withdrawn"

    request_id = models.CharField(max_length=40, primary_key=True)
    account = models.ForeignKey(CreditAccount, on_delete=models.PROTECT, related_name="top_up_requests")
    amount = models.BigIntegerField()
    note = models.CharField(max_length=500, blank=True)
    requested_by = models.ForeignKey(User, null=True, blank=True, on_delete=models.SET_NULL, related_name="+")
    state = models.CharField(max_length=9, choices=State.choices, default=State.OPEN)
    adjustment = models.OneToOneField(
        Adjustment, null=True, blank=True, on_delete=models.PROTECT, related_name="top_up_request"
    )
    reply = models.CharField(max_length=500, blank=True, help_text="What the customer is told of the decision.")
    created_at = models.DateTimeField(default=clock.now, editable=False)
    decided_at = models.DateTimeField(null=True, blank=True)
    staff_told_at = models.DateTimeField(null=True, blank=True)
    customer_told_at = models.DateTimeField(null=True, blank=True)
    leased_until = models.DateTimeField(null=True, blank=True, editable=False)

    class Meta:
        verbose_name = "top-up request"
        constraints = [
            models.CheckConstraint(condition=Q(amount__gt=0), name="billing_topup_amount"),
            models.CheckConstraint(
                condition=Q(state="open", decided_at__isnull=True) | (~Q(state="open") & Q(decided_at__isnull=False)),
                name="billing_topup_decided",
            ),
            models.UniqueConstraint(fields=["account"], condition=Q(state="open"), name="billing_topup_one_open"),
        ]
        indexes = [
            # Serves the sweep that writes the mails.
            models.Index(
                fields=["created_at"],
                condition=Q(staff_told_at__isnull=True)
                | Q(customer_told_at__isnull=True, state__in=["granted", "declined"]),
                name="billing_topup_untold",
            ),
        ]

    def __str__(self) -> str:
        return f"{self.amount} credits asked for by organization {self.account_id}"


class BalanceAlert(models.Model):
    """An organization is told by mail when its available credits fall below this; armed again once they are back."""

    account = models.ForeignKey(CreditAccount, on_delete=models.CASCADE, related_name="alerts")
    credits = models.BigIntegerField()
    is_armed = models.BooleanField(default=True)
    told_at = models.DateTimeField(null=True, blank=True, help_text="Of the last mail.")
    leased_until = models.DateTimeField(null=True, blank=True, editable=False)
    created_at = models.DateTimeField(default=clock.now, editable=False)

    class Meta:
        constraints = [
            models.CheckConstraint(condition=Q(credits__gt=0), name="billing_alert_credits"),
            models.UniqueConstraint(fields=["account", "credits"], name="billing_alert_once"),
        ]

    def __str__(self) -> str:
        return f"below {self.credits} credits of organization {self.account_id}"


class Finding(models.Model):
    """A discrepancy that reconciliation found; open until a look at everything no longer has it."""

    rule = models.CharField(max_length=60)
    subject = models.CharField(max_length=300)
    detail = models.TextField()
    found_at = models.DateTimeField(default=clock.now, editable=False)
    seen_at = models.DateTimeField(default=clock.now)
    resolved_at = models.DateTimeField(null=True, blank=True)

    class Meta:
        constraints = [
            models.UniqueConstraint(
                fields=["rule", "subject"], condition=Q(resolved_at__isnull=True), name="billing_finding_open_once"
            ),
        ]

    def __str__(self) -> str:
        return f"{self.rule}: {self.subject}"


class LedgerEntry(models.Model):
    """One movement of credits: never changed, never deleted; a correction is a new entry."""

    class Kind(models.TextChoices):
        GRANT = "grant"
        ADJUST = "adjust"
        RESERVE = "reserve"
        CAPTURE = "capture"
        RELEASE = "release"
        REFUND = "refund"

    account = models.ForeignKey(CreditAccount, on_delete=models.PROTECT, db_index=False, related_name="entries")
    sequence = models.BigIntegerField()
    kind = models.CharField(max_length=8, choices=Kind.choices)
    available_change = models.BigIntegerField()
    reserved_change = models.BigIntegerField()
    available_after = models.BigIntegerField()
    reserved_after = models.BigIntegerField()
    reference = models.CharField(max_length=64)
    actor = models.CharField(max_length=300)
    reason = models.CharField(max_length=500, blank=True)
    created_at = models.DateTimeField(default=clock.now, editable=False)

    class Meta:
        verbose_name_plural = "ledger entries"
        constraints = [
            models.UniqueConstraint(fields=["account", "sequence"], name="billing_entry_sequence"),
            # The database itself refuses a repeat: a hold is made once as its reference is the reservation's primary
            # key, it is closed once whichever way, and of everything else each kind has a reference once.
            models.UniqueConstraint(
                fields=["reference"], condition=Q(kind__in=["capture", "release"]), name="billing_entry_closing"
            ),
            models.UniqueConstraint(
                fields=["reference", "kind"],
                condition=~Q(kind__in=["reserve", "capture", "release"]),
                name="billing_entry_reference_kind",
            ),
            models.CheckConstraint(
                condition=Q(available_after__gte=0, reserved_after__gte=0), name="billing_entry_not_negative"
            ),
            models.CheckConstraint(
                condition=Q(kind__in=["grant", "refund"], available_change__gt=0, reserved_change=0)
                | (Q(kind="adjust", reserved_change=0) & ~Q(available_change=0))
                | Q(kind="reserve", available_change__lt=0, reserved_change=-1 * F("available_change"))
                | Q(kind="capture", available_change=0, reserved_change__lt=0)
                | Q(kind="release", available_change__gt=0, reserved_change=-1 * F("available_change")),
                name="billing_entry_kind_moves",
            ),
        ]
        indexes = [
            # The balance at a past instant, and an organization's entries by time. Read backwards; a descending index
            # with the sequence would be a third larger, since entries of one account and instant are few.
            models.Index(fields=["account", "created_at"], name="billing_entry_time"),
            # An organization's few entries that belong to no running task, among its very many that do.
            models.Index(
                fields=["account", "sequence"],
                condition=Q(kind__in=["grant", "adjust", "refund"]),
                name="billing_entry_by_hand",
            ),
            # The staff's list of them over all accounts, newest first.
            models.Index(
                F("kind"),
                F("id").desc(),
                condition=Q(kind__in=["grant", "adjust", "refund"]),
                name="billing_entry_by_kind",
            ),
            # What moved lately, for reconciliation; a BRIN costs next to nothing on rows that only ever come later.
            BrinIndex(fields=["created_at"], name="billing_entry_lately"),
        ]
        triggers = [
            pgtrigger.Protect(name="append_only", operation=pgtrigger.Update | pgtrigger.Delete),
            pgtrigger.Trigger(
                name="never_truncated",
                level=pgtrigger.Statement,
                when=pgtrigger.Before,
                operation=pgtrigger.Truncate,
                func="RAISE EXCEPTION 'The ledger is append-only: it cannot be truncated.';",
            ),
        ]

    def __str__(self) -> str:
        return f"{self.account_id}/{self.sequence} {self.kind} {self.reference}"
