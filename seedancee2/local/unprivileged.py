"""A system user without rights, for PostgreSQL, which refuses to run as root."""

from __future__ import annotations

import os
import pwd
import stat
import subprocess
from collections.abc import Callable
from pathlib import Path

from seedancee2.local.state import CannotStart

NAME = "seedancee2"


def ensure_user(say: Callable[[str], None]) -> str:
    """Make the system user where there is none yet, and say so."""
    try:
        pwd.getpwnam(NAME)
    except KeyError:
        command = ["useradd", "--system", "--no-create-home", "--shell", "/usr/sbin/nologin", NAME]
        try:
            subprocess.run(command, check=True, capture_output=True, text=True)  # noqa: S603 (all words are ours)
        except (OSError, subprocess.CalledProcessError) as error:
            raise CannotStart(
                "PostgreSQL refuses to run as root, and a system user for it could not be made"
                f" ({getattr(error, 'stderr', '') or error}). Run as a plain user, or set DATABASE_URL."
            ) from error
        say(f"PostgreSQL refuses to run as root: made the system user {NAME} for it (it has no password and no shell)")
    return NAME


def let_through(paths: list[Path], say: Callable[[str], None]) -> None:
    """Let other users pass through the folders above these paths, not list what is in there; say which."""
    opened = []
    for folder in sorted({above for path in paths for above in path.resolve().parents}):
        mode = folder.stat().st_mode
        if not mode & stat.S_IXOTH:
            folder.chmod(stat.S_IMODE(mode) | stat.S_IXOTH)
            opened.append(f"{folder} (now {oct(stat.S_IMODE(folder.stat().st_mode))[2:]})")
    if opened:
        say(f"PostgreSQL runs as {NAME}: other users may now pass through, not list, " + ", ".join(opened))


def let_read(folder: Path) -> None:
    """Let other users read and execute a program's own files, where the person's umask kept them private."""
    for path in [folder, *folder.rglob("*")]:
        mode = stat.S_IMODE(path.lstat().st_mode)
        wanted = mode | stat.S_IROTH | (stat.S_IXOTH if mode & stat.S_IXUSR else 0)
        if wanted != mode and not path.is_symlink():
            path.chmod(wanted)


def give(path: Path, user: str) -> None:
    """Give a file or an empty folder to the system user."""
    entry = pwd.getpwnam(user)
    os.chown(path, entry.pw_uid, entry.pw_gid)
