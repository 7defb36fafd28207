"""A look at the console as a customer: every page to read, none to write, nothing secret, and an end in sight."""

import datetime as dt
import re

import pytest
import time_machine
from django.contrib.auth.models import Group, Permission
from django.db import IntegrityError, connection, transaction
from django.test import Client
from django.urls import reverse

from accounts import console_audit, visits
from accounts.models import ApiKey, AuditEntry, Membership, StaffVisit, User
from accounts.tests.factories import MembershipFactory, UserFactory
from generations.models import Generation
from generations.tests.factories import create_generation, funded_organization
from seedancee2.console import staff_groups
from seedancee2.console.tests.test_roles_of_pages import OPEN, TABLE, Scene
from seedancee2.lib import clock
from webhooks import signing

pytestmark = pytest.mark.django_db

WHY = "they cannot find their bill"
SECRET = re.compile(r"sk_seedancee2_(?:live|test)_[0-9A-Za-z]{38}|whsec_")
# What a visitor may look at; every other page is refused, whatever the organization's owner may do there.
READABLE = {
    "console-home",
    "console-keys",
    "console-key",
    "console-members",
    "console-leave",
    "console-audit",
    "console-tasks",
    "console-tasks-export",
    "console-task",
    "console-usage",
    "console-usage-file",
    "console-billing",
    "console-ledger",
    "console-ledger-file",
    "console-statement",
    "console-statement-file",
    "console-webhooks",
    "console-webhook",
}


@pytest.fixture
def scene() -> Scene:
    """An organization with one of everything."""
    return Scene(Membership.Role.OWNER)


def staff(group: str = "support") -> tuple[Client, User]:
    staff_groups.ensure()
    user = UserFactory.create(is_staff=True)
    user.groups.set([Group.objects.get(name=group)])
    client = Client()
    client.force_login(user)
    return client, user


def visit(client: Client, organization) -> str:
    """Begin a visit, and return the address of its question."""
    address = reverse("admin:accounts_organization_act_as", args=[organization.pk])
    reply = client.post(address, {"reason": WHY})
    assert (reply.status_code, reply["Location"]) == (302, "/console/")
    return address


def everything() -> list[tuple[str, str]]:
    """Return what no visit may change: each row of each table, but for those of the visit itself."""
    left_out = ("django_session", "usersessions_usersession", "accounts_staffvisit")
    found = []
    with connection.cursor() as cursor:
        for table in sorted(set(connection.introspection.table_names()) - set(left_out)):
            rows = f'SELECT coalesce(md5(string_agg(one::text, $$$$ ORDER BY one::text)), $$$$) FROM "{table}" one'  # noqa: S608 - the names are of our own tables
            cursor.execute(rows)
            found.append((table, cursor.fetchone()[0]))
    return found


def content(reply) -> str:
    body = b"".join(reply.streaming_content) if reply.streaming else reply.content
    return body.decode()


def test_every_page_can_be_looked_at_or_is_refused_and_none_takes_a_write(scene):
    secret = signing.reveal(organization=scene.organization, actor=scene.user)
    stranger = MembershipFactory.create(organization__name="Stranger Incorporated", role="owner").organization
    client, user = staff()
    MembershipFactory.create(user=user, organization=stranger, role="owner")  # the visitor's own, which stays away
    visit(client, scene.organization)
    before = everything()
    wrong = []
    for name in (*TABLE, *OPEN):
        address = scene.address(name) if name in TABLE else reverse(name, args=["t"] * (name == "console-invitation"))
        for method in ("post", "put", "patch", "delete"):
            status = getattr(client, method)(address, {"organization": scene.organization.pk}).status_code
            if status != 403:
                wrong.append((name, method, status))
        if name in OPEN:
            continue
        reply = client.get(address)
        if "get" not in TABLE[name][1]:
            # Views that only take forms ask for the right first: nobody is told which methods there are.
            is_right = reply.status_code in (403, 405)
        else:
            is_right = reply.status_code == (200 if name in READABLE else 403)
        text = content(reply)
        is_page = reply["Content-Type"].startswith("text/html") and reply.status_code in (200, 403)
        if is_page and "Nothing can be changed; it ends at" not in text:
            is_right = False
        if not is_right or secret in text or SECRET.search(text) or stranger.name in text:
            wrong.append((name, "get", reply.status_code))
        if client.get(f"{address}?organization={stranger.pk}").status_code not in (403, 404, 405):
            wrong.append((name, "of a stranger", 0))

    assert wrong == []
    assert everything() == before


def test_a_visit_stands_in_the_audit_log_from_its_begin_to_its_end_without_the_name_of_the_visitor(scene):
    client, user = staff()
    address = reverse("admin:accounts_organization_act_as", args=[scene.organization.pk])
    assert client.post(address, {"reason": " "}).status_code == 200
    assert not StaffVisit.objects.exists()
    visit(client, scene.organization)
    text = client.get("/console/").content.decode()
    assert scene.organization.name in text

    reply = client.post(reverse("staff-visit-stop"))

    assert reply["Location"] == reverse("admin:accounts_organization_change", args=[scene.organization.pk])
    first, last = AuditEntry.objects.filter(action__startswith="console.").order_by("pk")
    assert (first.action, last.action) == ("console.opened_by_staff", "console.left_by_staff")
    for entry in (first, last):
        assert (entry.organization, entry.actor, entry.reason) == (scene.organization, user, WHY)
        shown = console_audit.shown(entry)
        assert (shown.person, shown.reason, shown.address) == ("the Seedancee2 team", "", "")
    assert client.get(reply["Location"]).status_code == 200
    # Now the person is nobody in this console.
    assert scene.organization.name not in client.get("/console/").content.decode()
    assert client.post(reverse("staff-visit-stop")).status_code == 302
    assert AuditEntry.objects.filter(action="console.left_by_staff").count() == 1
    owner = Client()
    owner.force_login(scene.user)
    log = owner.get(reverse("console-audit")).content.decode()
    assert "Console opened by staff" in log
    assert "Console left by staff" in log
    assert user.email not in log
    assert WHY not in log


def test_a_visit_ends_after_half_an_hour_with_the_session_and_with_the_right(scene):
    client, user = staff()
    with time_machine.travel(clock.now(), tick=False) as traveller:
        visit(client, scene.organization)
        traveller.shift(dt.timedelta(minutes=29))
        assert client.get("/console/tasks/").status_code == 200
        traveller.shift(dt.timedelta(minutes=1))
        assert client.get("/console/tasks/")["Location"] == "/admin/"
        assert client.get("/console/").content.decode().count(scene.organization.name) == 0
        assert ended() == 1

        visit(client, scene.organization)
        part = {"hx-request": "true"}
        traveller.shift(dt.timedelta(minutes=31))
        assert client.get("/console/tasks/", headers=part)["HX-Redirect"] == "/admin/"
        assert ended() == 2

        visit(client, scene.organization)  # the browser is closed and never comes back
        assert visits.end_overdue() == 0
        traveller.shift(dt.timedelta(minutes=31))
        assert visits.end_overdue() == 1
        assert visits.end_overdue() == 0
        assert ended() == 3
        assert AuditEntry.objects.filter(action="console.left_by_staff").last().after == {"minutes": 30}

    client.force_login(user)
    visit(client, scene.organization)
    user.groups.clear()
    assert client.get("/console/tasks/")["Location"] == "/admin/"
    assert ended() == 4

    client, user = staff()
    visit(client, scene.organization)
    client.post("/accounts/logout/")
    assert ended() == 5
    client.force_login(user)
    assert scene.organization.name not in client.get("/console/").content.decode()

    visit(client, scene.organization)
    User.objects.filter(pk=user.pk).update(is_staff=False)
    assert client.get("/console/tasks/").status_code == 302
    assert ended() == 6
    assert AuditEntry.objects.filter(action__startswith="console.", is_by_staff=False).count() == 0


def test_another_session_of_the_same_person_is_on_no_visit_and_a_second_visit_ends_the_first(scene):
    client, user = staff()
    visit(client, scene.organization)
    other = Client()
    other.force_login(user)
    assert scene.organization.name not in other.get("/console/").content.decode()

    second = funded_organization()
    visit(client, second)

    assert ended() == 1
    assert second.name in client.get("/console/").content.decode()
    assert client.get(f"/console/?organization={scene.organization.pk}").status_code == 404


def test_a_visitor_follows_a_task_live(scene):
    task = create_generation(funded_organization())
    client, _ = staff()
    visit(client, task.organization)
    address = reverse("console-task", args=[task.pk])
    part = {"hx-request": "true"}

    first = client.get(address, headers=part)
    Generation.objects.filter(pk=task.pk).update(status="processing")
    second = client.get(address, headers=part)

    assert (first.status_code, second.status_code) == (200, 200)
    assert "pending" in first.content.decode().lower()
    assert "processing" in second.content.decode().lower()


def test_the_right_is_one_of_its_own_and_the_database_keeps_a_visit_short(scene):
    client, user = staff("operations")
    key_count = ApiKey.objects.count()
    address = reverse("admin:accounts_organization_act_as", args=[scene.organization.pk])
    assert client.post(address, {"reason": WHY}).status_code == 403
    # The right alone is not enough: one has to see the organization.
    other = UserFactory.create(is_staff=True)
    other.user_permissions.add(Permission.objects.get(codename="act_as_organization"))
    client.force_login(other)
    assert client.post(address, {"reason": WHY}).status_code == 403
    assert not StaffVisit.objects.exists()
    now = clock.now()
    with pytest.raises(IntegrityError), transaction.atomic():
        StaffVisit.objects.create(
            organization=scene.organization,
            visitor=user,
            reason=WHY,
            started_at=now,
            ends_at=now + dt.timedelta(minutes=31),
        )
    with pytest.raises(ValueError, match="Say why"):
        visits.begin(organization=scene.organization, visitor=user, reason="x" * 501)
    assert ApiKey.objects.count() == key_count


def ended() -> int:
    count = AuditEntry.objects.filter(action="console.left_by_staff").count()
    assert StaffVisit.objects.exclude(ended_at=None).count() == count
    return count
