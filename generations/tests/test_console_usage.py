"""The console's usage page: the numbers of GET /v1/usage, whatever they are split by."""

import csv
import datetime as dt
import io
import random
import re

import pytest
import time_machine
from django.db import connection, transaction
from django.test import Client

from accounts.models import ApiKey, Membership, Organization
from accounts.tests.factories import MembershipFactory, OrganizationFactory, UserFactory, issue_key
from generations import usage
from generations.console_usage import COLUMNS
from generations.tests.callers import Caller
from generations.tests.test_usage import add_job

pytestmark = pytest.mark.django_db

PAGE, FILE = "/console/usage/", "/console/usage.csv"
NOW = dt.datetime(2026, 7, 31, 12, tzinfo=dt.UTC)


@pytest.fixture(autouse=True)
def _now():
    with time_machine.travel(NOW, tick=False):
        yield


@pytest.fixture
def organization() -> Organization:
    return OrganizationFactory.create(name="Northwind")


def signed_in(organization: Organization, role: str = "owner") -> Client:
    client = Client()
    client.force_login(MembershipFactory.create(organization=organization, role=role).user)
    return client


def fill(organization: Organization, seed: int, *, count: int = 120) -> None:
    """Add jobs of every kind at random within about a year before now, many at the edges of days."""
    chance = random.Random(seed)
    for name in ("farm", "desk"):
        issue_key(organization, name=name)
    keys = [*ApiKey.objects.filter(organization=organization), None]
    for _ in range(count):
        day = NOW.replace(hour=0) - dt.timedelta(days=chance.choice([0, 1, 6, 7, 29, 30, 60, 200, 365]))
        at = day + chance.choice([dt.timedelta(0), dt.timedelta(hours=11), dt.timedelta(days=1, milliseconds=-1)])
        credits = chance.choice([1, 20, 500, 10**9])
        status = chance.choice(["pending", "processing", "completed", "completed", "failed"])
        add_job(
            organization,
            min(at, NOW),
            status,
            credits,
            chance.randint(0, credits) if status == "completed" else 0,
            model=chance.choice(["pro", "fast", "mini"]),
            is_test=chance.random() < 0.2,
            api_key=chance.choice(keys),
            metadata=chance.choice([{}, {"team": "red"}, {"team": "blue", "n": 1}, {"team": None}, {"team": ["a"]}]),
        )


@pytest.mark.parametrize("by", ["model", "key", "status", "metadata&key=team", "metadata&key=n"])
@pytest.mark.parametrize("mode", ["live", "test"])
def test_the_sums_are_those_of_the_api(organization, mode, by):
    for seed in range(3):
        fill(organization, seed, count=60)
    fill(OrganizationFactory.create(), 9, count=30)
    caller, client = Caller(organization, mode), signed_in(organization)

    for start, end in (("2026-07-31", "2026-07-31"), ("2026-07-01", "2026-07-30"), ("2025-07-31", "2026-07-31")):
        reply = caller.get(f"/v1/usage?start={start}&end={end}&limit=365").json()["data"]
        page = client.get(f"{PAGE}?range=custom&start={start}&end={end}&mode={mode}&by={by}")
        file = client.get(f"{FILE}?range=custom&start={start}&end={end}&mode={mode}&by={by}")

        assert page.context["total"].as_json() == reply["summary"]
        groups = [sums.as_json() for _, _, sums, _, _ in page.context["groups"]]
        for name, total in reply["summary"].items():
            assert sum(group[name] for group in groups) == total
        days = {day.isoformat(): sums.as_json() for day, sums in page.context["days"] if sums.jobs}
        assert days == {row["date"]: {name: row[name] for name in COLUMNS} for row in reply["timeline"]}
        if by == "model":
            assert {name: sums.as_json() for name, _, sums, _, _ in page.context["groups"]} == {
                row["model"]: {name: row[name] for name in COLUMNS} for row in reply["by_model"]
            }
        rows = list(csv.DictReader(io.StringIO(b"".join(file.streaming_content).decode())))
        for name, total in reply["summary"].items():
            assert sum(int(row[name]) for row in rows) == total


def test_the_ranges_are_whole_days_up_to_today(organization):
    for days_ago in range(100):
        add_job(organization, NOW - dt.timedelta(days=days_ago), credits=1)
    client = signed_in(organization)

    def shown(query: str) -> tuple[str, str, int]:
        context = client.get(f"{PAGE}?{query}").context
        return str(context["start"]), str(context["end"]), context["total"].jobs

    assert shown("") == shown("range=30") == ("2026-07-02", "2026-07-31", 30)
    assert shown("range=7") == ("2026-07-25", "2026-07-31", 7)
    assert shown("range=90") == ("2026-05-03", "2026-07-31", 90)
    assert shown("range=month") == ("2026-07-01", "2026-07-31", 31)
    assert shown("range=last-month") == ("2026-06-01", "2026-06-30", 30)
    assert shown("start=2026-07-01&end=2026-07-02&range=7") == ("2026-07-01", "2026-07-02", 2)
    # The days of a chosen range, sent along with another choice, do not freeze it.
    again = client.get(f"{PAGE}?range=7&start=2026-07-25&end=2026-07-31&by=status")
    assert again.context["form"].cleaned_data["range"] == "7"


@pytest.mark.parametrize(
    ("query", "message"),
    [
        ("start=2026-07-02&end=2026-07-01", "before the first one"),
        ("start=2025-07-30&end=2026-07-31", "At most 366 days"),
        ("start=2026-07-02", "Choose a day"),
        ("range=custom", "Choose a day"),
        ("start=yesterday&end=2026-07-01", "Enter a valid date"),
        ("by=metadata", "Name the metadata key"),
        ("by=shoe-size", "not one of the available choices"),
        ("by=metadata&key=%00", "Null characters"),
    ],
)
def test_what_is_wrong_is_said_and_the_default_shown(organization, query, message):
    reply = signed_in(organization).get(f"{PAGE}?{query}")

    assert reply.status_code == 200
    assert str(reply.context["start"]) == "2026-07-02"
    assert message in reply.content.decode()
    assert signed_in(organization).get(f"{FILE}?{query}").status_code == 404


@pytest.mark.parametrize("role", Membership.Role.values)
def test_every_member_sees_usage_but_only_some_the_names_of_others_keys(organization, role):
    issue_key(organization, name="secret name", created_by=UserFactory.create())
    add_job(organization, NOW, api_key=ApiKey.objects.get())

    text = signed_in(organization, role).get(f"{PAGE}?by=key").content.decode()

    assert ("secret name" in text) == (role in ("owner", "admin", "viewer"))
    assert ApiKey.objects.get().last_four in text


def test_a_stranger_sees_nothing(organization):
    add_job(organization, NOW, credits=4_711, metadata={"plan": "secret"})
    stranger = signed_in(OrganizationFactory.create())

    for query in ("", "by=metadata&key=plan", "by=key"):
        page = stranger.get(f"{PAGE}?{query}")
        assert page.context["total"].jobs == 0
        assert b"secret" not in page.content
        assert stranger.get(f"{PAGE}?{query}&organization={organization.pk}").status_code == 404
    assert b"4711" not in b"".join(stranger.get(FILE).streaming_content)
    assert stranger.get(f"{FILE}?organization={organization.pk}").status_code == 404
    assert Client().get(PAGE).status_code == 302


def test_hostile_metadata_is_text_and_in_the_file_no_formula(organization):
    add_job(organization, NOW, metadata={"<i>k": "<script>alert(1)</script>"})
    add_job(organization, NOW, metadata={"<i>k": "=cmd()"})
    client = signed_in(organization)

    text = client.get(f"{PAGE}?by=metadata&key=%3Ci%3Ek").content.decode()
    rows = b"".join(client.get(f"{FILE}?by=metadata&key=%3Ci%3Ek").streaming_content).decode()

    assert "<script>alert" not in text
    assert "<i>k" not in text
    assert "'=cmd()" in rows
    assert not re.search(r"<script(?![^>]*\bsrc=)|<style|\sstyle=|\son[a-z]+=|javascript:", text)


def test_values_as_many_as_tasks_are_told_apart_up_to_a_limit(organization):
    for number in range(usage.MAX_GROUPS + 10):
        add_job(organization, NOW, credits=1, metadata={"job": f"j{number:03}"})
    add_job(organization, NOW, credits=1)

    page = signed_in(organization).get(f"{PAGE}?by=metadata&key=job")

    groups = page.context["groups"]
    assert len(groups) == usage.MAX_GROUPS + 2
    assert (groups[-1][0], groups[-1][2].jobs) == ("all others", 10)
    assert sum(sums.jobs for _, _, sums, _, _ in groups) == page.context["total"].jobs == usage.MAX_GROUPS + 11
    assert "without job" in [name for name, *_ in groups]
    assert page.context["chart"].series[-1].name == "all others"


def test_an_empty_range_says_what_to_do(organization):
    text = signed_in(organization).get(PAGE).content.decode()
    assert "No live tasks in these days" in text
    assert "No test tasks in these days" in signed_in(organization).get(f"{PAGE}?mode=test").content.decode()


def test_more_than_can_be_summed_in_time_says_what_to_do(organization, monkeypatch):
    client = signed_in(organization)

    def sum_slowly(**_):
        with transaction.atomic(), connection.cursor() as cursor:
            cursor.execute("SET LOCAL statement_timeout = '10ms'")
            cursor.execute("SELECT pg_sleep(10)")

    monkeypatch.setattr(usage, "break_down", sum_slowly)
    reply = client.get(PAGE)

    assert reply.status_code == 200
    assert b"Choose fewer days" in reply.content
