"""Outputs of providers come through the guarded client: the tables of hostile URLs and answers, for every adapter."""

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest

from providers.adapters import ADAPTERS
from providers.adapters.base import DownloadError
from providers.adapters.wire import HttpAdapter
from providers.tests.ark_channel import ark
from providers.tests.fal_channel import fal
from providers.tests.kie_channel import kie
from providers.tests.replicate_channel import replicate
from seedancee2.lib.destinations import PRIVATE
from seedancee2.lib.tests.canaries import HOSTILE_ANSWERS, HOSTILE_URLS, Canary
from seedancee2.lib.tests.nameserver import AAAA, A, NameServer, used_by_resolver
from tests.receivers import Answer, Receiver

# What the standard library itself calls no URL, some of it since Python 3.12 only: no host is compared then.
UNREADABLE = {
    *("slash of full width", "letters that hold a slash"),
    *("text after the brackets", "text before the brackets", "dotted in brackets"),
}
MAKERS = {"ark": ark, "fal": fal, "kie": kie, "replicate": replicate}


@pytest.fixture(params=MAKERS)
def make(request: pytest.FixtureRequest, settings: Any) -> Callable[..., HttpAdapter]:
    settings.OUTBOUND_ALLOWED_HOSTS = []
    maker: Callable[..., HttpAdapter] = MAKERS[request.param]
    return maker


@pytest.fixture
def canary() -> Iterator[Canary]:
    with Canary() as listening:
        yield listening


def refusal(adapter: HttpAdapter, url: str, folder: Path) -> str:
    """Download what must not be had; return why not."""
    with pytest.raises(DownloadError) as refused:
        adapter.download(url, folder / "output", max_bytes=1_000)
    assert list(folder.iterdir()) == []
    return str(refused.value)


def test_every_adapter_that_fetches_is_in_the_table() -> None:
    assert set(MAKERS) == set(ADAPTERS) - {"sandbox"}  # which renders its outputs itself


def test_no_hostile_url_is_fetched_even_where_its_host_is_listed(
    make: Callable[..., HttpAdapter], canary: Canary, tmp_path: Path
) -> None:
    unreadable = []
    for name, template, reason in HOSTILE_URLS:
        url = canary.led_to(template)
        try:
            host = (urlsplit(url).hostname or "").rstrip(".")
            expected = f"The output's address may not be called: {reason}."
        except ValueError:
            host, expected = "", "The output's address is no URL."
            unreadable.append(name)

        assert (name, refusal(make("http://provider.example", output_hosts=(host,)), url, tmp_path)) == (name, expected)

    assert set(unreadable) <= UNREADABLE
    assert canary.connection_count == 0


def test_no_host_of_the_provider_with_a_private_address_is_fetched_from(
    make: Callable[..., HttpAdapter], canary: Canary, tmp_path: Path
) -> None:
    with NameServer() as server, used_by_resolver(server):
        for number, (_, answer) in enumerate(HOSTILE_ANSWERS):
            host = f"cdn{number}.provider.example"
            server.answer(host, [canary.led_to(entry) for entry in answer])
            adapter = make("http://provider.example", output_hosts=("*.provider.example",))

            reason = refusal(adapter, f"http://{host}:{canary.port}/video.mp4", tmp_path)

            assert reason == f"The output's address may not be called: {PRIVATE}."
            assert server.asked(host) == [A, AAAA]
    assert canary.connection_count == 0


def test_a_redirect_to_a_private_address_is_not_followed(
    make: Callable[..., HttpAdapter], canary: Canary, tmp_path: Path, settings: Any
) -> None:
    settings.OUTBOUND_ALLOWED_HOSTS = ["127.0.0.1"]
    with Receiver() as receiver:
        receiver.plan("/video.mp4", Answer(302, headers={"Location": canary.led_to("http://{address}:{port}/")}))

        reason = refusal(make(receiver.url()), receiver.url("/video.mp4"), tmp_path)

    assert reason == "The output's address answers 302."
    assert (len(receiver.requests), canary.connection_count) == (1, 0)
