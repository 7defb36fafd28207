"""How the Ark adapter looks for tasks of which nobody knows whether they arrived."""

import datetime as dt
import json
import time
from collections.abc import Iterator
from typing import Any
from urllib.parse import urlencode

import pytest

from providers.adapters import ark as ark_module
from providers.adapters.ark import ArkAdapter
from providers.adapters.base import Accepted, JobRequest, LookFailed, Lost, Pending, Ref, Succeeded, Unknown
from providers.emulators.ark import ArkEmulator
from providers.emulators.server import Pace
from providers.tests.ark_channel import KEY, MINI, MODELS, PATH, PRO, REQUEST, TICKET, ark, asking, send, taken
from tests.receivers import Answer, Receiver


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


def list_path(*query: tuple[str, str]) -> str:
    return f"{PATH}?{urlencode(query)}"


def listed(*items: Any, total: int | None = None) -> Answer:
    return Answer(body=json.dumps({"items": items, "total": len(items) if total is None else total}).encode())


def lost(
    request: JobRequest = REQUEST, *, tag: str = TICKET.tag, model: str = "", started_at: dt.datetime | None = None
) -> Lost:
    return Lost(request, model or MODELS[request.model], tag, b"", started_at or dt.datetime.now(dt.UTC))


def stored_ids(emulator: ArkEmulator) -> list[str]:
    return [submission.task_id for submission in emulator.submissions]


@pytest.mark.parametrize("word", ["drop", "late-5xx", "late-html", "no-id"])
def test_lost_task_is_found_by_its_tag(adapter: ArkAdapter, emulator: ArkEmulator, word: str) -> None:
    taken(adapter, tag="another")
    taken(adapter, tag="")
    emulator.knobs["submit"] = word
    started_at = dt.datetime.now(dt.UTC)
    assert isinstance(send(adapter), Unknown)
    emulator.knobs.clear()
    taken(adapter, tag="one more")
    found = stored_ids(emulator)[2]
    assert adapter.recover(lost(started_at=started_at)) == [Accepted(found)]
    # Whatever became of it.
    emulator.skip(2_500)
    assert adapter.recover(lost(started_at=started_at)) == [Accepted(found)]
    assert isinstance(adapter.fetch(Ref(found, PRO)), Succeeded)


def test_task_that_never_arrived_is_not_found(adapter: ArkAdapter, emulator: ArkEmulator) -> None:
    assert adapter.recover(lost()) == []
    for _ in range(3):
        taken(adapter, tag="another")
    taken(adapter, tag="")
    emulator.knobs["submit"] = "drop-before"
    assert isinstance(send(adapter), Unknown)
    assert adapter.recover(lost()) == []
    assert len(emulator.submissions) == 4


def test_without_a_tag_every_task_that_may_be_it_is_found(emulator: ArkEmulator) -> None:
    adapter = ark(emulator.origin + emulator.base_path, tag=False)
    twins = [taken(adapter).upstream_id for _ in range(2)]
    other_model = taken(adapter, asking(model="mini"))
    longer, other_ratio = taken(adapter, asking(duration=9)), taken(adapter, asking(aspect_ratio="1:1"))
    larger, seeded = taken(adapter, asking(resolution="720p")), taken(adapter, asking(seed=9))
    tagged = taken(ark(adapter.access.base_url), tag="another's")
    same = {*twins, longer.upstream_id, other_ratio.upstream_id, larger.upstream_id, seeded.upstream_id}

    def found(request: JobRequest = REQUEST) -> set[str]:
        return {one.upstream_id for one in adapter.recover(lost(request))}

    # Before they end, the provider tells nothing but their model.
    assert found() == same
    assert tagged.upstream_id not in same
    assert found(asking(model="mini")) == {other_model.upstream_id}
    assert found(asking(model="fast", resolution="480p")) == set()
    emulator.skip(2_500)
    # A seed that we did not choose can be any.
    assert found() == {*twins, seeded.upstream_id}
    assert found(asking(duration=9)) == {longer.upstream_id}
    assert found(asking(aspect_ratio="1:1")) == {other_ratio.upstream_id}
    assert found(asking(resolution="720p")) == {larger.upstream_id}
    assert found(asking(seed=9)) == {seeded.upstream_id}
    assert found(asking(seed=9 + 2**31)) == {seeded.upstream_id}
    # The provider tells the ratio that it chose.
    assert found(asking(aspect_ratio="adaptive")) == {*twins, seeded.upstream_id, other_ratio.upstream_id}


def test_tag_is_believed_even_where_tagging_was_switched_off_meanwhile(emulator: ArkEmulator) -> None:
    base_url = emulator.origin + emulator.base_path
    ref = taken(ark(base_url))
    assert ark(base_url, tag=False).recover(lost()) == [Accepted(ref.upstream_id)]
    assert ark(base_url, tag=False).recover(lost(tag="other")) == []


def test_tasks_of_more_than_a_minute_before_are_not_it(receiver: Receiver) -> None:
    started_at = dt.datetime(2026, 11, 22, 10, 1, 1, tzinfo=dt.UTC)
    items = [
        {"id": f"cgt-{at}", "model": PRO, "status": "queued", "created_at": at}
        for at in range(1795341603, 1795341598, -1)
    ]
    items.append({"id": "cgt-text", "model": PRO, "created_at": "1795341602"})
    items.append({"id": "cgt-undated", "model": PRO})
    receiver.plan(list_path(("page_num", "1"), ("page_size", "500")), listed(*items))
    found = ark(receiver.url("/api/v3"), tag=False).recover(lost(tag="", started_at=started_at))
    assert [one.upstream_id for one in found] == [
        "cgt-1795341603",
        "cgt-1795341602",
        "cgt-1795341601",
        "cgt-text",
        "cgt-undated",
    ]


def page(number: int, *more: tuple[str, str]) -> str:
    return list_path(("page_num", str(number)), ("page_size", "500"), *more)


def test_list_is_read_page_by_page_until_it_ends_or_runs_into_the_past(receiver: Receiver) -> None:
    now = int(time.time())
    new = [{"id": f"cgt-{number}", "model": PRO, "created_at": now - number} for number in range(4)]
    old = [{"id": f"cgt-old-{number}", "model": PRO, "created_at": now - 1_000 - number} for number in range(2)]
    mine = {"safety_identifier": TICKET.tag}
    adapter = ark(receiver.url("/api/v3"))

    # Pages shorter than asked for do not end the list, and what moved to the next page is found once.
    receiver.plan(page(1), listed(new[0], new[1] | mine, total=5))
    receiver.plan(page(2), listed(new[1] | mine, new[2], total=5))
    receiver.plan(page(3), listed(new[3], total=5))
    assert adapter.recover(lost()) == [Accepted("cgt-1")]
    assert len(receiver.requests) == 3

    # Newest first: what follows is older still.
    receiver.plan(page(1), listed(*new, *old, total=5_000))
    assert adapter.recover(lost()) == []
    assert len(receiver.requests) == 4

    # Oldest first: the end has to be reached, even where it is not told.
    receiver.plan(page(1), Answer(body=json.dumps({"items": [*reversed(old)]}).encode()))
    receiver.plan(page(2), Answer(body=json.dumps({"items": [new[3], new[2] | mine]}).encode()))
    receiver.plan(page(3), Answer(body=b'{"items": null, "total": "0"}'))
    assert adapter.recover(lost()) == [Accepted("cgt-2")]
    assert len(receiver.requests) == 7

    # A page of one, or of one second, shows no order.
    receiver.plan(page(1), listed(old[0], total=4))
    receiver.plan(page(2), listed(old[1], old[1] | {"id": "cgt-old-2"}, total=4))
    receiver.plan(page(3), listed(new[0] | mine, total=4))
    assert adapter.recover(lost()) == [Accepted("cgt-0")]
    assert len(receiver.requests) == 10


def test_list_that_does_not_end_says_nothing(receiver: Receiver, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ark_module, "MAX_PAGES", 2)
    item = {"id": "cgt-1", "model": PRO, "created_at": int(time.time()), "safety_identifier": TICKET.tag}
    for number in (1, 2):
        receiver.plan(page(number), listed(item, total=9))
    with pytest.raises(LookFailed, match="more than 2 entries"):
        ark(receiver.url("/api/v3")).recover(lost())


def test_tasks_of_an_endpoint_are_filtered_by_it(receiver: Receiver) -> None:
    endpoint = "ep-20261122-abcde"
    item = {"id": "cgt-1", "model": PRO, "created_at": int(time.time())}
    receiver.plan(page(1, ("filter.model", endpoint)), listed(item))
    adapter = ark(receiver.url("/api/v3"), tag=False)
    assert adapter.recover(lost(model=endpoint)) == [Accepted("cgt-1")]

    emulator = ArkEmulator(key=KEY, pace=Pace(1_000, 1_000), endpoints={endpoint: MINI})
    with emulator.serving() as base_url:
        adapter = ark(base_url, tag=False)
        taken(adapter, asking(model="mini"))
        ref = taken(adapter, model=endpoint)
        assert adapter.fetch(ref) == Pending()
        assert adapter.recover(lost(model=endpoint)) == [Accepted(ref.upstream_id)]


@pytest.mark.parametrize("word", ["html", "empty", "5xx", "429", "drop", "404", "401"])
def test_look_fails_where_the_provider_does_not_answer(adapter: ArkAdapter, emulator: ArkEmulator, word: str) -> None:
    taken(adapter)
    emulator.knobs["poll"] = word
    with pytest.raises(LookFailed):
        adapter.recover(lost())


def test_look_fails_where_the_provider_is_away() -> None:
    with Receiver() as receiver:
        base_url = receiver.url("/api/v3")
    with pytest.raises(LookFailed, match="No whole reply came: connect"):
        ark(base_url).recover(lost())
