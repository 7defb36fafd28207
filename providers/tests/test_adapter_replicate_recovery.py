"""How the Replicate adapter looks for predictions of which nobody knows whether they arrived."""

import datetime as dt
import hashlib
import json
from collections.abc import Iterator
from typing import Any

import pytest

from providers.adapters import replicate as replicate_module
from providers.adapters.base import Accepted, JobRequest, LookFailed, Lost, Ref, Succeeded, Ticket, Unknown
from providers.adapters.replicate import ReplicateAdapter
from providers.emulators.replicate import ReplicateEmulator
from providers.emulators.server import Pace
from providers.tests.replicate_channel import (
    KEY,
    MODELS,
    PREDICTIONS,
    PRO,
    REQUEST,
    TICKET,
    asking,
    called_back,
    calls,
    replicate,
    send,
    taken,
)
from tests.receivers import Answer, Receiver

HOUR = 3_600
TOKENS = [f"another-token-of-ours-{number:020}" for number in range(5)]
IMAGES = ("https://cdn.example/1.png?X-Amz-Signature=s1", "https://cdn.example/2.png?X-Amz-Signature=s2")
VIDEO = "https://cdn.example/1.mp4"
AT = dt.datetime(2026, 11, 22, 10, 1, tzinfo=dt.UTC)


@pytest.fixture(autouse=True)
def _loopback(settings: Any) -> None:
    settings.OUTBOUND_ALLOWED_HOSTS = ["127.0.0.1"]


@pytest.fixture
def emulator() -> Iterator[ReplicateEmulator]:
    # Time passes by `skip` alone, and nobody is called back.
    emulator = ReplicateEmulator(key=KEY, pace=Pace(1_000, 1_000))
    emulator.knobs["callback"] = "none"
    with emulator.serving():
        yield emulator


@pytest.fixture
def adapter(emulator: ReplicateEmulator) -> ReplicateAdapter:
    return replicate(emulator.origin + emulator.base_path)


@pytest.fixture
def receiver() -> Iterator[Receiver]:
    with Receiver() as receiver:
        yield receiver


def ticket(token: str = TICKET.token) -> Ticket:
    return called_back("http://127.0.0.1:1", token=token)


def lost(request: JobRequest = REQUEST, *, token: str = TICKET.token, started_at: dt.datetime | None = None) -> Lost:
    digest = hashlib.sha256(token.encode()).digest()
    return Lost(request, MODELS[request.model], TICKET.tag, digest, started_at or dt.datetime.now(dt.UTC))


def ids(found: Any) -> set[str]:
    assert len({one.upstream_id for one in found}) == len(found)
    return {one.upstream_id for one in found}


# --- By the token. ---


@pytest.mark.parametrize("word", ["drop", "late-5xx", "no-id"])
def test_lost_prediction_is_found_by_its_token(
    adapter: ReplicateAdapter, emulator: ReplicateEmulator, word: str
) -> None:
    # Twins in everything but their token, also those that have none.
    for token in TOKENS[:2]:
        taken(adapter, ticket=ticket(token))
    taken(adapter)
    emulator.knobs["submit"] = word
    started_at = dt.datetime.now(dt.UTC)
    assert isinstance(send(adapter, ticket=ticket()), Unknown)
    del emulator.knobs["submit"]
    taken(adapter, ticket=ticket(TOKENS[2]))
    upstream_id = emulator.submissions[3].task_id
    assert adapter.recover(lost(started_at=started_at)) == [Accepted(upstream_id)]
    # Whatever became of it.
    emulator.skip(2_000)
    assert adapter.recover(lost(started_at=started_at)) == [Accepted(upstream_id)]
    assert isinstance(adapter.fetch(Ref(upstream_id, PRO)), Succeeded)
    emulator.skip(HOUR)
    assert adapter.recover(lost(started_at=started_at)) == [Accepted(upstream_id)]
    assert len(emulator.submissions) == 5


def test_prediction_that_never_arrived_is_not_found(adapter: ReplicateAdapter, emulator: ReplicateEmulator) -> None:
    assert adapter.recover(lost()) == []
    for token in TOKENS:
        taken(adapter, ticket=ticket(token))
    emulator.knobs["submit"] = "drop-before"
    assert isinstance(send(adapter, ticket=ticket()), Unknown)
    assert adapter.recover(lost()) == []
    assert len(emulator.submissions) == 5


# --- By the input. ---


def test_without_an_echo_every_prediction_of_this_input_is_found(
    adapter: ReplicateAdapter, emulator: ReplicateEmulator
) -> None:
    emulator.knobs["webhook-echo"] = "no"
    requests = [
        asking("One @Image1", image_urls=IMAGES[:1]),
        asking("One @Image1", image_urls=IMAGES[:1]),
        asking("Two @Image1", image_urls=IMAGES[:1]),
        asking("One @Image1", image_urls=IMAGES),
        asking("One @Image1", image_urls=IMAGES[1:]),
        asking("One @Image1", image_urls=IMAGES[:1], video_urls=(VIDEO,)),
        asking("One @Image1", first_frame_url=IMAGES[0]),
        asking("One @Image1", image_urls=IMAGES[:1], duration=9),
        asking("One @Image1", image_urls=IMAGES[:1], resolution="720p"),
        asking("One @Image1", image_urls=IMAGES[:1], aspect_ratio="adaptive"),
        asking("One @Image1", image_urls=IMAGES[:1], generate_audio=False),
        asking("One @Image1", image_urls=IMAGES[:1], model="mini"),
    ]
    made = [taken(adapter, request, ticket=ticket()).upstream_id for request in requests]
    assert ids(adapter.recover(lost(requests[0]))) == set(made[:2])
    for request, upstream_id in zip(requests[2:], made[2:], strict=True):
        assert adapter.recover(lost(request)) == [Accepted(upstream_id)]
    assert adapter.recover(lost(asking("Three", image_urls=IMAGES[:1]))) == []
    assert adapter.recover(lost(asking("One @Image1", image_urls=IMAGES[:1], model="fast"))) == []
    # An hour after its end a prediction tells nothing, so that it may be any.
    emulator.skip(2_000 + HOUR)
    started_at = dt.datetime.now(dt.UTC)
    assert ids(adapter.recover(lost(requests[-1], started_at=started_at))) == {made[-1]}
    assert ids(adapter.recover(lost(requests[0], started_at=started_at))) == set(made[:-1])


def test_seed_that_was_chosen_there_is_any(adapter: ReplicateAdapter, emulator: ReplicateEmulator) -> None:
    emulator.knobs["webhook-echo"] = "no"
    unseeded, seeded = taken(adapter).upstream_id, taken(adapter, asking(seed=9)).upstream_id
    assert ids(adapter.recover(lost())) == {unseeded, seeded}
    # It may be left out as much as any default.
    assert ids(adapter.recover(lost(asking(seed=9)))) == {unseeded, seeded}
    assert ids(adapter.recover(lost(asking(seed=8)))) == {unseeded}


ITEM: dict[str, Any] = {"id": "p1", "model": PRO, "created_at": "2026-11-22T10:01:00.000Z"}
INPUT: dict[str, Any] = {
    "prompt": REQUEST.prompt,
    "duration": 4,
    "resolution": "480p",
    "aspect_ratio": "16:9",
    "generate_audio": True,
}


def listed(*items: Any, following: Any = None) -> Answer:
    return Answer(body=json.dumps({"previous": None, "next": following, "results": list(items)}).encode())


def looked(*items: Any, token: str = TICKET.token, **options: Any) -> list[str]:
    with Receiver() as receiver:
        receiver.plan(PREDICTIONS, listed(*items))
        found = replicate(receiver.url("/v1"), **options).recover(lost(token=token, started_at=AT))
        (received,) = receiver.requests
    assert (received.method, received.path) == ("GET", PREDICTIONS)
    assert received.headers["authorization"] == f"Bearer {KEY}"
    assert found is not None
    return [one.upstream_id for one in found]


@pytest.mark.parametrize(
    ("changes", "is_found"),
    [
        ({}, True),
        ({"seed": 5}, True),
        ({"duration": 4.0, "reference_images": [], "image": None, "last_frame_image": ""}, True),
        ({"duration": None, "resolution": None, "aspect_ratio": None, "generate_audio": None}, True),
        ({"prompt": "Other"}, False),
        ({"prompt": None}, False),
        ({"duration": 5}, False),
        ({"generate_audio": False}, False),
        ({"image": IMAGES[0]}, False),
        ({"reference_audios": [IMAGES[0]]}, False),
    ],
)
def test_input_that_is_told_has_to_be_ours(changes: dict[str, Any], is_found: bool) -> None:
    assert looked(ITEM | {"input": INPUT | changes}) == ["p1"] * is_found


@pytest.mark.parametrize(
    ("webhook", "is_found"),
    [
        (ticket().callback_url, True),
        (f"{ticket().callback_url}?x=1", True),
        (ticket(TOKENS[0]).callback_url, False),
        # What shows no token says nothing, and the input decides.
        *((webhook, None) for webhook in ("", None, 5, "https://us.example/callbacks/replicate/***")),
        *((webhook, None) for webhook in (f"https://us.example/c/{TICKET.token[:8]}…", "https://other.example/hook")),
    ],
)
def test_token_that_is_told_decides(webhook: Any, is_found: bool | None) -> None:
    item = ITEM | {"webhook": webhook}
    assert looked(item | {"input": INPUT}) == ["p1"] * (is_found in (True, None))
    assert looked(item | {"input": INPUT | {"prompt": "Other"}}) == ["p1"] * (is_found is True)


def test_prediction_of_our_token_leaves_no_others() -> None:
    mine = ITEM | {"id": "p2", "webhook": ticket().callback_url}
    assert looked(ITEM | {"input": INPUT}, mine, ITEM | {"id": "p3"}) == ["p2"]
    # Two of one token cannot be, and are told both.
    assert looked(mine, mine | {"id": "p4"}, mine) == ["p2", "p4"]


def test_what_cannot_be_told_apart_may_be_it() -> None:
    assert looked(ITEM, ITEM | {"id": "p2", "input": {}, "model": None}, ITEM | {"id": "p3", "input": "x"}) == [
        "p1",
        "p2",
        "p3",
    ]
    assert looked(ITEM | {"model": "bytedance/seedance-1"}) == []
    assert looked(ITEM | {"model": "bytedance/seedance-1"}, check_model=False) == ["p1"]
    assert looked(5, None, [], {}, *(ITEM | {"id": name} for name in (None, "", 5, "../x", ["p1"]))) == []


def test_predictions_of_more_than_a_minute_before_are_not_it() -> None:
    items = [
        ITEM | {"id": f"p{number}", "created_at": told}
        for number, told in enumerate(
            (
                "2026-11-22T10:09:00.000Z",
                "2026-11-22T10:00:00.000Z",
                "2026-11-22T09:59:59.999Z",
                "2026-11-22T11:00:00.000+01:00",
                "2026-11-22T10:59:59.999+01:00",
                "2026-11-22T10:00:00",
                "2026-11-22T10:00:00.000000001Z",
                "yesterday",
                None,
                5,
            )
        )
    ]
    assert looked(*items) == ["p0", "p1", "p3", "p5", "p6", "p7", "p8", "p9"]


# --- The list. ---


def test_list_is_read_page_by_page(adapter: ReplicateAdapter, emulator: ReplicateEmulator) -> None:
    emulator.knobs["page-size"] = "2"
    mine = taken(adapter, ticket=ticket())
    for token in TOKENS[:4]:
        taken(adapter, ticket=ticket(token))
    emulator.requests.clear()
    assert adapter.recover(lost()) == [Accepted(mine.upstream_id)]
    assert calls(emulator) == [("GET", PREDICTIONS)] * 3


def test_list_is_read_no_further_than_a_page_of_the_past(receiver: Receiver) -> None:
    new = [ITEM | {"id": f"p{number}"} for number in range(2)]
    old = [ITEM | {"id": f"o{number}", "created_at": "2026-11-22T09:00:00.000Z"} for number in range(4)]
    # An address at another host is not followed: only its query is.
    elsewhere = "https://api.replicate.example/v1/predictions?cursor="
    receiver.plan(PREDICTIONS, listed(new[0], old[0], following=f"{elsewhere}a%2Bb%3D"))
    receiver.plan(f"{PREDICTIONS}?cursor=a%2Bb%3D", listed(old[1], new[1], following=f"{elsewhere}c"))
    receiver.plan(f"{PREDICTIONS}?cursor=c", listed(*old[2:], following=f"{elsewhere}d"))
    found = replicate(receiver.url("/v1")).recover(lost(started_at=AT))
    assert found == [Accepted("p0"), Accepted("p1")]
    assert len(receiver.requests) == 3


def test_list_that_does_not_end_says_nothing(receiver: Receiver, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(replicate_module, "MAX_PAGES", 2)
    mine = ITEM | {"webhook": ticket().callback_url}
    receiver.plan(PREDICTIONS, listed(mine, following="?cursor=a"))
    receiver.plan(f"{PREDICTIONS}?cursor=a", listed(mine, following="?cursor=a"))
    with pytest.raises(LookFailed, match="more than 2 pages"):
        replicate(receiver.url("/v1")).recover(lost(started_at=AT))
    assert len(receiver.requests) == 2


@pytest.mark.parametrize(
    "answer",
    [
        *(Answer(status, b'{"results": [], "next": null}') for status in (201, 400, 401, 404, 429, 503)),
        *(Answer(body=body) for body in (b"", b"[]", b"{}", b'{"results": null}', b'{"results": {}}', b"<html>")),
        *(listed(following=following) for following in ("x", "https://[", 5, {"cursor": "x"}, "/v1/predictions?")),
        Answer(body=b'{"results": [', has_length=False),
    ],
)
def test_look_fails_where_the_list_cannot_be_read(receiver: Receiver, answer: Answer) -> None:
    receiver.plan(PREDICTIONS, answer)
    with pytest.raises(LookFailed):
        replicate(receiver.url("/v1")).recover(lost(started_at=AT))
    assert len(receiver.requests) == 1


@pytest.mark.parametrize("word", ["html", "empty", "5xx", "429", "drop", "404", "401"])
def test_look_fails_where_the_provider_does_not_answer(
    adapter: ReplicateAdapter, emulator: ReplicateEmulator, word: str
) -> None:
    taken(adapter, ticket=ticket())
    emulator.knobs["list"] = word
    with pytest.raises(LookFailed):
        adapter.recover(lost())


def test_look_fails_where_the_provider_is_away() -> None:
    with Receiver() as receiver:
        base_url = receiver.url("/v1")
    with pytest.raises(LookFailed, match="No whole reply came: connect"):
        replicate(base_url).recover(lost())
