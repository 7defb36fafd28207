"""The life of tasks in any order: lanes, lost workers and leases, a provider that does anything, deadlines, staff."""

import contextlib
import copy
import datetime as dt
import logging
import re
from collections.abc import Iterator
from typing import Any, ClassVar

import pytest
import time_machine
from django.db import IntegrityError, connection, transaction
from django.db.models import Min
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import Bundle, RuleBasedStateMachine, initialize, multiple, rule, run_state_machine_as_test

from accounts.models import Organization
from generations import lifecycle, media, payloads, reconciliation, runner
from generations.models import Generation
from generations.tests import pipeline
from generations.tests.factories import create_generation, funded_organization
from generations.tests.scripted import ANSWERS, DOWNLOADS, SUBMISSIONS, FlakyStorage, Provider, ScriptedAdapter
from providers import channels, jobs, sandbox_render
from providers.adapters import base
from providers.models import ChannelHealth, UpstreamJob
from seedancee2.api.errors import InsufficientCredits
from seedancee2.api.rendering import JSONRenderer
from seedancee2.lib import clock, wakeups

START = dt.datetime(2026, 6, 29, 10, tzinfo=dt.UTC)
Row = tuple[Any, ...]  # what EVERYTHING selects for one task

FUNDS, PRICE = 140, 20
RANK = {"pending": 0, "processing": 1, "completed": 2, "failed": 2}

WAITS = [1] * 4 + [5] * 4 + [21] * 4 + [125, 1200, 3600]
SELDOM = st.sampled_from([False, False, False, True])
WRITES = re.compile(r"\s*(INSERT|UPDATE|DELETE|SELECT \S+ FROM billing_\w+\()")
# Before which write of a step its worker dies; 0 is never.
DEATHS = st.sampled_from([0] * 14 + [1, 2, 3, 4, 5, 6, 7])

EVERYTHING = """
    SELECT g.public_id, g.status, g.is_test, g.credits, g.credits_refunded, g.callback_url, r.state, r.amount,
           r.refunded,
           (SELECT count(*) FROM providers_upstreamjob j WHERE j.reference = g.public_id
               AND j.status IN ('queued', 'submitting', 'submitted', 'running')) AS open_jobs,
           (SELECT count(*) FROM providers_upstreamjob j WHERE j.reference = g.public_id
               AND j.due_at IS NOT NULL) AS due_jobs,
           (SELECT count(*) FROM billing_ledgerentry e WHERE e.reference = g.public_id
               AND e.kind IN ('capture', 'release')) AS closings,
           (SELECT array_agg(d.body) FROM webhooks_delivery d WHERE d.reference = g.public_id) AS told,
           a.available, a.reserved
      FROM generations_generation g
      JOIN billing_creditaccount a ON a.organization_id = g.organization_id
      LEFT JOIN billing_reservation r ON r.reference = g.public_id
"""


class Killed(BaseException):
    """The worker is gone, as after kill -9: no handler of ours may see it."""


class LifecycleMachine(RuleBasedStateMachine):
    """Drives tasks any way it likes; each example is a transaction that is rolled back at its end."""

    organization: ClassVar[Organization]  # made once for all examples, and so is how they begin:
    start: ClassVar[tuple[Provider, dict[str, Row], dt.datetime]]

    tasks = Bundle("tasks")

    def __init__(self) -> None:
        super().__init__()
        self.provider, self.known, start_at = copy.deepcopy(self.start)
        ScriptedAdapter.provider = self.provider
        self.stalled: list[tuple[str, UpstreamJob]] = []
        self.travel = time_machine.travel(start_at, tick=False)
        self.turned = self.travel.start()
        self.example = transaction.atomic()
        self.example.__enter__()

    def prepare(self) -> None:
        """One task that is completed, and two that are not begun."""
        self.create(has_callback=True, is_test=False, death=0)
        for _ in range(2):
            self._work_on_next("accept", "succeeded", "whole", 0)
        for is_test in (False, True):
            self.create(has_callback=True, is_test=is_test, death=0)

    def keep(self) -> None:
        """Let all examples begin with what this one did."""
        LifecycleMachine.start = (self.provider, self.known, clock.now())
        self.example.__exit__(None, None, None)
        self.travel.stop()

    @initialize(target=tasks)
    def begin(self) -> Any:
        return multiple(*sorted(self.known))

    @rule(target=tasks, has_callback=st.booleans(), is_test=SELDOM, death=DEATHS)
    def create(self, has_callback: bool, is_test: bool, death: int) -> Any:
        before = set(self.known)
        url = "https://customer.example/hook" if has_callback else ""
        with contextlib.suppress(InsufficientCredits), self._mortal(death):
            create_generation(self.organization, is_test=is_test, callback_url=url)
        self._look()
        return multiple(*sorted(set(self.known) - before))

    @rule(death=DEATHS)
    def proceed(self, death: int) -> None:
        """Work on what is due next, with a provider that is well."""
        self._work_on_next("accept", "succeeded", "whole", death)

    @rule(
        submission=st.sampled_from(SUBMISSIONS),
        answer=st.sampled_from(ANSWERS),
        download=st.sampled_from(DOWNLOADS),
        death=DEATHS,
        times=st.sampled_from([1, 1, 2, 3]),
    )
    def work(self, submission: str, answer: str, download: str, death: int, times: int) -> None:
        """Work on what is due next, with a provider that does anything, and maybe does it again."""
        for _ in range(times):
            self._work_on_next(submission, answer, download, death)

    @rule(
        answer=st.sampled_from(ANSWERS),
        download=st.sampled_from(DOWNLOADS),
        death=st.sampled_from([0, 0, 1, 2, 3, 4, 5]),
    )
    def bring_home(self, answer: str, download: str, death: int) -> None:
        """Let what is due next come as far as it can; whoever brings it home may die of it."""
        for _ in range(2):
            self._turn_to_next()
            self._work("submit", "accept", 0)
            self._work("poll", answer, 0)
        self._work("settle", download, death)

    @rule(lane=st.sampled_from(sorted(pipeline.LANES)))
    def stall(self, lane: str) -> None:
        """A worker claims what is due and falls asleep."""
        self.stalled += [(lane, row) for row in pipeline.claim(lane, 1)]

    @rule(outcome=st.sampled_from([*SUBMISSIONS, *ANSWERS, *DOWNLOADS]), death=DEATHS)
    def wake_up(self, outcome: str, death: int) -> None:
        """A worker that slept goes on, whoever else has its job by now."""
        if self.stalled:
            self._run(*self.stalled.pop(0), outcome, death)
            self._look()

    @rule(lane=st.sampled_from(sorted(pipeline.LANES)), answer=st.sampled_from(ANSWERS))
    def overtake(self, lane: str, answer: str) -> None:
        """A worker is slower than its lease, and another does its work before it goes on."""
        self._turn_to_next()
        slow = pipeline.claim(lane, 1)
        self.turned.shift(21)
        outcome = {"submit": "accept", "poll": answer, "settle": "whole"}[lane]
        self._work(lane, outcome, 0)
        for row in slow:
            self._run(lane, row, outcome, 0)
        self._look()

    @rule(task=tasks)
    def hasten(self, task: str) -> None:
        """A callback came in: the job is due now, leased or not."""
        UpstreamJob.objects.filter(reference=task, due_at__isnull=False).update(due_at=clock.now())

    @rule(seconds=st.sampled_from(WAITS))
    def wait(self, seconds: int) -> None:
        self.turned.shift(seconds)

    @rule(death=DEATHS)
    def sweep(self, death: int) -> None:
        self._sweep(death)

    @rule(task=tasks, is_meant=SELDOM, death=DEATHS)
    def staff_fails(self, task: str, is_meant: bool, death: int) -> None:
        if not is_meant:
            return
        is_completed = self.known[task][1] == "completed"
        try:
            with self._mortal(death):
                lifecycle.fail(public_id=task, code=Generation.ErrorCode.CANCELED, actor="user:staff")
                assert not is_completed
        except lifecycle.AlreadyEnded:
            assert is_completed
        self._look()

    @rule(task=tasks, amount=st.integers(-1, PRICE + 1), death=DEATHS)
    def staff_refunds(self, task: str, amount: int, death: int) -> None:
        _, status, is_test, _, refunded, *_ = self.known[task]
        is_due = status == "completed" and not is_test and 0 < amount <= PRICE - refunded
        try:
            with self._mortal(death):
                lifecycle.refund(public_id=task, amount=amount, actor="user:staff", reason="goodwill")
                assert is_due
        except ValueError:
            assert not is_due
        self._look()

    @rule(task=tasks)
    def repeat(self, task: str) -> None:
        """The same transitions again change nothing."""
        status = self.known[task][1]
        if RANK[status] < RANK["completed"]:
            return
        lifecycle.start(public_ids=[task])
        for end in (
            lambda: lifecycle.complete(public_id=task, assets=[]),
            lambda: lifecycle.fail(public_id=task, code=Generation.ErrorCode.GENERATION_FAILED),
        ):
            with contextlib.suppress(lifecycle.AlreadyEnded), transaction.atomic():
                end()
        self._look(unchanged=task)

    def repeat_of(self, status: str) -> None:
        # A live one if there is any: only those have credits to move twice.
        _, task = min((row[2], task) for task, row in self.known.items() if row[1] == status)
        self.repeat(task)

    def teardown(self) -> None:
        try:
            self._drain()
            assert all(row[1] in ("completed", "failed") for row in self.known.values())
            found = [str(item) for item in reconciliation.discrepancies()]
            assert not found, "; ".join(found)
        finally:
            self.undo()

    def undo(self) -> None:
        transaction.set_rollback(True)
        self.example.__exit__(None, None, None)
        self.travel.stop()

    def _drain(self) -> None:
        """Past every deadline, with a provider that never finishes anything, all must end."""
        self.turned.shift(3600)
        for _ in range(6):
            for lane, outcome in {"submit": "accept", "poll": "running", "settle": "broken"}.items():
                self._work(lane, outcome, 0)
            self.turned.shift(30)
        self._sweep(0)
        assert not UpstreamJob.objects.filter(due_at__isnull=False).exists()

    def _sweep(self, death: int) -> None:
        with self._mortal(death):
            for generation in runner.overdue(10):
                runner.end_overdue(generation)
        self._look()

    def _work_on_next(self, submission: str, answer: str, download: str, death: int) -> None:
        self._turn_to_next()
        for lane, outcome in {"submit": submission, "poll": answer, "settle": download}.items():
            self._work(lane, outcome, death)

    def _turn_to_next(self) -> None:
        due_at = UpstreamJob.objects.aggregate(first=Min("due_at"))["first"]
        if due_at and not UpstreamJob.objects.exclude(status="queued").filter(due_at=due_at).exists():
            # A breaker keeps queued jobs from being claimed.
            open_until, paused_until = ChannelHealth.objects.values_list("open_until", "paused_until").first() or (
                None,
                None,
            )
            due_at = max(filter(None, (due_at, open_until, paused_until)))
        if due_at:
            self.turned.move_to(max(due_at + dt.timedelta(milliseconds=1), clock.now()))  # our clock cuts to those

    def _work(self, lane: str, outcome: str, death: int) -> None:
        if claimed := pipeline.claim(lane):
            for row in claimed:
                self._run(lane, row, outcome, death)
            self._look()

    def _run(self, lane: str, row: Any, outcome: str, death: int) -> None:
        self.provider.outcome, FlakyStorage.is_away = outcome, False
        # What a worker without its lease meets: its own writes are refused, by the fence or by a constraint.
        with contextlib.suppress(jobs.LeaseLost, IntegrityError), self._mortal(death):
            pipeline.work(lane, row)

    @contextlib.contextmanager
    def _mortal(self, death: int) -> Iterator[None]:
        """Let the worker die before its write number `death`; what was committed stays, open transactions do not."""
        count = 0

        def count_writes(execute: Any, sql: Any, params: Any, many: bool, context: Any) -> Any:
            nonlocal count
            if WRITES.match(str(sql)):
                count += 1
                if count == death:
                    raise Killed
            return execute(sql, params, many, context)

        try:
            with connection.execute_wrapper(count_writes):
                yield
        except Killed:
            # Outside tests a lone statement has a transaction of its own; here it would spoil the example's.
            connection.set_rollback(False)

    def _look(self, *, unchanged: str = "") -> None:
        with connection.cursor() as cursor:
            cursor.execute(EVERYTHING)
            rows = {row[0]: row for row in cursor.fetchall()}
        for task, row in rows.items():
            self._check(row, self.known.get(task))
            assert task != unchanged or row[:-2] == self.known[task][:-2]
        assert self.known.keys() <= rows.keys()
        self.known = rows
        self._check_credits()
        self._check_submissions()

    def _check(self, row: Row, before: Row | None) -> None:
        task, status, is_test, credits, refunded, url, hold, amount, given_back, open_jobs, due_jobs, closings, told = (
            row[:13]
        )
        is_open = RANK[status] < RANK["completed"]
        if before:
            assert RANK[status] > RANK[before[1]] or status == before[1], f"from {before[1]} to {status}"
            assert RANK[before[1]] < RANK["completed"] or before[12] == told, "the webhook changed"
        assert open_jobs <= 1
        assert due_jobs or not is_open, "nobody will work on this task any more"
        if is_test:
            assert hold is None
        else:
            assert hold == {"completed": "captured", "failed": "released"}.get(status, "held")
            assert (amount, closings) == (credits, int(not is_open))
            assert refunded == (credits if status == "failed" else given_back)
        assert len(told or []) == (not is_open and url != "")
        if told and (before is None or before[1] != status):
            generation = Generation.objects.get(pk=task)
            data = payloads.task(generation, generation.assets.all())
            assert bytes(told[0]) == JSONRenderer().render({"data": data})

    def _check_credits(self) -> None:
        live = [row for row in self.known.values() if not row[2]]
        held = sum(row[3] for row in live if row[6] == "held")
        charged = sum(row[3] - row[4] for row in live if row[1] == "completed")
        for row in self.known.values():
            assert row[13:] == (FUNDS - held - charged, held)

    def _check_submissions(self) -> None:
        if len(self.provider.received) == getattr(self, "checked", 0):
            return
        self.checked = len(self.provider.received)
        assert max(self.provider.received.values()) == 1
        rows = UpstreamJob.objects.filter(callback_token_digest__in=list(self.provider.received))
        assert rows.count() == self.checked, "a submission that no job's row knows of"


@pytest.fixture
def scripted(settings, monkeypatch, tmp_path) -> Iterator[None]:
    """An organization with credits, a provider that does as it is told, and quiet logs."""
    pipeline.route_live_traffic_to_sandbox()
    settings.STORAGES = {**settings.STORAGES, "default": {"BACKEND": "generations.tests.scripted.FlakyStorage"}}
    monkeypatch.setattr(wakeups, "wake", lambda _: None)
    access = base.ChannelAccess("scripted", "", "")
    monkeypatch.setattr(channels, "open_adapter", lambda *_: ScriptedAdapter(access))
    scene = sandbox_render.Scene(prompt="", seed="", duration=4, size=(64, 64), has_audio=False, has_watermark=False)
    sandbox_render.write_video(scene, tmp_path / "video.mp4")
    ScriptedAdapter.video = (tmp_path / "video.mp4").read_bytes()
    LifecycleMachine.organization = funded_organization(FUNDS)
    LifecycleMachine.start = (Provider(), {}, START)
    monkeypatch.setattr(media, "LEAST_PIXELS", {})
    # Loggers remember what they were told: what is only set back would leave them silent for all tests to come.
    logging.disable(logging.CRITICAL)
    yield
    logging.disable(logging.NOTSET)


def prepare() -> None:
    """Make once what every example begins with."""
    beginning = LifecycleMachine()
    try:
        beginning.prepare()
    except BaseException:
        beginning.undo()
        raise
    beginning.keep()


@pytest.mark.django_db
@pytest.mark.parametrize("part", [1, 2])
def test_a_task_ends_well_whatever_happens(scripted, part):
    prepare()
    run_state_machine_as_test(
        LifecycleMachine,
        settings=settings(
            max_examples=60, stateful_step_count=50, deadline=None, suppress_health_check=list(HealthCheck)
        ),
    )
