"""What still works while a part is away, and that all is well again afterwards.

Here is patience for a busy machine; the times themselves are measured by `python -m tests.chaos.degraded`.
"""

import pytest

from tests.chaos import degraded

pytestmark = [pytest.mark.chaos, pytest.mark.xdist_group("chaos")]

BUSY = 8  # times as slow as a quiet machine: what a busy one may be


def _judge(figures):
    for figure in figures:
        print(f"{figure.name}: {figure.value:.3f} (bar {figure.bar}) {figure.note}")
        assert figure.value <= figure.bar * BUSY, figure


def test_without_redis_customers_are_served_and_work_resumes_when_it_is_back(system):
    _judge(degraded.without_redis(system, harm="frozen", count=12))


@pytest.mark.parametrize("harm", ["connections refused", "half-open"])
def test_without_postgres_the_answer_is_an_error_in_the_pages_form(system, harm):
    _judge(degraded.without_postgres(system, harm=harm))


def test_without_beat_new_tasks_start_and_all_catches_up_when_it_is_back(system):
    _judge(degraded.without_beat(system, seconds=2, is_alert_awaited=False))


@pytest.mark.chaos_long
@pytest.mark.parametrize("harm", ["network frozen", "refused"])
def test_without_redis_in_other_ways(system, harm):
    _judge(degraded.without_redis(system, harm=harm))


@pytest.mark.chaos_long
@pytest.mark.parametrize("harm", ["server stopped", "network frozen"])
def test_without_postgres_in_other_ways(system, harm):
    _judge(degraded.without_postgres(system, harm=harm))


@pytest.mark.chaos_long
@pytest.mark.parametrize(
    "measure",
    [
        degraded.postgres_restarted,
        degraded.killed_worker,
        degraded.several_beats,
        degraded.web_reloaded,
        degraded.web_replaced,
        degraded.workers_restarted,
    ],
)
def test_it_is_well_again_after(system, measure):
    _judge(measure(system))
