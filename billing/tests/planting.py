"""Planting a bug: a function of the product or of the database with a piece of its source replaced, for one test."""

import inspect
from types import ModuleType

import pytest
from django.db import connection
from hypothesis import HealthCheck, Phase, Verbosity, settings
from hypothesis.stateful import RuleBasedStateMachine, run_state_machine_as_test


def plant(monkeypatch: pytest.MonkeyPatch, module: ModuleType, function: str, *changes: tuple[str, str]) -> None:
    """Replace parts of a function's source; each must be there exactly once, so that no planted bug goes stale."""
    source = _changed(inspect.getsource(getattr(module, function)), f"{module.__name__}.{function}", changes)
    monkeypatch.setattr(module, function, getattr(module, function))  # so that it is put back afterwards
    exec(compile(source, f"{function} with a planted bug", "exec"), vars(module))  # noqa: S102 - our own source


def plant_in_database(function: str, *changes: tuple[str, str]) -> None:
    """Replace parts of a function of the database; the rollback of the test's transaction puts it back."""
    with connection.cursor() as cursor:
        cursor.execute("SELECT pg_get_functiondef(%s::regproc)", [function])
        cursor.execute(_changed(cursor.fetchone()[0], function, changes))


def _changed(source: str, name: str, changes: tuple[tuple[str, str], ...]) -> str:
    for old, new in changes:
        assert source.count(old) == 1, f"{name} has {source.count(old)} times: {old}"
        source = source.replace(old, new)
    return source


def run_briefly(machine: type[RuleBasedStateMachine], *, examples: int = 100) -> None:
    """Run a few examples, the same at every run, and stop at the first that fails."""
    run_state_machine_as_test(
        machine,
        settings=settings(
            max_examples=examples,
            stateful_step_count=50,
            deadline=None,
            derandomize=True,
            database=None,
            phases=[Phase.generate],
            report_multiple_bugs=False,
            verbosity=Verbosity.quiet,
            suppress_health_check=list(HealthCheck),
        ),
    )
