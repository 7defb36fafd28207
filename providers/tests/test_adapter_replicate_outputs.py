"""What comes from Replicate: callbacks, outputs, and what of all that staff may read."""

import base64
import datetime as dt
import hashlib
import hmac
import json
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from providers import media_probe
from providers.adapters import replicate_webhooks
from providers.adapters.base import Accepted, DownloadError, Forged, Hint, Lost, Ref, Succeeded
from providers.adapters.replicate import ReplicateAdapter
from providers.emulators.replicate import ReplicateEmulator
from providers.emulators.server import Pace
from providers.tests.replicate_channel import (
    CREATE,
    ID,
    KEY,
    PREDICTIONS,
    PRO,
    REQUEST,
    SECRET,
    TICKET,
    asking,
    called_back,
    calls,
    replicate,
    send,
    taken,
)
from tests.receivers import Answer, Received, Receiver

HOUR = 3_600
# Synthetic, made by the vendor's rule; the first of the two entries is a wrong one.
NOW = 1795350205
SIGNING_SECRET = "whsec_AwoRGB8mLTQ7QklQV15lbHN6gYiPlp2k"
GOOD = "v1,ZMzyCbwxVxpZctfRVwrc2FPixMW2p0Q3Uv7k2miob0M="
HEADERS = {
    "webhook-id": "msg_2EXAMPLEreplicate0001",
    "webhook-timestamp": "1795350200",
    "webhook-signature": f"v1,AAAA {GOOD}",
}
BODY = (
    b'{"id": "7tq2v0w8e5rmr0cvm9hbe4xzj8", "model": "bytedance/seedance-2.0", "status": "succeeded", '
    b'"output": "https://replicate.delivery/xezq/EXAMPLE/out.mp4", "error": null, "logs": "", '
    b'"metrics": {"predict_time": 143.2}, "input": {"prompt": "x"}, '
    b'"created_at": "2026-11-22T10:00:00.000Z", "completed_at": "2026-11-22T10:02:25.000Z"}'
)
OTHER_SECRET = "whsec_" + base64.b64encode(b"another key").decode()
UNFETCHED = Forged("The keys could not be fetched.")
WRONG = Forged("The callback's signature is wrong.")
STALE = Forged("The callback's signature is too old, or from the future.")
UNSIGNED = Forged("The callback is not signed.")


@pytest.fixture(autouse=True)
def _loopback(settings: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    settings.OUTBOUND_ALLOWED_HOSTS = ["127.0.0.1"]
    # A port may come again, with another account behind it.
    monkeypatch.setattr(replicate_webhooks, "_keys", {})


@pytest.fixture
def emulator() -> Iterator[ReplicateEmulator]:
    # Time passes by `skip` alone: no test waits for it.
    emulator = ReplicateEmulator(key=KEY, pace=Pace(1_000, 1_000))
    with emulator.serving():
        yield emulator


@pytest.fixture
def adapter(emulator: ReplicateEmulator) -> ReplicateAdapter:
    return replicate(emulator.origin + emulator.base_path)


@pytest.fixture
def receiver() -> Iterator[Receiver]:
    with Receiver() as receiver:
        yield receiver


# --- Signatures. ---


def told(
    body: bytes = BODY,
    *,
    headers: dict[str, str] | None = None,
    now: float = NOW,
    secret: str = SIGNING_SECRET,
    adapter: ReplicateAdapter | None = None,
) -> Any:
    """Read a callback that is as usual but for these changes."""
    return (adapter or replicate("http://127.0.0.1:1", secret=secret)).read_callback(
        HEADERS if headers is None else headers, body, received_at=dt.datetime.fromtimestamp(now, dt.UTC)
    )


def signed(body: bytes, *, secret: str = SIGNING_SECRET) -> dict[str, str]:
    key = base64.b64decode(secret.removeprefix("whsec_"))
    content = f"{HEADERS['webhook-id']}.{HEADERS['webhook-timestamp']}.".encode() + body
    digest = hmac.new(key, content, hashlib.sha256).digest()
    return {**HEADERS, "webhook-signature": "v1," + base64.b64encode(digest).decode()}


def callbacks(receiver: Receiver, token: str, count: int) -> list[Received]:
    """Wait for so many callbacks at the address of this token."""
    path = f"/callbacks/replicate/{token}"
    until(lambda: len(receiver.received(path)) == count)
    return receiver.received(path)


def until(is_true: Callable[[], bool]) -> None:
    give_up_at = time.monotonic() + 10
    while not is_true():
        assert time.monotonic() < give_up_at
        time.sleep(0.01)


def test_signed_callback_is_verified() -> None:
    assert told() == Hint(ID, is_verified=True)
    for signatures in (GOOD, f"{GOOD} v1,AAAA", f"v2,x {GOOD}", f" {GOOD}  "):
        assert told(headers={**HEADERS, "webhook-signature": signatures}) == Hint(ID, is_verified=True)
    assert told(secret=SIGNING_SECRET.removeprefix("whsec_")) == Hint(ID, is_verified=True)


def test_vendor_s_own_vector() -> None:
    headers = {
        "webhook-id": "msg_p5jXN8AQM9LWM0D4loKWxJek",
        "webhook-timestamp": "1614265330",
        "webhook-signature": "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE=",
    }
    secret = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"
    assert told(b'{"test": 2432232314}', headers=headers, now=1614265330, secret=secret) == Hint("", is_verified=True)
    assert told(b'{"test": 2432232315}', headers=headers, now=1614265330, secret=secret) == WRONG


@pytest.mark.parametrize(("seconds", "is_good"), [(299, True), (300, True), (301, False), (-300, True), (-301, False)])
def test_signature_is_good_for_five_minutes(seconds: int, is_good: bool) -> None:
    assert told(now=1795350200 + seconds) == (Hint(ID, is_verified=True) if is_good else STALE)


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        *(({name: value}, UNSIGNED) for name in HEADERS for value in (None, "")),
        ({"webhook-id": "msg_2EXAMPLEreplicate0002"}, WRONG),
        ({"webhook-id": "\udc80é"}, WRONG),
        ({"webhook-timestamp": "1795350201"}, WRONG),
        *(
            ({"webhook-timestamp": value}, Forged("The callback's timestamp is no number."))
            for value in ("soon", "-1795350200", "+1795350200", "１７９５３５０２００", "1" * 99, "1795350200.0")
        ),
        *(
            ({"webhook-signature": value}, WRONG)
            for value in (
                "v1,AAAA",
                GOOD.lower(),
                GOOD.rstrip("="),
                GOOD.removeprefix("v1,"),
                GOOD.replace("v1", "v2"),
                GOOD.replace("v1,", "v1a,"),
                "v1,",
                "v1,é",
                "v1,\udc80",
                " ",
            )
        ),
    ],
)
def test_callback_without_a_good_signature_is_forged(changes: dict[str, str | None], expected: Forged) -> None:
    headers = {name: value for name, value in {**HEADERS, **changes}.items() if value is not None}
    assert told(headers=headers) == expected


def test_every_byte_of_the_body_is_signed() -> None:
    compact = json.dumps(json.loads(BODY), separators=(",", ":")).encode()
    for body in (compact, BODY + b" ", BODY.replace(b"succeeded", b"failed"), b""):
        assert told(body) == WRONG
    # The key is what the secret's base64 stands for, not its letters.
    raw = hmac.new(SIGNING_SECRET.encode(), b"msg_2EXAMPLEreplicate0001.1795350200." + BODY, hashlib.sha256).digest()
    headers = {**HEADERS, "webhook-signature": "v1," + base64.b64encode(raw).decode()}
    assert told(headers=headers) == WRONG


@pytest.mark.parametrize(
    "body",
    [
        *(b"", b"<html>", b"[]", b"null", b"5", b"{}", b"\xff\xfe", b"[" * 100_000),
        *(b'{"id": null}', b'{"id": 5}', b'{"id": ""}', b'{"id": ["x"]}', b'{"id": "../x"}', b'{"id": "a b"}'),
        b'{"id": "' + b"x" * 201 + b'"}',
    ],
)
def test_callback_that_names_no_prediction_only_says_when_to_ask(body: bytes) -> None:
    assert told(body, headers=signed(body)) == Hint("", is_verified=True)
    assert told(body, headers=signed(body, secret=OTHER_SECRET)) == WRONG


@pytest.mark.parametrize("secret", ["whsec_", "whsec_***", "whsec_AAA", "é"])
def test_secret_that_is_none_verifies_nothing(secret: str) -> None:
    assert told(secret=secret) == UNFETCHED


# --- The signing key. ---


def key_answer(secret: Any) -> Answer:
    return Answer(body=json.dumps({"key": secret}).encode())


def test_key_is_asked_for_once(receiver: Receiver) -> None:
    receiver.plan(SECRET, key_answer(SIGNING_SECRET))
    for _ in range(3):
        # A new adapter for each callback.
        assert told(adapter=replicate(receiver.url("/v1"))) == Hint(ID, is_verified=True)
    (received,) = receiver.requests
    assert (received.method, received.path) == ("GET", SECRET)
    assert received.headers["authorization"] == f"Bearer {KEY}"
    # Every account has its own, and what cannot be good needs none.
    assert told(adapter=replicate(receiver.url("/v1"), key="another")) == Hint(ID, is_verified=True)
    assert len(receiver.requests) == 2
    for changes in ({"webhook-signature": ""}, {"webhook-timestamp": "soon"}, {"webhook-timestamp": "1"}):
        told(headers={**HEADERS, **changes}, adapter=replicate(receiver.url("/v1"), key="a third"))
    assert len(receiver.requests) == 2


def test_key_is_asked_for_again_where_a_signature_does_not_fit_at_most_once_a_minute(
    receiver: Receiver, monkeypatch: pytest.MonkeyPatch
) -> None:
    now = 1_000.0
    monkeypatch.setattr(replicate_webhooks, "time", SimpleNamespace(monotonic=lambda: now))
    adapter = replicate(receiver.url("/v1"))
    receiver.plan(SECRET, key_answer(OTHER_SECRET), key_answer(SIGNING_SECRET))
    assert told(adapter=adapter) == WRONG
    now += 59.9
    assert told(adapter=adapter) == WRONG
    assert len(receiver.requests) == 1
    now += 0.1
    assert told(adapter=adapter) == Hint(ID, is_verified=True)
    assert len(receiver.requests) == 2
    # Forged ones do not make us ask more often, nor forget what we know.
    for _ in range(5):
        assert told(BODY + b" ", adapter=adapter) == WRONG
    assert told(adapter=adapter) == Hint(ID, is_verified=True)
    assert len(receiver.requests) == 2
    now += 60
    receiver.plan(SECRET, Answer(503, b"{}"))
    assert told(BODY + b" ", adapter=adapter) == WRONG
    assert told(adapter=adapter) == Hint(ID, is_verified=True)
    assert len(receiver.requests) == 3


@pytest.mark.parametrize(
    "answer",
    [
        *(Answer(status, b'{"key": "whsec_AwoRGB8mLTQ7QklQV15lbHN6gYiPlp2k"}') for status in (201, 302, 401, 404, 503)),
        *(Answer(body=body) for body in (b"", b"[]", b"null", b"{}", b"<html>", b"[" * 4_000, b"\xff")),
        *(key_answer(secret) for secret in (None, "", 5, "whsec_", "whsec_***", ["x"])),
        Answer(is_reset=True),
    ],
)
def test_without_a_key_the_provider_has_to_send_again(
    receiver: Receiver, monkeypatch: pytest.MonkeyPatch, answer: Answer
) -> None:
    now = 1_000.0
    monkeypatch.setattr(replicate_webhooks, "time", SimpleNamespace(monotonic=lambda: now))
    adapter = replicate(receiver.url("/v1"))
    receiver.plan(SECRET, answer, key_answer(SIGNING_SECRET))
    assert told(adapter=adapter) == UNFETCHED
    # A hiccup costs some seconds of callbacks, not a minute.
    now += 4.9
    assert told(adapter=adapter) == UNFETCHED
    assert len(receiver.requests) == 1
    now += 0.1
    assert told(adapter=adapter) == Hint(ID, is_verified=True)
    assert len(receiver.requests) == 2
    assert adapter.exchanges == []


def test_key_of_a_provider_that_is_away_or_may_not_be_called(settings: Any) -> None:
    with Receiver() as receiver:
        base_url = receiver.url("/v1")
    assert told(adapter=replicate(base_url)) == UNFETCHED
    settings.OUTBOUND_ALLOWED_HOSTS = []
    assert told(adapter=replicate(base_url, key="another")) == UNFETCHED


def test_callbacks_at_once_ask_for_the_key_once(receiver: Receiver) -> None:
    receiver.plan(SECRET, Answer(body=key_answer(SIGNING_SECRET).body, delay=0.3))
    found: list[Any] = []
    threads = [
        threading.Thread(target=lambda: found.append(told(adapter=replicate(receiver.url("/v1"))))) for _ in range(8)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert found == [Hint(ID, is_verified=True)] * 8
    assert len(receiver.requests) == 1


# --- Callbacks that the emulator sends. ---


@pytest.mark.parametrize(
    ("word", "count", "expected"),
    [
        ("", 2, None),
        ("twice", 4, None),
        ("reordered", 2, None),
        ("second-signature", 2, None),
        ("re-serialised", 2, WRONG),
        ("tampered", 2, WRONG),
        ("bad-signature", 2, WRONG),
        ("stale", 2, STALE),
        ("future", 2, STALE),
        ("unsigned", 2, UNSIGNED),
    ],
)
@pytest.mark.parametrize("failure", ["", "E005"])
def test_callbacks_that_the_provider_sends(
    receiver: Receiver, word: str, count: int, expected: Forged | None, failure: str
) -> None:
    emulator = ReplicateEmulator(key=KEY, pace=Pace(0.05, 0.1))
    emulator.knobs = {"callback": word, "fail": failure}
    ticket = called_back(receiver.url(""))
    with emulator.serving() as base_url:
        adapter = replicate(base_url)
        ref = taken(adapter, ticket=ticket)
        found = {
            adapter.read_callback(one.headers, one.body, received_at=dt.datetime.now(dt.UTC))
            for one in callbacks(receiver, TICKET.token, count)
        }
        assert found == {expected or Hint(ref.upstream_id, is_verified=True)}
        # Only where a signature could be right is the key needed.
        asked_count = calls(emulator).count(("GET", SECRET))
        assert asked_count == (0 if expected in (STALE, UNSIGNED) else 1)


def test_callback_is_verified_after_the_secret_was_changed(receiver: Receiver, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(replicate_webhooks, "REFRESH_SECONDS", 0.0)
    emulator = ReplicateEmulator(key=KEY, pace=Pace(0.05, 0.05))
    with emulator.serving() as base_url:
        adapter = replicate(base_url)
        for count in (1, 2):
            ref = taken(adapter, ticket=called_back(receiver.url(""), token=f"token-{count}"))
            for one in callbacks(receiver, f"token-{count}", 2):
                hint = adapter.read_callback(one.headers, one.body, received_at=dt.datetime.now(dt.UTC))
                assert hint == Hint(ref.upstream_id, is_verified=True)
            assert calls(emulator).count(("GET", SECRET)) == count
            emulator.rotate_secret()


def test_lost_submission_is_found_by_its_callback(receiver: Receiver) -> None:
    emulator = ReplicateEmulator(key=KEY, pace=Pace(0.05, 0.05))
    emulator.knobs["submit"] = "drop"
    with emulator.serving() as base_url:
        adapter = replicate(base_url)
        send(adapter, ticket=called_back(receiver.url("")))
        until(lambda: len(receiver.requests) == 2)
        received = receiver.requests[-1]
        hint = adapter.read_callback(received.headers, received.body, received_at=dt.datetime.now(dt.UTC))
        assert hint == Hint(emulator.submissions[0].task_id, is_verified=True)
        assert isinstance(adapter.fetch(Ref(emulator.submissions[0].task_id, PRO)), Succeeded)


# --- Outputs. ---

ENOUGH = 50_000_000


def finished(adapter: ReplicateAdapter, emulator: ReplicateEmulator) -> Succeeded:
    ref = taken(adapter)
    emulator.skip(2_000)
    outcome = adapter.fetch(ref)
    assert isinstance(outcome, Succeeded)
    return outcome


def test_output_is_fetched(adapter: ReplicateAdapter, emulator: ReplicateEmulator, tmp_path: Path) -> None:
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
    replicate(receiver.url("/v1")).download(receiver.url("/a.mp4?sign=1"), tmp_path / "a", max_bytes=10)
    (received,) = receiver.requests
    assert "authorization" not in received.headers
    assert KEY not in str(received)


@pytest.mark.parametrize(("word", "is_final"), [("gone", True), ("redirect", False), ("foreign", False)])
def test_output_that_is_not_there_is_told(
    adapter: ReplicateAdapter, emulator: ReplicateEmulator, tmp_path: Path, word: str, is_final: bool
) -> None:
    emulator.knobs["result"] = word
    done = finished(adapter, emulator)
    with pytest.raises(DownloadError) as caught:
        adapter.download(done.video_url, tmp_path / "video", max_bytes=ENOUGH)
    assert caught.value.is_final is is_final
    assert list(tmp_path.iterdir()) == []
    # Neither the host of a redirect nor a foreign one was called.
    file_count = sum(path.startswith("/files/") for _, path in calls(emulator))
    assert file_count == (0 if word == "foreign" else 1)


def test_expired_file_is_final_and_cut_file_is_not(
    adapter: ReplicateAdapter, emulator: ReplicateEmulator, receiver: Receiver, tmp_path: Path
) -> None:
    done = finished(adapter, emulator)
    emulator.skip(HOUR)
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
        ("replicate.delivery", True),
        ("pbxt.replicate.delivery", True),
        ("cdn.results.example", True),
        ("results.example", False),
        ("replicate.delivery.evil.example", False),
        ("evilreplicate.delivery", False),
        ("api.replicate.com", False),
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
    adapter = replicate("https://api.replicate.com/v1", output_hosts=("*.results.example",))
    with pytest.raises(DownloadError) as caught:
        adapter.download(f"https://{host}/x.mp4", tmp_path / "x", max_bytes=10)
    assert not caught.value.is_final
    assert asked == [f"{host}."] * is_allowed


# --- What staff may read. ---


def test_no_secret_and_no_word_of_a_customer_is_kept(
    adapter: ReplicateAdapter, emulator: ReplicateEmulator, receiver: Receiver, tmp_path: Path
) -> None:
    request = asking("A secret lighthouse", image_urls=("https://cdn.example/a.png?X-Amz-Signature=refsign",))
    ticket = called_back(receiver.url(""))
    ref, other = taken(adapter, request, ticket=ticket), taken(adapter, request, ticket=ticket)
    digest = hashlib.sha256(ticket.token.encode()).digest()
    looked_for = Lost(request, PRO, ticket.tag, digest, dt.datetime.now(dt.UTC))
    assert adapter.recover(looked_for) == [Accepted(other.upstream_id), Accepted(ref.upstream_id)]
    adapter.cancel(other)
    emulator.skip(2_000)
    until(lambda: len(receiver.requests) == 3)
    verdicts = [
        adapter.read_callback(one.headers, one.body, received_at=dt.datetime.now(dt.UTC)) for one in receiver.requests
    ]
    assert set(verdicts) == {Hint(one.upstream_id, is_verified=True) for one in (ref, other)}
    done = adapter.fetch(ref)
    assert isinstance(done, Succeeded)
    adapter.download(done.video_url, tmp_path / "video", max_bytes=ENOUGH)
    receiver.plan("/a.mp4?X-Amz-Signature=outsign", Answer(404))
    with pytest.raises(DownloadError):
        adapter.download(receiver.url("/a.mp4?X-Amz-Signature=outsign"), tmp_path / "x", max_bytes=10)
    details = []
    for word in ("drop", "html", "late-5xx", "error:401", "error:422/url"):
        emulator.knobs["submit"] = word
        details.append(str(send(adapter, request, ticket=ticket)))
    emulator.knobs = {"fail": "download"}
    failed = taken(adapter, request, ticket=ticket)
    emulator.skip(2_000)
    details.append(str(adapter.fetch(failed)))
    for word in ("html", "401", "drop"):
        emulator.knobs["poll"] = word
        details.append(str(adapter.fetch(ref)))

    assert {exchange.kind for exchange in adapter.exchanges} == {"submit", "fetch", "recover", "cancel", "download"}
    kept = "\n".join([*map(str, adapter.exchanges), *details, str(adapter.access), str(ticket)])
    for path in (CREATE, PREDICTIONS, "https://cdn.example/a.png?…", "<callback>"):
        assert path in kept
    for secret in (KEY, emulator.secret, "whsec_", ticket.token, "lighthouse", "refsign", "outsign", "Signature="):
        assert secret not in kept


def test_logs_of_a_model_are_not_kept(receiver: Receiver) -> None:
    path = f"{PREDICTIONS}/{ID}"
    body = {"id": ID, "model": PRO, "status": "processing", "logs": "Prompt: A secret lighthouse\n"}
    receiver.plan(path, Answer(body=json.dumps(body).encode()))
    adapter = replicate(receiver.url("/v1"))
    adapter.fetch(Ref(ID, PRO))
    assert '"logs": "<28 characters>"' in adapter.exchanges[0].response
    assert "lighthouse" not in str(adapter.exchanges)


def test_what_is_kept_can_be_stored(receiver: Receiver) -> None:
    # Halves of characters come of sentences that were cut, NUL of bodies that are no text at all.
    for body in (b'{"detail": "cut \\ud83d"}', b'{"detail": "cut \\u0000"}', b"\x1f\x8b\x00\x00"):
        receiver.plan(CREATE, Answer(402, body))
        adapter = replicate(receiver.url("/v1"))
        outcome = send(adapter)
        for text in (adapter.exchanges[0].response, outcome.detail):  # type: ignore[union-attr]
            assert text.encode()
            assert "\0" not in text
