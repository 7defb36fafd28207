"""Deliveries to where nobody may be called, and to servers that keep us busy: the limits that really hold."""

import gzip
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from typing import Any

import pytest

from seedancee2.lib.destinations import PRIVATE
from seedancee2.lib.tests.canaries import HOSTILE_ANSWERS, HOSTILE_URLS, Canary
from seedancee2.lib.tests.nameserver import AAAA, A, NameServer, used_by_resolver
from seedancee2.lib.tests.streams import Stream, Streamer, full_queue
from tests.receivers import Answer, Receiver
from webhooks import delivery as deliveries
from webhooks.models import Delivery
from webhooks.tests.factories import DeliveryFactory

OK = b"HTTP/1.1 200 OK\r\n"


@pytest.fixture
def canary() -> Iterator[Canary]:
    with Canary() as listening:
        yield listening


def attempt_all() -> None:
    """Attempt every delivery that is due, one after another."""
    for claimed in deliveries.claim_due(200):
        deliveries.attempt(claimed)


def told() -> dict[str, tuple[str, int | None, str]]:
    """Return what each delivery came to, by its host: state, status of its one attempt, error."""
    found = {}
    for row in Delivery.objects.all():
        attempt = row.attempts.get()
        found[row.host] = (row.state, attempt.status_code, attempt.error)
    return found


@pytest.mark.django_db
def test_no_hostile_url_is_posted_to(settings: Any, canary: Canary) -> None:
    settings.OUTBOUND_ALLOWED_HOSTS = []
    rows = {name: (canary.led_to(template), reason) for name, template, reason in HOSTILE_URLS}
    del rows["null in the host"]  # PostgreSQL holds no such text
    for name, (url, _) in rows.items():
        DeliveryFactory.create(url=url, host=name)

    attempt_all()

    assert told() == {name: ("pending", None, f"The URL {reason}.") for name, (_, reason) in rows.items()}
    assert len(rows) == 91
    assert canary.connection_count == 0


@pytest.mark.django_db
def test_no_name_with_a_private_address_is_posted_to(settings: Any, canary: Canary) -> None:
    settings.OUTBOUND_ALLOWED_HOSTS = []
    with NameServer() as server, used_by_resolver(server):
        for number, (name, answer) in enumerate(HOSTILE_ANSWERS):
            server.answer(f"hook{number}.example", [canary.led_to(entry) for entry in answer])
            DeliveryFactory.create(url=f"http://hook{number}.example:{canary.port}/", host=name)

        attempt_all()

        assert told() == {name: ("pending", None, f"The URL {PRIVATE}.") for name, _ in HOSTILE_ANSWERS}
        for number in range(len(HOSTILE_ANSWERS)):
            assert server.asked(f"hook{number}.example") == [A, AAAA]
    assert canary.connection_count == 0


@pytest.mark.django_db
def test_a_redirect_to_a_private_address_is_recorded_and_not_followed(settings: Any, canary: Canary) -> None:
    settings.OUTBOUND_ALLOWED_HOSTS = ["127.0.0.1"]
    with Receiver() as receiver:
        receiver.plan("/", Answer(307, headers={"Location": canary.led_to("http://{address}:{port}/")}))
        DeliveryFactory.create(url=receiver.url(), host="receiver")

        attempt_all()

    assert told() == {"receiver": ("pending", 307, "Redirects are not followed.")}
    assert (len(receiver.requests), canary.connection_count) == (1, 0)


@pytest.mark.django_db
def test_a_compressed_reply_is_kept_as_it_came(settings: Any) -> None:
    settings.OUTBOUND_ALLOWED_HOSTS = ["127.0.0.1"]
    bomb = gzip.compress(b"0" * 10_000_000)
    with Receiver() as receiver:
        receiver.plan("/", Answer(200, bomb, {"Content-Encoding": "gzip"}))
        DeliveryFactory.create(url=receiver.url(), host="receiver")

        attempt_all()

    excerpt = Delivery.objects.get().attempts.get().response_excerpt
    assert excerpt == bomb[:65_536].decode("utf-8", "replace").replace("\0", "")[:2_000]
    assert "000" not in excerpt


@pytest.mark.django_db
def test_hints_before_the_reply_do_not_stand_for_it(settings: Any) -> None:
    settings.OUTBOUND_ALLOWED_HOSTS = ["127.0.0.1"]
    hinting = b"HTTP/1.1 103 Early Hints\r\nLink: </a>\r\n\r\nHTTP/1.1 202 Accepted\r\nContent-Length: 0\r\n\r\n"
    with Streamer({"/": Stream(hinting)}) as streamer:
        DeliveryFactory.create(url=streamer.url(), host="hinting")

        attempt_all()

    assert told() == {"hinting": ("delivered", 202, "")}


@pytest.mark.django_db
@pytest.mark.parametrize("size", [b"-1", b"-5"])
def test_a_chunk_of_negative_length_is_a_recorded_failure(settings: Any, size: bytes) -> None:
    settings.OUTBOUND_ALLOWED_HOSTS = ["127.0.0.1"]
    chunked = OK + b"Transfer-Encoding: chunked\r\n\r\n" + size + b"\r\nok"
    with Streamer({"/": Stream(chunked)}) as streamer:
        DeliveryFactory.create(url=streamer.url(), host="lying")

        attempt_all()

    assert told() == {"lying": ("pending", None, "The reply was not valid HTTP.")}


def test_ten_seconds_are_ten_seconds(settings: Any) -> None:
    settings.OUTBOUND_ALLOWED_HOSTS = ["127.0.0.1"]
    no_reply, no_end = "No reply came within 10 seconds.", "The reply had not ended after 10 seconds."
    slow = {
        "/header": (Stream(OK + b"A: ", b"1", 0.2), no_reply),
        "/interim": (Stream(b"", b"HTTP/1.1 100 Continue\r\n\r\n", 0.2), no_reply),
        "/body": (Stream(OK + b"\r\n", b"x", 0.2), no_end),
        "/extension": (Stream(OK + b"Transfer-Encoding: chunked\r\n\r\n1;", b"e", 0.2), no_end),
    }
    with ExitStack() as running:
        streamer = running.enter_context(Streamer({path: stream for path, (stream, _) in slow.items()}))
        handshake = running.enter_context(Streamer({"": Stream(b"\x16\x03\x03\x40\x00", b"\x02", 0.2)}))
        port = running.enter_context(full_queue())
        expected = {streamer.url(path): words for path, (_, words) in slow.items()}
        expected[handshake.url(scheme="https")] = no_reply
        # One address is given five seconds.
        expected[f"http://127.0.0.1:{port}/"] = "The host could not be connected to."

        def post(url: str) -> tuple[str, float, int]:
            started = time.monotonic()
            outcome = deliveries._post(Delivery(url=url, body=b"{}"), {})
            return outcome.error, time.monotonic() - started, outcome.duration_ms

        with ThreadPoolExecutor(len(expected)) as pool:
            outcomes = dict(zip(expected, pool.map(post, expected), strict=True))

    assert {url: error for url, (error, _, _) in outcomes.items()} == expected
    connecting = outcomes.pop(f"http://127.0.0.1:{port}/")
    assert 4.9 < connecting[1] < 5.5
    for _, seconds, noted_ms in outcomes.values():
        assert 9.5 <= seconds <= 10.5
        assert 9_500 <= noted_ms <= 10_500
