"""The crash points of docs/crash-points.md, staged: processes die by kill -9 where it hurts, and the rows mend it."""

import ast
import datetime as dt
import os
import re
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import urlsplit

import pytest
import time_machine
from django.core.files.base import File
from django.core.files.storage import FileSystemStorage
from django.db import OperationalError, connection, connections, transaction

from accounts.models import Organization
from billing import ledger
from billing import reconciliation as ledger_reconciliation
from billing.models import LedgerEntry, Reservation
from generations import idempotency, lifecycle, reconciliation, runner, tasks
from generations.models import Generation, OutputAsset
from generations.tests.callers import TASKS, Caller, minimal
from generations.tests.factories import create_generation, funded_organization
from generations.tests.pipeline import route_live_traffic_to_sandbox, run, run_to_end
from providers import claims, jobs, polls, submissions
from providers.adapters.base import ErrorClass, Refused, Unknown
from providers.adapters.sandbox import SandboxAdapter
from providers.models import SandboxRun, UpstreamCall, UpstreamJob
from seedancee2.lib import clock, wakeups
from tests.crashes import after, at_commit, before, die, killed
from tests.receivers import Answer, Receiver
from webhooks import delivery as deliveries
from webhooks.models import Delivery
from webhooks.tests.factories import DeliveryFactory

pytestmark = pytest.mark.django_db(transaction=True)

ROOT = Path(__file__).resolve().parent.parent
TABLE = ROOT / "docs" / "crash-points.md"
CALLBACK = "https://example.com/webhooks/seedancee2"


@pytest.fixture(autouse=True)
def media_folder(settings, tmp_path, monkeypatch) -> Path:
    """Media goes to a folder of this test, and so do the files that a killed process leaves behind."""
    settings.STORAGES = {
        **settings.STORAGES,
        "default": {
            "BACKEND": "django.core.files.storage.FileSystemStorage",
            "OPTIONS": {"location": str(tmp_path / "media"), "allow_overwrite": True},
        },
    }
    (tmp_path / "temporary").mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "temporary"))
    return Path(tmp_path) / "media"


@pytest.fixture
def turned() -> Iterator[time_machine.Traveller]:
    """A clock that stands still until the test moves it."""
    with time_machine.travel(clock.now(), tick=False) as traveller:
        yield traveller


@pytest.fixture
def generation(turned) -> Generation:
    """A live task of 20 credits, out of 100, on the sandbox."""
    route_live_traffic_to_sandbox()
    return create_generation(_funded(100), callback_url=CALLBACK)


def _funded(credits: int) -> Organization:
    with transaction.atomic():
        return funded_organization(credits)


def _balance(generation: Generation) -> tuple[int, int]:
    return ledger.balance(organization_id=generation.organization_id)


def _job() -> UpstreamJob:
    return UpstreamJob.objects.get()


def _submitted(turned: time_machine.Traveller) -> None:
    run("submit")
    turned.shift(3)


def _succeeded(turned: time_machine.Traveller) -> None:
    _submitted(turned)
    run("poll")
    assert _job().status == "succeeded"


def _ends_well(turned: time_machine.Traveller, generation: Generation, *, seconds: int = 60) -> None:
    """Work on all lanes until the task is completed: one video, charged once, told once, and all of it explained."""
    assert run_to_end(turned, generation, seconds=seconds).status == "completed"
    assert SandboxRun.objects.count() == 1
    assert _balance(generation) == (80, 0)
    assert OutputAsset.objects.count() == 2
    assert Delivery.objects.count() == 1
    assert reconciliation.discrepancies() == []


# --- The web process. ---


@pytest.mark.parametrize(
    ("point", "count"),
    [
        (at_commit(lifecycle, "create", is_done=False), 0),
        (at_commit(lifecycle, "create", is_done=True), 1),
        (after(idempotency, "once"), 1),
    ],
    ids=["before the commit", "after the commit", "before the reply"],
)
def test_a_create_that_was_cut_off_is_whole_or_nothing_and_its_retry_makes_one_task(turned, point, count):
    route_live_traffic_to_sandbox()
    customer = Caller(_funded(100))
    body = minimal() | {"callback_url": CALLBACK}

    killed(lambda: customer.create(body, idempotency_key="k-1"), at=point)

    assert [model.objects.count() for model in (Generation, UpstreamJob, Reservation)] == [count] * 3
    assert customer.holdings()[-1] == (100 - 20 * count, 20 * count)
    assert reconciliation.discrepancies() == []
    reply = customer.create(body, idempotency_key="k-1")
    assert (reply.status_code, reply.headers.get("Idempotent-Replayed")) == (201, "true" if count else None)
    (listed,) = customer.get(TASKS).json()["data"]
    assert listed["id"] == reply.json()["data"]["id"]
    _ends_well(turned, Generation.objects.get())


# --- The lanes submit and poll. ---


def test_a_worker_killed_after_its_claim_delays_the_job_by_one_lease(turned, generation):
    killed(lambda: run("submit"), at=before(submissions, "submit"))

    turned.shift(claims.LEASE - dt.timedelta(seconds=1))
    assert run("submit") == 0
    turned.shift(1)
    assert run("submit") == 1
    assert (_job().status, SandboxRun.objects.count()) == ("submitted", 1)
    _ends_well(turned, generation)


def test_a_submission_that_never_left_is_given_up_after_several_looks_and_sent_as_another(turned, generation):
    killed(lambda: run("submit"), at=before(SandboxAdapter, "submit"))

    assert (_job().status, SandboxRun.objects.count()) == ("submitting", 0)
    _ends_well(turned, generation, seconds=300)
    first, second = UpstreamJob.objects.order_by("number")
    assert (first.status, first.error_class, first.upstream_id) == ("failed", "transient", "")
    assert second.submit_started_at - first.submit_started_at <= dt.timedelta(minutes=5)
    looks = UpstreamCall.objects.filter(job=first, kind="recover").count()
    assert submissions.LOOKS <= looks == UpstreamCall.objects.filter(job=first).count()


def test_a_submission_that_was_accepted_but_not_noted_is_found_again(turned, generation):
    killed(lambda: run("submit"), at=after(SandboxAdapter, "submit"))

    assert (_job().status, _job().upstream_id, SandboxRun.objects.count()) == ("submitting", "", 1)
    turned.shift(claims.LEASE)
    assert run("poll") == 1
    assert (_job().status, _job().upstream_id) == ("submitted", SandboxRun.objects.get().pk)
    _ends_well(turned, generation)
    assert _job().number == 1


def test_an_acceptance_that_cannot_be_written_down_is_found_again(turned, generation, monkeypatch):
    real = jobs.accepted

    def away(*_):
        raise OperationalError("the server closed the connection unexpectedly")

    monkeypatch.setattr(jobs, "accepted", away)
    monkeypatch.setattr(submissions, "DATABASE_PAUSE_SECONDS", 0.01)
    with pytest.raises(OperationalError):
        run("submit")
    monkeypatch.setattr(jobs, "accepted", real)

    turned.shift(claims.LEASE)
    assert run("poll") == 1
    _ends_well(turned, generation)
    assert _job().number == 1


def test_a_worker_killed_after_the_acceptance_was_noted_is_not_missed(turned, generation):
    killed(lambda: run("submit"), at=after(jobs, "accepted"))

    assert (_job().status, _job().lease_token) == ("submitted", None)
    assert _job().due_at - clock.now() <= dt.timedelta(seconds=2)
    _ends_well(turned, generation)


def test_a_worker_killed_while_asking_delays_the_job_by_one_lease(turned, generation):
    _submitted(turned)

    killed(lambda: run("poll"), at=before(SandboxAdapter, "fetch_many"))

    turned.shift(claims.LEASE - dt.timedelta(seconds=1))
    assert run("poll") == 0
    turned.shift(1)
    assert run("poll") == 1
    assert _job().status == "succeeded"
    _ends_well(turned, generation)


def test_a_worker_killed_after_the_answer_was_noted_leaves_the_output_to_the_next(turned, generation):
    _submitted(turned)

    killed(lambda: run("poll"), at=after(polls, "poll"))

    generation.refresh_from_db()
    assert (generation.status, _job().status, _job().lease_token) == ("pending", "succeeded", None)
    _ends_well(turned, generation, seconds=1)


@pytest.mark.parametrize("is_done", [False, True], ids=["before the commit", "after the commit"])
def test_a_worker_killed_between_two_submissions_neither_loses_nor_doubles_the_second(
    turned, generation, monkeypatch, is_done
):
    real = SandboxAdapter.submit
    monkeypatch.setattr(SandboxAdapter, "submit", lambda *_, **__: Refused(ErrorClass.CAPACITY, "busy"))
    run("submit")
    monkeypatch.setattr(SandboxAdapter, "submit", real)

    killed(lambda: run("settle"), at=at_commit(jobs, "open", is_done=is_done))

    assert UpstreamJob.objects.count() == 1 + is_done
    assert UpstreamJob.objects.filter(number=1, due_at=None).count() == is_done
    _ends_well(turned, generation)
    assert list(UpstreamJob.objects.order_by("number").values_list("number", "status")) == [
        (1, "failed"),
        (2, "succeeded"),
    ]


def test_a_job_that_kills_every_worker_is_parked_failed_and_refunded_within_20_minutes(turned, generation):
    _submitted(turned)

    deaths = 0
    while _job().claim_count < jobs.MAX_CLAIMS:
        killed(lambda: run("poll"), at=before(SandboxAdapter, "fetch_many"))
        deaths += 1
        turned.shift(claims.LEASE)
    assert deaths == jobs.MAX_CLAIMS
    run_to_end(turned, generation, seconds=2)

    assert (generation.status, generation.error_code) == ("failed", "generation_failed")
    assert generation.finished_at - generation.created_at < dt.timedelta(minutes=20)
    assert _balance(generation) == (100, 0)
    assert reconciliation.discrepancies() == []


def test_a_worker_whose_clock_is_ahead_takes_a_live_lease_and_still_nothing_is_sent_twice(turned, generation):
    (slow,) = claims.claim_queued(1)

    turned.shift(60)
    assert run("submit") == 1
    turned.shift(-60)
    with pytest.raises(jobs.LeaseLost):
        runner.submit(slow)

    assert (SandboxRun.objects.count(), UpstreamCall.objects.filter(kind="submit").count()) == (1, 1)
    turned.shift(60)
    _ends_well(turned, generation)


def test_an_id_adopted_while_the_first_worker_still_waits_for_the_answer_stays_adopted(turned, generation, monkeypatch):
    real = SandboxAdapter.submit

    def slow(self, *arguments, **named):
        answer = real(self, *arguments, **named)
        turned.shift(600)  # or: the clock of the other worker is ten minutes ahead
        assert run("poll") == 1
        turned.shift(-600)
        return answer

    monkeypatch.setattr(SandboxAdapter, "submit", slow)
    with pytest.raises(jobs.LeaseLost):
        run("submit")

    assert (_job().status, _job().upstream_id) == ("submitted", SandboxRun.objects.get().pk)
    turned.shift(610)
    _ends_well(turned, generation)


def test_a_provider_that_took_a_job_after_denying_it_is_named_and_the_customer_pays_once(
    turned, generation, monkeypatch
):
    real = SandboxAdapter.submit
    late = []

    def dawdle(self, request, **named):
        late.append(lambda: real(self, request, **named))
        return Unknown("no answer")

    monkeypatch.setattr(SandboxAdapter, "submit", dawdle)
    run("submit")
    monkeypatch.setattr(SandboxAdapter, "submit", real)
    _ends_well(turned, generation, seconds=300)

    late.pop()()

    (found,) = reconciliation.report()
    orphan = SandboxRun.objects.order_by("-created_at").first()
    assert (found.rule, found.subject) == ("provider_run_has_its_job", f"run {orphan.pk}")
    assert found.detail == f"belongs to job {generation.public_id}#1, which is failed without it"
    assert _balance(generation) == (80, 0)


def test_a_run_from_after_the_backup_that_was_restored_is_named(turned, generation):
    run("submit")
    UpstreamCall.objects.all().delete()
    UpstreamJob.objects.all().delete()

    found = [str(one) for one in reconciliation.discrepancies() if one.rule == "provider_run_has_its_job"]

    assert found == [f"provider_run_has_its_job: run {SandboxRun.objects.get().pk}: belongs to no job of ours"]


# --- Bringing home. ---


def test_a_copy_that_broke_off_half_way_is_written_again_whole(turned, generation, media_folder):
    _succeeded(turned)

    def break_off() -> None:
        def half(self, chunk_size=None):
            yield self.read(1000)
            die()

        setattr(File, "chunks", half)  # noqa: B010 - mypy knows that it is a method

    killed(lambda: run("settle"), at=break_off)

    assert [path.stat().st_size for path in media_folder.rglob("*.mp4")] in ([0], [1000])
    generation.refresh_from_db()
    assert generation.status == "processing"
    assert _balance(generation) == (80, 20)
    turned.shift(claims.LEASE)
    _ends_well(turned, generation)
    assert [path.stat().st_size for path in media_folder.rglob("*.mp4")] == [OutputAsset.objects.first().size_bytes]


@pytest.mark.parametrize(
    "point",
    [
        after(FileSystemStorage, "save"),
        before(lifecycle, "complete"),
        before(lifecycle, "_tell"),
        after(ledger, "capture"),
        at_commit(lifecycle, "_tell", is_done=False),
    ],
    ids=["one file stored", "all stored", "charged, not told", "charged", "before the commit"],
)
def test_a_worker_killed_before_the_end_was_committed_has_ended_nothing(turned, generation, point):
    _succeeded(turned)

    killed(lambda: run("settle"), at=point)

    generation.refresh_from_db()
    assert (generation.status, generation.finished_at) == ("processing", None)
    assert _balance(generation) == (80, 20)
    assert (OutputAsset.objects.count(), Delivery.objects.count()) == (0, 0)
    turned.shift(claims.LEASE)
    _ends_well(turned, generation)


def test_a_worker_killed_after_the_end_was_committed_has_ended_it_once(turned, generation):
    _succeeded(turned)

    killed(lambda: run("settle"), at=after(lifecycle, "complete"))

    generation.refresh_from_db()
    assert generation.status == "completed"
    turned.shift(claims.LEASE)
    assert run("settle") == 1
    assert _job().due_at is None
    _ends_well(turned, generation)


def test_several_ends_at_once_are_one_end(generation):
    start = threading.Barrier(8)
    refused = []

    def end(is_good: bool) -> None:
        start.wait()
        try:
            if is_good:
                lifecycle.complete(public_id=generation.public_id, assets=[])
            else:
                lifecycle.fail(public_id=generation.public_id, code=Generation.ErrorCode.GENERATION_TIMEOUT)
        except lifecycle.AlreadyEnded:
            refused.append(is_good)
        finally:
            connections.close_all()

    threads = [threading.Thread(target=end, args=(number % 2 == 0,)) for number in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    generation.refresh_from_db()
    is_completed = generation.status == "completed"
    assert refused == [not is_completed] * 4
    kinds = LedgerEntry.objects.filter(reference=generation.public_id).order_by("id").values_list("kind", flat=True)
    assert list(kinds) == ["reserve", "capture" if is_completed else "release"]
    assert _balance(generation) == ((80, 0) if is_completed else (100, 0))
    assert Delivery.objects.count() == 1
    assert ledger_reconciliation.discrepancies() == []


# --- Telling. ---


def test_a_webhook_that_was_sent_but_not_noted_is_sent_again_with_the_same_bytes(turned, generation, settings):
    settings.OUTBOUND_ALLOWED_HOSTS = ["127.0.0.1"]
    with Receiver() as receiver:
        Generation.objects.update(callback_url=receiver.url("/hook"))
        _succeeded(turned)
        run("settle")

        killed(_deliver, at=after(deliveries, "_post"))

        assert (len(receiver.requests), Delivery.objects.get().state) == (1, "pending")
        turned.shift(deliveries.LEASE - dt.timedelta(seconds=1))
        assert _deliver() == 0
        turned.shift(1)
        assert _deliver() == 1
        first, second = receiver.received("/hook")
    assert first.body == second.body
    for header in ("x-seedancee2-delivery", "x-seedancee2-attempt"):
        assert first.headers[header] == second.headers[header]
    row = Delivery.objects.get()
    assert (row.state, row.attempt_count, row.attempts.count()) == ("delivered", 1, 1)


def _deliver() -> int:
    claimed = deliveries.claim_due(10)
    for row in claimed:
        deliveries.attempt(row)
    return len(claimed)


def test_a_worker_told_to_end_finishes_what_it_holds():
    url = urlsplit(os.environ["DATABASE_URL"])._replace(path=f"/{connection.settings_dict['NAME']}").geturl()
    environment = os.environ | {"DATABASE_URL": url, "OUTBOUND_ALLOWED_HOSTS": "127.0.0.1"}
    lines = dict(line.split(": ", 1) for line in (ROOT / "Procfile").read_text().splitlines())
    command = ["sh", "-c", "exec " + lines["deliver"].replace("python ", f"{sys.executable} ")]
    with Receiver() as receiver:
        receiver.plan("/hook", Answer(delay=1))
        DeliveryFactory.create(url=receiver.url("/hook"))
        worker = subprocess.Popen(command, cwd=ROOT, env=environment)
        try:
            end = time.monotonic() + 60
            while not receiver.requests:
                assert worker.poll() is None
                assert time.monotonic() < end
                wakeups.wake("webhooks.deliver")
                time.sleep(0.2)
            worker.send_signal(signal.SIGTERM)
            worker.wait(timeout=60)
        finally:
            worker.kill()
            worker.wait()
        assert len(receiver.requests) == 1
    row = Delivery.objects.get()
    assert (row.state, row.attempt_count, row.lease_token) == ("delivered", 1, None)


# --- Messages. ---


def test_lost_messages_lose_nothing_since_every_lane_is_swept(settings, turned, generation, monkeypatch):
    monkeypatch.setattr(wakeups, "wake", lambda _: None)
    sweeps = {entry["task"]: entry["schedule"] for entry in settings.CELERY_BEAT_SCHEDULE.values()}

    assert {name: sweeps[name] for name in settings.CELERY_TASK_ROUTES} == dict.fromkeys(
        ("generations.submit", "generations.poll", "generations.settle", "webhooks.deliver"), 1.0
    )
    _ends_well(turned, generation)


def test_repeated_messages_and_several_beats_send_each_job_once():
    route_live_traffic_to_sandbox()
    organization = _funded(1000)
    for _ in range(12):
        create_generation(organization)
    start = threading.Barrier(6)

    def sweep() -> None:
        start.wait()
        try:
            tasks.submit()
        finally:
            connections.close_all()

    sweeps = [threading.Thread(target=sweep) for _ in range(6)]
    for one in sweeps:
        one.start()
    for one in sweeps:
        one.join()

    assert SandboxRun.objects.count() == 12
    assert UpstreamCall.objects.filter(kind="submit").count() == 12
    assert set(UpstreamJob.objects.values_list("status", "number")) == {("submitted", 1)}


# --- The table. ---

_NAMED = re.compile(r"`([\w/.]+\.py)::(\w+)`")


def test_the_table_has_every_crash_point_and_names_tests_that_exist():
    rows = [line for line in TABLE.read_text().splitlines() if re.match(r"\| C\d+ ", line)]

    assert [row.split(" ")[1] for row in rows] == [f"C{number}" for number in range(1, 31)]
    named = [(row.split(" ")[1], *found) for row in rows for found in _NAMED.findall(row)]
    assert [(point, path, name) for point, path, name in named if name not in _functions_in(path)] == []
    without = {row.split(" ")[1] for row in rows} - {point for point, _, _ in named}
    assert [row for row in rows if row.split(" ")[1] in without and "No test: " not in row] == []


def _functions_in(path: str) -> set[str]:
    """Return the tests of a file of tests, and the measures of any other."""
    if not (ROOT / path).is_file():
        return set()
    tree = ast.parse((ROOT / path).read_text())
    names = {node.name for node in tree.body if isinstance(node, ast.FunctionDef)}
    is_collected = Path(path).name.startswith("test_")
    return {name for name in names if name.startswith("test_")} if is_collected else names
