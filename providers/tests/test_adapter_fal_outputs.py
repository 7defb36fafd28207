"""What the fal adapter fetches, and what of all that it says and hears staff may read."""

import dataclasses
import datetime as dt
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from providers import media_probe
from providers.adapters.base import Accepted, DownloadError, Lost, Ref, Succeeded, Ticket
from providers.adapters.fal import FalAdapter
from providers.emulators.fal import FalEmulator
from providers.emulators.server import Pace
from providers.tests.fal_channel import APP, KEY, PRO, REQUEST, asking, fal, taken
from tests.receivers import Answer, Receiver

DAY = 86_400
ENOUGH = 50_000_000


@pytest.fixture(autouse=True)
def _loopback(settings: Any) -> None:
    settings.OUTBOUND_ALLOWED_HOSTS = ["127.0.0.1"]


@pytest.fixture
def emulator() -> Iterator[FalEmulator]:
    # Time passes by `skip` alone: no test waits for it.
    emulator = FalEmulator(key=KEY, pace=Pace(1_000, 1_000))
    with emulator.serving():
        yield emulator


@pytest.fixture
def adapter(emulator: FalEmulator) -> FalAdapter:
    return fal(emulator.origin)


@pytest.fixture
def receiver() -> Iterator[Receiver]:
    with Receiver() as receiver:
        yield receiver


def finished(adapter: FalAdapter, emulator: FalEmulator) -> Succeeded:
    ref = taken(adapter)
    emulator.skip(2_000)
    outcome = adapter.fetch(ref)
    assert isinstance(outcome, Succeeded)
    return outcome


def test_output_is_fetched(adapter: FalAdapter, emulator: FalEmulator, tmp_path: Path) -> None:
    done = finished(adapter, emulator)
    video = tmp_path / "video"
    adapter.download(done.video_url, video, max_bytes=ENOUGH)
    info = media_probe.probe(video)
    assert round(info.duration_ms / 1000) == REQUEST.duration
    with pytest.raises(DownloadError) as caught:
        adapter.download(done.video_url, tmp_path / "small", max_bytes=1_000)
    assert caught.value.is_final
    assert [path.name for path in tmp_path.iterdir()] == ["video"]


def test_our_key_stays_away_from_the_hosts_of_outputs(receiver: Receiver, tmp_path: Path) -> None:
    receiver.plan("/a.mp4?sign=1", Answer(body=b"x" * 10))
    fal("https://queue.example").download(receiver.url("/a.mp4?sign=1"), tmp_path / "a", max_bytes=10)
    (received,) = receiver.requests
    assert "authorization" not in received.headers
    assert "secret" not in str(received)


@pytest.mark.parametrize(("word", "is_final"), [("gone", True), ("redirect", False), ("foreign", False)])
def test_output_that_is_not_there_is_told(
    adapter: FalAdapter, emulator: FalEmulator, tmp_path: Path, word: str, is_final: bool
) -> None:
    emulator.knobs["result"] = word
    done = finished(adapter, emulator)
    with pytest.raises(DownloadError) as caught:
        adapter.download(done.video_url, tmp_path / "video", max_bytes=ENOUGH)
    assert caught.value.is_final is is_final
    assert list(tmp_path.iterdir()) == []


def test_outputs_last_a_week_and_a_cut_file_is_not_final(
    adapter: FalAdapter, emulator: FalEmulator, receiver: Receiver, tmp_path: Path
) -> None:
    done = finished(adapter, emulator)
    emulator.skip(7 * DAY - 60)
    adapter.download(done.video_url, tmp_path / "video", max_bytes=ENOUGH)
    emulator.skip(60)
    with pytest.raises(DownloadError) as caught:
        adapter.download(done.video_url, tmp_path / "late", max_bytes=ENOUGH)
    assert caught.value.is_final
    receiver.plan("/cut", Answer(raw=b"HTTP/1.1 200 OK\r\nContent-Length: 99\r\n\r\nabc"))
    with pytest.raises(DownloadError) as caught:
        adapter.download(receiver.url("/cut"), tmp_path / "cut", max_bytes=ENOUGH)
    assert not caught.value.is_final
    assert [path.name for path in tmp_path.iterdir()] == ["video"]


@pytest.mark.parametrize(
    ("url", "is_allowed"),
    [
        ("https://v3b.fal.media/files/b/x.mp4", True),
        ("https://v3.fal.media/files/x.mp4", True),
        ("https://fal.media.evil.example/x.mp4", False),
        ("https://evilfal.media/x.mp4", False),
        ("https://queue.fal.run/x.mp4", False),
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
        fal("https://queue.fal.run", output_hosts=()).download(url, tmp_path / "x", max_bytes=10)
    assert bool(asked) is is_allowed


def test_no_secret_and_no_word_of_a_customer_is_kept(
    adapter: FalAdapter, emulator: FalEmulator, receiver: Receiver, tmp_path: Path
) -> None:
    request = asking("A secret lighthouse", image_urls=("https://cdn.example/a.png?X-Amz-Signature=refsign",))
    ticket = Ticket("t0ken-of-ours", receiver.url("/callbacks/fal/t0ken-of-ours?x=1"), "5eed")
    accepted = adapter.submit(request, upstream_model=PRO, ticket=ticket)
    assert isinstance(accepted, Accepted)
    ref, other = Ref(accepted.upstream_id, PRO, accepted.urls), taken(adapter)
    assert adapter.recover(Lost(request, PRO, "5eed", b"", dt.datetime.now(dt.UTC))) is None
    adapter.cancel(other)
    emulator.skip(2_000)
    adapter.fetch_many([ref, other])
    done = adapter.fetch(ref)
    assert isinstance(done, Succeeded)
    adapter.download(f"{done.video_url}?X-Amz-Signature=refsign", tmp_path / "video", max_bytes=ENOUGH)
    # Each of these repeats what was asked for, the first with every field of it.
    wrong = dataclasses.replace(request, duration=3, resolution="8k")
    bad = dataclasses.replace(request, image_urls=("https://cdn.example/a.gif?X-Amz-Signature=refsign",))
    details = [str(adapter.submit(one, upstream_model=PRO, ticket=ticket)) for one in (wrong, bad)]
    words = ("drop", "html", "late-5xx", "error:401", "error:missing", "error:content_policy_violation/image_urls")
    for word in (*words, "error:file_download_error/image_urls", "error:value_error/prompt", "error:one_of/string"):
        emulator.knobs["submit"] = word
        details.append(str(adapter.submit(request, upstream_model=PRO, ticket=ticket)))
    for word in ("html", "401", "drop"):
        emulator.knobs["poll"] = word
        details.append(str(adapter.fetch(ref)))
    emulator.knobs = {"fail": "content_policy_violation/image_urls", "running": "0", "queued": "0"}
    failing = adapter.submit(request, upstream_model=PRO, ticket=ticket)
    assert isinstance(failing, Accepted)
    details.append(str(adapter.fetch(Ref(failing.upstream_id, PRO))))

    assert {exchange.kind for exchange in adapter.exchanges} == {"submit", "fetch", "cancel", "download"}
    kept = "\n".join([*map(str, adapter.exchanges), *details, str(adapter.access), str(ticket)])
    assert f"{APP}/reference-to-video" in kept
    assert "https://cdn.example/a.png?…" in kept
    for secret in (KEY, "key-secret", "t0ken-of-ours", "fal_webhook=", "lighthouse", "refsign", "Signature="):
        assert secret not in kept
