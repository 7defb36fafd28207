"""Invitations: offered by mail, taken once by whoever has the token and the address."""

import datetime as dt
import re
import threading
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from smtplib import SMTPException

import pytest
import time_machine
from allauth.account.models import EmailAddress
from django.core import mail
from django.core.exceptions import PermissionDenied
from django.db import connection, connections

from accounts import invitations, members
from accounts.models import AuditEntry, Invitation, Membership, Organization, User
from accounts.tests.factories import MembershipFactory, OrganizationFactory, UserFactory
from accounts.tests.locks import takes_first
from seedancee2.api.errors import InvalidRequest
from seedancee2.lib import clock

Role = Membership.Role
LINK = re.compile(r"http://testserver/console/invitations/([\w-]{43})/")


@pytest.fixture
def owner(db: None) -> Membership:
    return MembershipFactory.create(organization=OrganizationFactory.create(name="Loom & Sons"), role=Role.OWNER)


@pytest.fixture
def ada(db: None) -> User:
    return UserFactory.create(email="ada@example.com")


def invite(owner: Membership, email: str = "ada@example.com", role: str = Role.DEVELOPER) -> str:
    """Invite somebody, and return the token of the mail."""
    invitations.invite(organization=owner.organization, email=email, role=role, actor=owner.user, may_touch_owners=True)
    return token_of_last_mail()


def token_of_last_mail() -> str:
    return LINK.findall(str(mail.outbox[-1].body))[0]


def test_a_mail_brings_the_token_and_the_database_has_it_not(owner):
    token = invite(owner, " Ada@Example.COM ")
    [message] = mail.outbox
    assert (message.to, message.subject) == (["ada@example.com"], "You are invited to Loom & Sons on Seedancee2")
    assert "developer" in message.body
    assert "&amp;" not in message.body
    with connection.cursor() as cursor:
        cursor.execute("SELECT accounts_invitation::text FROM accounts_invitation")
        assert token not in cursor.fetchone()[0]
    invitation = Invitation.objects.get()
    assert (invitation.email, invitation.role, invitation.invited_by) == ("ada@example.com", "developer", owner.user)
    assert invitation.sent_at is not None
    entry = AuditEntry.objects.get()
    assert (entry.action, entry.target, entry.after) == ("member.invited", "ada@example.com", {"role": "developer"})


def test_it_is_accepted_once_by_its_address(owner, ada):
    token = invite(owner)
    with pytest.raises(invitations.OtherAddress, match=r"for ada@example\.com"):
        invitations.accept(token, UserFactory.create())
    assert Membership.objects.count() == 1

    membership = invitations.accept(token, ada)

    assert (membership.organization, membership.user, membership.role) == (owner.organization, ada, "developer")
    with pytest.raises(invitations.Unusable, match="used already"):
        invitations.accept(token, ada)
    assert Membership.objects.count() == 2
    assert list(AuditEntry.objects.order_by("pk").values_list("action", "actor_name")) == [
        ("member.invited", owner.user.email),
        ("member.joined", "ada@example.com"),
    ]


def test_a_further_address_counts_once_it_is_verified(owner):
    token = invite(owner)
    person = UserFactory.create()
    address = EmailAddress.objects.create(user=person, email="ada@example.com", verified=False)
    with pytest.raises(invitations.OtherAddress):
        invitations.accept(token, person)
    address.verified = True
    address.save()
    assert invitations.accept(token, person).user == person


def test_a_token_ends_after_seven_days_by_withdrawal_and_by_a_newer_one(owner, ada):
    token = invite(owner)
    [invitation] = Invitation.objects.all()
    with (
        time_machine.travel(clock.now() + dt.timedelta(days=7)),
        pytest.raises(invitations.Unusable, match="has expired"),
    ):
        invitations.accept(token, ada)
    with time_machine.travel(clock.now() + dt.timedelta(minutes=6)):
        invitations.resend(invitation=invitation, actor=owner.user, may_touch_owners=True)
    newer = token_of_last_mail()
    assert newer != token
    with pytest.raises(invitations.Unusable, match="not valid"):
        invitations.find(token)
    assert invitations.find(newer) == invitation
    invitations.withdraw(invitation=invitation, actor=owner.user, may_touch_owners=True)
    for dead in (token, newer, "", "x" * 1000):
        with pytest.raises(invitations.Unusable, match="not valid"):
            invitations.accept(dead, ada)
    for step in (invitations.resend, invitations.withdraw):
        with pytest.raises(invitations.Unusable):
            step(invitation=invitation, actor=owner.user, may_touch_owners=True)
    assert Membership.objects.count() == 1
    actions = AuditEntry.objects.order_by("pk").values_list("action", flat=True)
    assert list(actions) == ["member.invited", "invitation.sent_again", "invitation.withdrawn"]


def test_one_address_has_one_open_invitation_in_an_organization(owner):
    invite(owner)
    with pytest.raises(InvalidRequest, match="is invited already"):
        invite(owner)
    invite(MembershipFactory.create(role=Role.OWNER))
    with time_machine.travel(clock.now() + dt.timedelta(days=8)):
        invite(owner)
    assert Invitation.objects.filter(organization=owner.organization, withdrawn_at=None).count() == 1


def test_what_makes_no_sense_is_refused_and_no_mail_goes_out(owner):
    MembershipFactory.create(user=UserFactory.create(email="ada@example.com"), organization=owner.organization)
    for email, message in (("ada@example.com", "is a member already"), ("ada", "is not an e-mail address")):
        with pytest.raises(InvalidRequest, match=message):
            invite(owner, email)
    with pytest.raises(InvalidRequest, match="is not an e-mail address"):
        invite(owner, "eve@example.com\nBcc: all@example.com")
    assert not mail.outbox
    assert not Invitation.objects.exists()


def test_only_an_owner_invites_owners_and_decides_on_such_invitations(owner):
    admin = MembershipFactory.create(organization=owner.organization, role=Role.ADMIN).user
    facts = {"organization": owner.organization, "email": "ada@example.com", "role": Role.OWNER}
    with pytest.raises(PermissionDenied):
        invitations.invite(**facts, actor=admin, may_touch_owners=False)
    invitation = invitations.invite(**facts, actor=owner.user, may_touch_owners=True)
    for step in (invitations.resend, invitations.withdraw):
        with pytest.raises(PermissionDenied):
            step(invitation=invitation, actor=admin, may_touch_owners=False)
    assert len(mail.outbox) == 1
    assert invitations.find(token_of_last_mail()).role == Role.OWNER


def test_a_mail_that_fails_leaves_an_invitation_to_send_again(owner, monkeypatch):
    def fail(*_args: object) -> None:
        raise SMTPException("away")

    with monkeypatch.context() as patch:
        patch.setattr("django.core.mail.backends.locmem.EmailBackend.send_messages", fail)
        with pytest.raises(invitations.NotSent):
            invite(owner)
    invitation = Invitation.objects.get()
    assert invitation.sent_at is None
    assert invitations.resend(invitation=invitation, actor=owner.user, may_touch_owners=True).sent_at is not None
    with pytest.raises(InvalidRequest, match="a moment ago"):
        invitations.resend(invitation=invitation, actor=owner.user, may_touch_owners=True)
    assert len(mail.outbox) == 1


def test_an_organization_is_no_mailer(owner, monkeypatch):
    monkeypatch.setattr(invitations, "MAX_A_DAY", 3)
    for number in range(3):
        invite(owner, f"p{number}@example.com")
    for invitation in Invitation.objects.all():
        invitations.withdraw(invitation=invitation, actor=owner.user, may_touch_owners=True)
    with pytest.raises(InvalidRequest, match="within a day"):
        invite(owner, "p3@example.com")
    assert len(mail.outbox) == 3
    invite(MembershipFactory.create(role=Role.OWNER), "p3@example.com")


def test_who_is_a_member_already_stays_what_they_are(owner, ada):
    token = invite(owner, role=Role.VIEWER)
    MembershipFactory.create(user=ada, organization=owner.organization, role=Role.ADMIN)
    assert invitations.accept(token, ada).role == Role.ADMIN
    assert Membership.objects.filter(user=ada).count() == 1


def test_a_strange_name_of_an_organization_does_no_harm_to_the_mail(owner):
    Organization.objects.filter(pk=owner.organization_id).update(name="A\nBcc: all@example.com")
    owner.organization.refresh_from_db()
    invite(owner)
    assert mail.outbox[0].subject == "You are invited to A Bcc: all@example.com on Seedancee2"
    assert mail.outbox[0].recipients() == ["ada@example.com"]


@pytest.mark.race
@pytest.mark.django_db(transaction=True)
def test_of_many_acceptances_and_a_withdrawal_at_once_one_counts() -> None:
    owner = MembershipFactory.create(role=Role.OWNER)
    person = UserFactory.create(email="ada@example.com")
    token = invite(owner)
    invitation = Invitation.objects.get()
    begin = threading.Barrier(6)

    def act(number: int) -> str:
        begin.wait(10)
        try:
            if number:
                invitations.accept(token, person)
            else:
                invitations.withdraw(invitation=invitation, actor=owner.user, may_touch_owners=True)
        except invitations.Unusable:
            return "refused"
        finally:
            connections.close_all()
        return "done"

    with ThreadPoolExecutor(max_workers=6) as pool:
        assert Counter(pool.map(act, range(6))) == {"done": 1, "refused": 5}
    invitation.refresh_from_db()
    is_member = Membership.objects.filter(user=person).count() == 1
    assert (invitation.accepted_at is not None, invitation.withdrawn_at is not None) == (is_member, not is_member)


@pytest.mark.race
@pytest.mark.django_db(transaction=True)
def test_the_organization_is_locked_before_the_invitation() -> None:
    """As by whoever removes the person who invited: each would else wait for the other."""
    owner = MembershipFactory.create(role=Role.OWNER)
    token, person = invite(owner), UserFactory.create(email="ada@example.com")
    assert takes_first(
        lambda: invitations.accept(token, person), first=owner.organization, then=Invitation.objects.get()
    )
    assert Membership.objects.filter(user=person).count() == 1


def test_who_was_demoted_in_this_moment_offers_nothing(owner):
    admin = MembershipFactory.create(organization=owner.organization, role=Role.ADMIN)
    invite(owner)
    invitation = Invitation.objects.get()
    Membership.objects.filter(pk=admin.pk).update(role=Role.DEVELOPER)
    with pytest.raises(PermissionDenied):
        invite(admin, "eve@example.com")
    with time_machine.travel(clock.now() + dt.timedelta(minutes=6)), pytest.raises(PermissionDenied):
        invitations.resend(invitation=invitation, actor=admin.user, may_touch_owners=True)
    assert (Invitation.objects.get(), len(mail.outbox), AuditEntry.objects.count()) == (invitation, 1, 1)
    assert invitations.find(token_of_last_mail()).invited_by == owner.user


def test_what_was_offered_ends_with_the_right_to_offer_it(owner):
    """Removed, demoted or gone: nothing that somebody may not give any more can be taken."""

    def open_ones() -> set[str]:
        return set(Invitation.objects.filter(withdrawn_at=None, accepted_at=None).values_list("email", flat=True))

    second = MembershipFactory.create(organization=owner.organization, role=Role.OWNER)
    tokens = {role: invite(second, f"{role}@example.com", role) for role in (Role.OWNER, Role.ADMIN, Role.VIEWER)}
    invite(owner, "kept@example.com")
    members.change_role(membership=second, role=Role.ADMIN, actor=owner.user, may_touch_owners=True)
    assert open_ones() == {"admin@example.com", "viewer@example.com", "kept@example.com"}
    vouched = Invitation.objects.get(email="viewer@example.com")
    with time_machine.travel(clock.now() + dt.timedelta(minutes=6)):
        invitations.resend(invitation=vouched, actor=owner.user, may_touch_owners=True)
    members.remove(membership=second, actor=owner.user, may_touch_owners=True, revokes_keys=False)
    assert open_ones() == {"viewer@example.com", "kept@example.com"}
    with pytest.raises(invitations.Unusable, match="withdrawn"):
        invitations.accept(tokens[Role.ADMIN], UserFactory.create(email="admin@example.com"))
    with pytest.raises(PermissionDenied):
        invite(second, "late@example.com")
    assert AuditEntry.objects.filter(action="invitation.withdrawn").count() == 2
