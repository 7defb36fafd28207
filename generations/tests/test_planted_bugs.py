"""Tests of the tests: each bug planted into the pipeline must be caught by the machine, its checks or the database."""

from typing import Any

import pytest

from billing.tests.planting import plant, run_briefly
from generations import lifecycle, runner
from generations.tests.test_lifecycle_machine import LifecycleMachine, prepare, scripted
from providers import jobs, polls
from webhooks import outbox

pytestmark = [pytest.mark.django_db, pytest.mark.usefixtures("scripted")]

__all__ = ["scripted"]

RESERVE = """        if not is_test:
            ledger.reserve("""
BUGS = {
    "a completed task is not charged": (
        lifecycle,
        "complete",
        ("ledger.capture(reference=public_id, actor=ACTOR)", "pass"),
    ),
    "a failed task is not refunded": (
        lifecycle,
        "fail",
        ("ledger.release(reference=public_id, actor=actor, reason=code)", "pass"),
    ),
    "a repeated failure releases again": (
        lifecycle,
        "fail",
        ("if generation.status == Status.FAILED:\n            return generation", "if False:\n            pass"),
    ),
    "a late success is charged": (lifecycle, "complete", ("if generation.status == Status.FAILED:", "if False:")),
    "a completed task can fail": (lifecycle, "fail", ("if generation.status == Status.COMPLETED:", "if False:")),
    "a task that ended starts again": (
        lifecycle,
        "start",
        ("pk__in=public_ids, status=Status.PENDING)", "pk__in=public_ids)"),
    ),
    "credits are held after the commit": (
        lifecycle,
        "create",
        (RESERVE, "    if True:\n        if not is_test:\n            ledger.reserve("),
    ),
    "the release is not in the transaction of the failure": (
        lifecycle,
        "fail",
        ("    with transaction.atomic():", "    if True:"),
    ),
    "the charge is not in the transaction of the completion": (
        lifecycle,
        "complete",
        ("    with transaction.atomic():", "    if True:"),
    ),
    "a refund is not on the task": (lifecycle, "refund", ("generation.credits_refunded += amount", "pass")),
    "nobody is told of a failure": (lifecycle, "fail", ("_tell(generation, [], Delivery.Event.FAILED)", "pass")),
    "the webhook shows no files": (
        lifecycle,
        "complete",
        ("_tell(generation, assets, Delivery.Event.COMPLETED)", "_tell(generation, [], Delivery.Event.COMPLETED)"),
    ),
    "the intent to submit is not written first": (
        jobs,
        "begin",
        ("status=Status.SUBMITTING,", "status=Status.QUEUED,"),
    ),
    "what is unknown is sent again": (
        jobs,
        "unresolved",
        ("return _release(job, due_at", "return _release(job, status=Status.QUEUED, due_at"),
    ),
    "a lost lease is no obstacle": (
        jobs,
        "_write",
        ("pk=job.pk, lease_token=job.lease_token, status=job.status", "pk=job.pk"),
    ),
    "the next job is opened apart from the end of the last": (
        jobs,
        "open_next",
        ("    with transaction.atomic():", "    settled(job)\n    if True:"),
    ),
    "a failed download is forgotten": (
        runner,
        "_complete",
        ("jobs.postpone(job, seconds=DOWNLOAD_PAUSE_SECONDS)", "jobs.settled(job)"),
    ),
    "a deadline that passed ends nothing": (polls, "_ended", ("if now >= job.deadline_at:", "if False:")),
    "an event is told twice": (outbox, "enqueue", ("event=event,", "event=ids.new('e')[:40],")),
}


# Some come to light only where a worker dies before one certain write, or after certain answers. The machine finds them
# within some hundred examples; here its steps are given, to find them at once.
FAIL_AND_REPEAT: list[tuple[str, Any]] = [
    # Both tasks: which comes first is chance, and only the live one has credits.
    ("bring_home", ("customer_input", "whole", 0)),
    ("bring_home", ("customer_input", "whole", 0)),
    ("repeat_of", ("failed",)),
]
STEPS: dict[str, list[tuple[str, Any]]] = {
    "a repeated failure releases again": FAIL_AND_REPEAT,
    "a late success is charged": FAIL_AND_REPEAT,
    "credits are held after the commit": [("create", (True, False, 3))],
    "the release is not in the transaction of the failure": [("bring_home", ("customer_input", "whole", 2))],
    "the charge is not in the transaction of the completion": [("bring_home", ("succeeded", "whole", 3))],
    "the next job is opened apart from the end of the last": [("bring_home", ("transient", "whole", 2))],
    "a failed download is forgotten": [("bring_home", ("succeeded", "broken", 0))],
    "a deadline that passed ends nothing": [("bring_home", ("running", "whole", 0))],
    "what is unknown is sent again": [("work", ("taken, not told", "running", "whole", 0, 2))],
    "a lost lease is no obstacle": [("overtake", ("submit", "running"))],
}


def run_steps(steps: list[tuple[str, Any]]) -> None:
    """Take steps of the machine after its beginning, with all that it looks at."""
    machine = LifecycleMachine()
    try:
        machine.prepare()
        for step, values in steps:
            getattr(machine, step)(*values)
    finally:
        machine.teardown()


def search(name: str) -> None:
    """Let the machine find a bug, by the steps that are known to, if any are."""
    if name in STEPS:
        run_steps(STEPS[name])
    else:
        prepare()
        run_briefly(LifecycleMachine)


@pytest.mark.parametrize("name", BUGS)
def test_a_planted_bug_is_caught(name, monkeypatch):
    module, function, change = BUGS[name]
    plant(monkeypatch, module, function, change)

    with pytest.raises(Exception) as caught:  # noqa: PT011 - whichever of the nets catches it
        search(name)

    # A bug that only breaks the code would prove nothing.
    assert not isinstance(caught.value, NameError | AttributeError | TypeError | SyntaxError)


@pytest.mark.parametrize("name", STEPS)
def test_without_a_bug_the_same_steps_find_nothing(name):
    run_steps(STEPS[name])
