"""`python -m tests.chaos.webhooks`: kill the deliverer with -9 again and again while events come; all must arrive.

1,000 events, 100 kills of the Procfile's deliverer, one in ten of its whole group, the others of one of its processes.
What a killed one had in hand comes again when its lease ends, with the same id, number and bytes.
"""

import argparse
import hashlib
import os
import random
import signal
import sys
import time
from collections import defaultdict
from collections.abc import Callable
from dataclasses import dataclass

import psutil

from tests.chaos.run import seed_of_run
from tests.receivers import Answer, Receiver

PATHS = 5
PAUSE = 0.1  # seconds until an answer
PATIENCE = 400.0


@dataclass(frozen=True)
class Findings:
    """What became of the events."""

    event_count: int
    kill_count: int
    request_count: int
    repeat_count: int
    seconds: float
    wrong: list[str]


def trial(*, count: int, kills: int, per_second: float, kill: Callable[[int], bool], dice: random.Random) -> Findings:
    """Write events at a rate, kill so many times meanwhile, wait until no delivery is pending, and look at what came.

    `kill(n)` is the n-th try, and tells whether it hit.
    """
    from accounts.models import Organization
    from seedancee2.lib import wakeups
    from webhooks import outbox
    from webhooks.models import Delivery

    began = time.monotonic()
    organization, _ = Organization.objects.get_or_create(name="chaos")
    bodies: dict[str, str] = {}
    with Receiver() as receiver, Receiver() as second:
        # So slow that a killed deliverer has something in hand.
        for one in (receiver, second):
            for number in range(PATHS):
                one.plan(f"/{number}", Answer(delay=PAUSE))
        struck = 0
        for number in range(count):
            body = f'{{"data":{{"id":"{number} 🎬"}}}}'.encode()
            row = outbox.enqueue(
                organization_id=organization.pk,
                is_test=False,
                reference=f"vid_chaos_{os.getpid()}_{number}",
                event=Delivery.Event.COMPLETED,
                url=(receiver, second)[number % 2].url(f"/{number % PATHS}"),
                body=body,
            )
            bodies[row.pk] = hashlib.sha256(body).hexdigest()
            while struck < kills * (number + 1) // count:
                _await_request(receiver, second)
                time.sleep(dice.uniform(0.0, 1.5 * PAUSE))
                struck += kill(struck)
            time.sleep(max(0.0, began + (number + 1) / per_second - time.monotonic()))
        end = time.monotonic() + PATIENCE
        pending = Delivery.objects.filter(pk__in=bodies, state=Delivery.State.PENDING)
        while pending.exists() and time.monotonic() < end:
            wakeups.wake("webhooks.deliver")
            time.sleep(0.5)
        requests = receiver.requests + second.requests
    seconds = time.monotonic() - began
    wrong: list[str] = []
    came: defaultdict[tuple[str, str], int] = defaultdict(int)
    for request in requests:
        delivery_id = request.headers["x-seedancee2-delivery"]
        came[delivery_id, request.headers["x-seedancee2-attempt"]] += 1
        if bodies.get(delivery_id) != hashlib.sha256(request.body).hexdigest():
            wrong.append(f"{delivery_id} came with other bytes")
    for row in Delivery.objects.filter(pk__in=bodies):
        numbers = sorted(int(number) for pk, number in came if pk == row.pk)
        recorded = list(row.attempts.order_by("number").values_list("number", flat=True))
        if row.state != "delivered" or not numbers:
            wrong.append(f"{row.pk} is {row.state}, came {len(numbers)} times")
        elif recorded != list(range(1, row.attempt_count + 1)) or not set(numbers) <= set(recorded):
            wrong.append(f"{row.pk} came as {numbers} and is recorded as {recorded}")
    return Findings(count, struck, len(requests), len(requests) - len(came), seconds, wrong)


def _await_request(*receivers: Receiver) -> None:
    """Wait until the next request comes, so that a kill right after it hits between sending and noting."""
    before = sum(len(receiver.requests) for receiver in receivers)
    end = time.monotonic() + 1.0
    while sum(len(receiver.requests) for receiver in receivers) == before and time.monotonic() < end:
        time.sleep(0.005)


def main() -> int:
    """Run on the Procfile's deliverer and print what was found."""
    from bench import system

    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--events", type=int, default=1_000)
    parser.add_argument("--kills", type=int, default=100)
    parser.add_argument("--seed", type=int, default=seed_of_run())
    given = parser.parse_args()
    dice = random.Random(f"webhooks/{given.seed}")
    _say(f"seed {given.seed}; load average {os.getloadavg()[0]:.1f}")
    with system.system(OUTBOUND_ALLOWED_HOSTS="127.0.0.1", LOG_LEVEL="WARNING") as made:

        def kill(number: int) -> bool:
            process = made.running["deliver"][0]
            if process.poll() is not None:  # Celery ends where its pool is killed as it starts: a supervisor's case
                made.start("deliver")
                return False
            if number % 10 == 9:
                os.killpg(process.pid, signal.SIGKILL)
                process.wait()
                made.start("deliver")
                return True
            children = psutil.Process(process.pid).children()
            if not children:  # it has just been started
                return False
            dice.choice(children).kill()
            return True

        made.start("beat", "deliver")
        found = trial(count=given.events, kills=given.kills, per_second=10.0, kill=kill, dice=dice)
    _say(table(found))
    return 1 if found.wrong else 0


def table(found: Findings) -> str:
    """Return the findings as text."""
    lines = [
        f"  {found.event_count} events, {found.kill_count} kills, {found.seconds:.0f} s",
        f"  {found.request_count} requests, {found.repeat_count} of them repeats with the same id, number and bytes",
        f"  {len(found.wrong)} wrong {found.wrong[:5] or ''}",
    ]
    return "\n".join(lines)


def _say(line: str) -> None:
    sys.stdout.write(f"{line}\n")
    sys.stdout.flush()


if __name__ == "__main__":
    sys.exit(main())
