"""Run one emulated provider by itself: python -m providers.emulators NAME [--port PORT] [--key KEY]."""

import argparse
import os
import signal

from providers import emulators
from providers.emulators.server import Pace


def main() -> None:
    """Serve until told to stop."""
    parser = argparse.ArgumentParser(prog="python -m providers.emulators", description=__doc__)
    parser.add_argument("name", choices=sorted(emulators.EMULATORS))
    parser.add_argument("--port", type=int, default=0)
    parser.add_argument(
        "--key", default=os.environ.get("EMULATOR_KEY", "emulator-key"), help="The credential that is accepted."
    )
    parser.add_argument("--queued", type=float, default=0.5, help="Seconds a task waits.")
    parser.add_argument("--running", type=float, default=3.0, help="Seconds a task runs.")
    options = parser.parse_args()
    emulator = emulators.find(options.name)(key=options.key, pace=Pace(options.queued, options.running))
    # Before serving, so that threads inherit it and only this one wakes up.
    signals = {signal.SIGTERM, signal.SIGINT}
    signal.pthread_sigmask(signal.SIG_BLOCK, signals)
    with emulator.serving(port=options.port) as base_url:
        print(f"{options.name} at {base_url}", flush=True)  # noqa: T201 - a command's output
        signal.sigwait(signals)


if __name__ == "__main__":
    main()
