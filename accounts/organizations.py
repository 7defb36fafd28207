"""Customers as a whole: made by a sign-up, what they decide for themselves, suspended and let back in by staff."""

import itertools
from collections.abc import Iterable
from typing import Any, TypedDict, Unpack

import structlog
from django.db import IntegrityError, transaction

from accounts import audit, signals
from accounts.models import Membership, Organization, User
from seedancee2.api.errors import InvalidRequest
from seedancee2.lib import destinations

log = structlog.get_logger(__name__)

MAX_HOSTS = 100
MAX_DAYS = 3650

_DAYS = ("media_retention_days", "prompt_retention_days", "longest_key_days")
_NAME_LENGTH = Organization._meta.get_field("name").max_length or 120


class Settings(TypedDict, total=False):
    """What an organization is told; what is left out stays. Days empty mean for ever, no hosts mean any."""

    name: str
    callback_hosts: list[str]
    media_retention_days: int | None
    prompt_retention_days: int | None
    demands_second_factor: bool
    demands_key_caps: bool
    longest_key_days: int | None
    is_webhook_signing_enabled: bool
    create_rate_limit: int | None
    request_rate_limit: int | None


def sign_up(*, owner: User) -> Organization:
    """Make an organization for a newcomer, who owns it, and tell the other applications in the same transaction.

    It is named after the person, else after what stands before the @; where others have the name, with a number.
    """
    wanted = owner.name or owner.email.partition("@")[0]
    with transaction.atomic():
        organization = _create_named(wanted)
        Membership.objects.create(user=owner, organization=organization, role=Membership.Role.OWNER)
        audit.note(
            organization_id=organization.pk,
            actor=owner,
            action="organization.signed_up",
            target=organization.name,
            after={"name": organization.name, "owner": owner.email},
        )
        signals.organization_signed_up.send(sender=Organization, organization=organization, owner=owner)
    log.info("organization_signed_up", organization_id=organization.pk, owner_id=owner.pk)
    return organization


def _create_named(wanted: str) -> Organization:
    for number in itertools.count(1):
        suffix = f" {number}" if number > 1 else ""
        name = wanted[: _NAME_LENGTH - len(suffix)] + suffix
        # The look spares the failed INSERT; the constraint decides between two at the same moment.
        if Organization.objects.filter(name__iexact=name).exists():
            continue
        try:
            with transaction.atomic():
                return Organization.objects.create(name=name)
        except IntegrityError:
            continue
    raise AssertionError  # there is always a next number


def change(*, organization: Organization, actor: User | None, **values: Unpack[Settings]) -> Organization:
    """Change settings, and note what was before and after.

    Raises:
        InvalidRequest: a value is not allowed, or the name is taken; the message begins with the name of the field.
    """
    with transaction.atomic():
        row = Organization.objects.select_for_update(no_key=True).get(pk=organization.pk)
        before = {name: getattr(row, name) for name in values}
        for name, value in values.items():
            setattr(row, name, value)
        _check(row, values.keys())
        before, after = audit.differences(before, {name: getattr(row, name) for name in values})
        if after:
            _save(row, list(after))
            _note("organization.changed", row, actor, before, after)
    return row


def suspend(*, organization: Organization, actor: User, reason: str = "") -> Organization:
    """Stop every key of an organization at once; its videos under way are finished."""
    return _set_suspended(organization, True, actor, reason)


def reinstate(*, organization: Organization, actor: User, reason: str = "") -> Organization:
    """Let an organization's keys work again."""
    return _set_suspended(organization, False, actor, reason)


def normalize_hosts(texts: Iterable[str]) -> list[str]:
    """Write host names in their one form, each once; `*.example.com` stands for every name below that one.

    Raises:
        InvalidRequest: one is no host name, or there are too many.
    """
    found = list(dict.fromkeys(_host(text.strip()) for text in texts if text.strip()))
    if len(found) > MAX_HOSTS:
        raise InvalidRequest(f"callback_hosts: at most {MAX_HOSTS} hosts are allowed.")
    return found


def _check(row: Organization, names: Iterable[str]) -> None:
    row.name = row.name.strip()
    if not 1 <= len(row.name) <= 120 or not row.name.isprintable():
        raise InvalidRequest("name: must be 1 to 120 printable characters.")
    if "://" in row.name or "www." in row.name.lower():
        raise InvalidRequest("name: must be a name, not a link: it stands in mails to people you invite.")
    for name in _DAYS:
        days = getattr(row, name)
        if name in names and days is not None and not 1 <= days <= MAX_DAYS:
            raise InvalidRequest(f"{name}: must be 1 to {MAX_DAYS:,} days.")
    if "callback_hosts" in names:
        row.callback_hosts = normalize_hosts(row.callback_hosts)


def _host(text: str) -> str:
    prefix, name = ("*.", text[2:]) if text.startswith("*.") else ("", text)
    try:
        destination = destinations.parse(f"https://{name}/")
    except destinations.BadDestination:
        destination = None
    if destination is None or destination.target != "/" or destination.port != 443 or ":443" in name:
        raise InvalidRequest(
            f"callback_hosts: “{text[:60]}” is no host name, such as hooks.example.com or *.example.com. "
            "Leave out https://, port and path."
        )
    return prefix + destination.host


def _save(row: Organization, names: list[str]) -> None:
    try:
        with transaction.atomic():
            row.save(update_fields=names)
    except IntegrityError as error:
        if "accounts_organization_name" not in str(error):
            raise
        raise InvalidRequest("name: another organization has this name.") from None


def _set_suspended(organization: Organization, is_suspended: bool, actor: User, reason: str) -> Organization:
    event = "organization.suspended" if is_suspended else "organization.reinstated"
    with transaction.atomic():
        row = Organization.objects.select_for_update(no_key=True).get(pk=organization.pk)
        if row.is_suspended != is_suspended:
            row.is_suspended = is_suspended
            row.save(update_fields=["is_suspended"])
            _note(event, row, actor, reason=reason)
    log.info(event.replace(".", "_"), organization_id=row.pk, actor_id=actor.pk)
    return row


def _note(
    action: str,
    row: Organization,
    actor: User | None,
    before: dict[str, Any] | None = None,
    after: dict[str, Any] | None = None,
    reason: str = "",
) -> None:
    audit.note(
        organization_id=row.pk,
        actor=actor,
        action=action,
        target=row.name,
        before=before,
        after=after,
        reason=reason,
    )
