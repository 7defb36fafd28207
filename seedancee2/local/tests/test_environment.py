"""The environment that a local system gets."""

import os
import socket
import stat
from pathlib import Path

import pytest

from seedancee2.local import addresses, environment, state
from seedancee2.local.state import CannotStart


@pytest.fixture(autouse=True)
def var(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(environment, "VAR", tmp_path)
    return tmp_path


def test_what_is_not_set_suits_one_machine(var: Path) -> None:
    values = environment.complete({"PORT": "8001", "REDIS_URL": ""})

    assert values["PUBLIC_BASE_URL"] == "http://127.0.0.1:8001"
    assert values["MEDIA_BASE_URL"] == "http://127.0.0.1:8001/media"
    assert values["MEDIA_STORAGE_URL"] == (var / "media").as_uri()
    assert values["ALLOWED_HOSTS"] == values["OUTBOUND_ALLOWED_HOSTS"] == "localhost,127.0.0.1,[::1]"
    assert (values["LOCAL_MODE"], values["DEBUG"]) == ("true", "false")
    assert "REDIS_URL" not in values  # an empty line of .env starts the embedded server
    assert environment.complete({})["SECRET_KEY"] == values["SECRET_KEY"]
    assert stat.S_IMODE((var / "secret_key").stat().st_mode) == 0o600


def test_what_is_set_stays() -> None:
    given = {
        "SECRET_KEY": "given",
        "PUBLIC_BASE_URL": "https://me.example/",
        "DEBUG": "true",
        "ALLOWED_HOSTS": "me.example",
    }

    values = environment.complete(given)

    assert {name: values[name] for name in given} == given | {"PUBLIC_BASE_URL": "https://me.example"}
    assert values["MEDIA_BASE_URL"] == "https://me.example/media"


@pytest.mark.parametrize(
    ("bind", "base_url", "dialled"),
    [
        ("0.0.0.0", "http://127.0.0.1:8000", "127.0.0.1"),  # noqa: S104 (nothing listens)
        ("::", "http://127.0.0.1:8000", "::1"),
        ("::1", "http://[::1]:8000", "::1"),
        ("192.0.2.7", "http://192.0.2.7:8000", "192.0.2.7"),
    ],
)
def test_the_address_follows_where_it_listens(bind: str, base_url: str, dialled: str) -> None:
    values = environment.complete({"BIND": bind})

    assert values["PUBLIC_BASE_URL"] == base_url
    assert base_url.split("//")[1].removesuffix(":8000") in values["ALLOWED_HOSTS"].split(",")
    assert environment.dialled(values) == (dialled, 8000)


def test_a_busy_port_is_refused_with_the_way_out() -> None:
    with socket.socket() as other:
        other.bind(("127.0.0.1", 0))
        other.listen()
        port = other.getsockname()[1]
        with pytest.raises(CannotStart, match=f"Port {port} .* taken .* PORT={port + 1} make run"):
            environment.check_port({"BIND": "127.0.0.1", "PORT": str(port)})


@pytest.mark.parametrize(("bind", "port", "word"), [("127.0.0.1", "http", "PORT"), ("192.0.2.7", "8000", "BIND")])
def test_an_impossible_address_is_named(bind: str, port: str, word: str) -> None:
    with pytest.raises(CannotStart, match=word):
        environment.check_port({"BIND": bind, "PORT": port})


def test_addresses_are_private_and_forgotten(tmp_path: Path) -> None:
    path = tmp_path / "run.env.json"
    addresses.write({"DATABASE_URL": "postgres://here"}, path)
    assert addresses.read(path) == {}  # nobody holds the lock: what wrote this was killed
    (tmp_path / "run.lock").write_text(str(os.getpid()))

    assert addresses.read(path) == {"DATABASE_URL": "postgres://here"}
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    addresses.forget(path)
    assert addresses.read(path) == {}


def test_a_lock_is_held_by_one(tmp_path: Path) -> None:
    held = state.lock(tmp_path / "lock")

    assert held is not None
    assert state.lock(tmp_path / "lock") is None
    held.close()
    again = state.lock(tmp_path / "lock")
    assert again is not None
    again.close()


def test_another_users_folder_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(state, "VAR", tmp_path)
    monkeypatch.setattr(os, "geteuid", lambda: 12345)

    with pytest.raises(CannotStart, match="belongs to user"):
        state.ensure_var()
