"""The pipeline driven by hand, lane by lane, with a clock that the test turns."""

import time_machine

from generations import runner
from generations.models import Generation
from providers import jobs
from providers.models import Channel, Route

LANES = {"submit": runner.submit, "poll": runner.poll, "settle": runner.settle}


def route_live_traffic_to_sandbox() -> None:
    """Let live tasks run on the sandbox, as on a local machine."""
    for model in ("pro", "fast", "mini"):
        Route.objects.create(
            model=model, traffic="live", channel=Channel.objects.get(name="sandbox"), upstream_model=f"sandbox-{model}"
        )


def run(lane: str) -> int:
    """Work on every due job of a lane once; return how many there were."""
    claimed = jobs.claim_due(lane, 10)
    for job in claimed:
        LANES[lane](job)
    return len(claimed)


def run_to_end(turned: time_machine.Traveller, generation: Generation, *, seconds: int = 60) -> Generation:
    """Turn the clock second by second, working on every lane, until the generation has ended."""
    for _ in range(seconds):
        for lane in LANES:
            run(lane)
        generation.refresh_from_db()
        if not generation.is_open:
            return generation
        turned.shift(1)
    raise AssertionError(f"{generation} is still {generation.status} after {seconds} seconds")
