"""Invitations: a seat in an organization, offered by mail, and taken by whoever holds the token and the address.

Only a digest of the token is stored, so that a look into the database lets nobody in. Sending the mail is no part of
the transaction: where it fails the invitation stands as not sent, and can be sent again.
"""

import datetime as dt
import hashlib
import secrets

import structlog
from allauth.account.models import EmailAddress
from django.conf import settings
from django.contrib.auth.models import AnonymousUser
from django.core.exceptions import PermissionDenied, ValidationError
from django.core.mail import send_mail
from django.core.validators import validate_email
from django.db import IntegrityError, transaction
from django.template.loader import render_to_string
from django.urls import reverse

from accounts import audit, members, roles
from accounts.models import Invitation, Membership, Organization, User
from seedancee2.api.errors import InvalidRequest
from seedancee2.lib import clock

log = structlog.get_logger(__name__)

VALID_FOR = dt.timedelta(days=7)
# What keeps an organization from being made a mailer.
MAX_A_DAY = 100
SENT_AGAIN_AFTER = dt.timedelta(minutes=5)


class NotSent(Exception):
    """The invitation stands, but its mail could not be sent; it can be sent again."""


class Unusable(InvalidRequest):
    """The token opens nothing: unknown, used, withdrawn or expired; the message says what to do."""


class OtherAddress(InvalidRequest):
    """The invitation is for somebody with another e-mail address."""


def invite(*, organization: Organization, email: str, role: str, actor: User, may_touch_owners: bool) -> Invitation:
    """Offer a seat and send the mail; an invitation of the same address that has expired is replaced.

    Raises:
        InvalidRequest: no e-mail address, a member or invited already, or too many a day; it begins with the field.
        PermissionDenied: somebody may not give the role: they are no owner, or were demoted or removed this moment.
        NotSent: the mail failed.
    """
    email = email.strip().lower()
    try:
        validate_email(email)
    except ValidationError:
        raise InvalidRequest("email: is not an e-mail address.") from None
    if role == Membership.Role.OWNER and not may_touch_owners:
        raise PermissionDenied("Only an owner makes owners.")
    now, token = clock.now(), secrets.token_urlsafe(32)
    with transaction.atomic():
        # One at a time for an organization: the count below and the two look-ups stay true until the commit.
        members.lock(organization.pk)
        _insist_on_right(actor, organization.pk, role)
        if Membership.objects.filter(organization=organization, user__email=email).exists():
            raise InvalidRequest(f"email: {email} is a member already.")
        pending = Invitation.objects.filter(organization=organization, accepted_at=None, withdrawn_at=None)
        pending.filter(email=email, expires_at__lte=now).update(withdrawn_at=now)
        lately = Invitation.objects.filter(organization=organization, created_at__gt=now - dt.timedelta(days=1))
        if lately.count() >= MAX_A_DAY:
            raise InvalidRequest(f"email: {MAX_A_DAY} people were invited within a day; go on tomorrow.")
        try:
            with transaction.atomic():
                invitation = Invitation.objects.create(
                    organization=organization,
                    email=email,
                    role=Membership.Role(role),
                    digest=_digest(token),
                    invited_by=actor,
                    expires_at=now + VALID_FOR,
                )
        except IntegrityError:
            raise InvalidRequest(f"email: {email} is invited already; send that invitation again.") from None
        _note("member.invited", invitation, actor)
    _send(invitation, token)
    return invitation


def resend(*, invitation: Invitation, actor: User, may_touch_owners: bool) -> Invitation:
    """Send the mail again, with a new token that is valid for as long as the first was; the old link is dead.

    Raises:
        Unusable: it was accepted or withdrawn.
        InvalidRequest: it was sent a moment ago.
        PermissionDenied: somebody may not give the role (any more).
        NotSent: the mail failed.
    """
    token = secrets.token_urlsafe(32)
    with transaction.atomic():
        row = _lock_pending(invitation, actor, may_touch_owners)
        if row.sent_at is not None and row.sent_at > clock.now() - SENT_AGAIN_AFTER:
            raise InvalidRequest(f"The mail to {row.email} was sent a moment ago; give it some minutes.")
        row.digest, row.expires_at, row.sent_at = _digest(token), clock.now() + VALID_FOR, None
        row.invited_by = actor  # who vouches for it from now on
        row.save(update_fields=["digest", "expires_at", "sent_at", "invited_by"])
        _note("invitation.sent_again", row, actor)
    _send(row, token)
    return row


def withdraw(*, invitation: Invitation, actor: User, may_touch_owners: bool) -> Invitation:
    """Take an invitation back; its link is dead.

    Raises:
        Unusable: it was accepted or withdrawn.
        PermissionDenied: somebody may not give the role (any more).
    """
    with transaction.atomic():
        row = _lock_pending(invitation, actor, may_touch_owners)
        row.withdrawn_at = clock.now()
        row.save(update_fields=["withdrawn_at"])
        _note("invitation.withdrawn", row, actor)
    return row


def find(token: str) -> Invitation:
    """Return the open invitation of a token.

    Raises:
        Unusable: there is none.
    """
    invitation = Invitation.objects.select_related("organization").filter(digest=_digest(token)).first()
    return _insist_on_open(invitation)


def accept(token: str, user: User) -> Membership:
    """Take the seat: the person must have the address that the mail went to. A member already stays as they are.

    Raises:
        Unusable: the token opens nothing.
        OtherAddress: the invitation is for another address.
    """
    with transaction.atomic():
        found = Invitation.objects.filter(digest=_digest(token))
        # The organization first, as whoever changes its members has it when they withdraw what those offered.
        for organization_id in found.values_list("organization", flat=True):
            members.lock(organization_id)
        row = found.select_for_update(of=("self",)).select_related("organization")
        invitation = _insist_on_open(row.first())
        if not is_for(invitation, user):
            raise OtherAddress(f"This invitation is for {invitation.email}; you are signed in as {user.email}.")
        membership = members.add(
            organization=invitation.organization,
            user=user,
            role=invitation.role,
            actor=user,
            action="member.joined",
        )
        invitation.accepted_at = clock.now()
        invitation.save(update_fields=["accepted_at"])
    return membership


def is_for(invitation: Invitation, user: User | AnonymousUser) -> bool:
    """Tell whether a person has the address that the mail went to, as their own or as a further, verified one."""
    if not isinstance(user, User):
        return False
    # The token came by mail to this address, which is what a verification would show too.
    if user.email == invitation.email:
        return True
    return bool(EmailAddress.objects.filter(user=user, email__iexact=invitation.email, verified=True).exists())


def _insist_on_open(invitation: Invitation | None) -> Invitation:
    if invitation is None or invitation.withdrawn_at is not None:
        raise Unusable("This invitation is not valid: it was withdrawn or sent again since. Look for a newer mail.")
    if invitation.accepted_at is not None:
        raise Unusable("This invitation was used already. Sign in to get to your organization.")
    if not invitation.is_open:
        raise Unusable("This invitation has expired. Ask for a new one.")
    return invitation


def _lock_pending(invitation: Invitation, actor: User, may_touch_owners: bool) -> Invitation:
    members.lock(invitation.organization_id)
    row = Invitation.objects.select_for_update(of=("self",)).select_related("organization").get(pk=invitation.pk)
    if row.accepted_at is not None or row.withdrawn_at is not None:
        raise Unusable("This invitation was accepted or withdrawn already.")
    if row.role == Membership.Role.OWNER and not may_touch_owners:
        raise PermissionDenied("Only an owner makes owners.")
    _insist_on_right(actor, row.organization_id, row.role)
    return row


def _insist_on_right(actor: User, organization_id: int, role: str) -> None:
    """Hold against the role that somebody has once the organization is locked: the page's may be over by now."""
    if actor.is_staff:
        return
    membership = Membership.objects.filter(organization=organization_id, user=actor).first()
    if membership is None or not roles.may_give_role(membership, role):
        raise PermissionDenied("Only members who may give this role invite to it.")


def _send(invitation: Invitation, token: str) -> None:
    link = settings.PUBLIC_BASE_URL + reverse("console-invitation", args=[token])
    facts = {"invitation": invitation, "organization": invitation.organization, "link": link, "days": VALID_FOR.days}
    subject = " ".join(render_to_string("mail/invitation_subject.txt", facts).split())
    try:
        send_mail(subject, render_to_string("mail/invitation.txt", facts), None, [invitation.email])
    except OSError as error:  # smtplib's errors are among these
        log.warning("invitation_not_sent", invitation_id=invitation.pk, error=type(error).__name__)
        raise NotSent(f"The invitation for {invitation.email} stands, but its mail could not be sent.") from error
    invitation.sent_at = clock.now()
    invitation.save(update_fields=["sent_at"])


def _digest(token: str) -> bytes:
    # 256 random bits need neither salt nor stretching.
    return hashlib.sha256(token.encode()).digest()


def _note(action: str, invitation: Invitation, actor: User) -> None:
    audit.note(
        organization_id=invitation.organization_id,
        actor=actor,
        action=action,
        target=invitation.email,
        after={"role": invitation.role},
    )
