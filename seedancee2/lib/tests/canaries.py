"""Listeners that nobody should ever reach, and the URLs and answers of name servers that would lead there."""

import ipaddress
import secrets
import socket
import threading
from typing import Any, Self

from seedancee2.lib.destinations import BAD_CHARACTERS, BAD_HOST, BAD_PORT, NOT_A_URL, PRIVATE, TOO_LONG, USER_NAME


class Canary:
    """A listener on a loopback address of its own, which no other process of this machine has any reason to call.

    With one port for all of 127.0.0.0/8 or for ::1, a client of something else that calls a port once more after it was
    given to us would be counted; here the address is random too.
    """

    def __init__(self) -> None:
        self.address = ipaddress.IPv4Address((127 << 24) + 65_536 + secrets.randbelow(16_700_000))
        self.connection_count = 0
        self._listener = socket.create_server((str(self.address), 0))
        self._thread = threading.Thread(target=self._count, name="canary", daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        # Closing alone does not wake a thread that waits for a connection.
        self._listener.shutdown(socket.SHUT_RDWR)
        self._thread.join()
        self._listener.close()

    @property
    def port(self) -> int:
        """The port it listens on."""
        return int(self._listener.getsockname()[1])

    def led_to(self, template: str) -> str:
        """Fill a row of the tables in with this canary's address and port."""
        number = int(self.address)
        octets = self.address.packed
        return template.format(
            port=self.port,
            address=self.address,
            decimal=number,
            hexadecimal=hex(number),
            octal=f"0{number:o}",
            hex_octets=".".join(map(hex, octets)),
            octal_octets=".".join(f"0{octet:o}" for octet in octets),
            padded_octets=".".join(f"0{octet:04o}" for octet in octets),
            two_parts=f"127.{number & 0xFFFFFF}",
            three_parts=f"127.{octets[1]}.{number & 0xFFFF}",
            full_width="".join(chr(ord(digit) + 0xFEE0) if digit.isdigit() else digit for digit in str(self.address)),
            circled=str(self.address).replace("1", "①").replace("2", "②"),
            ideographic=str(self.address).replace(".", "。"),
            half_width=str(self.address).replace(".", "｡"),
            soft_hyphen=str(self.address).replace("7", "7\u00ad"),
            no_width=str(self.address).replace("7", "7\u200b"),
            escaped="".join(f"%{ord(character):02x}" for character in str(self.address)),
            groups=f"{number >> 16:x}:{number & 0xFFFF:x}",
        )

    def _count(self) -> None:
        while True:
            try:
                connection, _ = self._listener.accept()
            except OSError:
                return
            self.connection_count += 1
            connection.close()


# What each row is called, its URL, and why `destinations.check` refuses it without asking anybody.
HOSTILE_URLS: list[tuple[str, str, str]] = [
    ("dotted", "http://{address}:{port}/", PRIVATE),
    ("dotted, https", "https://{address}:{port}/", PRIVATE),
    ("one decimal number", "http://{decimal}:{port}/", PRIVATE),
    ("one hexadecimal number", "http://{hexadecimal}:{port}/", PRIVATE),
    ("one octal number", "http://{octal}:{port}/", PRIVATE),
    ("hexadecimal octets", "http://{hex_octets}:{port}/", PRIVATE),
    ("octal octets", "http://{octal_octets}:{port}/", PRIVATE),
    ("octal octets with zeros", "http://{padded_octets}:{port}/", PRIVATE),
    ("two parts", "http://{two_parts}:{port}/", PRIVATE),
    ("three parts", "http://{three_parts}:{port}/", PRIVATE),
    ("final dot", "http://{address}.:{port}/", PRIVATE),
    ("two final dots", "http://{address}..:{port}/", BAD_HOST),
    ("full-width digits", "http://{full_width}:{port}/", PRIVATE),
    ("circled digits", "http://{circled}:{port}/", PRIVATE),
    ("ideographic full stops", "http://{ideographic}:{port}/", PRIVATE),
    ("half-width full stops", "http://{half_width}:{port}/", PRIVATE),
    ("soft hyphen", "http://{soft_hyphen}:{port}/", PRIVATE),
    ("space without width", "http://{no_width}:{port}/", PRIVATE),
    ("escaped", "http://{escaped}:{port}/", BAD_HOST),
    ("five parts", "http://{address}.1:{port}/", BAD_HOST),
    ("octet above 255", "http://127.0.0.256:{port}/", BAD_HOST),
    ("eight in an octal octet", "http://0187.0.0.1:{port}/", BAD_HOST),
    ("hexadecimal without digits", "http://0x:{port}/", BAD_HOST),
    ("zero", "http://0:{port}/", PRIVATE),
    ("unspecified", "http://0.0.0.0:{port}/", PRIVATE),
    ("broadcast", "http://255.255.255.255:{port}/", PRIVATE),
    ("metadata of EC2", "http://169.254.169.254/latest/meta-data/", PRIVATE),
    ("metadata as a number", "http://2852039166/latest/meta-data/", PRIVATE),
    ("metadata of Alibaba", "http://100.100.100.200/latest/meta-data/", PRIVATE),
    ("metadata of Oracle", "http://192.0.0.192/opc/v2/instance/", PRIVATE),
    ("wire server of Azure", "http://168.63.129.16/machine?comp=goalstate", PRIVATE),
    ("metadata of EC2 over IPv6", "http://[fd00:ec2::254]/latest/meta-data/", PRIVATE),
    ("metadata of Google, by name", "http://metadata.google.internal/computeMetadata/v1/", PRIVATE),
    ("loopback over IPv6", "http://[::1]:{port}/", PRIVATE),
    ("loopback over IPv6 in full", "http://[0000:0000:0000:0000:0000:0000:0000:0001]:{port}/", PRIVATE),
    ("unspecified over IPv6", "http://[::]:{port}/", PRIVATE),
    ("mapped", "http://[::ffff:{address}]:{port}/", PRIVATE),
    ("mapped, in groups", "http://[::ffff:{groups}]:{port}/", PRIVATE),
    ("compatible", "http://[::{address}]:{port}/", PRIVATE),
    ("translated (SIIT)", "http://[::ffff:0:{address}]:{port}/", PRIVATE),
    ("NAT64", "http://[64:ff9b::{address}]:{port}/", PRIVATE),
    ("local NAT64", "http://[64:ff9b:1::{address}]:{port}/", PRIVATE),
    ("6to4", "http://[2002:{groups}::1]:{port}/", PRIVATE),
    ("Teredo", "http://[2001:0:{groups}::1]:{port}/", PRIVATE),
    ("ISATAP", "http://[2606:4700::5efe:{groups}]:{port}/", PRIVATE),
    ("ISATAP, universal", "http://[2606:4700::200:5efe:{groups}]:{port}/", PRIVATE),
    ("link-local", "http://[fe80::1]:{port}/", PRIVATE),
    ("link-local with its zone", "http://[fe80::1%25lo]:{port}/", BAD_HOST),
    ("loopback with a zone", "http://[::1%25lo]:{port}/", BAD_HOST),
    ("site-local", "http://[fec0::1]:{port}/", PRIVATE),
    ("localhost", "http://localhost:{port}/", PRIVATE),
    ("localhost with a final dot", "http://LocalHost.:{port}/", PRIVATE),
    ("below localhost", "http://anything.localhost:{port}/", PRIVATE),
    ("localhost in other letters", "http://ⓛⓞⓒⓐⓛⓗⓞⓢⓣ:{port}/", PRIVATE),
    ("multicast name", "http://printer.local:{port}/", PRIVATE),
    ("user name before the host", "http://public.example@{address}:{port}/", USER_NAME),
    ("user name and password", "http://public.example:80@{address}:{port}/", USER_NAME),
    ("empty user name", "http://@{address}:{port}/", USER_NAME),
    ("backslash before an at sign", "http://public.example\\@{address}:{port}/", BAD_CHARACTERS),
    ("backslashes for slashes", "http:\\\\{address}:{port}\\", BAD_CHARACTERS),
    ("tab in the scheme", "ht\ttp://{address}:{port}/", BAD_CHARACTERS),
    ("newline in the host", "http://127.\n0.0.1:{port}/", BAD_CHARACTERS),
    ("space before", " http://{address}:{port}/", BAD_CHARACTERS),
    ("header after a line break", "http://{address}:{port}/ HTTP/1.1\r\nX-Evil: 1", BAD_CHARACTERS),
    ("null in the host", "http://public.example\0.{address}:{port}/", BAD_CHARACTERS),
    ("fragment before an at sign", "http://{address}:{port}#@public.example/", PRIVATE),
    ("question before an at sign", "http://{address}:{port}?@public.example/", PRIVATE),
    ("slash of full width", "http://public.example／@{address}:{port}/", BAD_HOST),
    ("letters that hold a slash", "http://public.example℀.{address}:{port}/", BAD_HOST),
    ("text after the brackets", "http://[::1]public.example:{port}/", BAD_HOST),
    ("text before the brackets", "http://public.example[::1]:{port}/", BAD_HOST),
    ("dotted in brackets", "http://[{address}]:{port}/", BAD_HOST),
    ("port 0", "http://{address}:0/", BAD_PORT),
    ("port too large", "http://{address}:65536/", BAD_PORT),
    ("port that wraps round", "http://{address}:4295032912/", BAD_PORT),
    ("port with a sign", "http://{address}:+80/", BAD_PORT),
    ("two ports", "http://{address}:{port}:80/", BAD_PORT),
    ("file", "file:///etc/passwd", NOT_A_URL),
    ("file with a host", "file://{address}/etc/passwd", NOT_A_URL),
    ("gopher", "gopher://{address}:{port}/_GET%20/", NOT_A_URL),
    ("ftp", "ftp://{address}:{port}/", NOT_A_URL),
    ("dict", "dict://{address}:{port}/info", NOT_A_URL),
    ("no scheme", "//{address}:{port}/", NOT_A_URL),
    ("no slashes", "http:{address}:{port}/", NOT_A_URL),
    ("three slashes", "http:///{address}:{port}/", NOT_A_URL),
    ("longer than 8,192 characters", "http://{address}:{port}/" + "a" * 8192, TOO_LONG),
    ("label of 64 letters", "http://" + "a" * 64 + ".example:{port}/", BAD_HOST),
    ("name of 255 letters", "http://" + ".".join(["a" * 50] * 5) + ":{port}/", BAD_HOST),
    ("name that grows when it is encoded", "http://" + ".".join(["ü" * 40] * 6) + ":{port}/", BAD_HOST),
    ("empty label", "http://public..example:{port}/", BAD_HOST),
    ("encoding that stands for nothing", "http://xn--0.example:{port}/", BAD_HOST),
    ("writing turned round", "http://\u202eelpmaxe.example:{port}/", BAD_HOST),
]

_NOT_PUBLIC = {
    "loopback": "{address}",
    "loopback over IPv6": "::1",
    "unspecified": "0.0.0.0",  # noqa: S104 - the address itself is meant
    "this network": "0.1.2.3",
    "private, class A": "10.0.0.1",
    "private, class B": "172.31.255.255",
    "private, class C": "192.168.1.1",
    "shared space of carriers": "100.64.0.1",
    "metadata of EC2": "169.254.169.254",
    "metadata of Alibaba": "100.100.100.200",
    "metadata of Oracle": "192.0.0.192",
    "wire server of Azure": "168.63.129.16",
    "documentation, 1": "192.0.2.1",
    "documentation, 2": "198.51.100.1",
    "documentation, 3": "203.0.113.1",
    "AS112": "192.175.48.1",
    "AS112, by DNAME": "192.31.196.1",
    "multicast tunnels": "192.52.193.1",
    "relays of 6to4": "192.88.99.1",
    "benchmarks": "198.18.0.1",
    "benchmarks, the end": "198.19.255.255",
    "multicast": "224.0.0.251",
    "multicast of an organization": "239.255.255.250",
    "class E": "240.0.0.1",
    "broadcast": "255.255.255.255",
    "unspecified over IPv6": "::",
    "mapped": "::ffff:{address}",
    "mapped public address": "::ffff:93.184.216.34",
    "compatible": "::{address}",
    "translated (SIIT)": "::ffff:0:{address}",
    "NAT64": "64:ff9b::{address}",
    "local NAT64": "64:ff9b:1::{address}",
    "discarding": "100::1",
    "Teredo": "2001:0:{groups}::1",
    "benchmarks over IPv6": "2001:2::1",
    "ORCHID": "2001:20::1",
    "documentation over IPv6": "2001:db8::1",
    "6to4": "2002:{groups}::1",
    "AS112 over IPv6": "2620:4f:8000::1",
    "ISATAP": "2606:4700::5efe:{groups}",
    "ISATAP, universal": "2606:4700::200:5efe:{groups}",
    "the old 6bone": "3ffe::1",
    "documentation over IPv6, new": "3fff::1",
    "not allocated": "4000::1",
    "segment routing": "5f00::1",
    "unique local": "fd00:ec2::254",
    "link-local": "fe80::1",
    "site-local": "fec0::1",
    "multicast over IPv6": "ff02::1",
}

# What each row is called, and what the name server says; names of any of these must never be connected to.
HOSTILE_ANSWERS: list[tuple[str, list[str]]] = [
    *((name, [address]) for name, address in _NOT_PUBLIC.items()),
    ("public, then private", ["93.184.216.34", "{address}"]),
    ("private, then public", ["{address}", "93.184.216.34"]),
    ("public, and private over IPv6", ["93.184.216.34", "::1"]),
    ("private, and public over IPv6", ["{address}", "2606:4700:4700::1111"]),
    ("the last of many", ["93.184.216.34", "1.1.1.1", "8.8.8.8", "9.9.9.9", "169.254.169.254"]),
    ("one of twenty-four", [*(f"93.184.216.{number}" for number in range(23)), "{address}"]),
    ("alias of a private name", ["-> inside.example", "{address}"]),
    ("chain of aliases", ["-> a.example", "-> b.example", "-> c.example", "-> d.example", "{address}"]),
    ("alias with both kinds", ["-> both.example", "93.184.216.34", "10.0.0.1"]),
    ("alias of localhost", ["-> localhost", "{address}"]),
    ("alias that looks like an address", ["-> 127.0.0.1", "{address}"]),
    ("alias that is no host name", ["-> a b;c", "{address}"]),
]

# Answers that hold no address for the name that was asked.
EMPTY_ANSWERS: list[tuple[str, Any]] = [
    ("no such name", 3),
    ("no address", []),
    ("failure of the server", 2),
    ("refusal", 5),
    ("garbage", "garbage"),
    ("cut, and nobody answers over TCP", "truncated"),
    ("alias of nothing", ["-> nowhere.example"]),
    ("alias of itself", ["-> {name}", "-> {name}"]),
    ("answer to another question", ["another id", "93.184.216.34"]),
    ("record of another name", ["another name", "93.184.216.34"]),
    ("silence", "silence"),
]
