"""What still works while a part is away, how fast, and how soon all is well again."""

import itertools
import signal
import time
from collections import Counter
from concurrent.futures import ThreadPoolExecutor

import psycopg
import pytest
import requests

from tests.chaos.system import until

pytestmark = [pytest.mark.chaos, pytest.mark.xdist_group("chaos")]

REQUESTS = 100  # of each kind
BACKGROUND = ("worker", "deliver", "media", "beat")
RESUMED = 15  # seconds; on an idle machine it is a few
OPEN = "SELECT FROM generations_generation WHERE status IN ('pending', 'processing') LIMIT 1"
_numbers = itertools.count()


def _create(system, *, timeout=30):
    body = {"model": "mini", "input": {"prompt": f"calm {next(_numbers)}", "duration": 4, "resolution": "480p"}}
    return requests.post(f"{system.url}/videos/generations", headers=system.headers, json=body, timeout=timeout)


def _get(system, path, *, timeout=30):
    return requests.get(f"{system.url}{path}", headers=system.headers, timeout=timeout)


def _seconds_until(condition, patience):
    began = time.monotonic()
    until(condition, patience, pause=0.05)
    return time.monotonic() - began


def _was_sent(system, task_id):
    sql = "SELECT FROM providers_upstreamjob WHERE reference = %s AND submit_started_at IS NOT NULL"
    return bool(system.rows(sql, [task_id]))


def _times(system):
    """Return the seconds of each request: creates, gets and lists, of two customers at a time."""
    statuses, seconds = set(), {}
    task_id = _create(system).json()["data"]["id"]
    kinds = {
        "create": lambda _: _create(system),
        "get": lambda _: _get(system, f"/videos/generations/{task_id}"),
        "list": lambda _: _get(system, "/videos/generations?limit=20"),
    }
    with ThreadPoolExecutor(2) as customers:
        for name, call in kinds.items():
            replies = list(customers.map(call, range(REQUESTS)))
            statuses |= {reply.status_code for reply in replies}
            seconds[name] = sorted(reply.elapsed.total_seconds() for reply in replies)
    assert statuses <= {200, 201}
    return seconds


def _p99(values):
    return values[-max(1, len(values) // 100) - 1]


def test_a_frozen_redis_slows_nobody_and_work_resumes_when_it_is_back(system):
    for name in BACKGROUND:  # so that both measurements are of the web server alone: workers wait for Redis anyway
        system.signal_program(name, signal.SIGSTOP)
    healthy = _times(system)
    system.signal_valkey(signal.SIGSTOP)
    for name in BACKGROUND:
        system.signal_program(name, signal.SIGCONT)
    frozen = _times(system)
    waiting = _create(system).json()["data"]["id"]
    system.signal_valkey(signal.SIGCONT)
    resumed = _seconds_until(lambda: _was_sent(system, waiting), 60)

    for name in frozen:
        before, during = _p99(healthy[name]), _p99(frozen[name])
        print(
            f"{name}: p99 {before * 1000:.0f} ms healthy, {during * 1000:.0f} ms frozen (×{during / before:.1f}),"
            f" median {healthy[name][REQUESTS // 2] * 1000:.0f} and {frozen[name][REQUESTS // 2] * 1000:.0f} ms,"
            f" slowest {frozen[name][-1] * 1000:.0f} ms"
        )
        assert during < 1
    print(f"work resumed {resumed:.1f} s after Redis was back")
    assert resumed < RESUMED


@pytest.mark.parametrize("harm", ["connections refused", "server stopped", "network frozen", "half-open"])
def test_without_postgres_the_answer_is_an_error_in_the_pages_form(system, harm):
    _get(system, "/models")
    begin, end = {
        "connections refused": (system.postgres.refuse, system.postgres.accept),
        "server stopped": (
            lambda: system.signal_postgres(signal.SIGSTOP),
            lambda: system.signal_postgres(signal.SIGCONT),
        ),
        "network frozen": (system.postgres.freeze, system.postgres.thaw),
        "half-open": (lambda: (system.postgres.deafen(), system.postgres.freeze()), system.postgres.thaw),
    }[harm]
    begin()
    replies = []
    for ask in (lambda: _create(system, timeout=10), lambda: _get(system, "/videos/generations?limit=1", timeout=10)):
        replies += [_outcome(ask) for _ in range(3)]
    end()
    back = _seconds_until(lambda: _outcome(lambda: _create(system, timeout=10))[0] == 201, 60)

    slowest = max(seconds for _, seconds in replies)
    print(f"{harm}: {[(status, round(seconds, 2)) for status, seconds in replies]}, well again after {back:.1f} s")
    assert {status for status, _ in replies} == {500}
    assert slowest < 3.5


def test_a_restart_of_postgres_is_over_when_it_answers_again(system):
    for _ in range(20):
        _get(system, "/models")
    before = system.rows("SELECT pg_postmaster_start_time() AS at")[0]["at"]
    system.signal_postgres(signal.SIGQUIT)

    def is_back():
        try:
            return system.rows("SELECT pg_postmaster_start_time() AS at")[0]["at"] > before
        except psycopg.OperationalError:
            return False

    down = _seconds_until(is_back, 60)
    outcomes = Counter(_outcome(lambda: _get(system, "/videos/generations?limit=1"))[0] for _ in range(40))
    print(f"down for {down:.1f} s, then {dict(outcomes)}")
    assert outcomes[200] > 20


def test_half_open_connections_to_redis_are_noticed(system):
    system.valkey.deafen()
    task_id = _create(system).json()["data"]["id"]
    print(f"work resumed {_seconds_until(lambda: _was_sent(system, task_id), 90):.1f} s after")


def test_without_beat_new_tasks_start_and_all_catches_up_when_it_is_back(system):
    system.signal_program("beat", signal.SIGSTOP)
    time.sleep(5)
    task_id = _create(system).json()["data"]["id"]
    started = _seconds_until(lambda: _was_sent(system, task_id), 20)
    time.sleep(3)
    system.signal_program("beat", signal.SIGCONT)
    ended = _seconds_until(lambda: not system.rows(OPEN), 60)
    print(f"without beat a task started after {started:.1f} s; all had ended {ended:.1f} s after its return")
    assert started < RESUMED
    assert ended < 30


def _outcome(ask):
    """Return the status of a reply, and the seconds it took; an error must have the page's form."""
    began = time.monotonic()
    try:
        reply = ask()
    except requests.RequestException as error:
        return type(error).__name__, time.monotonic() - began
    if reply.status_code == 500:
        assert reply.json()["error"]["code"] == "internal_error"
    return reply.status_code, time.monotonic() - began
