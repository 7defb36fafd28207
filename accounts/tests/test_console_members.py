"""The console's pages of members and invitations, from the invitation to the leaving."""

import pytest
from allauth.mfa.totp.internal.auth import TOTP, generate_totp_secret
from django.core import mail
from django.test import Client

from accounts.models import ApiKey, AuditEntry, Invitation, Membership, Organization, User
from accounts.tests.factories import PASSWORD, MembershipFactory, OrganizationFactory, UserFactory, issue_key
from accounts.tests.test_invitations import token_of_last_mail

pytestmark = pytest.mark.django_db

PAGE = "/console/members/"
Role = Membership.Role


@pytest.fixture
def organization() -> Organization:
    return OrganizationFactory.create(name="Northwind")


def signed_in(user: User) -> Client:
    client = Client()
    client.force_login(user)
    return client


def member(organization: Organization, role: str = Role.OWNER, **user: object) -> Membership:
    return MembershipFactory.create(organization=organization, role=role, user=UserFactory.create(**user))


def holdings() -> tuple[object, ...]:
    return (
        sorted(Membership.objects.values_list("pk", "role")),
        sorted(Invitation.objects.values_list("pk", "withdrawn_at", "digest")),
        AuditEntry.objects.count(),
        len(mail.outbox),
    )


def test_everybody_sees_who_belongs_and_only_managers_change_it(organization: Organization) -> None:
    owner = member(organization, name="Ada", email="ada@example.com")
    viewer = member(organization, Role.VIEWER, email="vic@example.com")
    TOTP.activate(owner.user, generate_totp_secret())
    for one, may_change in ((viewer, False), (owner, True)):
        page = signed_in(one.user).get(PAGE).content.decode()
        assert page.rindex("ada@example.com") < page.rindex("vic@example.com")
        assert (page.count(">on</span>"), page.count(">off</span>")) == (1, 1)
        assert ("Send invitation" in page) == may_change
        assert (f"{PAGE}{viewer.pk}/remove/" in page) == may_change
        assert (f"{PAGE}{viewer.pk}/role/" in page) == may_change
        assert "send webhooks again" in page  # what the roles may do
    viewer.refresh_from_db()
    assert viewer.last_seen_at is not None


def test_an_admin_is_offered_nothing_about_owners(organization: Organization) -> None:
    owner, admin = member(organization), member(organization, Role.ADMIN)
    client = signed_in(admin.user)
    page = client.get(PAGE).content.decode()
    assert f"{PAGE}{owner.pk}/" not in page
    assert 'value="owner"' not in page
    before = holdings()
    assert b"not one of the available choices" in client.post(PAGE, {"email": "a@example.com", "role": "owner"}).content
    for step, values in (("role", {"role": "viewer"}), ("remove", {"confirm": owner.user.email})):
        assert client.post(f"{PAGE}{owner.pk}/{step}/", values).status_code == 403
    assert client.post(f"{PAGE}{admin.pk}/role/", {"role": "owner"}).status_code == 403
    signed_in(owner.user).post(PAGE, {"email": "b@example.com", "role": "owner"})
    invitation = Invitation.objects.get()
    for step in ("resend", "withdraw"):
        assert client.post(f"{PAGE}invitations/{invitation.pk}/{step}/").status_code == 403
    assert (holdings()[0], Invitation.objects.get().is_open, len(mail.outbox)) == (before[0], True, 1)


def test_an_invitation_is_sent_sent_again_and_withdrawn(organization: Organization) -> None:
    client = signed_in(member(organization).user)
    reply = client.post(PAGE, {"email": "Ada@Example.com", "role": "developer"}, follow=True)
    assert "ada@example.com is invited" in reply.content.decode()
    assert "None. Whoever you invite" not in reply.content.decode()
    again = client.post(PAGE, {"email": "ada@example.com", "role": "viewer"})
    assert "is invited already" in again.content.decode()
    invitation = Invitation.objects.get()
    steps = f"{PAGE}invitations/{invitation.pk}/"
    assert b"a moment ago" in client.post(f"{steps}resend/", follow=True).content
    Invitation.objects.update(sent_at=None)
    assert b"has a new mail" in client.post(f"{steps}resend/", follow=True).content
    assert len(mail.outbox) == 2
    assert b"is withdrawn" in client.post(f"{steps}withdraw/", follow=True).content
    for step in ("resend", "withdraw"):
        assert client.post(f"{steps}{step}/").status_code == 404
    assert client.post(PAGE, {"email": "ada", "role": "viewer"}).status_code == 200
    assert Invitation.objects.count() == 1


def test_a_mail_that_cannot_be_sent_is_told_of(organization: Organization, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_args: object) -> None:
        raise ConnectionRefusedError

    monkeypatch.setattr("django.core.mail.backends.locmem.EmailBackend.send_messages", fail)
    reply = signed_in(member(organization).user).post(PAGE, {"email": "ada@example.com", "role": "viewer"}, follow=True)
    page = reply.content.decode()
    assert "could not be sent. Send it again below." in page
    assert "not sent</span>" in page


def test_the_link_leads_a_stranger_to_sign_in_and_the_right_person_in(organization: Organization) -> None:
    owner = member(organization)
    signed_in(owner.user).post(PAGE, {"email": "ada@example.com", "role": "developer"})
    token = token_of_last_mail()
    client = Client()
    reply = client.get(f"/console/invitations/{token}/")
    assert (reply.status_code, reply["Location"]) == (302, "/console/invitation/")
    page = client.get("/console/invitation/")
    assert "no-store" in page["Cache-Control"]
    text = page.content.decode()
    assert "Join Northwind" in text
    assert "/accounts/login/?next=/console/invitation/" in text
    assert token not in text
    assert client.post("/console/invitation/").status_code == 302
    assert Membership.objects.count() == 1

    other = UserFactory.create()
    client.force_login(other)
    assert b"Sign out, then sign in with ada@example.com" in client.get("/console/invitation/").content
    assert client.post("/console/invitation/").status_code == 403
    assert Membership.objects.count() == 1

    ada = UserFactory.create(email="ada@example.com")
    elsewhere = MembershipFactory.create(user=ada, role=Role.OWNER)
    client = Client()
    client.get(f"/console/invitations/{token}/")
    # The session keeps the token over the sign-in, which leads back to the seat; a click takes it.
    signed = client.post("/accounts/login/", {"login": "ada@example.com", "password": PASSWORD}, follow=True)
    assert signed.request["PATH_INFO"] == "/console/invitation/"
    assert not Membership.objects.filter(user=ada, organization=organization).exists()
    assert b"Welcome to Northwind" in client.post("/console/invitation/", follow=True).content
    assert client.get("/console/keys/").context["organization"] == organization
    assert Membership.objects.get(user=ada, organization=organization).role == Role.DEVELOPER
    assert Membership.objects.get(user=ada, organization=elsewhere.organization).role == Role.OWNER
    assert "invitation" not in client.session
    reply = client.get(f"/console/invitations/{token}/")
    assert reply.status_code == 404
    assert b"was used already" in reply.content


def test_without_a_token_the_page_says_what_to_do() -> None:
    reply = Client().get("/console/invitation/")
    assert reply.status_code == 404
    assert b"Look for a newer mail" in reply.content


def test_a_role_is_changed_on_the_page(organization: Organization) -> None:
    owner, other = member(organization), member(organization, Role.VIEWER)
    client = signed_in(owner.user)
    assert b"is billing now" in client.post(f"{PAGE}{other.pk}/role/", {"role": "billing"}, follow=True).content
    for wrong in ("king", ""):
        assert (
            b"Choose one of the roles" in client.post(f"{PAGE}{other.pk}/role/", {"role": wrong}, follow=True).content
        )
    last = client.post(f"{PAGE}{owner.pk}/role/", {"role": "admin"}, follow=True)
    assert b"Make somebody else an owner first" in last.content
    assert dict(Membership.objects.values_list("pk", "role")) == {owner.pk: "owner", other.pk: "billing"}


def test_a_member_is_removed_after_the_question_about_their_keys(organization: Organization) -> None:
    owner, other = member(organization), member(organization, Role.DEVELOPER, email="dev@example.com")
    issue_key(organization, created_by=other.user, name="<b>farm</b>")
    client = signed_in(owner.user)
    address = f"{PAGE}{other.pk}/remove/"
    page = client.get(address).content.decode()
    assert "They issued 1 key that works" in page
    assert "&lt;b&gt;farm&lt;/b&gt;" in page
    for values in ({}, {"confirm": "dev@example.com"}, {"keys": "revoke"}, {"keys": "revoke", "confirm": "dev"}):
        assert client.post(address, values).status_code == 200
    assert Membership.objects.count() == 2
    reply = client.post(address, {"keys": "revoke", "confirm": "dev@example.com"}, follow=True)
    assert "1 of their keys are revoked" in reply.content.decode()
    assert ApiKey.objects.get().state == "revoked"
    assert client.get(address).status_code == 404
    assert b"You belong to no organization" in signed_in(other.user).get(PAGE).content


def test_a_member_without_keys_is_removed_without_that_question(organization: Organization) -> None:
    owner, other = member(organization), member(organization, Role.VIEWER, email="vic@example.com")
    client = signed_in(owner.user)
    assert b"They have no keys that work" in client.get(f"{PAGE}{other.pk}/remove/").content
    assert client.post(f"{PAGE}{other.pk}/remove/", {"confirm": "vic@example.com"}).status_code == 302
    assert Membership.objects.get() == owner


def test_a_member_leaves_and_their_keys_stay(organization: Organization) -> None:
    member(organization)
    other = member(organization, Role.DEVELOPER)
    issue_key(organization, created_by=other.user)
    client = signed_in(other.user)
    assert b"go on working" in client.get(f"{PAGE}leave/").content
    assert client.post(f"{PAGE}leave/", {"confirm": "Southwind"}).status_code == 200
    reply = client.post(f"{PAGE}leave/", {"confirm": "Northwind", "organization": organization.pk}, follow=True)
    assert b"You have left Northwind" in reply.content
    assert ApiKey.objects.get().state == "active"
    assert Membership.objects.count() == 1


def test_the_keys_of_who_has_gone_are_told_and_revoked_in_one_step(organization: Organization) -> None:
    owner, other = member(organization), member(organization, Role.DEVELOPER, email="dev@example.com")
    member(organization, Role.DEVELOPER)
    for made_by in (other.user, other.user, owner.user):
        issue_key(organization, created_by=made_by)
    assert signed_in(other.user).post(f"{PAGE}leave/", {"confirm": "Northwind"}).status_code == 302
    assert AuditEntry.objects.get(action="member.left").after == {"keys that go on working": 2}
    client = signed_in(owner.user)
    assert "dev@example.com made 2 keys that still work" in client.get(PAGE).content.decode()
    address = f"{PAGE}gone/{other.user.pk}/keys/"
    assert client.get(f"{PAGE}gone/{owner.user.pk}/keys/").status_code == 404
    assert b"This is not" in client.post(address, {"confirm": "dev"}).content
    assert ApiKey.objects.filter(revoked_at=None).count() == 3
    reply = client.post(address, {"confirm": "dev@example.com"}, follow=True)
    assert "2 of dev@example.com’s keys are revoked" in reply.content.decode()
    assert [key.created_by for key in ApiKey.objects.filter(revoked_at=None)] == [owner.user]
    assert "still work" not in client.get(PAGE).content.decode()
    assert client.get(address).status_code == 404


def test_the_last_owner_does_not_leave(organization: Organization) -> None:
    owner = member(organization)
    member(organization, Role.ADMIN)
    reply = signed_in(owner.user).post(f"{PAGE}leave/", {"confirm": "Northwind"})
    assert b"Make somebody else an owner first" in reply.content
    assert Membership.objects.count() == 2


def test_another_organization_is_as_if_it_did_not_exist(organization: Organization) -> None:
    stranger = member(OrganizationFactory.create(), email="secret@example.com")
    victim = member(stranger.organization, Role.VIEWER)
    signed_in(stranger.user).post(PAGE, {"email": "invited@example.com", "role": "viewer"})
    invitation = Invitation.objects.get()
    client = signed_in(member(organization).user)
    before = holdings()
    for address in (
        f"{PAGE}{victim.pk}/role/",
        f"{PAGE}{victim.pk}/remove/",
        f"{PAGE}invitations/{invitation.pk}/resend/",
        f"{PAGE}invitations/{invitation.pk}/withdraw/",
    ):
        values = {"role": "viewer", "confirm": victim.user.email}
        assert client.post(address, values).status_code == 404
        assert client.post(address, values | {"organization": stranger.organization_id}).status_code == 404
    assert client.get(f"{PAGE}{victim.pk}/remove/").status_code == 404
    page = client.get(PAGE).content
    assert b"secret@example.com" not in page
    assert b"invited@example.com" not in page
    assert holdings() == before


def test_hostile_names_are_escaped(organization: Organization) -> None:
    owner = member(organization, name="<script>alert(1)</script>")
    client = signed_in(owner.user)
    client.post(PAGE, {"email": "o'<b>@example.com", "role": "viewer"})
    Invitation.objects.create(
        organization=organization,
        email='"<b>x</b>"@example.com',
        role="viewer",
        digest=b"x",
        expires_at=owner.created_at,
    )
    page = client.get(PAGE).content
    assert b"<script>alert" not in page
    assert b"<b>" not in page
    assert b"expired</span>" in page


def test_the_list_costs_the_same_however_many_members_there_are(
    organization: Organization, django_assert_max_num_queries: object
) -> None:
    client = signed_in(member(organization).user)
    for number in range(20):
        member(organization, Role.VIEWER)
        Invitation.objects.create(
            organization=organization,
            email=f"{number}@example.com",
            role="viewer",
            digest=bytes([number]),
            expires_at=organization.created_at,
        )
    client.get(PAGE)
    with django_assert_max_num_queries(6):  # type: ignore[operator] # a fixture
        client.get(PAGE)
