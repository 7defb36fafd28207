"""What comes from Kie: callbacks, outputs, and what of all that staff may read."""

import datetime as dt
import json
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from providers import media_probe
from providers.adapters.base import Accepted, DownloadError, Forged, Hint, Ref, Succeeded, Ticket
from providers.adapters.kie import KieAdapter
from providers.emulators.kie import KieEmulator
from providers.emulators.server import Pace
from providers.tests.kie_channel import CREATE, HMAC_KEY, KEY, PRO, RECORD, REQUEST, asking, kie, taken
from tests.receivers import Answer, Receiver

DAY = 86_400
NOW = 1795350303
ID = "task_bytedance_1795350300001"
# Synthetic, made by the vendor's rule: base64(HMAC-SHA256(key, id + "." + timestamp)).
HEADERS = {
    "x-webhook-timestamp": "1795350300",
    "x-webhook-signature": "tzX7t3kKrEXIVeKObX2VSqXSdEW1Fi9IHXf+cS6IxH4=",
}
BODY = {
    "code": 200,
    "msg": "success",
    "data": {
        "taskId": ID,
        "model": PRO,
        "state": "success",
        "param": '{"model": "bytedance/seedance-2", "input": {"prompt": "x"}}',
        "resultJson": '{"resultUrls": ["https://tempfile.example/kie/out.mp4"]}',
        "failCode": "",
        "failMsg": "",
        "costTime": 152000,
        "completeTime": 1795350300000,
        "createTime": 1795350148000,
    },
}
EVIL_RESULT = '{"resultUrls": ["https://attacker.example/evil.mp4"]}'


@pytest.fixture(autouse=True)
def _loopback(settings: Any) -> None:
    settings.OUTBOUND_ALLOWED_HOSTS = ["127.0.0.1"]


@pytest.fixture
def emulator() -> Iterator[KieEmulator]:
    # Time passes by `skip` alone: no test waits for it.
    emulator = KieEmulator(key=KEY, pace=Pace(1_000, 1_000))
    with emulator.serving():
        yield emulator


@pytest.fixture
def adapter(emulator: KieEmulator) -> KieAdapter:
    return kie(emulator.origin)


@pytest.fixture
def receiver() -> Iterator[Receiver]:
    with Receiver() as receiver:
        yield receiver


# --- Callbacks. ---


def told(
    body: bytes | None = None,
    *,
    headers: dict[str, str] | None = None,
    now: float = NOW,
    secret: str = HMAC_KEY,
    **data: Any,
) -> Any:
    """Read a callback that is as usual but for these changes."""
    whole = {**BODY, "data": {**BODY["data"], **data}}  # type: ignore[dict-item]
    return kie("http://127.0.0.1:1", secret=secret).read_callback(
        HEADERS if headers is None else headers,
        json.dumps(whole).encode() if body is None else body,
        received_at=dt.datetime.fromtimestamp(now, dt.UTC),
    )


def until(is_true: Callable[[], bool]) -> None:
    give_up_at = time.monotonic() + 10
    while not is_true():
        assert time.monotonic() < give_up_at
        time.sleep(0.01)


def test_signed_callback_is_verified_and_tells_nothing_but_the_id() -> None:
    assert told() == Hint(ID, is_verified=True)
    # The signature does not cover the body, so that nothing else in it may be believed.
    assert told(resultJson=EVIL_RESULT) == Hint(ID, is_verified=True)
    assert told(state="fail", failMsg="x") == Hint(ID, is_verified=True)


def test_id_is_read_under_both_of_its_keys() -> None:
    assert told(json.dumps({"code": 501, "data": {"task_id": ID}}).encode()) == Hint(ID, is_verified=True)
    assert told(taskId=None, task_id=ID) == Hint(ID, is_verified=True)
    assert isinstance(told(taskId=f"{ID}0", task_id=ID), Forged)


@pytest.mark.parametrize(("now", "is_good"), [(299, True), (300, True), (301, False), (-300, True), (-301, False)])
def test_signature_is_good_for_five_minutes(now: int, is_good: bool) -> None:
    assert isinstance(told(now=1795350300 + now), Hint) is is_good


@pytest.mark.parametrize(
    "changes",
    [
        *({name: value} for name in HEADERS for value in (None, "")),
        {"x-webhook-timestamp": "1795350301"},
        *(
            {"x-webhook-timestamp": value}
            for value in ("soon", "-1795350300", "+1795350300", "１７９５３５０３００", "1" * 99)
        ),
        {"x-webhook-signature": HEADERS["x-webhook-signature"].lower()},
        {"x-webhook-signature": HEADERS["x-webhook-signature"].rstrip("=")},
        {"x-webhook-signature": "é"},
        {"x-webhook-signature": "\udc80"},
    ],
)
def test_callback_without_a_good_signature_is_forged(changes: dict[str, str | None]) -> None:
    headers = {name: value for name, value in {**HEADERS, **changes}.items() if value is not None}
    assert isinstance(told(headers=headers), Forged)


def test_signature_of_another_task_or_key_is_forged() -> None:
    assert isinstance(told(taskId=f"{ID}0"), Forged)
    assert isinstance(told(secret="kie_new_hmac_key"), Forged)
    assert isinstance(told(headers={}), Forged)


@pytest.mark.parametrize(
    "body",
    [
        *(b"", b"<html>", b"[]", b"null", b"{}", b"\xff\xfe", b"[" * 100_000, b'{"data": null}', b'{"data": {}}'),
        *(b'{"data": {"taskId": 5}}', b'{"data": {"taskId": "../x"}}', b'{"data": {"taskId": "a b"}}'),
        b'{"taskId": "task_bytedance_1795350300001"}',
    ],
)
def test_callback_that_names_no_task_only_says_when_to_ask(body: bytes) -> None:
    assert told(body, secret="") == Hint("")
    assert isinstance(told(body), Forged)


def test_callback_of_a_channel_without_a_key_is_a_hint_only() -> None:
    assert told(secret="") == Hint(ID)
    assert told(secret="", headers={}) == Hint(ID)
    assert Hint(ID).is_verified is False


@pytest.mark.parametrize(
    ("words", "count", "is_good"),
    [
        *((words, 1, True) for words in ("", "tampered", "task_id", "early")),
        *((words, 2, True) for words in ("twice", "reordered")),
        *(
            (words, 1, False)
            for words in ("bad-signature", "stale", "unsigned", "no-timestamp", "no-signature", "other-id")
        ),
    ],
)
@pytest.mark.parametrize("failure", ["", "real-person"])
def test_callbacks_that_the_provider_sends(
    receiver: Receiver, monkeypatch: pytest.MonkeyPatch, words: str, count: int, is_good: bool, failure: str
) -> None:
    monkeypatch.setattr("providers.emulators.kie.emulator.REORDER_SECONDS", 0.05)
    emulator = KieEmulator(key=KEY, pace=Pace(0.05, 0.05), hmac_key=HMAC_KEY)
    emulator.knobs = {"callback": words, "fail": failure}
    with emulator.serving() as base_url:
        adapter = kie(base_url, secret=HMAC_KEY)
        ticket = Ticket("t0ken", receiver.url("/callbacks/kie/t0ken"))
        outcome = adapter.submit(REQUEST, upstream_model=PRO, ticket=ticket)
        assert isinstance(outcome, Accepted)
        until(lambda: len(receiver.received("/callbacks/kie/t0ken")) == count)
    received = receiver.received("/callbacks/kie/t0ken")
    found = [adapter.read_callback(one.headers, one.body, received_at=dt.datetime.now(dt.UTC)) for one in received]
    if is_good:
        assert set(found) == {Hint(outcome.upstream_id, is_verified=True)}
    else:
        assert isinstance(found[0], Forged)


def test_lost_submission_is_found_by_its_callback(receiver: Receiver) -> None:
    emulator = KieEmulator(key=KEY, pace=Pace(0.05, 0.05))
    emulator.knobs["submit"] = "drop"
    with emulator.serving() as base_url:
        adapter = kie(base_url)
        adapter.submit(REQUEST, upstream_model=PRO, ticket=Ticket("t", receiver.url("/callbacks/kie/t")))
        until(lambda: bool(receiver.requests))
        (received,) = receiver.requests
        hint = adapter.read_callback(received.headers, received.body, received_at=dt.datetime.now(dt.UTC))
        assert hint == Hint(emulator.submissions[0].task_id)
        assert isinstance(adapter.fetch(Ref(emulator.submissions[0].task_id, PRO)), Succeeded)


# --- Outputs. ---

ENOUGH = 50_000_000


def finished(adapter: KieAdapter, emulator: KieEmulator, **changes: Any) -> Succeeded:
    ref = taken(adapter, asking(**changes))
    emulator.skip(2_000)
    outcome = adapter.fetch(ref)
    assert isinstance(outcome, Succeeded)
    return outcome


def test_outputs_are_fetched(adapter: KieAdapter, emulator: KieEmulator, tmp_path: Path) -> None:
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
    kie("https://kie.example").download(receiver.url("/a.mp4?sign=1"), tmp_path / "a", max_bytes=10)
    (received,) = receiver.requests
    assert "authorization" not in received.headers
    assert KEY not in str(received)


@pytest.mark.parametrize(("word", "is_final"), [("gone", True), ("redirect", False), ("foreign", False)])
def test_output_that_is_not_there_is_told(
    adapter: KieAdapter, emulator: KieEmulator, tmp_path: Path, word: str, is_final: bool
) -> None:
    emulator.knobs["result"] = word
    done = finished(adapter, emulator)
    with pytest.raises(DownloadError) as caught:
        adapter.download(done.video_url, tmp_path / "video", max_bytes=ENOUGH)
    assert caught.value.is_final is is_final
    assert list(tmp_path.iterdir()) == []
    # Neither the host of a redirect nor a foreign one was called.
    file_count = sum(path.startswith("/files/") for _, _, path in emulator.requests)
    assert file_count == (0 if word == "foreign" else 1)


def test_expired_file_is_final_and_cut_file_is_not(
    adapter: KieAdapter, emulator: KieEmulator, receiver: Receiver, tmp_path: Path
) -> None:
    done = finished(adapter, emulator)
    emulator.skip(14 * DAY)
    with pytest.raises(DownloadError) as caught:
        adapter.download(done.video_url, tmp_path / "video", max_bytes=ENOUGH)
    assert caught.value.is_final
    receiver.plan("/cut", Answer(raw=b"HTTP/1.1 200 OK\r\nContent-Length: 99\r\n\r\nabc"))
    with pytest.raises(DownloadError) as caught:
        adapter.download(receiver.url("/cut"), tmp_path / "video", max_bytes=ENOUGH)
    assert not caught.value.is_final
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("host", "is_allowed"),
    [
        ("tempfile.aiquickdraw.com", True),
        ("cdn.results.example", True),
        ("results.example", False),
        ("aiquickdraw.com.evil.example", False),
        ("evilaiquickdraw.com", False),
        ("api.kie.ai", False),
    ],
)
def test_outputs_come_from_known_hosts_only(
    tmp_path: Path, host: str, is_allowed: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    # No name is resolved here: the answer to that question is the first thing after this one.
    asked: list[str] = []

    def resolve(name: str, *_: Any, **__: Any) -> Any:
        asked.append(name)
        raise OSError

    monkeypatch.setattr("socket.getaddrinfo", resolve)
    adapter = kie("https://api.kie.ai", output_hosts=("*.results.example",))
    with pytest.raises(DownloadError) as caught:
        adapter.download(f"https://{host}/x.mp4", tmp_path / "x", max_bytes=10)
    assert not caught.value.is_final
    assert asked == [f"{host}."] * is_allowed


# --- What staff may read. ---


def test_no_secret_and_no_word_of_a_customer_is_kept(
    adapter: KieAdapter, emulator: KieEmulator, receiver: Receiver, tmp_path: Path
) -> None:
    request = asking(
        "A secret lighthouse",
        image_urls=("https://cdn.example/a.png?X-Amz-Signature=refsign",),
        return_last_frame=True,
    )
    ticket = Ticket("t0ken-of-ours", receiver.url("/callbacks/kie/t0ken-of-ours?x=1"), "5eed")
    accepted = adapter.submit(request, upstream_model=PRO, ticket=ticket)
    assert isinstance(accepted, Accepted)
    ref = Ref(accepted.upstream_id, PRO)
    emulator.skip(2_000)
    done = adapter.fetch(ref)
    assert isinstance(done, Succeeded)
    adapter.download(done.video_url, tmp_path / "video", max_bytes=ENOUGH)
    receiver.plan("/a.mp4?X-Amz-Signature=outsign", Answer(404))
    with pytest.raises(DownloadError):
        adapter.download(receiver.url("/a.mp4?X-Amz-Signature=outsign"), tmp_path / "x", max_bytes=10)
    details = []
    for word in ("drop", "html", "late-5xx", "error:401", "error:422/url"):
        emulator.knobs["submit"] = word
        details.append(str(adapter.submit(request, upstream_model=PRO, ticket=ticket)))
    emulator.knobs = {"fail": "501:No https://cdn.example/a.png?X-Amz-Signature=refsign"}
    failed = adapter.submit(request, upstream_model=PRO, ticket=ticket)
    assert isinstance(failed, Accepted)
    emulator.skip(2_000)
    details.append(str(adapter.fetch(Ref(failed.upstream_id, PRO))))
    for word in ("html", "401", "drop"):
        emulator.knobs["poll"] = word
        details.append(str(adapter.fetch(ref)))

    assert {exchange.kind for exchange in adapter.exchanges} == {"submit", "fetch", "download"}
    kept = "\n".join([*map(str, adapter.exchanges), *details, str(adapter.access), str(ticket)])
    assert CREATE in kept
    assert RECORD in kept
    assert "https://cdn.example/a.png?…" in kept
    for secret in (KEY, "t0ken-of-ours", "lighthouse", "refsign", "outsign", "Signature="):
        assert secret not in kept


def test_what_is_kept_can_be_stored(receiver: Receiver) -> None:
    # Halves of characters come of sentences that were cut, NUL of bodies that are no text at all.
    answers = (b'{"code": 402, "msg": "cut \\ud83d"}', b'{"code": 402, "msg": "cut \\u0000"}', b"\x1f\x8b\x00\x00")
    for body in answers:
        receiver.plan(CREATE, Answer(body=body))
        adapter = kie(receiver.url(""))
        outcome = adapter.submit(REQUEST, upstream_model=PRO, ticket=Ticket("t", ""))
        for text in (adapter.exchanges[0].response, outcome.detail):  # type: ignore[union-attr]
            assert text.encode()
            assert "\0" not in text
