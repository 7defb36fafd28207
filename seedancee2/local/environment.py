"""The environment of a local system: what the person set, and for the rest what suits one machine."""

from __future__ import annotations

import errno
import os
import secrets
import socket
from collections.abc import Mapping

from seedancee2.local import state
from seedancee2.local.state import VAR, CannotStart

LOOPBACK = "localhost,127.0.0.1,[::1]"
EMULATED = ("ark", "fal", "kie", "replicate")
_EVERY_ADDRESS = {"0.0.0.0", "::"}  # noqa: S104 (compared with, never listened on)

# What other commands in this checkout need to know of it: they see the same system, with the same secrets.
SHARED = (
    "DATABASE_URL",
    "REDIS_URL",
    "SECRET_KEY",
    "LOCAL_MODE",
    "DEBUG",
    "ALLOWED_HOSTS",
    "PUBLIC_BASE_URL",
    "MEDIA_STORAGE_URL",
    "MEDIA_BASE_URL",
    "OUTBOUND_ALLOWED_HOSTS",
)


def complete(given: Mapping[str, str]) -> dict[str, str]:
    """Add what is not set; an empty value counts as not set. The servers' addresses come later."""
    values = {name: value for name, value in given.items() if value}
    values.setdefault("BIND", "127.0.0.1")
    values.setdefault("PORT", "8000")
    host = "127.0.0.1" if values["BIND"] in _EVERY_ADDRESS else _bracketed(values["BIND"])
    values["LOCAL_MODE"] = "true"
    values.setdefault("DEBUG", "false")
    values.setdefault("ALLOWED_HOSTS", LOOPBACK if host in LOOPBACK.split(",") else f"{LOOPBACK},{host}")
    values.setdefault("PUBLIC_BASE_URL", f"http://{host}:{values['PORT']}")
    values["PUBLIC_BASE_URL"] = values["PUBLIC_BASE_URL"].rstrip("/")
    values.setdefault("MEDIA_STORAGE_URL", (VAR / "media").as_uri())
    values.setdefault("MEDIA_BASE_URL", values["PUBLIC_BASE_URL"] + "/media")
    values.setdefault("OUTBOUND_ALLOWED_HOSTS", LOOPBACK)
    values.setdefault("PYTHONUNBUFFERED", "1")  # progress is told as it happens
    values.setdefault("PYTHONWARNINGS", "ignore:You're running the worker")  # Celery's seven lines about root
    if "SECRET_KEY" not in values:
        values["SECRET_KEY"] = _secret_key()
    return values


def dialled(values: Mapping[str, str]) -> tuple[str, int]:
    """Give the address under which this machine reaches its own web server."""
    bind = values["BIND"]
    return {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(bind, bind), int(values["PORT"])  # noqa: S104


def check_port(values: Mapping[str, str]) -> None:
    """Make sure that the web server will be able to listen.

    Raises:
        CannotStart: it will not; the message says what to change.
    """
    bind, port = values["BIND"], values["PORT"]
    if not (port.isascii() and port.isdigit() and 0 < int(port) < 65_536):
        raise CannotStart(f"PORT must be a number from 1 to 65535, not {port!r}.")
    try:
        family, kind, _, _, address = socket.getaddrinfo(bind, int(port), type=socket.SOCK_STREAM)[0]
        with socket.socket(family, kind) as probe:
            # As gunicorn does: connections that are still closing from a run before do not count as taken.
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            probe.bind(address)
            probe.listen(1)
    except OSError as error:
        if error.errno == errno.EADDRINUSE:
            free = int(port) + 1 if int(port) < 65_535 else 8000
            raise PortTaken(
                f"Port {port} on {bind} is taken by another program. Stop that one, or choose another port,"
                f" for example: PORT={free} make run"
            ) from error
        if error.errno == errno.EACCES:
            raise CannotStart(
                f"Port {port} is for root only. Choose one above 1023, for example: PORT=8000 make run"
            ) from error
        raise CannotStart(
            f"BIND={bind} is no address of this machine ({error.strerror}). Try 127.0.0.1 or 0.0.0.0."
        ) from error


def providers(values: Mapping[str, str]) -> list[str]:
    """Read which providers are to be emulated: PROVIDER=ark, or several with commas.

    Raises:
        CannotStart: there is no such emulator.
    """
    names = [name.strip().lower() for name in values.get("PROVIDER", "").split(",") if name.strip()]
    for name in names:
        if name not in EMULATED:
            raise CannotStart(f"PROVIDER={name} cannot be emulated. Choose among {', '.join(EMULATED)}.")
    return list(dict.fromkeys(names))


def free_port() -> int:
    """Return a port on loopback that nothing listens on at this moment."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


class PortTaken(CannotStart):
    """Another program listens where the web server would."""


def _bracketed(host: str) -> str:
    return f"[{host}]" if ":" in host else host


def _secret_key() -> str:
    path = VAR / "secret_key"
    if not path.exists():
        state.write_private(path, secrets.token_urlsafe(48))
    return path.read_text(encoding="utf-8").strip()


def search_path(binaries: str, given: Mapping[str, str]) -> str:
    """Put the virtual environment's commands first, whether or not the person activated it."""
    return binaries + os.pathsep + given.get("PATH", os.defpath)
