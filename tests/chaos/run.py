"""`make chaos`: hurt the whole system while customers use it; nothing may be lost, doubled or charged wrongly."""

import argparse
import os
import random
import sys
import time
from collections.abc import Callable
from pathlib import Path

from seedancee2.local import state
from tests.chaos import audit, customers, schedule
from tests.chaos.audit import Findings
from tests.chaos.schedule import Measures
from tests.chaos.system import HurtSystem
from tests.receivers import Receiver


def seed_of_run() -> int:
    """Return CHAOS_SEED, or a new seed."""
    given = os.environ.get("CHAOS_SEED")
    return int(given) if given else random.SystemRandom().randrange(1_000_000)


def trial(
    system: HurtSystem,
    *,
    seed: int,
    count: int,
    measures: Measures,
    say: Callable[[str], None],
    settle_seconds: float,
    hook_failures: int,
) -> Findings:
    """Hurt a running system while customers use it, wait until all is settled, and compare everything."""
    started = time.monotonic()
    available_before = system.balance()["available"]
    with Receiver() as receiver:
        wanted = customers.plan(
            seed, count=count, seconds=measures.seconds * 0.9, receiver=receiver, hook_failures=hook_failures
        )
        crowd = customers.Customers(system.url, system.headers, wanted, threads=8, seed=seed)
        nemesis = schedule.Nemesis(schedule.draw(seed, system, measures), say)
        crowd.start()
        nemesis.start()
        nemesis.join()
        system.heal()
        crowd.join()
        hurt = time.monotonic() - started
        say(f"{hurt:7.1f} s  all was done; waiting until everything is settled")
        is_settled = _await_settled(system, settle_seconds, say)
        settled = time.monotonic() - started
        findings = audit.check(system, crowd, wanted, receiver, available_before=available_before)
    findings.expect(is_so=is_settled, what=f"not settled after {settle_seconds:.0f} s: {audit.open_work(system)}")
    findings.wrong += nemesis.complaints
    findings.figures |= {f"× {name}": n for name, n in sorted(nemesis.struck.items()) if not name.endswith("over")}
    findings.figures["seconds of harm"] = round(hurt)
    findings.figures["seconds until settled"] = round(settled)
    findings.figures["seed"] = seed
    if findings.wrong:
        findings.wrong.append(f"what the system printed is in {keep_output(system, f'chaos-{seed}')}")
    return findings


def keep_output(system: HurtSystem, name: str) -> Path:
    """Keep what the system printed, for whoever looks for the cause."""
    printed = state.ensure_var() / f"{name}.log"
    printed.write_text(system.local.output)
    return printed


def table(findings: Findings) -> str:
    """Return the figures of a run as lines."""
    width = max(len(name) for name in findings.figures)
    lines = [f"  {name:<{width}}  {value}" for name, value in findings.figures.items()]
    lines += [f"  WRONG: {what}" for what in findings.wrong] or ["  nothing was lost, doubled or charged wrongly"]
    return "\n".join(lines)


def _await_settled(system: HurtSystem, seconds: float, say: Callable[[str], None]) -> bool:
    end = time.monotonic() + seconds
    told_at = time.monotonic()
    while any((left := audit.open_work(system)).values()):
        if time.monotonic() > end:
            return False
        if time.monotonic() - told_at > 30:
            told_at = time.monotonic()
            say(f"           still open: {left}")
        time.sleep(0.5)
    return True


def main() -> int:
    """Run the long form."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--tasks", type=int, default=1000)
    parser.add_argument("--seconds", type=float, default=1200, help="how long it is hurt")
    parser.add_argument("--kills", type=int, default=50, help="of worker groups")
    parser.add_argument("--stop", type=float, default=60, help="seconds for which Valkey is stopped")
    parser.add_argument("--provider", type=float, default=0.2, help="share of the provider's answers that are faults")
    parser.add_argument("--deadline", type=int, default=900, help="seconds that a task may take")
    parser.add_argument("--seed", type=int, default=seed_of_run())
    given = parser.parse_args()
    measures = Measures(
        seconds=given.seconds,
        worker_kills=given.kills,
        web_kills=max(2, given.kills // 5),
        flushes=5,
        stops=1,
        stop_seconds=given.stop,
        valkey_kills=2,
        postgres_restarts=3,
        network_faults=2,
    )
    _say(f"seed {given.seed}; CHAOS_SEED={given.seed} repeats what is done, though not how the processes interleave")
    with HurtSystem(
        CHAOS_SEED=str(given.seed),
        CHAOS_PROVIDER_RATE=str(given.provider),
        TASK_DEADLINE_SECONDS=str(given.deadline),
    ) as system:
        findings = trial(
            system,
            seed=given.seed,
            count=given.tasks,
            measures=measures,
            say=_say,
            settle_seconds=given.deadline + 300,
            hook_failures=2,
        )
    _say(table(findings))
    return 1 if findings.wrong else 0


def _say(line: str) -> None:
    sys.stdout.write(f"{line}\n")
    sys.stdout.flush()


if __name__ == "__main__":
    sys.exit(main())
