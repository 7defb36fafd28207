"""The pipeline driven by hand, lane by lane, with a clock that the test turns."""

from collections.abc import Callable
from typing import Any

import time_machine

from generations import runner
from generations.models import Generation
from providers import claims
from providers.models import Channel, Route

LANES: dict[str, tuple[Callable[[int], list[Any]], Callable[[Any], None]]] = {
    "submit": (claims.claim_queued, runner.submit),
    "poll": (claims.claim_polls, runner.poll),
    "settle": (claims.claim_finished, runner.settle),
}


def route_live_traffic_to_sandbox() -> None:
    """Let live tasks run on the sandbox, as on a local machine."""
    for model in ("pro", "fast", "mini"):
        Route.objects.create(
            model=model, traffic="live", channel=Channel.objects.get(name="sandbox"), upstream_model=f"sandbox-{model}"
        )


def claim(lane: str, limit: int = 10) -> list[Any]:
    """Lease due rows of a lane: jobs, or batches of them."""
    return LANES[lane][0](limit)


def work(lane: str, row: Any) -> None:
    """Work on one claimed row of a lane."""
    LANES[lane][1](row)


def run(lane: str) -> int:
    """Work on every due row of a lane once; return how many there were."""
    claimed = claim(lane)
    for row in claimed:
        work(lane, row)
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
