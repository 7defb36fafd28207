"""Which webhooks the fal adapter believes, and how it comes by the keys that they are signed with."""

import base64
import concurrent.futures
import datetime as dt
import hashlib
import json
import time
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from providers.adapters import fal as fal_module
from providers.adapters.base import Failed, Forged, Hint, Ref, Running, Unknown
from providers.emulators.fal import FalEmulator
from providers.emulators.server import Pace
from providers.tests.fal_channel import JWKS, KEY, PRO, asking, fal, send, taken
from tests.receivers import Answer, Receiver

ID = "8b6c1c0e-3d0f-4b1e-9c57-6f3f5f0a1d11"
USER = "user_01EXAMPLE"
PATH = "/callbacks/fal/t0ken"
SEED = bytes(range(32))
PUBLIC = "A6EHv_POEL4dcN0Y50vAmWfk1jCbpQ1fHdyGZBJVMbg"
DAY = 86_400.0
# The published scheme's vectors: name, signed at, checked at, signature, body.
VECTORS = [
    (
        "ok",
        1795350000,
        1795350012,
        "11b38d226c32350bb677f13b8726fca03deeb0c8b27cabce97eeb5e609fa78fe"
        "446c5e26a22fdab68f587a06262d23b95b2de419b1c13d7fe68c34f548716b0d",
        f'{{"request_id": "{ID}", "gateway_request_id": "{ID}", "status": "OK", "payload": {{"video": {{"url": '
        '"https://v3b.fal.media/files/b/0a1b2c3d/out.mp4", "content_type": "video/mp4", "file_name": "out.mp4", '
        '"file_size": 4351022}, "seed": 1183504421}}',
    ),
    (
        "error_422",
        1795350100,
        1795350112,
        "bd58f3cdcf5043a3860abc7ca3b9cebbf84ec089820fd3acc4f8c4626d2ef945"
        "9356f17b7cc766e38dc80f0ce66282f6533772e25f574ce584cf81684c15ef0d",
        f'{{"request_id": "{ID}", "gateway_request_id": "{ID}", "status": "ERROR", "error": "Invalid status code: '
        '422", "payload": {"detail": [{"loc": ["body", "prompt"], "msg": "The content could not be processed because '
        'it was flagged by a content checker.", "type": "content_policy_violation"}]}}',
    ),
]
NAMES = ("request-id", "user-id", "timestamp", "signature")
_, AT, NOW, SIGNATURE, BODY = VECTORS[0]
HINT = Hint(ID, is_verified=True)
WRONG = Forged("The callback's signature is wrong.")


class Clock:
    """Seconds that pass only where a test says so."""

    now = 1_000_000.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture(autouse=True)
def clock(settings: Any, monkeypatch: pytest.MonkeyPatch) -> Iterator[Clock]:
    settings.OUTBOUND_ALLOWED_HOSTS = ["127.0.0.1"]
    clock = Clock()
    monkeypatch.setattr(fal_module, "monotonic", clock)
    fal_module.keys_at.cache_clear()
    yield clock
    fal_module.keys_at.cache_clear()


@pytest.fixture
def receiver() -> Iterator[Receiver]:
    with Receiver() as receiver:
        receiver.plan(JWKS, key_set(PUBLIC))
        yield receiver


def key_set(*keys: str | Ed25519PrivateKey) -> Answer:
    texts = [key if isinstance(key, str) else public_of(key) for key in keys]
    return Answer(body=json.dumps({"keys": [{"kty": "OKP", "crv": "Ed25519", "x": text} for text in texts]}).encode())


def public_of(key: Ed25519PrivateKey) -> str:
    return base64.urlsafe_b64encode(key.public_key().public_bytes_raw()).rstrip(b"=").decode()


def signed_with(key: Ed25519PrivateKey, *, body: str = BODY, request_id: str = ID) -> dict[str, str]:
    message = f"{request_id}\n{USER}\n{AT}\n{hashlib.sha256(body.encode()).hexdigest()}"
    values = (request_id, USER, str(AT), key.sign(message.encode()).hex())
    return {f"x-fal-webhook-{name}": value for name, value in zip(NAMES, values, strict=True)}


def headers_of(**changes: str) -> dict[str, str]:
    values = dict(zip(NAMES, (ID, USER, str(AT), SIGNATURE), strict=True)) | {
        name.replace("_", "-"): value for name, value in changes.items()
    }
    return {f"x-fal-webhook-{name}": value for name, value in values.items()}


def read(
    receiver: Receiver, headers: dict[str, str], body: str | bytes = BODY, *, at: float = NOW, **options: Any
) -> Any:
    raw = body.encode() if isinstance(body, str) else body
    received_at = dt.datetime.fromtimestamp(at, dt.UTC)
    return fal(receiver.url(""), **options).read_callback(headers, raw, received_at=received_at)


def asked_count(receiver: Receiver) -> int:
    return len(receiver.received(JWKS))


# --- Signatures. ---


@pytest.mark.parametrize(("name", "at", "now", "signature", "body"), VECTORS)
def test_vectors_are_believed_and_no_other(
    receiver: Receiver, name: str, at: int, now: int, signature: str, body: str
) -> None:
    headers = headers_of(timestamp=str(at), signature=signature)
    for close in (now, at - 300, at + 300):
        assert read(receiver, headers, body, at=close) == HINT
    assert read(receiver, headers | {"x-fal-webhook-signature": signature.upper()}, body, at=now) == HINT
    for moment in (at - 301, at + 301, at + 300.5):
        told = Forged("The callback's signature is too old, or from the future.")
        assert read(receiver, headers, body, at=moment) == told
    for position in (0, 30, len(body) - 1):
        tampered = bytearray(body.encode())
        tampered[position] ^= 1
        assert read(receiver, headers, bytes(tampered), at=now) == WRONG
    assert read(receiver, headers, json.dumps(json.loads(body), separators=(",", ":")), at=now) == WRONG
    for change in ({"user_id": "another"}, {"timestamp": str(at + 1)}, {"request_id": "another"}):
        changed = headers_of(**{"timestamp": str(at), "signature": signature} | change)
        assert read(receiver, changed, body, at=now) == WRONG
    assert asked_count(receiver) == 1
    (asked,) = receiver.received(JWKS)
    assert "authorization" not in asked.headers


@pytest.mark.parametrize("name", NAMES)
def test_each_of_the_four_headers_must_be_there(receiver: Receiver, name: str) -> None:
    for headers in (
        {key: value for key, value in headers_of().items() if key != f"x-fal-webhook-{name}"},
        headers_of(**{name: ""}),
    ):
        assert read(receiver, headers) == Forged("The callback is not signed.")
    assert receiver.requests == []


@pytest.mark.parametrize("timestamp", ["now", "-1795350000", "1795350000.0", "1e9", "9" * 13, " 1795350000", "१"])
def test_timestamp_is_a_number(receiver: Receiver, timestamp: str) -> None:
    assert read(receiver, headers_of(timestamp=timestamp)) == Forged("The callback's timestamp is no number.")


@pytest.mark.parametrize(
    "signature", ["00", "zz" * 64, f"{SIGNATURE}00", SIGNATURE[:-1], f"{SIGNATURE[:-1]} ", "é" * 128]
)
def test_signature_has_the_form_of_one(receiver: Receiver, signature: str) -> None:
    assert read(receiver, headers_of(signature=signature)) == Forged("The callback's signature is none.")
    assert receiver.requests == []


def test_body_must_name_the_request_that_was_signed(receiver: Receiver) -> None:
    key = Ed25519PrivateKey.from_private_bytes(SEED)
    told = Forged("The callback's body does not name the request that was signed.")
    other = json.dumps({"request_id": "another"})
    for body in (other, "", "[]", "null", "{}", "<html>", "[" * 100_000, json.dumps({"request_id": [ID]})):
        assert read(receiver, signed_with(key, body=body), body) == told
    # An id that could not stand in a path is none, however well it is signed.
    body = json.dumps({"request_id": "../x"})
    assert read(receiver, signed_with(key, body=body, request_id="../x"), body) == told
    body = json.dumps({"request_id": ID, "gateway_request_id": "another", "payload": None, "payload_error": "…"})
    assert read(receiver, signed_with(key, body=body), body) == HINT


def test_account_is_compared_where_it_is_known(receiver: Receiver) -> None:
    assert read(receiver, headers_of(), user_id=USER) == HINT
    assert read(receiver, headers_of(), user_id="another") == Forged("The callback is for another account.")


# --- Keys. ---


def test_any_of_the_keys_may_have_signed_and_odd_ones_are_passed_over(receiver: Receiver) -> None:
    odd: list[Any] = [5, {}, {"x": 5}, {"x": "AAAA"}, {"x": "é"}, {"kty": "OKP", "crv": "X25519", "x": PUBLIC}]
    document = {"keys": [*odd, {"x": public_of(Ed25519PrivateKey.generate())}, {"kty": "OKP", "x": f"{PUBLIC}="}]}
    receiver.plan(JWKS, Answer(body=json.dumps(document).encode()))
    assert read(receiver, headers_of()) == HINT
    fal_module.keys_at.cache_clear()
    receiver.plan(JWKS, Answer(body=json.dumps({"keys": odd}).encode()))
    assert read(receiver, headers_of()) == Forged("The keys could not be fetched: the answer holds no key.")


def test_only_another_key_is_not_enough(receiver: Receiver) -> None:
    receiver.plan(JWKS, key_set(Ed25519PrivateKey.generate()))
    assert read(receiver, headers_of()) == WRONG


def test_keys_are_kept_for_a_day(receiver: Receiver, clock: Clock) -> None:
    assert read(receiver, headers_of()) == HINT
    clock.now += DAY
    assert read(receiver, headers_of()) == HINT
    assert asked_count(receiver) == 1
    clock.now += 1
    assert read(receiver, headers_of()) == HINT
    assert asked_count(receiver) == 2
    # Keys that are too old are not believed where there are no others to be had.
    receiver.plan(JWKS, Answer(503))
    clock.now += DAY + 1
    assert read(receiver, headers_of()) == Forged("The keys could not be fetched: HTTP 503.")


def test_rotated_key_is_fetched_at_most_once_a_minute(receiver: Receiver, clock: Clock) -> None:
    assert read(receiver, headers_of()) == HINT
    new = Ed25519PrivateKey.generate()
    receiver.plan(JWKS, key_set(new))
    clock.now += 60
    assert read(receiver, signed_with(new)) == WRONG
    assert asked_count(receiver) == 1
    clock.now += 1
    assert read(receiver, signed_with(new)) == HINT
    assert asked_count(receiver) == 2
    # Forgeries cannot make us ask more often; nor does a provider that is away lose us the keys we have.
    receiver.plan(JWKS, Answer(503))
    for _ in range(5):
        assert read(receiver, headers_of()) == WRONG
    clock.now += 61
    for _ in range(5):
        assert read(receiver, headers_of()) == WRONG
        assert read(receiver, signed_with(new)) == HINT
    assert asked_count(receiver) == 3


@pytest.mark.parametrize(
    ("answer", "why"),
    [
        (Answer(404), "HTTP 404"),
        (Answer(302, headers={"Location": "/x"}), "HTTP 302"),
        (Answer(body=b"<html>"), "the answer holds no key"),
        (Answer(body=b"[]"), "the answer holds no key"),
        (Answer(body=b'{"keys": []}'), "the answer holds no key"),
        (Answer(body=b'{"keys": {"x": 5}}'), "the answer holds no key"),
        (Answer(body=b"[" * 60_000), "the answer holds no key"),
        (Answer(body=b" " * 70_000), "the answer holds no key"),
        (Answer(is_reset=True), "reset"),
    ],
)
def test_without_keys_nothing_is_believed_and_they_are_soon_asked_for_again(
    receiver: Receiver, clock: Clock, answer: Answer, why: str
) -> None:
    receiver.plan(JWKS, answer)
    told = Forged(f"The keys could not be fetched: {why}.")
    for _ in range(3):
        assert read(receiver, headers_of()) == told
    assert asked_count(receiver) == 1
    receiver.plan(JWKS, key_set(PUBLIC))
    clock.now += 6
    assert read(receiver, headers_of()) == HINT
    assert asked_count(receiver) == 2


def test_keys_that_may_not_be_asked_for_are_not(receiver: Receiver, settings: Any) -> None:
    settings.OUTBOUND_ALLOWED_HOSTS = []
    told = read(receiver, headers_of())
    assert told == Forged("The keys could not be fetched: must not point to a private address.")
    assert receiver.requests == []


def test_threads_share_one_look(receiver: Receiver) -> None:
    receiver.plan(JWKS, Answer(body=key_set(PUBLIC).body, delay=0.3))
    with concurrent.futures.ThreadPoolExecutor(8) as pool:
        told = list(pool.map(lambda _: read(receiver, headers_of()), range(8)))
    assert told == [HINT] * 8
    assert asked_count(receiver) == 1


def test_each_address_has_its_own_keys(receiver: Receiver) -> None:
    assert read(receiver, headers_of()) == HINT
    with Receiver() as other:
        other.plan(JWKS, key_set(Ed25519PrivateKey.generate()))
        assert read(receiver, headers_of(), jwks_url=other.url(JWKS)) == WRONG
    assert read(receiver, headers_of()) == HINT


# --- Webhooks as the provider sends them. ---


def until(is_true: Callable[[], bool]) -> None:
    give_up_at = time.monotonic() + 20
    while not is_true():
        assert time.monotonic() < give_up_at
        time.sleep(0.01)


@pytest.fixture
def emulator() -> Iterator[FalEmulator]:
    emulator = FalEmulator(key=KEY, pace=Pace(0.05, 0.05))
    # Failures are told like successes, and need no video to be drawn.
    emulator.knobs["fail"] = "value_error"
    with emulator.serving():
        yield emulator


def heard(emulator: FalEmulator, receiver: Receiver, *, count: int = 1) -> list[Any]:
    """Read the webhooks that came, at the time that it is."""
    until(lambda: len(receiver.received(PATH)) >= count)
    adapter = fal(emulator.origin)
    now = dt.datetime.now(dt.UTC)
    return [adapter.read_callback(one.headers, one.body, received_at=now) for one in receiver.received(PATH)]


@pytest.mark.parametrize(("word", "count"), [("", 1), ("twice", 2), ("reordered", 1), ("payload-error", 1)])
def test_webhooks_that_the_provider_sends_name_the_request(
    emulator: FalEmulator, receiver: Receiver, word: str, count: int
) -> None:
    emulator.knobs |= {"callback": word, "retried": "1"}
    if word == "payload-error":
        del emulator.knobs["fail"]
    ref = taken(fal(emulator.origin), callback_url=receiver.url(PATH))
    assert heard(emulator, receiver, count=count) == [Hint(ref.upstream_id, is_verified=True)] * count


@pytest.mark.parametrize(
    ("word", "told"),
    [
        ("bad-signature", "The callback's signature is wrong."),
        ("foreign-key", "The callback's signature is wrong."),
        ("tampered", "The callback's signature is wrong."),
        ("unsigned", "The callback is not signed."),
        ("stale", "The callback's signature is too old, or from the future."),
        ("future", "The callback's signature is too old, or from the future."),
        ("mismatched-id", "The callback's body does not name the request that was signed."),
    ],
)
def test_webhooks_that_are_not_right_are_not_believed(
    emulator: FalEmulator, receiver: Receiver, word: str, told: str
) -> None:
    emulator.knobs["callback"] = word
    taken(fal(emulator.origin), callback_url=receiver.url(PATH))
    assert heard(emulator, receiver) == [Forged(told)]


def test_webhook_about_a_request_of_another_is_told_as_it_is(emulator: FalEmulator, receiver: Receiver) -> None:
    emulator.knobs["callback"] = "unknown-id"
    ref = taken(fal(emulator.origin), callback_url=receiver.url(PATH))
    (hint,) = heard(emulator, receiver)
    assert isinstance(hint, Hint)
    assert (hint.is_verified, hint.upstream_id != ref.upstream_id) == (True, True)


def test_key_that_the_provider_rotates_is_found_on_its_second_attempt(
    emulator: FalEmulator, receiver: Receiver, clock: Clock
) -> None:
    taken(fal(emulator.origin), callback_url=receiver.url(PATH))
    assert [type(one) for one in heard(emulator, receiver)] == [Hint]
    emulator.knobs["callback"] = "rotated-key"
    ref = taken(fal(emulator.origin), callback_url=receiver.url(PATH))
    assert heard(emulator, receiver, count=2)[1] == WRONG
    clock.now += 61
    assert heard(emulator, receiver, count=2)[1] == Hint(ref.upstream_id, is_verified=True)


@pytest.mark.parametrize("word", ["html", "html-200", "empty", "5xx", "429", "drop", "hang", "404", "401"])
def test_keys_that_the_provider_does_not_tell_make_it_send_again(
    emulator: FalEmulator, receiver: Receiver, clock: Clock, monkeypatch: pytest.MonkeyPatch, word: str
) -> None:
    monkeypatch.setattr(fal_module, "KEYS_DEADLINE_SECONDS", 0.5)
    emulator.knobs["jwks"] = word
    ref = taken(fal(emulator.origin), callback_url=receiver.url(PATH))
    (told,) = heard(emulator, receiver)
    assert isinstance(told, Forged)
    assert told.detail.startswith("The keys could not be fetched: ")
    del emulator.knobs["jwks"]
    clock.now += 6
    assert heard(emulator, receiver) == [Hint(ref.upstream_id, is_verified=True)]


@pytest.mark.parametrize("word", ["drop", "late-5xx", "no-id"])
def test_webhook_brings_the_id_of_a_lost_submission(emulator: FalEmulator, receiver: Receiver, word: str) -> None:
    emulator.knobs["submit"] = word
    adapter = fal(emulator.origin)
    assert isinstance(send(adapter, callback_url=receiver.url(PATH)), Unknown)
    (hint,) = heard(emulator, receiver)
    assert hint == Hint(emulator.submissions[0].task_id, is_verified=True)
    assert isinstance(adapter.fetch(Ref(hint.upstream_id, PRO)), Failed)


def test_webhook_is_only_a_hint(emulator: FalEmulator, receiver: Receiver) -> None:
    ref = taken(
        fal(emulator.origin), asking("[emulate:callback=early][emulate:running=1000]"), callback_url=receiver.url(PATH)
    )
    assert heard(emulator, receiver) == [Hint(ref.upstream_id, is_verified=True)]
    assert fal(emulator.origin).fetch(ref) == Running()
