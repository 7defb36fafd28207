"""Measure everything, as a customer of the running system. Run: python -m bench [TASKS] [--long].

One history of TASKS tasks (1,000,000 unless told) serves what depends on it; the others start systems of their own.
`--long` takes 10,000,000 tasks and an hour of load, and measures claims and the ledger at their full size too.
"""

import subprocess
import sys
import time

from bench import api, growth, history, system, usage

# Programs of this folder, with their arguments.
OTHERS = (
    ("pipeline", "200"),
    ("webhooks", "throughput", "isolation"),
    ("lag", "10000", "ark", "", "alone"),
    ("memory", "1.5"),
    ("start",),
    ("scaling", "40"),
)
LONG = (
    ("pipeline", "2000"),
    ("webhooks",),
    ("lag", "10000"),
    ("memory", "60"),
    ("start",),
    ("scaling", "200"),
    ("claims", "400000", "8"),
    ("ledger", "5000000", "8"),
)
SECONDS, LONG_SECONDS = 3, 10  # of each load


def main() -> int:
    """Measure, and print one table after the other; tell whether all could be measured."""
    is_long = "--long" in sys.argv
    numbers = [int(word) for word in sys.argv[1:] if word.isdecimal()]
    tasks = numbers[0] if numbers else 10_000_000 if is_long else 1_000_000
    began = time.monotonic()
    with system.system(LOG_LEVEL="WARNING", **api.UNLIMITED) as made:
        history.write(tasks)
        try:
            growth.measure()
            usage.measure(made)
            api.measure(made, LONG_SECONDS if is_long else SECONDS)
        except BaseException:
            print(made.last_words())
            raise
    failed = []
    for name, *arguments in LONG if is_long else OTHERS:
        print(f"\n--- {name}", flush=True)
        command = [sys.executable, "-W", "ignore", "-m", f"bench.{name}", *arguments]
        if subprocess.run(command, check=False).returncode:
            failed.append(name)
    print(f"\nall of it took {(time.monotonic() - began) / 60:.0f} minutes")
    if failed:
        print(f"not measured to the end: {', '.join(failed)}")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.stdout.reconfigure(line_buffering=True)  # type: ignore[union-attr] # a text file, told as it happens
    sys.exit(main())
