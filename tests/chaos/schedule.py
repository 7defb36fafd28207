"""What is done to the system and when, drawn from a seed."""

import random
import signal
import threading
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass

from tests.chaos.system import WORKERS, HurtSystem, until


@dataclass(frozen=True)
class Measures:
    """How much harm there is in one run."""

    seconds: float
    worker_kills: int
    web_kills: int
    flushes: int
    stops: int
    """How often Valkey is stopped, by SIGSTOP."""
    stop_seconds: float
    valkey_kills: int
    postgres_restarts: int
    network_faults: int
    """For each of the two proxies."""


@dataclass(frozen=True)
class Blow:
    """One thing that is done at a time."""

    at: float
    name: str
    strike: Callable[[], object]


def draw(seed: int, system: HurtSystem, measures: Measures) -> list[Blow]:
    """Draw all blows of a run, in order of their times."""
    dice = random.Random(f"blows/{seed}")
    blows: list[Blow] = []

    def spread(count: int, name: str, strike: Callable[[], object]) -> None:
        # One in each of `count` equal parts of the time, so that they neither bunch nor leave long quiet.
        for part in range(count):
            at = measures.seconds * (part + dice.uniform(0.1, 0.9)) / count
            blows.append(Blow(at, name, strike))

    def last(count: int, name: str, begin: Callable[[], object], end: Callable[[], object], seconds: float) -> None:
        for part in range(count):
            at = measures.seconds * (part + dice.uniform(0.1, 0.9)) / count
            blows.append(Blow(at, name, begin))
            blows.append(Blow(at + seconds, f"{name}: over", end))

    for part in range(measures.worker_kills):
        name = WORKERS[part % len(WORKERS)]  # in turn, so that each is hit
        at = measures.seconds * (part + dice.uniform(0.1, 0.9)) / measures.worker_kills
        blows.append(Blow(at, f"kill -9 {name}", _killing_group(system, name)))
    for _ in range(-(-measures.worker_kills // 10)):
        name = dice.choice(WORKERS)
        at = measures.seconds * dice.uniform(0, 1)
        blows.append(Blow(at, f"kill -9 one process of {name}", _killing_child(system, name, dice.randrange(1000))))
        blows.append(Blow(measures.seconds * dice.uniform(0, 1), "kill -9 beat", _killing_group(system, "beat")))
    for part in range(measures.web_kills):
        at = measures.seconds * (part + dice.uniform(0.1, 0.9)) / measures.web_kills
        is_whole = part % 2 == 1
        strike = _killing_group(system, "web") if is_whole else _killing_child(system, "web", dice.randrange(1000))
        blows.append(Blow(at, "kill -9 web" if is_whole else "kill -9 one process of web", strike))
    spread(measures.flushes, "FLUSHALL", system.flush_valkey)
    spread(measures.valkey_kills, "kill -9 Valkey", lambda: system.signal_valkey(signal.SIGKILL))
    spread(measures.postgres_restarts, "PostgreSQL restarts at once", lambda: system.signal_postgres(signal.SIGQUIT))
    last(
        measures.stops,
        f"Valkey stopped for {measures.stop_seconds:.0f} s",
        lambda: system.signal_valkey(signal.SIGSTOP),
        lambda: system.signal_valkey(signal.SIGCONT),
        measures.stop_seconds,
    )
    for name, proxy in (("PostgreSQL", system.postgres), ("Valkey", system.valkey)):
        spread(measures.network_faults, f"connections to {name} half-open", proxy.deafen)
        spread(measures.network_faults, f"connections to {name} reset", proxy.reset)
        last(measures.network_faults, f"network to {name} frozen", proxy.freeze, proxy.thaw, 3)
        last(measures.network_faults, f"{name} refuses connections", proxy.refuse, proxy.accept, 3)
        slow, quick = _dawdling(proxy.dawdle)
        last(measures.network_faults, f"network to {name} slow", slow, quick, 5)
    return sorted(blows, key=lambda blow: blow.at)


class Nemesis:
    """A thread that strikes every blow at its time."""

    def __init__(self, blows: list[Blow], say: Callable[[str], None]) -> None:
        self.struck: Counter[str] = Counter()
        self.complaints: list[str] = []
        self._blows = blows
        self._say = say
        self._thread = threading.Thread(target=self._work, name="nemesis", daemon=True)

    def start(self) -> None:
        """Begin."""
        self._thread.start()

    def join(self) -> None:
        """Wait until the last blow was struck."""
        self._thread.join()

    def _work(self) -> None:
        started = time.monotonic()
        for blow in self._blows:
            time.sleep(max(0.0, started + blow.at - time.monotonic()))
            try:
                outcome = blow.strike()
            except Exception as error:  # noqa: BLE001 - whatever it is, the audit must hear of it
                self.complaints.append(f"{blow.name}: {type(error).__name__}: {error}")
                continue
            told = f" ({outcome})" if isinstance(outcome, str) and outcome != "killed" else ""
            self._say(f"{time.monotonic() - started:7.1f} s  {blow.name}{told}")
            if not told:
                self.struck[blow.name] += 1


def _killing_group(system: HurtSystem, name: str) -> Callable[[], str]:
    def kill() -> str:
        until(lambda: system.program(name), 60)  # it may be down from the blow before
        return system.kill_group(name)

    return kill


def _killing_child(system: HurtSystem, name: str, number: int) -> Callable[[], str]:
    return lambda: system.kill_child(name, lambda children: children[number % len(children)])


def _dawdling(dawdle: Callable[[float], None]) -> tuple[Callable[[], None], Callable[[], None]]:
    return lambda: dawdle(0.1), lambda: dawdle(0)
