"""The outbound client against hostile URLs and name servers: no connection to an address that is not public.

`connected` sees every connection that is tried, the canary every one that is made. Names are looked up by the system's
own resolver, which asks a real name server.
"""

import ipaddress
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from seedancee2.lib import destinations, http
from seedancee2.lib.http import Kind, lookups
from seedancee2.lib.tests.canaries import EMPTY_ANSWERS, HOSTILE_ANSWERS, HOSTILE_URLS, Canary
from seedancee2.lib.tests.nameserver import AAAA, A, NameServer
from seedancee2.lib.tests.outbound import failure, get
from tests.receivers import Answer, Receiver

Connected = list[tuple[str, int]]

ONCE = [A, AAAA]


@pytest.fixture(params=["send", "download"])
def call(request: pytest.FixtureRequest, tmp_path: Path) -> Callable[..., Any]:
    """Each of the two ways out, under one signature."""
    if request.param == "send":
        return get

    def fetch(url: str, **options: Any) -> http.Download:
        options = {"deadline_seconds": 5, "max_bytes": 1024, **options}
        return http.download(url, tmp_path / "file", **options)

    return fetch


def test_there_are_enough_rows() -> None:
    names = [name for name, *_ in [*HOSTILE_URLS, *HOSTILE_ANSWERS, *EMPTY_ANSWERS]]

    assert (len(HOSTILE_URLS), len(HOSTILE_ANSWERS), len(EMPTY_ANSWERS)) == (92, 61, 11)
    for table in (HOSTILE_URLS, HOSTILE_ANSWERS, EMPTY_ANSWERS):
        assert len({row[0] for row in table}) == len(table)
    assert len(names) >= 60


@pytest.mark.parametrize(
    ("template", "reason"), [row[1:] for row in HOSTILE_URLS], ids=[row[0] for row in HOSTILE_URLS]
)
def test_a_hostile_url_is_blocked(
    call: Callable[..., Any],
    nameserver: NameServer,
    canary: Canary,
    connected: Connected,
    template: str,
    reason: str,
) -> None:
    url = canary.led_to(template)

    with pytest.raises(destinations.BadDestination) as refused:
        destinations.check(url, allowed_hosts=[])
    with pytest.raises(http.Blocked) as blocked:
        call(url, allowed_hosts=[])

    assert (refused.value.reason, blocked.value.reason) == (reason, reason)
    assert (nameserver.questions, connected, canary.connection_count) == ([], [], 0)


@pytest.mark.parametrize("answer", [row[1] for row in HOSTILE_ANSWERS], ids=[row[0] for row in HOSTILE_ANSWERS])
def test_a_name_with_any_address_that_is_not_public_is_blocked(
    call: Callable[..., Any], nameserver: NameServer, canary: Canary, connected: Connected, answer: list[str]
) -> None:
    nameserver.answer("hostile.example", [canary.led_to(entry) for entry in answer])

    with pytest.raises(http.Blocked) as blocked:
        call(f"http://hostile.example:{canary.port}/", allowed_hosts=[])

    assert blocked.value.reason == destinations.PRIVATE
    assert nameserver.asked("hostile.example") == ONCE
    assert (connected, canary.connection_count) == ([], 0)


@pytest.mark.parametrize("answer", [row[1] for row in EMPTY_ANSWERS], ids=[row[0] for row in EMPTY_ANSWERS])
def test_a_name_without_an_address_fails_in_time(
    call: Callable[..., Any], nameserver: NameServer, connected: Connected, answer: Any
) -> None:
    if isinstance(answer, list):
        answer = [entry.format(name="empty.example") for entry in answer]
    nameserver.answer("empty.example", answer)
    started = time.monotonic()

    with pytest.raises(http.TransportFailed) as failed:
        call("http://empty.example/", allowed_hosts=[], deadline_seconds=0.5)

    assert (failed.value.kind, failed.value.was_sent) == (Kind.DNS, False)
    assert time.monotonic() - started < 1
    assert nameserver.asked("empty.example")[:1] == [A]
    assert connected == []


def test_the_canary_sings_when_it_is_reached(nameserver: NameServer, canary: Canary, connected: Connected) -> None:
    nameserver.answer("allowed.example", [str(canary.address)])

    for host in ("allowed.example", str(canary.address)):
        assert failure(f"http://{host}:{canary.port}/", allowed_hosts=[host]).was_sent

    assert connected == [(str(canary.address), canary.port)] * 2
    assert canary.connection_count == 2


def test_rebinding_finds_no_second_look_up(nameserver: NameServer, canary: Canary, connected: Connected) -> None:
    nameserver.answer("rebind.example", ["93.184.216.34"], [str(canary.address)])
    url = f"http://rebind.example:{canary.port}/"

    assert failure(url, allowed_hosts=[]).kind == Kind.CONNECT
    assert nameserver.asked("rebind.example") == ONCE
    with pytest.raises(http.Blocked):
        get(url, allowed_hosts=[])

    assert connected == [("93.184.216.34", canary.port)]
    assert canary.connection_count == 0


def test_the_connection_goes_to_the_address_of_the_one_look_up(nameserver: NameServer, canary: Canary) -> None:
    with Receiver() as first:
        nameserver.answer("rebind.example", ["127.0.0.1"], [str(canary.address)])

        reply = get(first.url(host="rebind.example"), allowed_hosts=["rebind.example"])

        assert (reply.status_code, reply.address, first.connection_count) == (200, "127.0.0.1", 1)
        assert first.requests[0].headers["host"] == f"rebind.example:{first.port}"
    assert nameserver.asked("rebind.example") == ONCE
    assert canary.connection_count == 0


def test_an_alias_is_not_asked_for_once_more(nameserver: NameServer, receiver: Receiver) -> None:
    nameserver.answer("alias.example", ["-> target.example", "127.0.0.1"])
    nameserver.answer("target.example", ["10.0.0.1"])

    assert get(receiver.url(host="alias.example"), allowed_hosts=["alias.example"]).address == "127.0.0.1"
    assert nameserver.asked("target.example") == []


def test_a_name_is_not_looked_for_below_search_domains(
    nameserver: NameServer, canary: Canary, connected: Connected, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("LOCALDOMAIN", "corp.example")
    monkeypatch.setenv("RES_OPTIONS", "timeout:1 attempts:1 ndots:5")
    for name in ("redis.corp.example", "hook.customer.example.corp.example"):
        nameserver.answer(name, ["93.184.216.34"])

    for host in ("redis", "hook.customer.example"):
        assert failure(f"http://{host}:{canary.port}/", allowed_hosts=[]).kind == Kind.DNS

    assert {name for name, _ in nameserver.questions} == {"redis", "hook.customer.example"}
    assert connected == []
    # What the operator allows is named as this machine names it.
    assert failure(f"http://redis:{canary.port}/", allowed_hosts=["redis"]).kind == Kind.CONNECT
    assert nameserver.asked("redis.corp.example") == ONCE


def test_unreachable_addresses_are_passed_over(
    nameserver: NameServer, connected: Connected, receiver: Receiver
) -> None:
    nameserver.answer("two.example", ["93.184.216.34", "127.0.0.1"])

    reply = get(f"http://two.example:{receiver.port}/", allowed_hosts=["two.example"])

    assert reply.address == "127.0.0.1"
    assert receiver.requests[0].headers["host"] == f"two.example:{receiver.port}"


def test_no_more_than_three_addresses_are_tried(nameserver: NameServer, connected: Connected) -> None:
    nameserver.answer("many.example", [f"93.184.216.{number}" for number in range(20)])

    assert failure("http://many.example/", allowed_hosts=[]).kind == Kind.CONNECT
    assert len(connected) == 3
    assert all(ipaddress.ip_address(address).is_global for address, _ in connected)


def test_an_address_of_a_kind_that_this_machine_has_not_is_passed_over(
    nameserver: NameServer, receiver: Receiver, monkeypatch: pytest.MonkeyPatch
) -> None:
    import socket

    class OldSocket(socket.socket):
        def __init__(self, family: int = socket.AF_INET, *arguments: Any, **options: Any) -> None:
            if family == socket.AF_INET6:
                raise OSError(97, "Address family not supported by protocol")
            super().__init__(family, *arguments, **options)

    nameserver.answer("both.example", ["::1", "127.0.0.1"])
    monkeypatch.setattr(socket, "socket", OldSocket)

    assert get(receiver.url(host="both.example"), allowed_hosts=["both.example"]).address == "127.0.0.1"


def test_an_allowed_host_opens_no_other(nameserver: NameServer, canary: Canary, connected: Connected) -> None:
    for name in ("other.example", "a.sandbox.example"):
        nameserver.answer(name, [str(canary.address)])
        with pytest.raises(http.Blocked):
            get(f"http://{name}:{canary.port}/", allowed_hosts=["sandbox.example", "other.example:80"])

    assert (connected, canary.connection_count) == ([], 0)


@pytest.mark.parametrize("status", [300, 301, 302, 303, 305, 307, 308])
@pytest.mark.parametrize("header", ["Location", "Refresh", "Content-Location", "Alt-Svc", "Link"])
def test_a_redirect_to_a_private_address_is_not_followed(
    call: Callable[..., Any], receiver: Receiver, canary: Canary, connected: Connected, status: int, header: str
) -> None:
    values = {"Refresh": "0; url=http://{address}:{port}/", "Alt-Svc": 'http/1.1="{address}:{port}"'}
    target = canary.led_to(values.get(header, "http://{address}:{port}/"))
    receiver.plan("/", Answer(status, headers={header: target}))

    assert call(receiver.url(), allowed_hosts=["127.0.0.1"]).status_code == status
    assert connected == [("127.0.0.1", receiver.port)]
    assert canary.connection_count == 0


def test_proxies_and_passwords_of_the_environment_are_ignored(
    call: Callable[..., Any],
    receiver: Receiver,
    canary: Canary,
    connected: Connected,
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
) -> None:
    (tmp_path / ".netrc").write_text("machine 127.0.0.1 login me password secret\ndefault login me password secret\n")
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("NETRC", str(tmp_path / ".netrc"))
    for name in ("HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY", "FTP_PROXY"):
        monkeypatch.setenv(name, canary.led_to("http://user:password@{address}:{port}"))
        monkeypatch.setenv(name.lower(), canary.led_to("http://user:password@{address}:{port}"))
    # A proxy's exceptions must not be what keeps us away from it, nor lift any of our rules.
    monkeypatch.setenv("NO_PROXY", "")
    monkeypatch.setenv("no_proxy", "nobody.example")

    call(receiver.url("/direct"), allowed_hosts=["127.0.0.1"])
    monkeypatch.setenv("NO_PROXY", "*")
    with pytest.raises(http.Blocked):
        call(canary.led_to("http://{address}:{port}/"), allowed_hosts=[])

    [request] = receiver.received("/direct")
    assert set(request.headers) == {"host", "user-agent", "accept-encoding", "connection"}
    assert connected == [("127.0.0.1", receiver.port)]
    assert canary.connection_count == 0


def wait_for_look_ups() -> None:
    """Wait until no look-up is left behind, and see that each has given its place back."""
    until = time.monotonic() + 10
    while any(thread.name == "resolve" for thread in threading.enumerate()) and time.monotonic() < until:
        time.sleep(0.02)
    assert lookups._places._value == 64


@pytest.mark.race
def test_hanging_look_ups_are_bounded_and_hold_nobody_longer_than_the_deadline(
    nameserver: NameServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    hosts = [f"hang{number}.example" for number in range(80)]
    for host in hosts:
        nameserver.answer(host, "silence")

    monkeypatch.setenv("RES_OPTIONS", "timeout:3 attempts:1")

    def look(host: str) -> float:
        started = time.monotonic()
        failed = failure(f"http://{host}/", allowed_hosts=[], deadline_seconds=1)
        # With so many at once the deadline may pass before the question is put.
        assert (failed.kind, failed.was_sent) in [(Kind.DNS, False), (Kind.TIMEOUT, False)]
        return time.monotonic() - started

    with ThreadPoolExecutor(80) as pool:
        assert max(pool.map(look, hosts)) < 1.5

    assert 0 < len([thread for thread in threading.enumerate() if thread.name == "resolve"]) <= 64
    wait_for_look_ups()


def test_a_place_is_given_back_where_no_thread_can_be_started(monkeypatch: pytest.MonkeyPatch) -> None:
    start = threading.Thread.start

    def refuse(thread: threading.Thread) -> None:
        if thread.name == "resolve":
            raise RuntimeError("can't start new thread")
        start(thread)

    monkeypatch.setattr(threading.Thread, "start", refuse)

    for _ in range(70):
        assert failure("http://any.example/", allowed_hosts=[]).kind == Kind.DNS
    wait_for_look_ups()
