"""What the local machine remembers under `var/`: private files, and the lock that keeps two runs apart."""

from __future__ import annotations

import fcntl
import json
import os
import pwd
import tempfile
from pathlib import Path
from typing import IO

ROOT = Path(__file__).resolve().parents[2]
VAR = ROOT / "var"


class CannotStart(Exception):
    """The local machine cannot start; the message says why and what mends it."""


def ensure_folder(folder: Path) -> Path:
    """Make a folder that only its owner may enter, if it is not there yet."""
    folder.mkdir(parents=True, exist_ok=True, mode=0o700)
    return folder


def ensure_var() -> Path:
    """Make `var/` where it is not there yet; refuse one that another user made, to mix no owners."""
    ensure_folder(VAR)
    owner = VAR.stat().st_uid
    if owner != os.geteuid():
        raise CannotStart(
            f"{VAR} belongs to user {_user_name(owner)}: run as that user, or remove that folder to start afresh."
        )
    return VAR


def _user_name(number: int) -> str:
    try:
        return pwd.getpwuid(number).pw_name
    except KeyError:
        return str(number)


def write_private(path: Path, text: str) -> None:
    """Write a file that only its owner may read, all of it or nothing."""
    descriptor, temporary = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")  # made with mode 0600
    try:
        with os.fdopen(descriptor, "w", encoding="utf-8") as file:
            file.write(text)
        Path(temporary).replace(path)
    except BaseException:
        Path(temporary).unlink(missing_ok=True)
        raise


def write_json(path: Path, values: dict[str, object]) -> None:
    """Write a private JSON file, all of it or nothing."""
    write_private(path, json.dumps(values, indent=2) + "\n")


def read_json(path: Path) -> dict[str, object]:
    """Read a JSON object, or {} where there is none that can be read."""
    try:
        values = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return values if isinstance(values, dict) else {}


def is_running(lock_file: Path) -> bool:
    """Tell whether the process that wrote its number into a lock file is still there."""
    try:
        os.kill(int(lock_file.read_text(encoding="utf-8")), 0)
    except PermissionError:
        return True
    except (OSError, ValueError):
        return False
    return True


def lock(path: Path) -> IO[str] | None:
    """Take a lock that the system frees when this process ends, or give None where another process holds it."""
    file = os.fdopen(os.open(path, os.O_RDWR | os.O_CREAT, 0o600), "r+", encoding="utf-8")
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        file.close()
        return None
    return file
