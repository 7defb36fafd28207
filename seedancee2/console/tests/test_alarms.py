"""Every alarm of the runbook has a figure in /metrics, and what it warns of moves that figure."""

import ast
import datetime as dt
import re
from collections.abc import Iterator
from pathlib import Path

import pytest
import time_machine
from django.db import OperationalError, connection
from prometheus_client.parser import text_string_to_metric_families

from billing.reconciliation import BEGINNING
from generations import costs, lifecycle, reconciliation, runner
from generations.models import Generation
from generations.tests.factories import create_generation, funded_organization
from generations.tests.pipeline import route_live_traffic_to_sandbox, run, run_to_end
from providers import claims, jobs
from providers.adapters.base import DownloadError, Unknown
from providers.adapters.sandbox import SandboxAdapter
from seedancee2.console import alarms
from seedancee2.lib import clock, heartbeats
from webhooks.models import Endpoint
from webhooks.tests.factories import DeliveryFactory

pytestmark = pytest.mark.django_db

ROOT = Path(__file__).resolve().parent.parent.parent.parent
RUNBOOK = ROOT / "docs" / "runbook.md"


@pytest.fixture
def turned() -> Iterator[time_machine.Traveller]:
    """A clock that stands still until the test moves it."""
    with time_machine.travel(clock.now().replace(microsecond=0), tick=False) as traveller:
        yield traveller


@pytest.fixture
def generation(turned) -> Generation:
    """A live task of 20 credits, out of 100, on the sandbox."""
    route_live_traffic_to_sandbox()
    return create_generation(funded_organization(100))


@pytest.fixture
def figures(client):
    """What /metrics says, by name and label; zeros are left out."""

    def read() -> dict[str, float]:
        reply = client.get("/metrics")
        assert reply.status_code == 200
        families = text_string_to_metric_families(reply.content.decode())
        names = _exported()
        return {
            " ".join([sample.name.removeprefix("seedancee2_"), *sample.labels.values()]): sample.value
            for family in families
            for sample in family.samples
            if sample.name in names and sample.value
        }

    return read


def _exported() -> set[str]:
    return {family.name for family in alarms.Alarms().collect()}


def _everything_is_alive() -> None:
    for part in alarms.PARTS:
        heartbeats.note(part)


def test_nothing_alarms_in_a_quiet_system(turned, figures):
    _everything_is_alive()

    assert figures() == {"database_up": 1, "broker_up": 1}


def test_a_finding_is_counted_until_it_is_gone(turned, generation, figures):
    def change(by: int) -> None:
        with connection.cursor() as cursor:
            cursor.execute("UPDATE billing_creditaccount SET available = available + %s", [by])
        turned.shift(1)
        reconciliation.report(since=BEGINNING)

    change(5)
    assert figures()["findings_open balance_equals_entries"] == 1
    change(-5)
    assert "findings_open balance_equals_entries" not in figures()


def test_a_submission_of_unknown_outcome_is_counted_while_it_is_looked_for(
    turned, generation, figures, monkeypatch, caplog
):
    monkeypatch.setattr(SandboxAdapter, "submit", lambda *_, **__: Unknown("no answer"))
    run("submit")
    assert "'event': 'submit_outcome_unknown'" in caplog.text
    assert "submissions_unknown" not in figures()

    turned.shift(151)
    assert figures()["submissions_unknown"] == 1
    for _ in range(3):
        run("poll")
        turned.shift(60)
    assert "submissions_unknown" not in figures()


def test_a_job_that_kills_its_workers_is_counted_before_it_is_parked_and_after(turned, generation, figures, caplog):
    for _ in range(alarms.OFTEN + 1):
        claims.claim_queued(1)
        turned.shift(claims.LEASE)
    assert figures()["jobs_claimed_often"] == 1

    for _ in range(jobs.MAX_CLAIMS - alarms.OFTEN - 1):
        claims.claim_queued(1)
        turned.shift(claims.LEASE)
    assert "jobs_parked" not in figures()
    run("submit")
    assert "'event': 'job_parked'" in caplog.text
    assert figures()["jobs_parked"] == 1
    assert "jobs_claimed_often" not in figures()


def test_a_success_after_the_refund_is_our_cost(turned, generation, figures, caplog):
    run("submit")
    lifecycle.fail(public_id=generation.public_id, code=Generation.ErrorCode.CANCELED, actor="user:staff")
    for _ in range(4):
        turned.shift(1)
        run("poll")
        run("settle")

    assert "'event': 'late_success'" in caplog.text
    assert figures()["uncharged_successes late"] == 1
    (job,) = costs.uncharged(since=clock.now() - dt.timedelta(hours=1))
    assert (job.reference, job.is_late, job.channel.name) == (generation.public_id, True, "sandbox")
    turned.shift(3601)
    assert "uncharged_successes late" not in figures()
    assert costs.uncharged(since=generation.created_at).count() == 1


def test_an_output_that_was_lost_is_our_cost(turned, generation, figures, monkeypatch, caplog):
    def gone(*_, **__):
        raise DownloadError("404", is_final=True)

    monkeypatch.setattr(SandboxAdapter, "download", gone)
    monkeypatch.setattr(runner, "OUTPUT_PATIENCE", dt.timedelta())
    assert run_to_end(turned, generation).status == "failed"

    assert "'event': 'output_lost'" in caplog.text
    # Each provider that was tried made one and may want its money.
    assert figures()["uncharged_successes lost"] == runner.MAX_FAILURES
    assert "uncharged_successes late" not in figures()


def test_what_was_charged_or_never_made_is_no_cost_of_ours(turned, generation):
    other = create_generation(funded_organization(100), prompt="waves [sandbox:fail]")
    assert run_to_end(turned, generation).status == "completed"
    assert run_to_end(turned, other).status == "failed"

    assert costs.uncharged(since=generation.created_at).count() == 0


def test_an_overdue_task_is_counted_until_the_watchdog_ends_it(turned, generation, figures, caplog):
    turned.shift(3600 + 61)
    assert figures()["tasks_overdue"] == 1

    for overdue in runner.overdue(10):
        runner.end_overdue(overdue)

    assert "'event': 'generation_overdue'" in caplog.text
    assert "tasks_overdue" not in figures()


def test_an_output_that_waits_and_lanes_that_nobody_drains_are_told_in_seconds(turned, generation, figures):
    run("submit")
    turned.shift(3)
    run("poll")
    DeliveryFactory.create()

    turned.shift(90)

    found = figures()
    assert found["outputs_waiting_seconds"] == 90
    assert found["lane_late_seconds settle"] == 90
    assert found["lane_late_seconds deliver"] == 90
    assert "lane_late_seconds submit" not in found
    create_generation(generation.organization)
    turned.shift(7)
    assert figures()["lane_late_seconds submit"] == 7


def test_endpoints_that_are_paused_and_webhooks_given_up_are_counted(turned, figures):
    DeliveryFactory.create()
    Endpoint.objects.update(standing=2, failing_since=clock.now(), paused_until=clock.now())
    DeliveryFactory.create_batch(2, state="abandoned", due_at=None, finished_at=clock.now())

    turned.shift(90)

    found = figures()
    assert (found["endpoints_paused"], found["deliveries_abandoned"]) == (1, 2)
    assert "lane_late_seconds deliver" not in found
    Endpoint.objects.update(failing_since=None, paused_until=None)
    turned.shift(3601)
    assert {"endpoints_paused", "deliveries_abandoned"}.isdisjoint(figures())


def test_a_beat_that_is_away_is_told_within_two_minutes(turned, client, figures):
    _everything_is_alive()

    turned.shift(heartbeats.FRESH_SECONDS + 1)

    assert figures()["part_seen_seconds beat"] == pytest.approx(heartbeats.FRESH_SECONDS + 1, abs=1)
    for part in (heartbeats.WORKER, heartbeats.POLL, heartbeats.DELIVER, heartbeats.MEDIA):
        heartbeats.note(part)
    assert list(client.get("/readyz").json()["missing"]) == ["beat"]


def test_a_part_that_was_never_seen_is_told(turned, figures):
    with heartbeats.connect() as server:
        server.flushdb()

    assert figures()["part_seen_seconds beat"] == float("inf")


def test_servers_that_are_away_are_told(turned, settings, figures):
    def refuse(*_):
        raise OperationalError("connection refused")

    with connection.execute_wrapper(refuse):
        found = figures()
    assert found["broker_up"] == 1
    assert "database_up" not in found
    settings.REDIS_URL = "redis://127.0.0.1:1/0"
    found = figures()
    assert found["database_up"] == 1
    assert "broker_up" not in found


def test_the_runbook_has_every_alarm_and_no_other():
    table = RUNBOOK.read_text().partition("## Alarms\n")[2].partition("\n## ")[0]

    assert set(re.findall(r"seedancee2_\w+", table)) == _exported() | {"seedancee2_requests_passed_unlimited_total"}
    events = set(re.findall(r"`event=(\w+)`", table))
    assert {"discrepancy", "job_parked", "late_success"} < events
    assert events - _logged() == set()


def _logged() -> set[str]:
    found = set()
    for app in ("billing", "generations", "providers", "webhooks", "seedancee2"):
        for path in (ROOT / app).rglob("*.py"):
            for node in ast.walk(ast.parse(path.read_text())):
                if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute) and node.args:
                    value = getattr(node.args[0], "value", None)
                    if node.func.attr in ("error", "warning", "exception") and isinstance(value, str):
                        found.add(value)
    return found


def test_a_look_is_few_statements_however_many_rows_there_are(turned, generation, django_assert_num_queries):
    with django_assert_num_queries(16):
        list(alarms.Alarms().collect())
