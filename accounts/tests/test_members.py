"""Members: roles changed, people removed and leaving, and the owner who must stay."""

import threading
from collections import Counter
from concurrent.futures import ThreadPoolExecutor

import pytest
from django.core.exceptions import PermissionDenied
from django.db import connections

from accounts import keys, members
from accounts.models import ApiKey, AuditEntry, Membership, Organization
from accounts.tests.factories import MembershipFactory, OrganizationFactory, UserFactory, issue_key
from seedancee2.api.errors import InvalidRequest

Role = Membership.Role


@pytest.fixture
def organization(db: None) -> Organization:
    return OrganizationFactory.create()


def member(organization: Organization, role: str = Role.OWNER) -> Membership:
    return MembershipFactory.create(organization=organization, role=role)


def holdings() -> tuple[object, ...]:
    return (
        sorted(Membership.objects.values_list("user_id", "role")),
        AuditEntry.objects.count(),
        ApiKey.objects.filter(revoked_at=None).count(),
    )


def test_a_member_is_added_once(organization):
    user, owner = UserFactory.create(), member(organization)
    for role in (Role.VIEWER, Role.ADMIN):
        added = members.add(organization=organization, user=user, role=role, actor=owner.user)
        assert added.role == Role.VIEWER
    entry = AuditEntry.objects.get()
    assert (entry.action, entry.target, entry.after) == ("member.added", user.email, {"role": "viewer"})


def test_a_role_changes_and_the_log_says_from_what(organization):
    owner, other = member(organization), member(organization, Role.VIEWER)
    for _ in range(2):
        members.change_role(membership=other, role=Role.ADMIN, actor=owner.user, may_touch_owners=False)
    other.refresh_from_db()
    assert other.role == Role.ADMIN
    entry = AuditEntry.objects.get()
    assert (entry.action, entry.actor, entry.target) == ("member.role_changed", owner.user, other.user.email)
    assert (entry.before, entry.after) == ({"role": "viewer"}, {"role": "admin"})


def test_only_an_owner_makes_and_unmakes_owners(organization):
    owner, admin, other = member(organization), member(organization, Role.ADMIN), member(organization, Role.VIEWER)
    member(organization)
    before = holdings()
    for target, role in ((other, Role.OWNER), (owner, Role.VIEWER)):
        with pytest.raises(PermissionDenied):
            members.change_role(membership=target, role=role, actor=admin.user, may_touch_owners=False)
    with pytest.raises(PermissionDenied):
        members.remove(membership=owner, actor=admin.user, may_touch_owners=False, revokes_keys=True)
    assert holdings() == before
    members.change_role(membership=other, role=Role.OWNER, actor=owner.user, may_touch_owners=True)


def test_the_last_owner_is_neither_demoted_nor_removed_and_does_not_leave(organization):
    owner = member(organization)
    member(organization, Role.ADMIN)
    member(OrganizationFactory.create())
    before = holdings()
    with pytest.raises(members.LastOwner, match="Make somebody else an owner first"):
        members.change_role(membership=owner, role=Role.ADMIN, actor=owner.user, may_touch_owners=True)
    with pytest.raises(members.LastOwner):
        members.remove(membership=owner, actor=owner.user, may_touch_owners=True, revokes_keys=True)
    assert holdings() == before


@pytest.mark.parametrize("revokes_keys", [True, False])
def test_keys_go_with_a_member_where_that_is_wanted(organization, revokes_keys):
    owner, other = member(organization), member(organization, Role.DEVELOPER)
    elsewhere = OrganizationFactory.create()
    theirs = issue_key(organization, created_by=other.user)
    dead = keys.issue(organization=organization, name="dead", mode="live", created_by=other.user).key
    keys.revoke(key=dead, revoked_by=owner.user)
    others = [issue_key(organization, created_by=owner.user), issue_key(elsewhere, created_by=other.user)]

    revoked = members.remove(membership=other, actor=owner.user, may_touch_owners=False, revokes_keys=revokes_keys)

    assert [key.last_four for key in revoked] == ([theirs[-4:]] if revokes_keys else [])
    working = ApiKey.objects.filter(revoked_at=None).values_list("last_four", flat=True)
    assert sorted(working) == sorted(secret[-4:] for secret in others + ([] if revokes_keys else [theirs]))
    last = AuditEntry.objects.order_by("-pk")[0]
    assert (last.action, last.before) == ("member.removed", {"role": "developer"})
    assert last.after == {"keys revoked" if revokes_keys else "keys that go on working": 1}
    assert AuditEntry.objects.filter(action="key.revoked").count() == 1 + revokes_keys
    assert not Membership.objects.filter(pk=other.pk).exists()


@pytest.mark.parametrize("way", ["removed", "gone"])
def test_keys_are_revoked_in_the_order_in_which_all_lock_them(organization, way):
    owner, other = member(organization), member(organization, Role.DEVELOPER)
    issued = [issue_key(organization, created_by=other.user)[-4:] for _ in range(3)]
    if way == "removed":
        members.remove(membership=other, actor=owner.user, may_touch_owners=False, revokes_keys=True)
    else:
        other.delete()
        members.revoke_keys_of_leaver(organization=organization, user=other.user, actor=owner.user)
    targets = AuditEntry.objects.filter(action="key.revoked").order_by("pk").values_list("target", flat=True)
    assert [target[-5:-1] for target in targets] == issued


def test_an_owner_may_leave_where_another_stays(organization):
    first = member(organization)
    member(organization)
    members.remove(membership=first, actor=first.user, may_touch_owners=False, revokes_keys=False)
    assert AuditEntry.objects.get().action == "member.left"


def test_who_has_gone_meanwhile_is_told_of(organization):
    owner, other = member(organization), member(organization, Role.VIEWER)
    Membership.objects.filter(pk=other.pk).delete()
    with pytest.raises(InvalidRequest, match="no member any more"):
        members.change_role(membership=other, role=Role.ADMIN, actor=owner.user, may_touch_owners=True)
    with pytest.raises(InvalidRequest, match="no member any more"):
        members.remove(membership=other, actor=owner.user, may_touch_owners=True, revokes_keys=True)


@pytest.mark.race
@pytest.mark.django_db(transaction=True)
@pytest.mark.parametrize("way", ["leave", "demote each other", "demote themselves"])
def test_of_owners_who_all_go_at_once_one_stays(way: str) -> None:
    organization = OrganizationFactory.create()
    owners = [member(organization) for _ in range(6)]
    begin = threading.Barrier(len(owners))

    def go(number: int) -> str:
        owner, next_one = owners[number], owners[(number + 1) % len(owners)]
        begin.wait(10)
        try:
            if way == "leave":
                members.remove(membership=owner, actor=owner.user, may_touch_owners=True, revokes_keys=False)
            else:
                target = owner if way == "demote themselves" else next_one
                members.change_role(membership=target, role=Role.VIEWER, actor=owner.user, may_touch_owners=True)
        except members.LastOwner:
            return "refused"
        finally:
            connections.close_all()
        return "gone"

    with ThreadPoolExecutor(max_workers=len(owners)) as pool:
        assert Counter(pool.map(go, range(len(owners)))) == {"gone": 5, "refused": 1}
    assert Membership.objects.filter(role=Role.OWNER).count() == 1
    assert AuditEntry.objects.count() == 5
