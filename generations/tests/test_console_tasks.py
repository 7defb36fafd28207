"""The console's list of tasks and the page of one: what each shows to whom, and what it costs to show."""

import csv
import datetime as dt
import io
import json
import re

import pytest
from django.db import connection
from django.test.utils import CaptureQueriesContext

from accounts.models import ApiKey
from accounts.tests.factories import OrganizationFactory, UserFactory, issue_key
from generations import lifecycle, search
from generations.models import Generation, OutputAsset
from generations.tests.callers import TASKS, Caller, minimal
from generations.tests.factories import create_generation, funded_organization
from generations.tests.people import Person, Role
from seedancee2.lib import clock
from tests.web import complete
from webhooks.models import Delivery, DeliveryAttempt

pytestmark = pytest.mark.django_db

PAGE = "/console/tasks/"
EXPORT = "/console/tasks/export.csv"
HOSTILE = "<script>alert('x')</script><b onclick=\"alert(1)\">"


@pytest.fixture
def person(settings) -> Person:
    """The owner of an organization with 1,000 credits."""
    settings.MEDIA_BASE_URL = "https://media.example.com"
    return Person(funded_organization())


def listed(person: Person, **query) -> list[str]:
    """Return the ids in the table, in its order."""
    return re.findall(r"<code[^>]*>(vid_\w+)</code>", person.read(PAGE, query))


def made(person: Person, **values) -> Generation:
    days = values.pop("days", 0)
    task = create_generation(person.organization, **values)
    if days:
        Generation.objects.filter(pk=task.pk).update(created_at=task.created_at - dt.timedelta(days=days))
    return task


def failed(task: Generation) -> Generation:
    return lifecycle.fail(public_id=task.pk, code=Generation.ErrorCode.GENERATION_FAILED)


# --- The list ---


def test_the_newest_come_first_live_and_test_together(person):
    old, test, new = made(person, days=2), made(person, is_test=True, days=1), made(person)

    assert listed(person) == [new.pk, test.pk, old.pk]
    assert listed(person, mode="live") == [new.pk, old.pk]
    assert listed(person, mode="test") == [test.pk]


def test_every_filter_chooses_and_lives_in_the_address(person):
    caller = Caller(person.organization)
    by_key = Generation.objects.get(pk=caller.create(minimal()).json()["data"]["id"])
    key = ApiKey.objects.get()
    done = complete(made(person, prompt="Red Fox running", metadata={"customer": "Grüner Wald"}))
    lost = failed(made(person, model="pro", callback_url="https://example.com/hook", days=3))
    day = (clock.now() - dt.timedelta(days=3)).date().isoformat()

    for query, expected in [
        ({"status": "completed"}, [done]),
        ({"status": "failed"}, [lost]),
        ({"status": "pending"}, [by_key]),
        ({"model": "pro"}, [lost]),
        ({"key": key.pk}, [by_key]),
        ({"key": "playground"}, [done, lost]),
        ({"callback": "yes"}, [lost]),
        ({"callback": "no"}, [done, by_key]),
        ({"from": day, "to": day}, [lost]),
        ({"to": day}, [lost]),
        ({"q": "red fox"}, [done]),
        ({"q": "grüner wald"}, [done]),
        ({"q": "GRÜNER"}, []),  # beyond ASCII, capitals and small letters of metadata differ
        ({"q": "Grüner Wald"}, [done]),
        ({"q": "CUSTOMER"}, [done]),
        ({"q": done.pk}, [done]),
        ({"q": "vid_0"}, [done, by_key, lost]),
        ({"q": "100%"}, []),
        ({"q": "ves_"}, []),
        ({"q": "red fox", "model": "pro"}, []),
        ({"q": done.pk, "status": "failed"}, []),
    ]:
        assert listed(person, **query) == [task.pk for task in expected], query

    page = person.read(PAGE, {"q": "red fox", "status": "completed"})
    assert 'value="red fox"' in page
    assert "export.csv?q=red+fox&amp;status=completed" in page


@pytest.mark.parametrize(
    ("query", "message"),
    [
        ({"status": "lost"}, "Select a valid choice"),
        ({"model": "sora"}, "Select a valid choice"),
        ({"key": "99999"}, "Select a valid choice"),
        ({"from": "soon"}, "Enter a valid date"),
        ({"from": "2026-02-02", "to": "2026-02-01"}, "lies before the first one"),
        ({"to": "9999-12-31"}, "between the years"),
        ({"q": "a\x00b"}, "Null characters are not allowed"),
        ({"q": "x" * 201}, "at most 200"),
    ],
)
def test_a_wrong_filter_is_named_beside_its_field_and_shows_nothing(person, query, message):
    made(person)
    page = person.read(PAGE, query)

    assert message in page
    assert "Mend what is marked above" in page
    assert not re.findall(r"<code[^>]*>(vid_\w+)</code>", page)
    assert person.get(EXPORT, query).status_code == 302


def test_pages_hold_every_task_once_while_others_are_made(person, monkeypatch):
    monkeypatch.setattr("generations.console_tasks.TASKS_ON_A_PAGE", 3)
    tasks = [made(person, is_test=number % 2 == 0, days=10 - number) for number in range(8)]
    Generation.objects.filter(pk__in=[tasks[2].pk, tasks[3].pk]).update(created_at=tasks[0].created_at)
    expected = list(Generation.objects.order_by("-created_at", "-public_id").values_list("pk", flat=True))

    seen, query = [], ""
    for _ in range(3):
        page = person.read(f"{PAGE}?{query}")
        seen += re.findall(r"<code[^>]*>(vid_\w+)</code>", page)
        made(person)
        (query,) = re.findall(r'href="/console/tasks/\?([^"]+)" rel="next"', page) or [""]
        query = query.replace("&amp;", "&")

    assert (seen, query) == (expected, "")
    assert person.get(PAGE, {"cursor": "nonsense"}).status_code == 404


def test_a_search_says_how_far_it_looked_and_goes_on_from_there(person, monkeypatch):
    monkeypatch.setattr(search, "WINDOW", 2)
    needle = made(person, prompt="needle", days=9)
    for number in range(4):
        made(person, days=number)
    test = made(person, prompt="needle too", is_test=True, days=2)

    first = search.page(organization_id=person.organization.pk, wanted=search.Wanted(text="needle"), limit=10)
    assert (first.tasks, first.looked_back_to is not None) == ([], True)
    seen, cursor, pages = [], first.cursor, 1
    while cursor:
        found = search.page(
            organization_id=person.organization.pk, wanted=search.Wanted(text="needle"), limit=10, cursor=cursor
        )
        seen, cursor, pages = seen + found.tasks, found.cursor, pages + 1
    assert (seen, pages) == ([test, needle], 3)
    page = person.read(PAGE, {"q": "needle"})
    assert "Nothing found so far" in page
    assert "Look further back" in page
    assert [task.pk for task in search.every(organization_id=person.organization.pk, wanted=search.Wanted())] == list(
        Generation.objects.order_by("-created_at", "-public_id").values_list("pk", flat=True)
    )


def test_the_table_is_fetched_anew_only_while_a_task_in_it_is_open(person):
    task = made(person)
    assert 'hx-trigger="every 4s"' in person.read(PAGE)
    part = person.read(PAGE, is_part=True)
    assert 'hx-trigger="every 4s"' in part
    assert "<html" not in part

    failed(task)
    assert "hx-trigger" not in person.read(PAGE)
    assert "hx-trigger" not in person.read(PAGE, is_part=True)


def test_a_part_leads_to_the_sign_in_as_a_whole_once_the_session_has_ended(person):
    person.browser.logout()
    reply = person.get(PAGE, is_part=True)
    assert (reply.status_code, reply["HX-Redirect"]) == (200, "/accounts/login/?next=/console/tasks/")
    assert person.get(PAGE).status_code == 302


def test_the_export_holds_what_the_filters_choose_and_runs_no_formula(person, monkeypatch):
    monkeypatch.setattr(search, "EXPORT_PAGE", 2)
    tasks = [failed(made(person, prompt=f'=HYPERLINK("{number}")', days=number)) for number in range(5)]
    made(person, prompt="open", metadata={"a": "é"}, callback_url="https://example.com/hook")

    reply = person.get(EXPORT, {"status": "failed"})
    rows = list(csv.DictReader(io.StringIO(reply.getvalue().decode())))

    assert reply["Content-Disposition"].startswith('attachment; filename="seedancee2-tasks-')
    assert [row["id"] for row in rows] == [task.pk for task in tasks]
    assert {row["prompt"][0] for row in rows} == {"'"}
    assert (rows[0]["credits"], rows[0]["credits_refunded"], rows[0]["error_code"]) == ("20", "20", "generation_failed")
    (whole,) = csv.DictReader(io.StringIO(person.get(EXPORT, {"q": "open"}).getvalue().decode()))
    assert json.loads(whole["metadata"]) == {"a": "é"}
    assert (whole["mode"], whole["made_by"], whole["callback_url"]) == (
        "live",
        "playground",
        "https://example.com/hook",
    )


def test_an_empty_list_says_what_to_do(person):
    assert "Open the playground" in person.read(PAGE)
    assert "as soon as a program or a colleague" in Person(person.organization, Role.VIEWER).read(PAGE)
    assert "No task fits" in person.read(PAGE, {"status": "failed"})


# --- One task ---


def test_the_page_shows_the_video_the_request_and_the_very_reply(person):
    caller = Caller(person.organization)
    body = {**minimal(return_last_frame=True), "metadata": {"job": HOSTILE}, "callback_url": "https://example.com/hook"}
    task = Generation.objects.get(pk=caller.create(body).json()["data"]["id"])
    asset = OutputAsset(generation=task, kind="last_frame", path="l.jpg", size_bytes=1, sha256="0" * 64)
    complete(task)
    asset.save()

    reply = person.get(f"{PAGE}{task.pk}/")
    context = reply.context

    assert json.loads(context["reply_body"]) == caller.get(f"{TASKS}/{task.pk}").json()
    assert json.loads(context["request_body"]) == {
        "model": "mini",
        "input": {
            "prompt": "waves",
            "duration": 4,
            "resolution": "480p",
            "aspect_ratio": "adaptive",
            "return_last_frame": True,
        },
        "callback_url": "https://example.com/hook",
        "metadata": {"job": HOSTILE},
    }
    page = person.read(f"{PAGE}{task.pk}/")
    output = json.loads(context["reply_body"])["data"]["output"]
    assert f'src="{output["video_url"]}"' in page
    assert f'poster="{output["thumbnail_url"]}"' in page
    assert page.count(output["last_frame_url"]) >= 2
    assert "<script>alert" not in page
    assert [(step.title, step.at is not None) for step in context["steps"]] == [
        ("Accepted", True),
        ("Started", True),
        ("Finished", True),
        ("Webhook delivered", False),
    ]
    assert [(entry.kind, entry.available_change, entry.reserved_change) for entry in context["movements"]] == [
        ("reserve", -20, 20),
        ("capture", 0, -20),
    ]
    assert "mailto:support@seedancee2.ai?subject=Problem%20with%20" + task.pk in page


def test_a_refund_shows_among_the_movements_and_a_test_task_has_none(person):
    task = complete(made(person))
    lifecycle.refund(public_id=task.pk, amount=5, actor="staff", reason="the provider ark was slow")
    page = person.get(f"{PAGE}{task.pk}/")
    assert [entry.kind for entry in page.context["movements"]] == ["reserve", "capture", "refund"]
    assert b"the provider ark" not in page.content

    assert person.get(f"{PAGE}{made(person, is_test=True).pk}/").context["movements"] == []


def test_credits_are_shown_to_those_who_may_see_billing(person):
    task = made(person)
    shown = {role: "Available after" in Person(person.organization, role).read(f"{PAGE}{task.pk}/") for role in Role}
    assert shown == {role: role in (Role.OWNER, Role.ADMIN, Role.BILLING) for role in Role}


def test_deliveries_and_attempts_are_shown_with_a_way_to_the_one_to_send_again(person):
    task = failed(made(person, callback_url="https://example.com/hook?<b>"))
    delivery = Delivery.objects.get()
    DeliveryAttempt.objects.create(
        delivery=delivery, number=1, started_at=clock.now(), duration_ms=1234, status_code=500, response_excerpt=HOSTILE
    )
    page = person.read(f"{PAGE}{task.pk}/")
    assert "1,234 ms" in page
    assert "https://example.com/hook?&lt;b&gt;" in page
    assert HOSTILE not in page
    assert f"/console/webhooks/deliveries/{delivery.pk}/" in page


def test_an_open_task_is_followed_and_an_ended_one_is_not(person):
    task = made(person)
    assert 'hx-trigger="every 3s"' in person.read(f"{PAGE}{task.pk}/")
    part = person.read(f"{PAGE}{task.pk}/", is_part=True)
    assert 'hx-trigger="every 3s"' in part
    assert "<html" not in part
    failed(task)
    assert "hx-trigger" not in person.read(f"{PAGE}{task.pk}/", is_part=True)
    assert "generation_failed" in person.read(f"{PAGE}{task.pk}/")


def test_how_long_the_video_is_kept_is_told(person, monkeypatch):
    task = complete(made(person))
    assert "kept until" not in person.read(f"{PAGE}{task.pk}/")
    monkeypatch.setattr("generations.retention.days_kept", lambda organization, subject: 30)
    assert f"{task.created_at + dt.timedelta(days=30):%-d %B %Y}" in person.read(f"{PAGE}{task.pk}/")


def test_a_stranger_finds_nothing_whatever_they_name(person):
    task = made(person, prompt="secret plans")
    stranger = Person(OrganizationFactory.create())

    assert "secret plans" not in stranger.read(PAGE)
    assert listed(stranger, q=task.pk) == []
    assert b"secret plans" not in stranger.get(EXPORT).getvalue()
    for address in (f"{PAGE}{task.pk}/", f"{PAGE}vid_x/", f"{PAGE}{task.pk.upper()}/"):
        for is_part in (False, True):
            assert stranger.get(address, is_part=is_part).status_code == 404
    for address in (PAGE, EXPORT, f"{PAGE}{task.pk}/"):
        assert stranger.get(address, {"organization": person.organization.pk}).status_code == 404


@pytest.mark.parametrize("role", Role.values)
def test_every_role_sees_tasks_and_keys_of_others_only_where_it_may(person, role):
    other = UserFactory.create()
    issue_key(person.organization, name="of-others", created_by=other)
    task = made(person)
    Generation.objects.update(api_key=ApiKey.objects.get())
    member = Person(person.organization, role)
    sees = role in (Role.OWNER, Role.ADMIN, Role.VIEWER)

    for address in (PAGE, f"{PAGE}{task.pk}/"):
        page = member.read(address)
        assert ("of-others" in page) == sees
        assert ("another key" in page) == (not sees)
    text = member.get(EXPORT).getvalue()
    assert (b"of-others" in text) == sees


def test_members_never_see_the_addresses_of_staff(person):
    staff = UserFactory.create(email="staff@seedancee2.example", is_staff=True)
    task = made(person)
    Generation.objects.update(created_by=staff)
    for address in (PAGE, f"{PAGE}{task.pk}/"):
        page = person.read(address)
        assert "staff@seedancee2.example" not in page
        assert "the Seedancee2 team" in page


def test_a_page_costs_few_queries_however_much_it_shows(person):
    for number in range(4):
        task = complete(made(person, callback_url="https://example.com/hook", is_test=number == 3))
        Delivery.objects.filter(reference=task.pk).update(state="delivered", due_at=None, finished_at=clock.now())
        for attempt in range(3):
            DeliveryAttempt.objects.create(
                delivery=Delivery.objects.get(reference=task.pk), number=attempt, started_at=clock.now(), duration_ms=1
            )
    live = Generation.objects.filter(is_test=False).first()
    assert live is not None
    person.read(PAGE)  # which notes, once a minute, that the session and the membership are in use
    for address, query, most in [
        (PAGE, {}, 10),
        (PAGE, {"q": "waves", "model": "mini"}, 12),
        (f"{PAGE}{live.pk}/", {}, 12),
    ]:
        with CaptureQueriesContext(connection) as captured:
            person.read(address, query)
        assert len(captured) <= most, [query["sql"][:120] for query in captured]
