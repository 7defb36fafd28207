"""Start servers of its own, and measure one after the other."""

import contextlib
import os
import shutil
import sys
from collections.abc import Iterator
from pathlib import Path

from bench.ledger import history, speed, web
from seedancee2.local import postgres, state, throwaway


def main() -> None:
    """Measure and print three tables."""
    movements = int(sys.argv[1]) if len(sys.argv) > 1 else 200_000
    seconds = round(float(sys.argv[2])) if len(sys.argv) > 2 else 8
    with _servers() as folder:
        _prepare(movements)
        print(f"load of the machine before: {os.getloadavg()[0]:.1f} on {os.cpu_count()} cores; durable commits")
        history.measure()
        speed.measure(folder, seconds)
        web.measure(seconds)


@contextlib.contextmanager
def _servers() -> Iterator[Path]:
    folder = state.ensure_folder(state.ensure_var() / f"bench-{os.getpid()}")
    try:
        with throwaway._running(postgres.prepare(folder / "postgres", is_durable=True, say=lambda _: None)) as database:
            os.environ["DATABASE_URL"] = database
            with throwaway.servers() as addresses:
                os.environ.update(addresses, LOCAL_MODE="true", SECRET_KEY="bench" * 10, LOG_LEVEL="CRITICAL")
                os.environ.update(DJANGO_SETTINGS_MODULE="seedancee2.settings")
                yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _prepare(movements: int) -> None:
    import django
    from django.core.management import call_command

    django.setup()
    call_command("migrate", verbosity=0)
    history.write(movements)
    speed.prepare()


if __name__ == "__main__":
    main()
