"""Where the local system listens, for commands that are run beside it without an environment of their own."""

from __future__ import annotations

from pathlib import Path

from seedancee2.local import state

ENVIRONMENT = state.VAR / "run.env.json"


def read(path: Path = ENVIRONMENT) -> dict[str, str]:
    """Give the environment of the running local system, or {} where none runs in this checkout."""
    # After a kill -9 the file is still there, but nothing answers at its addresses.
    if not state.is_running(path.parent / "run.lock"):
        return {}
    return {name: value for name, value in state.read_json(path).items() if isinstance(value, str)}


def write(environment: dict[str, str], path: Path = ENVIRONMENT) -> None:
    """Tell other commands in this checkout the environment of the system that is starting."""
    state.write_json(path, {**environment})


def forget(path: Path = ENVIRONMENT) -> None:
    """Take the addresses back, once nothing listens there any more."""
    path.unlink(missing_ok=True)
