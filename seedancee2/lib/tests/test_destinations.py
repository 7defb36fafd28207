"""Which URLs a customer may give, and which addresses count as public."""

import ipaddress

import pytest

from seedancee2.lib import destinations
from seedancee2.lib.destinations import BadDestination

GOOD_URLS = [
    "https://example.com",
    "http://example.com/",
    "HTTPS://Example.COM/path?query=1#part",
    "https://example.com:8443/hook",
    "http://example.com:/hook",
    "https://example.com./hook",
    "https://a_b.example.com/hook",
    "https://xn--bcher-kva.de/",
    "https://bücher.de/ä?ö=ü",
    "https://8.8.8.8/hook",
    "http://134744072/",
    "https://[2606:4700:4700::1111]:8443/hook",
    "https://example.com/a%20b?x=%7e~'\"<>|^`{}",
    "https://example.com//double//slashes",
    "https://example.com/@user",
    "https://internal.example.com/",
    "https://example.com/" + "a" * (8192 - 20),
]

BAD_URLS = [
    ("", destinations.NOT_A_URL),
    ("example.com/hook", destinations.NOT_A_URL),
    ("/hook", destinations.NOT_A_URL),
    ("//example.com/hook", destinations.NOT_A_URL),
    ("http:example.com", destinations.NOT_A_URL),
    ("http:///hook", destinations.NOT_A_URL),
    ("https://", destinations.NOT_A_URL),
    ("ftp://example.com/", destinations.NOT_A_URL),
    ("file:///etc/passwd", destinations.NOT_A_URL),
    ("gopher://example.com/_", destinations.NOT_A_URL),
    ("javascript:alert(1)", destinations.NOT_A_URL),
    ("data:text/html,x", destinations.NOT_A_URL),
    ("https://example.com/" + "a" * (8192 - 19), destinations.TOO_LONG),
    (" https://example.com/", destinations.BAD_CHARACTERS),
    ("https://example.com/ ", destinations.BAD_CHARACTERS),
    ("https://exa mple.com/", destinations.BAD_CHARACTERS),
    ("https://example.com/a\tb", destinations.BAD_CHARACTERS),
    ("https://example.com/\r\nX-Evil: 1", destinations.BAD_CHARACTERS),
    ("https://example.com/\x00", destinations.BAD_CHARACTERS),
    ("https://example.com/\x7f", destinations.BAD_CHARACTERS),
    ("https://example.com/\x85", destinations.BAD_CHARACTERS),
    ("https://example.com/\u00a0", destinations.BAD_CHARACTERS),
    ("https://example.com/\u2028", destinations.BAD_CHARACTERS),
    ("https://example.com/\ud800", destinations.BAD_CHARACTERS),
    ("https://example.com\\@127.0.0.1/", destinations.BAD_CHARACTERS),
    ("https:\\\\example.com/", destinations.BAD_CHARACTERS),
    ("https://user@example.com/", destinations.USER_NAME),
    ("https://user:password@example.com/", destinations.USER_NAME),
    ("https://@example.com/", destinations.USER_NAME),
    ("https://example.com:80@127.0.0.1/", destinations.USER_NAME),
    ("https://example.com:0/", destinations.BAD_PORT),
    ("https://example.com:65536/", destinations.BAD_PORT),
    ("https://example.com:-1/", destinations.BAD_PORT),
    ("https://example.com:80:90/", destinations.BAD_PORT),
    ("https://example.com:http/", destinations.BAD_PORT),
    ("https://example.com:８０/", destinations.BAD_PORT),
    ("https://.example.com/", destinations.BAD_HOST),
    ("https://example..com/", destinations.BAD_HOST),
    ("https://-example.com/", destinations.BAD_HOST),
    ("https://exa!mple.com/", destinations.BAD_HOST),
    ("https://%31%32%37.0.0.1/", destinations.BAD_HOST),
    ("https://" + "a" * 64 + ".com/", destinations.BAD_HOST),
    ("https://" + ".".join(["a" * 50] * 6) + "/", destinations.BAD_HOST),
    ("https://xn--\x61-\u00fc.com/", destinations.BAD_HOST),
    ("https://xn--0.com/", destinations.BAD_HOST),
    ("https://\u202e.com/", destinations.BAD_HOST),
    ("https://1.2.3.4.5/", destinations.BAD_HOST),
    ("https://256.256.256.256/", destinations.BAD_HOST),
    ("https://08.8.8.8/", destinations.BAD_HOST),
    ("https://example.0x1/", destinations.BAD_HOST),
    ("https://[::1/", destinations.BAD_HOST),
    ("https://[::1]evil.com/", destinations.BAD_HOST),
    ("https://evil.com[2606:4700::1]/", destinations.BAD_HOST),
    ("https://[fe80::1%25eth0]/", destinations.BAD_HOST),
    ("https://[2606:4700::1%eth0]/", destinations.BAD_HOST),
    ("https://[v1.x]/", destinations.BAD_HOST),
    ("https://[8.8.8.8]/", destinations.BAD_HOST),
    ("http://localhost/", destinations.PRIVATE),
    ("http://LOCALHOST:8000/", destinations.PRIVATE),
    ("http://localhost./", destinations.PRIVATE),
    ("http://a.localhost/", destinations.PRIVATE),
    ("http://printer.local/", destinations.PRIVATE),
    ("http://metadata.google.internal/", destinations.PRIVATE),
    ("http://127.0.0.1/", destinations.PRIVATE),
    ("http://127.0.0.1./", destinations.PRIVATE),
    ("http://127.1/", destinations.PRIVATE),
    ("http://127.0.1/", destinations.PRIVATE),
    ("http://2130706433/", destinations.PRIVATE),
    ("http://0x7f000001/", destinations.PRIVATE),
    ("http://0x7F.1/", destinations.PRIVATE),
    ("http://0177.0.0.1/", destinations.PRIVATE),
    ("http://017700000001/", destinations.PRIVATE),
    ("http://0/", destinations.PRIVATE),
    ("http://0.0.0.0/", destinations.PRIVATE),
    ("http://10.0.0.1/", destinations.PRIVATE),
    ("http://172.16.0.1/", destinations.PRIVATE),
    ("http://192.168.0.1/", destinations.PRIVATE),
    ("http://169.254.169.254/latest/meta-data/", destinations.PRIVATE),
    ("http://2852039166/", destinations.PRIVATE),
    ("http://100.100.100.200/", destinations.PRIVATE),
    ("http://168.63.129.16/", destinations.PRIVATE),
    ("http://255.255.255.255/", destinations.PRIVATE),
    ("http://224.0.0.1/", destinations.PRIVATE),
    ("http://１２７.0.0.1/", destinations.PRIVATE),
    ("http://127。0。0。1/", destinations.PRIVATE),
    ("http://ⓛocalhost/", destinations.PRIVATE),
    ("http://[::1]/", destinations.PRIVATE),
    ("http://[0:0:0:0:0:0:0:1]:80/", destinations.PRIVATE),
    ("http://[::]/", destinations.PRIVATE),
    ("http://[::ffff:127.0.0.1]/", destinations.PRIVATE),
    ("http://[::ffff:7f00:1]/", destinations.PRIVATE),
    ("http://[::ffff:8.8.8.8]/", destinations.PRIVATE),
    ("http://[fe80::1]/", destinations.PRIVATE),
    ("http://[fd00:ec2::254]/", destinations.PRIVATE),
]

NOT_PUBLIC = [
    "0.0.0.0",  # noqa: S104
    "0.1.2.3",
    "10.255.255.255",
    "100.64.0.1",
    "100.100.100.200",
    "127.255.255.254",
    "168.63.129.16",
    "169.254.169.254",
    "172.31.255.255",
    "192.0.0.9",
    "192.0.0.192",
    "192.0.2.1",
    "192.31.196.1",
    "192.52.193.1",
    "192.88.99.1",
    "192.168.255.255",
    "192.175.48.1",
    "198.18.0.1",
    "198.51.100.1",
    "203.0.113.1",
    "224.0.0.1",
    "239.255.255.250",
    "240.0.0.1",
    "255.255.255.255",
    "::",
    "::1",
    "::7f00:1",
    "::8.8.8.8",
    "::ffff:8.8.8.8",
    "::ffff:0:127.0.0.1",
    "64:ff9b::7f00:1",
    "64:ff9b::808:808",
    "64:ff9b:1::1",
    "100::1",
    "2001::1",
    "2001:2::1",
    "2001:20::1",
    "2001:db8::1",
    "2002:7f00:1::1",
    "2620:4f:8000::1",
    "2606:4700::5efe:7f00:1",
    "2606:4700::200:5efe:a00:1",
    "3fff::1",
    "4000::1",
    "5f00::1",
    "fc00::1",
    "fd00:ec2::254",
    "fe80::1",
    "fe80::1%1",
    "2606:4700::1%1",
    "fec0::1",
    "ff02::1",
]

PUBLIC = ["1.1.1.1", "8.8.8.8", "93.184.216.34", "172.32.0.1", "2606:4700:4700::1111", "2a00:1450:4001::200e"]


@pytest.mark.parametrize("url", GOOD_URLS, ids=lambda url: url[:50])
def test_good_url_is_taken(url: str) -> None:
    destinations.check(url, allowed_hosts=[])


@pytest.mark.parametrize(("url", "reason"), BAD_URLS, ids=[ascii(url[:50]) for url, _ in BAD_URLS])
def test_bad_url_is_refused_with_its_reason(url: str, reason: str) -> None:
    with pytest.raises(BadDestination) as caught:
        destinations.check(url, allowed_hosts=[])

    assert caught.value.reason == reason


@pytest.mark.parametrize("address", NOT_PUBLIC)
def test_address_is_not_public(address: str) -> None:
    assert not destinations.is_public(ipaddress.ip_address(address))


@pytest.mark.parametrize("address", PUBLIC)
def test_address_is_public(address: str) -> None:
    assert destinations.is_public(ipaddress.ip_address(address))


@pytest.mark.parametrize(
    ("url", "entry", "is_allowed"),
    [
        ("http://localhost:9000/", "localhost", True),
        ("http://localhost:9000/", "LOCALHOST:9000", True),
        ("http://localhost:9001/", "localhost:9000", False),
        ("http://localhost/", "localhost:80", True),
        ("https://localhost/", "localhost:443", True),
        ("http://a.localhost/", "localhost", False),
        ("http://127.0.0.1:9000/", "127.0.0.1", True),
        ("http://127.0.0.2/", "127.0.0.1", False),
        ("http://[::1]:9000/", "::1", True),
        ("http://[::1]:9000/", "[::1]", True),
        ("http://[0::1]:9000/", "[::1]:9000", True),
        ("http://[::1]:9001/", "[::1]:9000", False),
    ],
)
def test_operators_may_allow_a_private_host(url: str, entry: str, is_allowed: bool) -> None:
    if is_allowed:
        destinations.check(url, allowed_hosts=[entry])
    else:
        with pytest.raises(BadDestination):
            destinations.check(url, allowed_hosts=[entry])


def test_allowed_hosts_come_from_the_settings_unless_given(settings: object) -> None:
    settings.OUTBOUND_ALLOWED_HOSTS = ["localhost"]  # type: ignore[attr-defined] # pytest-django's wrapper

    destinations.check("http://localhost/")


def test_an_allowed_host_lifts_no_other_rule() -> None:
    with pytest.raises(BadDestination, match="user name"):
        destinations.check("http://user@localhost/", allowed_hosts=["localhost"])


@pytest.mark.parametrize(
    ("url", "origin", "target"),
    [
        ("https://Example.com", "https://example.com:443", "/"),
        ("http://example.com:8080?a=b#c", "http://example.com:8080", "/?a=b"),
        ("https://[2606:4700:0::1]/x", "https://[2606:4700::1]:443", "/x"),
        ("https://bücher.de./ä b".replace(" ", "%20"), "https://xn--bcher-kva.de:443", "/%C3%A4%20b"),
        ("https://e.com/a%2fb;c=d?x=%7e~&y='\"", "https://e.com:443", "/a%2fb;c=d?x=%7e~&y='\""),
    ],
)
def test_parse_keeps_the_target_as_written(url: str, origin: str, target: str) -> None:
    destination = destinations.parse(url)

    assert (destination.origin, destination.target) == (origin, target)
