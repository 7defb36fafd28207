"""The outbound client against hostile URLs and name servers: no connection to an address that is not public."""

import pytest

from seedancee2.lib import http
from seedancee2.lib.tests.outbound import FakeDNS, get
from tests.receivers import Receiver

HOSTILE_ANSWERS = [
    ["127.0.0.1"],
    ["10.0.0.1"],
    ["169.254.169.254"],
    ["100.100.100.200"],
    ["168.63.129.16"],
    ["192.0.0.192"],
    ["0.0.0.0"],  # noqa: S104
    ["255.255.255.255"],
    ["224.0.0.1"],
    ["::1"],
    ["::"],
    ["::ffff:127.0.0.1"],
    ["::ffff:93.184.216.34"],
    ["::127.0.0.1"],
    ["::ffff:0:127.0.0.1"],
    ["64:ff9b::7f00:1"],
    ["64:ff9b:1::7f00:1"],
    ["2002:7f00:1::"],
    ["2001:0:7f00:1::1"],
    ["2606:4700::5efe:127.0.0.1"],
    ["fd00:ec2::254"],
    ["fe80::1"],
    ["fec0::1"],
    ["4000::1"],
    ["93.184.216.34", "127.0.0.1"],
    ["127.0.0.1", "93.184.216.34"],
    ["93.184.216.34", "::1"],
    ["2606:4700:4700::1111", "10.0.0.1"],
    ["1.1.1.1", "8.8.8.8", "169.254.169.254"],
]


@pytest.mark.parametrize("answer", HOSTILE_ANSWERS, ids=",".join)
def test_a_name_with_any_private_address_is_never_connected_to(
    dns: FakeDNS, connected: list[tuple[str, int]], answer: list[str]
) -> None:
    dns(answer)

    with pytest.raises(http.Blocked, match="private address"):
        get("https://rebind.example/", allowed_hosts=[])

    assert connected == []


LITERALS = [
    "http://127.0.0.1/",
    "http://127.1/",
    "http://2130706433/",
    "http://0x7f.1/",
    "http://0177.0.0.1/",
    "http://017700000001/",
    "http://0/",
    "http://localhost/",
    "http://[::1]/",
    "http://[::]/",
    "http://[::ffff:127.0.0.1]/",
    "http://[::ffff:a9fe:a9fe]/",
    "http://169.254.169.254/latest/meta-data/",
    "http://2852039166/",
    "http://100.100.100.200/",
    "http://１２７.0.0.1/",
    "http://127。0。0。1/",
    "file:///etc/passwd",
    "gopher://127.0.0.1/",
    "ftp://127.0.0.1/",
    "http://user@93.184.216.34/",
    "http://93.184.216.34\\@127.0.0.1/",
    "http://93.184.216.34@127.0.0.1/",
    "http://127.0.0.1\t/",
    "http://[fe80::1%25lo]/",
    "http://[::1]evil.example/",
    "http://93.184.216.34:0/",
    "http://%31%32%37.0.0.1/",
    "http:///127.0.0.1/",
    "http:127.0.0.1/",
    "//127.0.0.1/",
    "http://93.184.216.34/\r\nX: 1",
    "http://93.184.216.34/" + "a" * 8192,
]


@pytest.mark.parametrize("url", LITERALS, ids=lambda url: ascii(url[:40]))
def test_hostile_urls_are_blocked_through_the_real_resolver(url: str, connected: list[tuple[str, int]]) -> None:
    with pytest.raises(http.Blocked):
        get(url, allowed_hosts=[])

    assert connected == []


def test_rebinding_finds_no_second_look_up(dns: FakeDNS, connected: list[tuple[str, int]], receiver: Receiver) -> None:
    dns(["93.184.216.34"], ["127.0.0.1"])

    with pytest.raises(http.TransportFailed):
        get(f"http://rebind.example:{receiver.port}/", allowed_hosts=[])

    assert connected == [("93.184.216.34", receiver.port)]
    assert receiver.connection_count == 0


def test_unreachable_addresses_are_passed_over(
    dns: FakeDNS, connected: list[tuple[str, int]], receiver: Receiver
) -> None:
    dns(["93.184.216.34", "127.0.0.1"])

    reply = get(f"http://two.example:{receiver.port}/", allowed_hosts=["two.example"])

    assert reply.address == "127.0.0.1"
    assert receiver.requests[0].headers["host"] == f"two.example:{receiver.port}"


def test_an_allowed_host_opens_no_other(dns: FakeDNS, connected: list[tuple[str, int]]) -> None:
    dns(["127.0.0.1"])

    with pytest.raises(http.Blocked):
        get("http://other.example:81/", allowed_hosts=["sandbox.example", "other.example:80"])

    assert connected == []
