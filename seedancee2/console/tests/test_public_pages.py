"""Prices, errors, changelog and status: what they say is what the code does and the rows hold."""

import datetime as dt
import re

import pytest
from django.db import DatabaseError
from django.test import Client

from accounts.tests.factories import OrganizationFactory
from billing.models import Rate
from generations.models import Generation, PublicModel
from generations.tests.callers import Caller, minimal
from generations.tests.factories import create_generation, funded_organization
from providers.models import Channel
from seedancee2.api import errors
from seedancee2.console import error_catalogue, pages, status
from seedancee2.console.tests.manual import SOURCE
from seedancee2.lib import clock, heartbeats, ids
from webhooks.models import Delivery
from webhooks.tests.factories import DeliveryFactory

pytestmark = pytest.mark.django_db

ADDRESSES = ["/", "/pricing", "/errors", "/changelog", "/status"]


@pytest.fixture(autouse=True)
def _count_anew():
    status.report.cache_clear()


def text(address: str) -> str:
    reply = Client().get(address)
    assert reply.status_code == 200
    return reply.content.decode()


@pytest.mark.parametrize("address", ADDRESSES)
def test_the_pages_need_no_sign_in_and_hold_nothing_inline(address):
    page = Client().get(address)
    html = page.content.decode()

    assert "script-src 'self'" in page["Content-Security-Policy"]
    assert not re.search(r"<script(?![^>]*\bsrc=)|<style|\sstyle=|\son[a-z]+=|javascript:", html)
    assert Client().post(address).status_code == 405
    assert html.count("<h1") == 1


@pytest.mark.parametrize("address", ADDRESSES)
def test_no_link_is_dead(address):
    client = Client()
    for link in sorted(set(re.findall(r'href="(/[^"#]*)', text(address)))):
        if not link.startswith("/static/"):
            assert client.get(link).status_code in (200, 302), link
    for anchor in re.findall(r'href="#([^"]+)"', text(address)):
        assert f'id="{anchor}"' in text(address), anchor


def test_the_price_list_is_what_a_task_costs():
    prices = pages.price_list()
    found = {(row.model.name, resolution): price for row in prices.rows for resolution, price in row.cells if price}

    assert found == {(rate.model, rate.resolution): rate.credits_per_second for rate in Rate.objects.all()}
    caller = Caller(funded_organization(100_000))
    for (model, resolution), price in found.items():
        body = {**minimal(duration=7, resolution=resolution), "model": model}
        assert caller.create(body).json()["data"]["credits_reserved"] == 7 * price
    assert prices.announced == []
    assert "None. A task keeps" in text("/pricing")


def test_a_price_that_is_entered_for_later_is_announced_and_not_yet_in_effect():
    later = clock.now() + dt.timedelta(days=9)
    old = Rate.objects.get(model="mini", resolution="720p").credits_per_second
    for days, credits in ((0, 901), (1, 902)):
        Rate.objects.create(
            model="mini", resolution="720p", credits_per_second=credits, effective_at=later + dt.timedelta(days=days)
        )
    Rate.objects.create(model="gone", resolution="720p", credits_per_second=903, effective_at=later)

    prices = pages.price_list()

    assert [(rate.credits_per_second, before) for rate, before in prices.announced] == [(901, old), (902, 901)]
    [mini] = [dict(row.cells) for row in prices.rows if row.model.name == "mini"]
    assert mini["720p"] == old
    html = text("/pricing")
    assert f"{later:%B %Y}" in html
    assert "901" in html
    assert "903" not in html


def test_a_model_that_is_off_is_not_sold():
    PublicModel.objects.filter(name="fast").update(is_active=False)
    assert [row.model.name for row in pages.price_list().rows] == ["pro", "mini"]


def test_every_error_is_in_the_catalogue_and_in_the_docs():
    listed = {entry.error for entry in error_catalogue.entries()}
    html = text("/errors")

    assert listed == set(errors.PublicError.__subclasses__())
    assert set(error_catalogue.FAILURES) == set(Generation.ErrorCode)
    for entry in error_catalogue.entries():
        assert f'<tr id="{entry.error.code}">' in html
        assert re.search(rf"\| {entry.error.status} \| `{entry.error.code}` \|", SOURCE), entry.error.code
    for code in Generation.ErrorCode:
        assert f'<tr id="{code}">' in html
    assert {entry.error.status for entry in error_catalogue.entries() if entry.is_worth_retrying} == {409, 429, 500}


def test_the_changelog_has_dates_newest_first_and_speaks_of_no_provider():
    html = text("/changelog")
    dates = re.findall(r"<h2[^>]*>(\d{4}-\d{2}-\d{2})", html)

    assert dates
    assert dates == sorted(dates, reverse=True)
    assert html.count("<li><strong>") >= len(dates)


@pytest.mark.parametrize("address", ADDRESSES)
def test_no_page_names_a_provider(address):
    Channel.objects.create(name="acme-upstream", adapter="sandbox")
    words = re.sub(r"<[^>]+>", " ", text(address)).lower()

    assert not re.search(
        r"bytedance|byteplus|volcengine|\bark\b|\bfal\b|\bkie\b|replicate|acme-upstream|upstream", words
    )


def test_the_status_counts_live_tasks_of_the_hour_and_of_the_day():
    now = clock.now()
    organization = OrganizationFactory.create()

    def job(state: str, *, ago: dt.timedelta, took: float = 10, code: str = "generation_failed", **values) -> None:
        made_at = now - ago
        is_failed = state == "failed"
        Generation.objects.create(
            public_id=status._first_id("vid", made_at) + ids.new("vid")[14:],  # an id tells when its task was made
            organization=organization,
            status=state,
            credits=20,
            credits_refunded=20 if is_failed else 0,
            error_code=code if is_failed else "",
            created_at=made_at,
            finished_at=None if state in Generation.OPEN else made_at + dt.timedelta(seconds=took),
            deadline_at=now,
            model="mini",
            input={},
            rate=5,
            **values,
        )

    for took in range(1, 21):
        job("completed", ago=dt.timedelta(minutes=30), took=took)
    job("failed", ago=dt.timedelta(minutes=30))
    job("processing", ago=dt.timedelta(minutes=30))
    job("completed", ago=dt.timedelta(minutes=30), is_test=True)
    job("failed", ago=dt.timedelta(hours=5), code="content_policy_violation")
    job("completed", ago=dt.timedelta(hours=25))
    DeliveryFactory.create(delivery_id=ids.new("dlv"), state=Delivery.State.DELIVERED, due_at=None, finished_at=now)
    DeliveryFactory.create(delivery_id=ids.new("dlv"))

    hour, day = status.report(0).figures

    assert (hour.accepted, hour.ended, hour.completed, hour.success) == (22, 21, 20, 95.2)
    assert (hour.p50, hour.p95) == (10.5, 19.1)  # of 1 to 20 seconds, as percentile_cont interpolates
    assert (day.accepted, day.ended, day.completed, day.success) == (23, 22, 20, 95.2)
    assert (hour.webhooks, hour.delivered) == (2, 50.0)
    html = text("/status")
    assert "95.2 %" in html


def test_without_anything_to_measure_nothing_is_claimed():
    [hour, _] = status.report(0).figures
    assert (hour.accepted, hour.success, hour.p95, hour.delivered) == (0, None, None, None)
    assert "100" not in re.sub(r"<[^>]+>", " ", text("/status")).split("Success")[1].split("95 of 100")[0]


def test_a_share_is_never_rounded_up():
    assert status._share(999_999, 1_000_000) == 99.9
    assert status._share(3, 3) == 100.0


def test_without_redis_the_page_still_comes(settings):
    settings.REDIS_URL = "redis://127.0.0.1:1/0"
    create_generation(funded_organization())

    html = text("/status")

    assert "Not everything works" in html
    assert "Works more slowly" in html
    assert status.report(0).figures[0].accepted == 1


def test_without_workers_it_says_that_tasks_wait(monkeypatch):
    monkeypatch.setattr(heartbeats, "ages", lambda names: dict.fromkeys(names, 3.0) | {heartbeats.MEDIA: None})
    assert [state for _, state, _ in status.report(0).parts] == ["good", "bad", "good"]
    status.report.cache_clear()
    monkeypatch.setattr(heartbeats, "ages", lambda names: dict.fromkeys(names, 3.0))
    assert status.report(0).is_good


def test_without_the_database_it_says_so(monkeypatch):
    def refuse(*_):
        raise DatabaseError

    monkeypatch.setattr(status, "_figures", refuse)
    busy = status.report(0)
    monkeypatch.setattr(status.connection, "cursor", refuse)
    away = status.report(1)

    assert (busy.figures, busy.parts[0][1]) == ([], "good")
    assert (away.figures, away.parts[0][1]) == ([], "bad")


def test_the_figures_are_counted_once_in_half_a_minute(django_assert_num_queries):
    first = status.report(7)
    create_generation(funded_organization())
    with django_assert_num_queries(0):
        assert status.report(7) is first
    assert (first.figures[0].accepted, status.report(8).figures[0].accepted) == (0, 1)
