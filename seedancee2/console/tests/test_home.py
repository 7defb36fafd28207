"""The console's first page: its figures, who sees which, and what it costs."""

import datetime as dt
import html
import re

import pytest
import time_machine
from django.db import connection, transaction

from accounts.models import ApiKey
from accounts.tests.factories import OrganizationFactory, issue_key
from generations import lifecycle, usage
from generations.models import Generation
from generations.tests.factories import create_generation, funded_organization
from generations.tests.people import Person, Role
from seedancee2.console import home
from seedancee2.lib import clock, ids
from tests.web import complete
from webhooks.models import Delivery
from webhooks.tests.factories import DeliveryFactory

pytestmark = pytest.mark.django_db

PAGE = "/console/"


@pytest.fixture
def person() -> Person:
    """The owner of an organization with 1,000 credits."""
    return Person(funded_organization())


def ended(person: Person, seconds: float, *, has_failed: bool = False) -> Generation:
    """Make a live task of 20 credits that took so long."""
    task = create_generation(person.organization)
    if has_failed:
        lifecycle.fail(public_id=task.pk, code=Generation.ErrorCode.GENERATION_FAILED)
    else:
        complete(task)
    now = clock.now()
    Generation.objects.filter(pk=task.pk).update(created_at=now - dt.timedelta(seconds=seconds), finished_at=now)
    return task


def test_the_figures_are_those_of_the_rows(person):
    for seconds in (10, 20, 30, 40):
        ended(person, seconds)
    ended(person, 500, has_failed=True)
    for _ in range(2):
        create_generation(person.organization)
    started = create_generation(person.organization)
    lifecycle.start(public_ids=[started.pk])
    test = create_generation(person.organization, is_test=True)
    lifecycle.fail(public_id=test.pk, code=Generation.ErrorCode.GENERATION_FAILED)
    stranger = Person(funded_organization())
    ended(stranger, 1)

    context = person.get(PAGE).context

    assert (context["available"], context["held"]) == (860, 60)
    assert context["open_tasks"] == {"pending": 2, "processing": 1}
    day = context["last_day"]
    assert (day.completed, day.failed, day.success_percent) == (4, 1, 80.0)
    assert (day.p50, day.p95) == (dt.timedelta(seconds=25), dt.timedelta(seconds=38.5))
    month_start = clock.now().replace(day=1, hour=0, minute=0, second=0, microsecond=0)
    same = usage.summarize(organization_id=person.organization.pk, is_test=False, start=month_start, end=None, limit=31)
    assert context["month"] == same["summary"]
    assert context["month"]["net_credits"] == 80
    page = person.read(PAGE)
    assert "860" in page
    assert "80 %" in page
    assert "First steps" not in page


def test_older_tasks_count_for_nothing_in_the_last_day(person):
    task = ended(person, 10)
    Generation.objects.filter(pk=task.pk).update(created_at=clock.now() - dt.timedelta(hours=24, seconds=5))
    day = person.get(PAGE).context["last_day"]
    assert (day.completed, day.failed, day.success_percent, day.p50) == (0, 0, None, None)
    assert "No live task has ended" in person.read(PAGE)


def test_webhooks_of_the_last_day_are_counted_by_state(person):
    states = ["delivered"] * 3 + ["abandoned"] * 2 + ["pending"]
    for state in states:
        made = DeliveryFactory.create(organization=person.organization)
        is_open = state == "pending"
        Delivery.objects.filter(pk=made.pk).update(
            state=state,
            due_at=clock.now() if is_open else None,
            finished_at=None if is_open else clock.now(),
        )
    DeliveryFactory.create()
    old = DeliveryFactory.create(organization=person.organization)
    Delivery.objects.filter(pk=old.pk).update(created_at=clock.now() - dt.timedelta(hours=25))

    assert person.get(PAGE).context["webhooks"] == {"pending": 1, "delivered": 3, "abandoned": 2}


def test_the_first_id_of_a_moment_sorts_between_those_before_and_after():
    moment = clock.now()
    made = []
    for milliseconds in (-1, 0, 1):
        with time_machine.travel(moment + dt.timedelta(milliseconds=milliseconds), tick=False):
            made.append(ids.new("dlv"))
    before, *after = made
    assert before < ids.first("dlv", at=moment) < min(after)
    assert ids.is_valid(ids.first("dlv", at=moment), "dlv")


def test_keys_that_end_soon_are_named_to_those_who_may_see_them(person):
    soon = clock.now() + dt.timedelta(days=3)
    issue_key(person.organization, name="ends soon", expires_at=soon, created_by=person.user)
    issue_key(person.organization, name="ends later", expires_at=clock.now() + dt.timedelta(days=40))
    issue_key(person.organization, name="never ends")
    issue_key(person.organization, name="was revoked", expires_at=soon)
    ApiKey.objects.filter(name="was revoked").update(revoked_at=clock.now())
    issue_key(OrganizationFactory.create(), name="of a stranger", expires_at=soon)

    names = [key.name for key in person.get(PAGE).context["expiring_keys"]]
    assert names == ["ends soon"]
    sees = {role: "ends soon" in Person(person.organization, role).read(PAGE) for role in Role}
    assert sees == {role: role in (Role.OWNER, Role.ADMIN, Role.VIEWER) for role in Role}


def test_who_has_no_task_is_led_to_the_first_one(person, settings):
    page = person.read(PAGE)
    assert "First steps" in page
    assert f"curl -X POST {settings.PUBLIC_BASE_URL}/v1/videos/generations" in page
    assert "sk_seedancee2_test_xxxxx" in page

    task = create_generation(person.organization, is_test=True)
    assert "First steps" not in person.read(PAGE)
    Generation.objects.filter(pk=task.pk).update(created_at=clock.now() - dt.timedelta(days=400))
    assert "First steps" not in person.read(PAGE)


@pytest.mark.parametrize("role", Role.values)
def test_every_role_has_a_home_and_balances_are_for_billing(person, role):
    page = Person(person.organization, role).read(PAGE)
    assert ("available" in page) == (role in (Role.OWNER, Role.ADMIN, Role.BILLING))
    assert ("New video" in page) == (role in (Role.OWNER, Role.ADMIN, Role.DEVELOPER))


def test_another_organization_is_as_if_it_did_not_exist(person):
    stranger = Person(OrganizationFactory.create(name="Stranger"))
    assert stranger.get(PAGE, {"organization": person.organization.pk}).status_code == 404
    assert "1,000" not in stranger.read(PAGE)


def test_names_are_escaped(person):
    person.organization.name = "<script>alert(1)</script>"
    person.organization.save()
    issue_key(person.organization, name="<b onclick='x'>", expires_at=clock.now() + dt.timedelta(days=1))
    assert "<script>alert" not in person.read(PAGE)


def test_a_suspended_organization_is_told_so(person):
    person.organization.is_suspended = True
    person.organization.save()
    assert "is suspended" in person.read(PAGE)


@pytest.mark.parametrize("has_tasks", [False, True])
def test_the_page_costs_few_queries(person, has_tasks, django_assert_max_num_queries):
    for number in range(3 if has_tasks else 0):
        ended(person, number)
        issue_key(person.organization, name=f"key {number}", expires_at=clock.now() + dt.timedelta(days=1))
    person.read(PAGE)  # which notes, once a minute, that the session and the membership are in use
    with django_assert_max_num_queries(11):  # the spending of the month takes two: counted hours, and the rest
        person.read(PAGE)


def test_a_figure_that_takes_too_long_is_left_out_and_the_others_stand(person, monkeypatch):
    def slow(*_arguments, **_options):
        with transaction.atomic(), connection.cursor() as cursor:
            cursor.execute("SET LOCAL statement_timeout = '10ms'")
            cursor.execute("SELECT pg_sleep(1)")

    create_generation(person.organization)
    for name in ("_this_month", "_last_day", "_webhooks"):
        monkeypatch.setattr(home, name, slow)
    page = person.read(PAGE)
    assert page.count("takes too long to") == 3
    assert "980" in page


def test_the_keys_that_end_soon_are_all_a_click_away(person):
    issue_key(person.organization, expires_at=clock.now() + dt.timedelta(days=13), name="ending")
    issue_key(person.organization, expires_at=clock.now() + dt.timedelta(days=15), name="lasting")
    page = person.read(PAGE)
    (link,) = re.findall(r'href="(/console/keys/\?[^"]*flag=expiring)"', page)
    found = person.read(html.unescape(link))
    assert ("ending</a>" in found, "lasting</a>" in found) == (True, False)
