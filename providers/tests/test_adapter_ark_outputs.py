"""What comes from Ark: callbacks, outputs, and what of all that staff may read."""

import dataclasses
import datetime as dt
import json
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from providers import media_probe
from providers.adapters.ark import ArkAdapter
from providers.adapters.base import (
    Accepted,
    DownloadError,
    Hint,
    Lost,
    Ref,
    Succeeded,
    Ticket,
)
from providers.emulators.ark import ArkEmulator
from providers.emulators.server import Pace
from providers.tests.ark_channel import (
    KEY,
    PATH,
    PRO,
    REQUEST,
    ark,
    asking,
    taken,
)
from tests.receivers import Answer, Receiver

DAY = 86_400
ID = "cgt-20261122100001-h5cz9"


@pytest.fixture(autouse=True)
def _loopback(settings: Any) -> None:
    settings.OUTBOUND_ALLOWED_HOSTS = ["127.0.0.1"]


@pytest.fixture
def emulator() -> Iterator[ArkEmulator]:
    # Time passes by `skip` alone: no test waits for it.
    emulator = ArkEmulator(key=KEY, pace=Pace(1_000, 1_000))
    with emulator.serving():
        yield emulator


@pytest.fixture
def adapter(emulator: ArkEmulator) -> ArkAdapter:
    return ark(emulator.origin + emulator.base_path)


@pytest.fixture
def receiver() -> Iterator[Receiver]:
    with Receiver() as receiver:
        yield receiver


# --- Callbacks. ---


def told(body: bytes) -> Any:
    return ark("http://127.0.0.1:1").read_callback({}, body, received_at=dt.datetime.now(dt.UTC))


def until(is_true: Callable[[], bool]) -> None:
    give_up_at = time.monotonic() + 10
    while not is_true():
        assert time.monotonic() < give_up_at
        time.sleep(0.01)


@pytest.mark.parametrize("word", ["", "twice", "reordered", "tampered"])
def test_callbacks_that_the_provider_sends_name_the_task(receiver: Receiver, word: str) -> None:
    emulator = ArkEmulator(key=KEY, pace=Pace(0.05, 0.05))
    emulator.knobs["callback"] = word
    with emulator.serving() as base_url:
        ticket = Ticket("t0ken", receiver.url("/callbacks/ark/t0ken"))
        outcome = ark(base_url).submit(REQUEST, upstream_model=PRO, ticket=ticket)
        assert isinstance(outcome, Accepted)
        until(lambda: len(receiver.received("/callbacks/ark/t0ken")) >= (6 if word == "twice" else 3))
    received = receiver.received("/callbacks/ark/t0ken")
    hints = [
        ark(base_url).read_callback(one.headers, one.body, received_at=dt.datetime.now(dt.UTC)) for one in received
    ]
    assert set(hints) == {Hint(outcome.upstream_id)}


def test_only_the_id_of_a_callback_is_read() -> None:
    assert told(json.dumps({"id": ID, "status": "succeeded", "content": {}}).encode()) == Hint(ID)
    assert told(json.dumps({"id": ID, "status": "brand-new", "content": 5}).encode()) == Hint(ID)
    assert Hint(ID).is_verified is False


@pytest.mark.parametrize(
    "body",
    [
        *(b"", b"<html>", b"[]", b"null", b"5", b"{}", b"\xff\xfe", b"[" * 100_000),
        *(b'{"id": null}', b'{"id": 5}', b'{"id": ""}', b'{"id": ["x"]}', b'{"id": "../x"}', b'{"id": "a b"}'),
        b'{"id": "' + b"x" * 201 + b'"}',
    ],
)
def test_callback_that_names_no_task_only_says_when_to_ask(body: bytes) -> None:
    assert told(body) == Hint("")


# --- Outputs. ---

ENOUGH = 50_000_000


def finished(adapter: ArkAdapter, emulator: ArkEmulator, **changes: Any) -> Succeeded:
    ref = taken(adapter, asking(**changes))
    emulator.skip(2_000)
    outcome = adapter.fetch(ref)
    assert isinstance(outcome, Succeeded)
    return outcome


def test_outputs_are_fetched(adapter: ArkAdapter, emulator: ArkEmulator, tmp_path: Path) -> None:
    done = finished(adapter, emulator, return_last_frame=True)
    video, frame = tmp_path / "video", tmp_path / "frame"
    adapter.download(done.video_url, video, max_bytes=ENOUGH)
    info = media_probe.probe(video)
    assert round(info.duration_ms / 1000) == REQUEST.duration
    assert done.last_frame_url is not None
    adapter.download(done.last_frame_url, frame, max_bytes=ENOUGH)
    assert frame.read_bytes().startswith(b"\x89PNG")
    with pytest.raises(DownloadError) as caught:
        adapter.download(done.video_url, tmp_path / "small", max_bytes=1_000)
    assert caught.value.is_final
    assert sorted(path.name for path in tmp_path.iterdir()) == ["frame", "video"]


def test_our_key_stays_away_from_the_hosts_of_outputs(receiver: Receiver, tmp_path: Path) -> None:
    receiver.plan("/a.mp4?sign=1", Answer(body=b"x" * 10))
    ark("https://ark.example/api/v3").download(receiver.url("/a.mp4?sign=1"), tmp_path / "a", max_bytes=10)
    (received,) = receiver.requests
    assert "authorization" not in received.headers
    assert KEY not in str(received)


@pytest.mark.parametrize(("word", "is_final"), [("gone", True), ("redirect", False), ("foreign", False)])
def test_output_that_is_not_there_is_told(
    adapter: ArkAdapter, emulator: ArkEmulator, tmp_path: Path, word: str, is_final: bool
) -> None:
    emulator.knobs["result"] = word
    done = finished(adapter, emulator)
    with pytest.raises(DownloadError) as caught:
        adapter.download(done.video_url, tmp_path / "video", max_bytes=ENOUGH)
    assert caught.value.is_final is is_final
    assert list(tmp_path.iterdir()) == []


def test_expired_link_is_final_and_cut_file_is_not(
    adapter: ArkAdapter, emulator: ArkEmulator, receiver: Receiver, tmp_path: Path
) -> None:
    done = finished(adapter, emulator)
    emulator.skip(DAY)
    with pytest.raises(DownloadError) as caught:
        adapter.download(done.video_url, tmp_path / "video", max_bytes=ENOUGH)
    assert caught.value.is_final
    receiver.plan("/cut", Answer(raw=b"HTTP/1.1 200 OK\r\nContent-Length: 99\r\n\r\nabc"))
    with pytest.raises(DownloadError) as caught:
        adapter.download(receiver.url("/cut"), tmp_path / "video", max_bytes=ENOUGH)
    assert not caught.value.is_final
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("url", "is_allowed"),
    [
        ("https://ark-acg-ap-southeast-1.tos-ap-southeast-1.volces.com/x.mp4", True),
        ("https://x.bytepluses.com/x.mp4", True),
        ("https://x.byteplus.com/x.mp4", True),
        ("https://volces.com.evil.example/x.mp4", False),
        ("https://evilvolces.com/x.mp4", False),
        ("http://127.0.0.1:1/x.mp4", False),
    ],
)
def test_outputs_come_from_the_provider_s_hosts_only(
    settings: Any, tmp_path: Path, url: str, is_allowed: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    # No name is resolved here: the answer to that question is the first thing after this one.
    asked: list[str] = []

    def resolve(host: str, *_: Any, **__: Any) -> Any:
        asked.append(host)
        raise OSError

    monkeypatch.setattr("socket.getaddrinfo", resolve)
    with pytest.raises(DownloadError):
        ark("https://ark.example", output_hosts=()).download(url, tmp_path / "x", max_bytes=10)
    assert bool(asked) is is_allowed


# --- What staff may read. ---


def test_no_secret_and_no_word_of_a_customer_is_kept(
    adapter: ArkAdapter, emulator: ArkEmulator, receiver: Receiver, tmp_path: Path
) -> None:
    request = asking(
        "A secret lighthouse",
        image_urls=("https://cdn.example/a.png?X-Amz-Signature=refsign",),
        return_last_frame=True,
    )
    ticket = Ticket("t0ken-of-ours", receiver.url("/callbacks/ark/t0ken-of-ours?x=1"), "5eed")
    accepted = adapter.submit(request, upstream_model=PRO, ticket=ticket)
    assert isinstance(accepted, Accepted)
    ref, other = Ref(accepted.upstream_id, PRO), taken(adapter)
    adapter.recover(Lost(request, PRO, "5eed", b"", dt.datetime.now(dt.UTC)))
    adapter.cancel(other)
    emulator.skip(2_000)
    adapter.fetch_many([ref, other])
    done = adapter.fetch(ref)
    assert isinstance(done, Succeeded)
    adapter.download(done.video_url, tmp_path / "video", max_bytes=ENOUGH)
    bad = dataclasses.replace(request, image_urls=("https://cdn.example/404.png?X-Amz-Signature=refsign",))
    details = [str(adapter.submit(bad, upstream_model=PRO, ticket=ticket))]
    for word in ("drop", "html", "late-5xx", "error:AuthenticationError"):
        emulator.knobs["submit"] = word
        details.append(str(adapter.submit(request, upstream_model=PRO, ticket=ticket)))
    for word in ("html", "401", "drop"):
        emulator.knobs["poll"] = word
        details.append(str(adapter.fetch(ref)))

    kinds = {exchange.kind for exchange in adapter.exchanges}
    assert kinds == {"submit", "fetch", "recover", "cancel", "download"}
    kept = "\n".join([*map(str, adapter.exchanges), *details, str(adapter.access), str(ticket)])
    assert PATH in kept
    for secret in (KEY, "t0ken-of-ours", "lighthouse", "refsign", "Signature=", "X-Tos"):
        assert secret not in kept
