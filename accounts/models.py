"""Who: people, organizations, memberships and API keys."""

import datetime as dt
from typing import Any, ClassVar

import pgtrigger
from django.contrib.auth.models import AbstractBaseUser, BaseUserManager, PermissionsMixin
from django.contrib.postgres.fields import ArrayField
from django.contrib.postgres.indexes import OpClass
from django.db import models
from django.db.models import F, Q
from django.db.models.functions import Lower

from seedancee2.lib import clock


class UserManager(BaseUserManager["User"]):
    """Makes users by e-mail address."""

    def create_user(self, email: str, password: str | None = None, **fields: Any) -> "User":
        """Create a person; without a password they cannot sign in until they reset it."""
        user = self.model(email=self.normalize_email(email).lower(), **fields)
        user.set_password(password)
        user.save(using=self._db)
        return user

    def create_superuser(self, email: str, password: str | None = None, **fields: Any) -> "User":
        """Create a member of the staff with every permission."""
        return self.create_user(email, password, **{"is_staff": True, "is_superuser": True, **fields})


class User(AbstractBaseUser, PermissionsMixin):
    """A person, known by e-mail address."""

    email = models.EmailField(max_length=254, unique=True)
    name = models.CharField(max_length=120, blank=True)
    is_staff = models.BooleanField(default=False)
    is_active = models.BooleanField(default=True)
    created_at = models.DateTimeField(default=clock.now, editable=False)

    objects: ClassVar[UserManager] = UserManager()

    EMAIL_FIELD = "email"
    USERNAME_FIELD = "email"
    REQUIRED_FIELDS: ClassVar[list[str]] = []

    class Meta:
        constraints = [models.CheckConstraint(condition=Q(email=Lower("email")), name="accounts_user_email_lower")]

    def __str__(self) -> str:
        return self.email

    def clean(self) -> None:
        """Write the address in lower case, as the database demands."""
        super().clean()
        self.email = self.email.lower()


class Organization(models.Model):
    """A paying customer: what keys, credits and tasks belong to."""

    name = models.CharField(max_length=120)
    is_suspended = models.BooleanField(default=False)
    is_webhook_signing_enabled = models.BooleanField(default=True)
    create_rate_limit = models.PositiveIntegerField(null=True, blank=True, help_text="Creates a minute for each key.")
    request_rate_limit = models.PositiveIntegerField(null=True, blank=True, help_text="Other requests a minute.")
    # What its own admins decide, on the console's page of settings.
    callback_hosts: "ArrayField[list[str], list[str]]" = ArrayField(
        models.CharField(max_length=255),
        default=list,
        db_default=[],
        blank=True,
        help_text="Hosts that a callback_url may name; none means any.",
    )
    media_retention_days = models.PositiveIntegerField(null=True, blank=True, help_text="Empty: files are kept.")
    prompt_retention_days = models.PositiveIntegerField(null=True, blank=True, help_text="Empty: prompts are kept.")
    demands_second_factor = models.BooleanField(default=False, db_default=False)
    demands_key_caps = models.BooleanField(default=False, db_default=False)
    longest_key_days = models.PositiveIntegerField(null=True, blank=True, help_text="Longest life of a member's key.")
    created_at = models.DateTimeField(default=clock.now, editable=False)
    members = models.ManyToManyField(User, through="Membership", related_name="organizations")

    class Meta:
        permissions = [("act_as_organization", "Can look at the console as an organization, and change nothing")]
        constraints = [models.UniqueConstraint(Lower("name"), name="accounts_organization_name")]
        indexes = [
            # The staff's search for how a name begins, in any collation; and their list of those that were stopped.
            models.Index(OpClass(Lower("name"), name="text_pattern_ops"), name="accounts_organization_begins"),
            models.Index(F("id").desc(), condition=Q(is_suspended=True), name="accounts_organization_stopped"),
        ]

    def __str__(self) -> str:
        return self.name


class Membership(models.Model):
    """What a person is in an organization."""

    class Role(models.TextChoices):
        OWNER = "owner"
        ADMIN = "admin"
        DEVELOPER = "developer"
        BILLING = "billing"
        VIEWER = "viewer"

    user = models.ForeignKey(User, on_delete=models.CASCADE, related_name="memberships")
    organization = models.ForeignKey(Organization, on_delete=models.CASCADE, related_name="memberships")
    role = models.CharField(max_length=10, choices=Role.choices)
    created_at = models.DateTimeField(default=clock.now, editable=False)
    last_seen_at = models.DateTimeField(null=True, blank=True, editable=False)

    class Meta:
        constraints = [
            models.UniqueConstraint(fields=["user", "organization"], name="accounts_membership_once"),
            models.CheckConstraint(
                condition=Q(role__in=["owner", "admin", "developer", "billing", "viewer"]),
                name="accounts_membership_role",
            ),
        ]

    def __str__(self) -> str:
        return f"{self.user_id} is {self.role} of {self.organization_id}"


def all_scopes() -> list[str]:
    """Give a key everything that keys can do, which is what keys have that were never told otherwise."""
    return list(ApiKey.Scope.values)


class Invitation(models.Model):
    """A seat in an organization that was offered by mail; the token itself is in the mail alone."""

    organization = models.ForeignKey(Organization, on_delete=models.CASCADE, related_name="invitations")
    email = models.EmailField(max_length=254)
    role = models.CharField(max_length=10, choices=Membership.Role.choices)
    digest = models.BinaryField(unique=True, editable=False)
    invited_by = models.ForeignKey(User, null=True, blank=True, on_delete=models.SET_NULL, related_name="+")
    created_at = models.DateTimeField(default=clock.now, editable=False)
    sent_at = models.DateTimeField(null=True, blank=True, help_text="Empty: the mail could not be sent yet.")
    expires_at = models.DateTimeField()
    accepted_at = models.DateTimeField(null=True, blank=True)
    withdrawn_at = models.DateTimeField(null=True, blank=True)

    class Meta:
        constraints = [
            models.CheckConstraint(condition=Q(email=Lower("email")), name="accounts_invitation_email_lower"),
            models.UniqueConstraint(
                fields=["organization", "email"],
                condition=Q(accepted_at__isnull=True, withdrawn_at__isnull=True),
                name="accounts_invitation_open_once",
            ),
        ]

    def __str__(self) -> str:
        return f"{self.email} as {self.role} of {self.organization_id}"

    @property
    def is_open(self) -> bool:
        """Whether it can still be accepted."""
        return self.accepted_at is None and self.withdrawn_at is None and self.expires_at > clock.now()


class ApiKey(models.Model):
    """A customer's key; the secret itself is shown once and never stored."""

    class Mode(models.TextChoices):
        LIVE = "live"
        TEST = "test"

    class Scope(models.TextChoices):
        GENERATE = "generate", "Create video tasks"
        READ = "read", "Read tasks and models"
        USAGE = "usage", "Read usage"
        WEBHOOKS = "webhooks", "Read and repeat webhooks"

    organization = models.ForeignKey(Organization, on_delete=models.PROTECT, related_name="api_keys")
    name = models.CharField(max_length=80)
    mode = models.CharField(max_length=4, choices=Mode.choices)
    digest = models.BinaryField(unique=True, editable=False)
    last_four = models.CharField(max_length=4)
    # Of the staff's form that issued it: sent twice, it issues one key.
    reference = models.CharField(max_length=40, null=True, editable=False)  # noqa: DJ001 - two have none, not the same
    is_imported = models.BooleanField(default=False)
    create_rate_limit = models.PositiveIntegerField(null=True, blank=True, help_text="Creates a minute.")
    request_rate_limit = models.PositiveIntegerField(null=True, blank=True, help_text="Other requests a minute.")
    scopes: "ArrayField[list[str], list[str]]" = ArrayField(
        models.CharField(max_length=10, choices=Scope.choices), default=all_scopes, db_default=Scope.values
    )
    allowed_networks: "ArrayField[list[str], list[str]]" = ArrayField(
        models.CharField(max_length=43),
        default=list,
        db_default=[],
        blank=True,
        help_text="Addresses and networks that requests may come from; none means any.",
    )
    allowed_models: "ArrayField[list[str], list[str]]" = ArrayField(
        models.CharField(max_length=40), default=list, db_default=[], blank=True, help_text="None means all."
    )
    monthly_credit_cap = models.BigIntegerField(
        null=True, blank=True, help_text="Credits that tasks of one month (UTC) may cost, those given back aside."
    )
    origin = models.ForeignKey(
        "self",
        null=True,
        blank=True,
        on_delete=models.PROTECT,
        related_name="+",
        help_text="The first key of those that were rolled into this one: their use of a month counts together.",
    )
    replaced_by = models.ForeignKey(
        "self", null=True, blank=True, on_delete=models.PROTECT, db_index=False, related_name="+"
    )
    created_at = models.DateTimeField(default=clock.now, editable=False)
    created_by = models.ForeignKey(User, null=True, blank=True, on_delete=models.SET_NULL, related_name="+")
    expires_at = models.DateTimeField(null=True, blank=True)
    revoked_at = models.DateTimeField(null=True, blank=True)
    revoked_by = models.ForeignKey(User, null=True, blank=True, on_delete=models.SET_NULL, related_name="+")
    last_used_at = models.DateTimeField(null=True, blank=True)
    last_used_address = models.GenericIPAddressField(null=True, blank=True)

    class Meta:
        verbose_name = "API key"
        constraints = [
            models.CheckConstraint(condition=Q(mode__in=["live", "test"]), name="accounts_apikey_mode"),
            models.CheckConstraint(condition=Q(monthly_credit_cap__gt=0), name="accounts_apikey_cap"),
            models.UniqueConstraint(
                fields=["reference"], condition=Q(reference__isnull=False), name="accounts_apikey_reference"
            ),
        ]
        indexes = [
            models.Index(F("organization"), F("id").desc(), name="accounts_apikey_of_org"),
            # The staff's search, which knows no more of a key.
            models.Index(fields=["last_four"], name="accounts_apikey_last_four"),
            # The staff's lists of test keys, and of those that were revoked.
            models.Index(F("id").desc(), condition=Q(mode="test"), name="accounts_apikey_test"),
            models.Index(F("id").desc(), condition=Q(revoked_at__isnull=False), name="accounts_apikey_revoked"),
        ]
        triggers = [
            pgtrigger.Protect(
                name="stays_revoked",
                operation=pgtrigger.Update,
                condition=pgtrigger.Q(old__revoked_at__isnull=False)
                & pgtrigger.Q(old__revoked_at__df=pgtrigger.F("new__revoked_at")),
            ),
        ]

    def __str__(self) -> str:
        return f"{self.name} (…{self.last_four})"

    @property
    def is_test(self) -> bool:
        """Whether the key runs on the sandbox and moves no credits."""
        return self.mode == self.Mode.TEST

    @property
    def state(self) -> str:
        """Say `active`, `expired` or `revoked`; the organization may still be suspended."""
        if self.revoked_at is not None:
            return "revoked"
        is_expired = self.expires_at is not None and self.expires_at <= clock.now()
        return "expired" if is_expired else "active"

    @property
    def masked(self) -> str:
        """Show as much of the key as helps to tell it from others."""
        return f"…{self.last_four}" if self.is_imported else f"sk_seedancee2_{self.mode}_…{self.last_four}"


class AuditEntry(models.Model):
    """Who did what, when and from where, with what was before and after; written once and never changed."""

    organization = models.ForeignKey(
        Organization, null=True, blank=True, on_delete=models.PROTECT, db_index=False, related_name="audit_entries"
    )
    actor = models.ForeignKey(User, null=True, blank=True, on_delete=models.SET_NULL, db_index=False, related_name="+")
    actor_name = models.CharField(max_length=254, help_text="The e-mail address at that time, or `system`.")
    is_by_staff = models.BooleanField(default=False)
    action = models.CharField(max_length=60)
    target = models.CharField(max_length=300)
    before = models.JSONField(default=dict, blank=True)
    after = models.JSONField(default=dict, blank=True)
    reason = models.CharField(max_length=500, blank=True)
    address = models.GenericIPAddressField(null=True, blank=True)
    created_at = models.DateTimeField(default=clock.now, editable=False)

    class Meta:
        verbose_name_plural = "audit entries"
        indexes = [models.Index(F("organization"), F("id").desc(), name="accounts_audit_of_org")]
        triggers = [
            pgtrigger.Protect(name="never_deleted", operation=pgtrigger.Delete),
            pgtrigger.Trigger(
                name="never_truncated",
                level=pgtrigger.Statement,
                when=pgtrigger.Before,
                operation=pgtrigger.Truncate,
                func="RAISE EXCEPTION 'The audit log is append-only: it cannot be truncated.';",
            ),
            # A person who is deleted leaves their entries, which name them still.
            pgtrigger.Protect(
                name="never_rewritten",
                operation=pgtrigger.Update,
                condition=pgtrigger.AnyChange(exclude=["actor"]),
            ),
        ]

    def __str__(self) -> str:
        return f"{self.action} {self.target}"


class StaffNote(models.Model):
    """What the staff know of an organization and its people do not read; written once and never changed."""

    organization = models.ForeignKey(Organization, on_delete=models.PROTECT, db_index=False, related_name="staff_notes")
    author = models.ForeignKey(User, null=True, on_delete=models.SET_NULL, db_index=False, related_name="+")
    author_name = models.CharField(max_length=254, help_text="The e-mail address at that time.")
    text = models.CharField(max_length=2000)
    created_at = models.DateTimeField(default=clock.now, editable=False)

    class Meta:
        default_permissions = ("view", "add")
        constraints = [models.CheckConstraint(condition=~Q(text=""), name="accounts_note_text")]
        indexes = [models.Index(F("organization"), F("id").desc(), name="accounts_note_of_org")]
        triggers = [
            pgtrigger.Protect(name="never_deleted", operation=pgtrigger.Delete),
            # A person who is deleted leaves their notes, which name them still.
            pgtrigger.Protect(
                name="never_rewritten",
                operation=pgtrigger.Update,
                condition=pgtrigger.AnyChange(exclude=["author"]),
            ),
        ]

    def __str__(self) -> str:
        return f"note of {self.author_name}, {self.created_at:%Y-%m-%d}"


class StaffVisit(models.Model):
    """A look of one of the staff at the console of an organization; the session of the browser holds its number."""

    organization = models.ForeignKey(Organization, on_delete=models.PROTECT, db_index=False, related_name="+")
    visitor = models.ForeignKey(User, on_delete=models.CASCADE, db_index=False, related_name="+")
    reason = models.CharField(max_length=500)
    started_at = models.DateTimeField(default=clock.now, editable=False)
    ends_at = models.DateTimeField(help_text="At the latest.")
    ended_at = models.DateTimeField(null=True, blank=True)

    class Meta:
        default_permissions = ()
        constraints = [
            models.CheckConstraint(
                condition=Q(ends_at__lte=F("started_at") + dt.timedelta(minutes=30)), name="accounts_visit_short"
            )
        ]
        indexes = [models.Index(fields=["ends_at"], condition=Q(ended_at__isnull=True), name="accounts_visit_running")]

    def __str__(self) -> str:
        return f"visit of {self.visitor_id} to organization {self.organization_id}"
