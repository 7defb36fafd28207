"""`make run`: the whole system on one machine, in the foreground."""

from __future__ import annotations

import contextlib
import http.client
import json
import os
import secrets
import sys
import time
from collections.abc import Callable, Iterator
from datetime import datetime
from pathlib import Path
from urllib.parse import urlsplit

import environ
from honcho.environ import parse_procfile
from honcho.printer import Message, Printer

from seedancee2.local import addresses, environment, postgres, state, valkey
from seedancee2.local.environment import PortTaken
from seedancee2.local.processes import Program
from seedancee2.local.servers import Server
from seedancee2.local.state import ROOT, VAR, CannotStart
from seedancee2.local.supervisor import Stopping, Supervisor

RUN_FILE = VAR / "run.json"  # there only while the system is up
PREVIOUS_RUN_FILE = VAR / "run.previous.json"  # the demo keeps what is still valid of it
_LOCK_FILE = VAR / "run.lock"
_DEMO = ("api_key", "test_key", "signing_secret", "staff_email", "staff_password")
_COLOURS = {"run": "36", "web": "32", "worker": "33", "poll": "33", "deliver": "31", "media": "35", "beat": "34"}

_printer = Printer(width=7)


def main() -> int:
    """Run until Ctrl-C or SIGTERM; where it cannot start, say in a sentence why."""
    try:
        with _alone():
            was_killed = addresses.ENVIRONMENT.exists()
            try:
                with Supervisor(say) as programs:
                    _run(programs, was_killed)
            finally:
                _forget()
    except Stopping:
        say("run", "everything is stopped")
        return 0
    except (CannotStart, PermissionError) as error:
        sys.stderr.write(f"Cannot start: {error}\n")
        return 1
    return 0


def _run(programs: Supervisor, was_killed: bool) -> None:
    started_at = time.monotonic()
    environ.Env.read_env(ROOT / ".env")  # as the settings do; what is set already wins
    values = environment.complete(os.environ)
    values["PATH"] = environment.search_path(str(Path(sys.executable).parent), values)
    _await_port(programs, values, patience=25 if was_killed else 0)
    _forget()
    if "DATABASE_URL" not in values:
        values["DATABASE_URL"] = _start(programs, postgres.prepare(VAR / "postgres", say=_tell))
    if "REDIS_URL" not in values:
        values["REDIS_URL"] = _start(programs, valkey.prepare(VAR / "valkey"))
    state.ensure_folder(VAR / "static")  # whitenoise warns where it misses it
    addresses.write({name: values[name] for name in environment.SHARED})
    _tell("bringing the database up to date")
    _manage(programs, values, "migrate", "--no-input", say=lambda line: say("migrate", line))
    demo = _prepare_demo(programs, values, _start_emulators(programs, values))
    run: dict[str, object] = {
        "base_url": values["PUBLIC_BASE_URL"],
        "database_url": values["DATABASE_URL"],
        "redis_url": values["REDIS_URL"],
        **demo,
    }
    state.write_json(PREVIOUS_RUN_FILE, run)  # the keys are made: a start that ends early must not lose them
    processes = parse_procfile((ROOT / "Procfile").read_text(encoding="utf-8")).processes
    _tell("starting " + ", ".join(processes))
    programs.start(*(_program(name, ["/bin/sh", "-c", f"exec {line}"], values) for name, line in processes.items()))
    _await_readiness(programs, values)
    state.write_json(RUN_FILE, run)
    _welcome(values, demo, time.monotonic() - started_at)
    while True:
        programs.wait(60)


@contextlib.contextmanager
def _alone() -> Iterator[None]:
    """Hold this checkout, so that no second run starts servers on the same data."""
    state.ensure_var()
    held = state.lock(_LOCK_FILE)
    if held is None:
        holder = _LOCK_FILE.read_text(encoding="utf-8").strip()
        raise CannotStart(
            f"`make run` already runs in this checkout (process {holder})."
            " Stop that one with Ctrl-C, or use another clone."
        )
    with held:
        held.truncate()
        held.write(f"{os.getpid()}\n")
        held.flush()
        yield


def _await_port(programs: Supervisor, values: dict[str, str], *, patience: float) -> None:
    """Refuse a busy port; after a kill -9 the old processes may need a moment to leave it."""
    end = time.monotonic() + patience
    while True:
        try:
            return environment.check_port(values)
        except PortTaken:
            if time.monotonic() >= end:
                raise
        programs.wait(0.5)


def _start(programs: Supervisor, server: Server) -> str:
    name = server.program.name
    _tell(f"starting {name} in {server.program.folder.relative_to(ROOT)}")
    programs.start(server.program)
    if not programs.wait_until(server.is_ready, seconds=60):
        raise CannotStart(f"{name} does not answer. The last lines of {server.program.log}:\n{server.last_words()}")
    return server.url


def _start_emulators(programs: Supervisor, values: dict[str, str]) -> list[str]:
    """Start the emulated providers that PROVIDER names, and tell `prepare_local` of them."""
    arguments = []
    for name in environment.providers(values):
        port, key = environment.free_port(), secrets.token_urlsafe(16)
        _tell(f"starting an emulated {name} on port {port}")
        # The key goes by the environment: other users of the machine can read a command's arguments.
        program = _program(
            name,
            [sys.executable, "-m", "providers.emulators", name, "--port", str(port)],
            {**values, "EMULATOR_KEY": key},
        )
        programs.start(program)
        values[f"EMULATOR_{name.upper()}"] = f"http://127.0.0.1:{port} {key}"
        arguments += ["--emulator", name]
    return arguments


def _prepare_demo(programs: Supervisor, values: dict[str, str], arguments: list[str]) -> dict[str, object]:
    _tell("preparing the demo organization")
    answers: list[dict[str, object]] = []

    def sort(line: str) -> None:
        answer = _parsed(line)
        if answer.keys() >= set(_DEMO):
            answers.append(answer)  # holds keys: shown once, at the end
        else:
            say("demo", line)

    _manage(programs, values, "prepare_local", "--json", "--previous", str(PREVIOUS_RUN_FILE), *arguments, say=sort)
    if not answers:
        raise CannotStart("manage.py prepare_local gave no keys.")
    return {name: answers[-1][name] for name in _DEMO}


def _manage(programs: Supervisor, values: dict[str, str], *arguments: str, say: Callable[[str], None]) -> None:
    program = _program(arguments[0], [sys.executable, "manage.py", *arguments], values)
    if status := programs.run(program, say):
        raise CannotStart(f"manage.py {arguments[0]} failed with exit status {status}; what it said stands above.")


def _program(name: str, command: list[str], values: dict[str, str]) -> Program:
    return Program(name=name, command=command, folder=ROOT, environment=values)


def _await_readiness(programs: Supervisor, values: dict[str, str]) -> None:
    _tell("waiting until everything answers")
    asked = 0
    while not (answer := _readiness(values))[0]:
        asked += 1
        if asked % 20 == 0:
            _tell(f"still waiting: {answer[1]}")
        programs.wait(0.5)


def _readiness(values: dict[str, str]) -> tuple[bool, str]:
    connection = http.client.HTTPConnection(*environment.dialled(values), timeout=5)
    try:
        connection.request("GET", "/readyz", headers={"Host": urlsplit(values["PUBLIC_BASE_URL"]).netloc})
        response = connection.getresponse()
        body = response.read(300).decode(errors="replace")
        return response.status == 200, f"/readyz says {response.status} {' '.join(body.split())}"
    except (OSError, http.client.HTTPException) as error:
        return False, f"/readyz does not answer ({error})"
    finally:
        connection.close()


def _welcome(values: dict[str, str], demo: dict[str, object], seconds: float) -> None:
    base = values["PUBLIC_BASE_URL"]
    body = {
        "model": "mini",
        "input": {
            "prompt": "A cinematic drone shot of waves breaking against black volcanic rocks",
            "duration": 5,
            "resolution": "720p",
            "aspect_ratio": "16:9",
        },
        "metadata": {"customer_job_id": "job_123"},
    }
    _write(f"""
  Seedancee2 is up after {seconds:.1f} s.

    address         {base}
    documentation   {base}/docs
    demo key        {demo["api_key"]}
    test key        {demo["test_key"]}
    signing secret  {demo["signing_secret"]}
    staff sign-in   {base}/admin/   {demo["staff_email"]}   {demo["staff_password"]}

  Webhooks may go to this machine here: OUTBOUND_ALLOWED_HOSTS={values["OUTBOUND_ALLOWED_HOSTS"]}
  `manage.py` in this folder acts on this system; the same values stand in var/run.json. Ctrl-C stops everything.

  Make a video:

curl -X POST "{base}/v1/videos/generations" \\
  -H "Authorization: Bearer {demo["api_key"]}" \\
  -H "Content-Type: application/json" \\
  -d '{json.dumps(body)}'
""")


def _forget() -> None:
    """Keep the keys of a run that is over, and tell nobody any more that it is up."""
    addresses.forget()
    if RUN_FILE.exists():
        RUN_FILE.replace(PREVIOUS_RUN_FILE)


def _parsed(line: str) -> dict[str, object]:
    try:
        value = json.loads(line)
    except ValueError:
        return {}
    return value if isinstance(value, dict) else {}


def _tell(line: str) -> None:
    say("run", line)


def say(name: str, line: str) -> None:
    """Print a line of one of the programs, or of our own."""
    # Local time, for the person who looks at a clock on the wall.
    message = Message("line", f"{line}\n", datetime.now().astimezone(), name, _COLOURS.get(name))
    with _surviving_a_closed_output():
        _printer.write(message)


def _write(text: str) -> None:
    with _surviving_a_closed_output():
        sys.stdout.write(text)
        sys.stdout.flush()


@contextlib.contextmanager
def _surviving_a_closed_output() -> Iterator[None]:
    """Where nobody reads us any more (`make run | head`), stop in good order instead of breaking off."""
    try:
        yield
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        os.kill(os.getpid(), 15)


if __name__ == "__main__":
    sys.exit(main())
