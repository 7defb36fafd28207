"""`python -m tests.chaos.degraded`: what still works while a part is away, how fast, and how soon all is well again.

Each function hurts one part of a running system and returns figures; the tests use the same functions.
"""

import argparse
import datetime as dt
import functools
import os
import signal
import sys
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

import psutil
import requests

from tests.chaos import broker
from tests.chaos.load import HANG, Balancer, Load, body, p99
from tests.chaos.system import WORKERS, HurtSystem, until

OPEN = "SELECT FROM generations_generation WHERE status IN ('pending', 'processing') LIMIT 1"
SETTLED = 400.0  # seconds of patience: a submission that was cut short is looked for during two minutes


@dataclass(frozen=True)
class Figure:
    """One measured number, in seconds unless its name says otherwise."""

    name: str
    value: float
    bar: float | None = None
    note: str = ""

    @property
    def is_met(self) -> bool:
        """Whether the bar is met; a figure without a bar always meets it."""
        return self.bar is None or self.value <= self.bar


# --- Redis. ---


def without_redis(system: HurtSystem, *, harm: str, count: int = 150) -> list[Figure]:
    """Measure requests with Redis frozen or refusing connections, beside those of a healthy system."""
    begin, end = {
        "frozen": (
            lambda: system.signal_valkey(signal.SIGSTOP),
            lambda: system.signal_valkey(signal.SIGCONT),
        ),
        "network frozen": (system.valkey.freeze, system.valkey.thaw),
        "refused": (system.valkey.refuse, system.valkey.accept),
    }[harm]
    for name in (*WORKERS, "beat"):  # both measurements are of the web server alone
        system.signal_program(name, signal.SIGSTOP)
    request_times(system, count // 4)
    healthy = request_times(system, count)
    begin()
    hurt = request_times(system, count)
    for name in (*WORKERS, "beat"):
        system.signal_program(name, signal.SIGCONT)
    time.sleep(4)  # for all to notice
    create(system)
    end()
    resumed = seconds_until(functools.partial(_has_sent_since, system, dt.datetime.now(dt.UTC)), 120)
    until(lambda: not system.rows(OPEN), SETTLED)
    figures = [
        Figure(
            f"Redis {harm}: {name}, p99",
            p99(hurt[name]),
            0.1,
            f"healthy {p99(healthy[name]) * 1000:.0f} ms, ×{p99(hurt[name]) / p99(healthy[name]):.2f};"
            f" slowest of {count} {max(hurt[name]) * 1000:.0f} ms; all 200 or 201",
        )
        for name in hurt
    ]
    return [*figures, Figure(f"Redis {harm}: waiting tasks start after its return", resumed, 5)]


def request_times(system: HurtSystem, count: int) -> dict[str, list[float]]:
    """Return the seconds of creates, gets and lists, of two customers at a time; each must succeed."""
    task_id = create(system).json()["data"]["id"]
    kinds: dict[str, Callable[[object], requests.Response]] = {
        "create": lambda _: create(system),
        "get": lambda _: get(system, f"/videos/generations/{task_id}"),
        "list": lambda _: get(system, "/videos/generations?limit=20"),
    }
    seconds = {}
    with ThreadPoolExecutor(2) as customers:
        for name, call in kinds.items():
            replies = list(customers.map(call, range(count)))
            assert {reply.status_code for reply in replies} == {201 if name == "create" else 200}
            seconds[name] = [reply.elapsed.total_seconds() for reply in replies]
    return seconds


def redis_back(system: HurtSystem, *, harm: str, seconds: float) -> list[Figure]:
    """Measure how soon every queue is worked on, and beat sends, after Redis was away for some seconds."""
    messages, valkey = broker.connect(system)
    broker.HARMS[harm](system, seconds)
    until(lambda: broker.answers(valkey), 60)
    times = broker.resumed(system, messages, valkey)
    is_half_open = harm.startswith("half-open")
    told = ", ".join(f"{name} {value:.1f}" for name, value in times.items())
    held = "" if is_half_open or harm in broker.SUDDEN else f" for {seconds:.0f} s"
    return [Figure(f"Redis {harm}{held}: all work again", max(times.values()), 60 if is_half_open else 5, told)]


# --- PostgreSQL. ---

POSTGRES_HARMS = ("connections refused", "server stopped", "network frozen", "half-open")


def without_postgres(system: HurtSystem, *, harm: str) -> list[Figure]:
    """Measure the answers while PostgreSQL is away, each of which must be the page's `internal_error`."""
    create(system)
    harms: dict[str, tuple[Callable[[], object], Callable[[], object]]] = {
        "connections refused": (system.postgres.refuse, system.postgres.accept),
        "server stopped": (
            lambda: system.signal_postgres(signal.SIGSTOP),
            lambda: system.signal_postgres(signal.SIGCONT),
        ),
        "network frozen": (system.postgres.freeze, system.postgres.thaw),
        "half-open": (functools.partial(_deafen_and_freeze, system), system.postgres.thaw),
    }
    begin, end = harms[harm]
    begin()
    asks: list[Callable[[], requests.Response]] = [
        lambda: create(system),
        lambda: get(system, "/videos/generations?limit=1"),
        lambda: get(system, "/usage"),
        lambda: get(system, "/models"),
    ]
    with ThreadPoolExecutor(len(asks)) as customers:
        replies = list(customers.map(lambda ask: ask(), asks))
    for reply in replies[:3]:
        assert reply.status_code == 500, (reply.status_code, reply.text)
        assert reply.json()["error"]["code"] == "internal_error"
        assert reply.json()["error"]["type"] == "api_error", reply.text
    end()
    back = seconds_until(functools.partial(_is_well, system), 120)
    slowest = max(reply.elapsed.total_seconds() for reply in replies)
    statuses = [reply.status_code for reply in replies]
    return [
        Figure(f"PostgreSQL {harm}: slowest answer", slowest, 3, f"create, list, usage, models: {statuses}"),
        Figure(f"PostgreSQL {harm}: all is well after its return", back, 60),
    ]


def _deafen_and_freeze(system: HurtSystem) -> None:
    system.postgres.deafen()
    system.postgres.freeze()


def postgres_restarted(system: HurtSystem) -> list[Figure]:
    """Restart PostgreSQL at once, and measure how long there was nothing."""
    before = system.rows("SELECT pg_postmaster_start_time() AS at")[0]["at"]
    system.signal_postgres(signal.SIGQUIT)

    def is_back() -> bool:
        try:
            return bool(system.rows("SELECT pg_postmaster_start_time() AS at")[0]["at"] > before)
        except Exception:  # noqa: BLE001 - whatever says that it is not there yet
            return False

    down = seconds_until(is_back, 120)
    back = seconds_until(functools.partial(_is_well, system), 120)
    return [Figure("PostgreSQL restarted at once: all is well after it answers", back, 60, f"down {down:.1f} s")]


# --- Workers and beat. ---


def killed_worker(system: HurtSystem) -> list[Figure]:
    """Kill the workers in the middle of a job, and measure until another one has it."""
    figures = []
    for name, directive, status in (("worker", HANG, "submitting"), ("media", "", "succeeded")):
        task_id = create(system, directive).json()["data"]["id"]
        sql = "SELECT status, lease_token, due_at FROM providers_upstreamjob WHERE reference = %s"

        def job(task_id: str = task_id, sql: str = sql) -> dict[str, Any]:
            return system.rows(sql, [task_id])[0]

        until(lambda: job()["status"] == status and job()["lease_token"], 60, pause=0.01)  # noqa: B023 - called at once
        lease = job()["lease_token"]
        system.kill_group(name)
        again = seconds_until(lambda: job()["lease_token"] != lease, 180)  # noqa: B023 - called at once
        figures.append(Figure(f"a job {status} of a killed worker is worked on again", again, 75))
    return figures


def without_beat(system: HurtSystem, *, seconds: float, is_alert_awaited: bool = True) -> list[Figure]:
    """Freeze beat for a while in which tasks are created, and measure starts, the alert and the catching up."""
    until(lambda: not system.rows(OPEN), SETTLED)
    ready = functools.partial(requests.get, f"{system.facts['base_url']}/readyz", timeout=10)
    until(lambda: ready().status_code == 200, 60)
    system.signal_program("beat", signal.SIGSTOP)
    began = time.monotonic()
    alert = float("inf")
    ids = []
    while time.monotonic() - began < seconds:
        ids.append(create(system).json()["data"]["id"])
        if alert == float("inf") and "beat" in ready().json()["missing"]:
            alert = time.monotonic() - began
        time.sleep(max(0.5, seconds / 200))
    started = until(lambda: _starts(system, ids), 30)
    left = system.rows("SELECT count(*) AS n FROM generations_generation WHERE status IN ('pending', 'processing')")
    system.signal_program("beat", signal.SIGCONT)
    ended = seconds_until(lambda: not system.rows(OPEN), SETTLED)
    told = f"no beat for {seconds:.0f} s"
    figures = [
        Figure(f"{told}: slowest start of {len(ids)} new tasks", max(started), 5, "by wake-up"),
        Figure(f"{told}: all ended after its return", ended, 30, f"{left[0]['n']} were open"),
    ]
    return [*figures, Figure(f"{told}: /readyz says so after", alert, 120)] if is_alert_awaited else figures


def _starts(system: HurtSystem, ids: list[str]) -> list[float]:
    rows = system.rows(
        """
        SELECT extract(epoch FROM j.submit_started_at - g.created_at)::float AS seconds
          FROM generations_generation g JOIN providers_upstreamjob j ON j.reference = g.public_id AND j.number = 1
         WHERE g.public_id = ANY(%s) AND j.submit_started_at IS NOT NULL
        """,
        [ids],
    )
    return [row["seconds"] for row in rows] if len(rows) == len(ids) else []


def several_beats(system: HurtSystem, *, count: int = 40) -> list[Figure]:
    """Run three beats at once while tasks are created; nothing may be done twice."""
    until(lambda: not system.rows(OPEN), SETTLED)
    with system.another("beat"), system.another("beat"), ThreadPoolExecutor(4) as customers:
        time.sleep(3)
        ids = [reply.json()["data"]["id"] for reply in customers.map(lambda _: create(system), range(count))]
        until(lambda: not system.rows(OPEN), SETTLED)
    (row,) = system.rows(
        """
        SELECT (SELECT count(*) FROM providers_upstreamjob WHERE reference = ANY(%(ids)s)) AS jobs,
               (SELECT count(*) FROM providers_upstreamcall c JOIN providers_upstreamjob j ON j.id = c.job_id
                 WHERE j.reference = ANY(%(ids)s) AND c.kind = 'submit') AS submissions,
               (SELECT count(*) FROM billing_ledgerentry
                 WHERE reference = ANY(%(ids)s) AND kind IN ('capture', 'release')) AS closings
        """,
        {"ids": ids},
    )
    doubled = sum(abs(row[name] - count) for name in row)
    return [Figure(f"three beats, {count} tasks: jobs, submissions, closings too many", doubled, 0, str(row))]


# --- Rolling restarts. ---


def web_reloaded(system: HurtSystem, *, times: int = 3) -> list[Figure]:
    """Reload the web server again and again under load, as gunicorn does it: SIGHUP to its first process."""
    with Load(system.url, system.headers) as load:
        time.sleep(1)
        for _ in range(times):
            master = system.program("web")
            assert master is not None
            old = {child.pid for child in master.children()}
            master.send_signal(signal.SIGHUP)
            until(lambda: not old & set(_pids(master.children())), 60)  # noqa: B023 - called at once
            time.sleep(1)
    return [_failed(f"web reloaded {times} × by SIGHUP", load)]


def web_replaced(system: HurtSystem, *, times: int = 2) -> list[Figure]:
    """Replace one of two web servers after the other under load: out of rotation, SIGTERM, start, back again."""
    balancer = Balancer()
    slowest = 0.0
    first = int(system.facts["base_url"].rpartition(":")[2])
    with system.another("web") as second:
        until(lambda: _is_alive(second.port), 60)
        balancer.servers = [first, second.port]
        with Load(f"http://127.0.0.1:{balancer.port}/v1", system.headers) as load:
            time.sleep(1)
            for _ in range(times):
                balancer.servers = [second.port]
                master = system.program("web")
                assert master is not None
                slowest = max(slowest, _ended(master))
                until(lambda: _is_alive(first), 60)
                balancer.servers = [first]
                slowest = max(slowest, second.restart())
                until(lambda: _is_alive(second.port), 60)
                balancer.servers = [first, second.port]
                time.sleep(1)
            balancer.servers = [first]
    balancer.close()
    return [
        _failed(f"two web servers replaced {times} × by SIGTERM", load),
        Figure("a web server has ended after SIGTERM", slowest, 25),
    ]


def workers_restarted(system: HurtSystem, *, rounds: int = 2) -> list[Figure]:
    """Restart the workers one after the other under load, and measure their ends and the slowest task."""
    until(lambda: not system.rows(OPEN), SETTLED)
    drained: dict[str, float] = {}
    with Load(system.url, system.headers, threads=2, pause=0.3) as load:
        time.sleep(2)
        for _ in range(rounds):
            for name in WORKERS:
                create(system, "")  # one that is rendered, so that the media worker has something in hand
                time.sleep(2)
                process = system.program(name)
                assert process is not None
                drained[name] = max(drained.get(name, 0.0), _ended(process))
                until(lambda: system.program(name), 60)  # noqa: B023 - called at once
        time.sleep(2)
    until(lambda: not system.rows(OPEN), SETTLED)
    starts = until(lambda: _starts(system, load.tasks), 120)
    (row,) = system.rows(
        "SELECT max(extract(epoch FROM finished_at - created_at))::float AS seconds FROM generations_generation"
        " WHERE public_id = ANY(%s)",
        [load.tasks],
    )
    told = ", ".join(f"{name} {seconds:.1f}" for name, seconds in drained.items())
    return [
        _failed(f"workers restarted {rounds} × by SIGTERM", load),
        Figure("workers have ended after SIGTERM", max(drained.values()), 25, told),
        Figure(f"slowest start of {len(load.tasks)} tasks meanwhile", max(starts), 20, "the lease is 20 s"),
        Figure("slowest of them from create to end", row["seconds"], 60, "about 3 s when nothing is restarted"),
    ]


def _failed(name: str, load: Load) -> Figure:
    count = sum(load.failures.values())
    slowest = f"p99 {p99(load.seconds) * 1000:.0f} ms" if load.seconds else "nothing was answered"
    return Figure(
        f"{name}: requests that failed", count, 0, f"of {sum(load.answers.values())}; {slowest} {load.failures or ''}"
    )


def _ended(process: psutil.Process) -> float:
    began = time.monotonic()
    process.send_signal(signal.SIGTERM)
    until(lambda: not process.is_running() or process.status() == psutil.STATUS_ZOMBIE, 60, pause=0.02)
    return time.monotonic() - began


def _pids(processes: list[psutil.Process]) -> list[int]:
    return [process.pid for process in processes]


def _is_alive(port: int) -> bool:
    try:
        return requests.get(f"http://127.0.0.1:{port}/healthz", timeout=2).ok
    except requests.RequestException:
        return False


# --- What customers do. ---


def create(system: HurtSystem, directive: str = "[sandbox:moderation]") -> requests.Response:
    """Create a task."""
    path = f"{system.url}/videos/generations"
    return requests.post(path, headers=system.headers, json=body(directive), timeout=30)


def get(system: HurtSystem, path: str) -> requests.Response:
    """Read something."""
    return requests.get(f"{system.url}{path}", headers=system.headers, timeout=30)


def _has_sent_since(system: HurtSystem, moment: dt.datetime) -> bool:
    return bool(system.rows("SELECT FROM providers_upstreamjob WHERE submit_started_at > %s LIMIT 1", [moment]))


def _is_well(system: HurtSystem) -> bool:
    """Ask for 32 things, eight at a time, so that every process and its connections come to bear."""
    with ThreadPoolExecutor(8) as customers:
        replies = customers.map(lambda _: get(system, "/videos/generations?limit=1").status_code, range(32))
        return all(status == 200 for status in replies)


def seconds_until(condition: Callable[[], object], patience: float) -> float:
    """Wait until a condition holds, and return how long it took."""
    began = time.monotonic()
    until(condition, patience, pause=0.05)
    return time.monotonic() - began


def _measures(beat_seconds: float) -> dict[str, Callable[[HurtSystem], list[Figure]]]:
    measures: dict[str, Callable[[HurtSystem], list[Figure]]] = {}
    for harm in ("frozen", "network frozen", "refused"):
        measures[f"without redis, {harm}"] = functools.partial(without_redis, harm=harm)
    for harm in ("half-open", "half-open, then frozen", "frozen", "stopped", "refused", "killed", "FLUSHALL"):
        measures[f"redis back, {harm}"] = functools.partial(redis_back, harm=harm, seconds=12)
    for harm in POSTGRES_HARMS:
        measures[f"without postgres, {harm}"] = functools.partial(without_postgres, harm=harm)
    return measures | {
        "postgres restarted": postgres_restarted,
        "killed worker": killed_worker,
        "without beat": functools.partial(without_beat, seconds=beat_seconds),
        "several beats": several_beats,
        "web reloaded": web_reloaded,
        "web replaced": web_replaced,
        "workers restarted": workers_restarted,
    }


def main() -> int:
    """Measure everything and print a table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--beat", type=float, default=60, help="seconds without beat; 600 for the whole bar")
    parser.add_argument("--only", nargs="*", default=[""], help="parts of the names of what is measured")
    given = parser.parse_args()
    _say(f"load average {os.getloadavg()[0]:.1f} on {os.cpu_count()} cores; load beside each figure")
    is_good = True
    with HurtSystem() as system:
        for name, measure in _measures(given.beat).items():
            if not any(part in name for part in given.only):
                continue
            system.heal()
            system.await_programs()
            try:
                figures = measure(system)
            except Exception as error:  # noqa: BLE001 - the others are to be measured all the same
                _say(f"FAILED  {name}: {type(error).__name__}: {error}")
                is_good = False
                continue
            for figure in figures:
                is_good &= figure.is_met
                bar = "" if figure.bar is None else f"bar {figure.bar:g}"
                _say(
                    f"{'ok    ' if figure.is_met else 'MISSED'}  {figure.name:<72}{figure.value:8.3f}  {bar:<8}"
                    f"  load {os.getloadavg()[0]:.1f}  {figure.note}"
                )
    return 0 if is_good else 1


def _say(line: str) -> None:
    sys.stdout.write(f"{line}\n")
    sys.stdout.flush()


if __name__ == "__main__":
    sys.exit(main())
