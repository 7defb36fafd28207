"""The outbound client against servers that send too much, too slowly or for ever: time, bytes and memory."""

import gzip
import json
import socket
import subprocess
import sys
import time
import zlib
from pathlib import Path
from typing import Any

import pytest

from seedancee2.lib import http
from seedancee2.lib.http import Kind, exchange, replies
from seedancee2.lib.tests import measured_client
from seedancee2.lib.tests.nameserver import NameServer
from seedancee2.lib.tests.outbound import LOOPBACK, failure, get
from seedancee2.lib.tests.streams import BLOCK, Stream, Streamer, deaf_server, full_queue
from tests.receivers import Answer, Receiver

ROOT = Path(__file__).resolve().parents[3]

HEAD = b"HTTP/1.1 200 OK\r\n"
CHUNKED = HEAD + b"Transfer-Encoding: chunked\r\n\r\n"
OK = HEAD + b"Content-Length: 2\r\n\r\nok"
ENDLESS = b"x" * BLOCK
FULL = "200, 65536 bytes"
LONGEST_FLOOD_HEAD = 5_050

# What a server does for ever, and what comes of it within 64 KiB of head and 64 KiB of body.
FLOODS: dict[str, tuple[Stream, str]] = {
    "status line without end": (Stream(b"HTTP/1.1 200 ", ENDLESS), "protocol"),
    "header line of gigabytes": (Stream(HEAD + b"A: ", ENDLESS), "protocol"),
    "header name of gigabytes": (Stream(HEAD, ENDLESS), "protocol"),
    "a million headers": (Stream(HEAD, b"A: 1\r\n"), "protocol"),
    "ninety-nine headers of 64 KiB": (Stream(HEAD + (b"A: " + b"x" * 65_000 + b"\r\n") * 98 + b"\r\n"), "protocol"),
    "folded headers": (Stream(HEAD + b"A: 1\r\n", b" 1\r\n"), "protocol"),
    "100 Continue": (Stream(b"", b"HTTP/1.1 100 Continue\r\n\r\n"), "protocol"),
    "102 Processing": (Stream(b"", b"HTTP/1.1 102 Processing\r\n\r\n"), "protocol"),
    "103 Early Hints": (Stream(b"", b"HTTP/1.1 103 Early Hints\r\nLink: </a>\r\n\r\n"), "protocol"),
    "100 Continue with large heads": (
        Stream(b"", b"HTTP/1.1 100 Continue\r\n" + (b"A: " + b"x" * 60_000 + b"\r\n") * 50 + b"\r\n"),
        "protocol",
    ),
    "HTTP/0.9": (Stream(b"", b"<html>no status line</html>\n"), "protocol"),
    "empty lines": (Stream(b"", b"\r\n"), "protocol"),
    "body without a length": (Stream(HEAD + b"\r\n", ENDLESS), FULL),
    "body with a length of exabytes": (Stream(HEAD + b"Content-Length: 9999999999999999999\r\n\r\n", ENDLESS), FULL),
    "length of 5,000 digits": (Stream(HEAD + b"Content-Length: " + b"9" * 5000 + b"\r\n\r\n", ENDLESS), FULL),
    "length below zero": (Stream(HEAD + b"Content-Length: -1\r\n\r\n", ENDLESS), FULL),
    "one chunk of exabytes": (Stream(CHUNKED + b"7fffffffffffffff\r\n", ENDLESS), FULL),
    "large chunks": (Stream(CHUNKED, b"10000\r\n" + ENDLESS + b"\r\n"), FULL),
    "chunks of one byte": (Stream(CHUNKED, b"1\r\nx\r\n"), "protocol"),
    "chunk of length -1": (Stream(CHUNKED + b"-1\r\n", ENDLESS), "protocol"),
    "chunk of length -5": (Stream(CHUNKED + b"-5\r\n", ENDLESS), "protocol"),
    "chunk length without end": (Stream(CHUNKED, b"f"), "protocol"),
    "chunk extension without end": (Stream(CHUNKED + b"1;", ENDLESS), "protocol"),
    "chunks with large extensions": (Stream(CHUNKED, b"1;" + b"e" * 60_000 + b"\r\nx\r\n"), "protocol"),
    "trailers": (Stream(CHUNKED + b"2\r\nok\r\n0\r\n", b"A: 1\r\n"), "protocol"),
    "body after a length of two": (Stream(OK, ENDLESS), "200, 2 bytes"),
    "body of a 204": (Stream(b"HTTP/1.1 204 No\r\n\r\n", ENDLESS), "204, 0 bytes"),
    "gzip bomb": (
        Stream(HEAD + b"Content-Encoding: gzip\r\n\r\n" + gzip.compress(bytes(100_000_000), mtime=0)),
        FULL,
    ),
    "deflate bomb": (Stream(HEAD + b"Content-Encoding: deflate\r\n\r\n" + zlib.compress(bytes(100_000_000))), FULL),
}


@pytest.mark.parametrize(("stream", "outcome"), FLOODS.values(), ids=FLOODS)
def test_a_flood_is_left_at_once_and_little_of_it_is_read(
    stream: Stream, outcome: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    taken: list[int] = []

    class CountingSocket(socket.socket):
        is_client = False

        def connect(self, address: Any) -> None:
            self.is_client = True
            super().connect(address)

        def recv_into(self, *arguments: Any, **options: Any) -> int:
            count = super().recv_into(*arguments, **options)
            if self.is_client:
                taken.append(count)
            return count

    with Streamer({"/": stream}) as streamer:
        monkeypatch.setattr(socket, "socket", CountingSocket)
        started = time.monotonic()
        found = measured_client.outcome(streamer.url())

    assert found == outcome
    assert time.monotonic() - started < 2
    if found == FULL:
        # One byte more than the limit tells that there is more, and the reader's buffer holds 8 KiB of it.
        assert BLOCK < sum(taken) <= LONGEST_FLOOD_HEAD + BLOCK + 1 + 8_192
    assert 0 < sum(taken) <= 4 * BLOCK + 2


@pytest.mark.skipif(sys.platform != "linux", reason="nobody else tells how large a process has been")
def test_all_floods_together_take_less_than_ten_megabytes() -> None:
    streams = {f"/{number}": stream for number, (stream, _) in enumerate(FLOODS.values())} | {"/warm": Stream(OK)}
    with Streamer(streams) as streamer:
        urls = [streamer.url(path) for path in ("/warm", *streams)]
        command = [sys.executable, "-m", "seedancee2.lib.tests.measured_client", *urls]
        ended = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=60, check=True)

    measured = json.loads(ended.stdout)
    assert measured["outcomes"] == [*(outcome for _, outcome in FLOODS.values()), "200, 2 bytes"]
    assert 0 < measured["grown_kib"] <= 10 * 1024


@pytest.mark.parametrize("encoding", ["gzip", "deflate", "br", "zstd", "x-gzip", "gzip, gzip", "compress"])
def test_nothing_is_decompressed_and_nothing_compressed_is_asked_for(receiver: Receiver, encoding: str) -> None:
    bomb = gzip.compress(b"0" * 1_000_000)
    receiver.plan("/", Answer(body=bomb, headers={"Content-Encoding": encoding}))

    reply = get(receiver.url(), allowed_hosts=LOOPBACK, max_response_bytes=BLOCK, headers={"accept-encoding": encoding})

    assert reply.body == bomb
    assert receiver.requests[0].headers["accept-encoding"] == "identity"


@pytest.mark.parametrize(
    "interim",
    [
        b"HTTP/1.1 100 Continue\r\n\r\n",
        b"HTTP/1.1 102 Processing\r\n\r\n" * 100,
        b"HTTP/1.1 103 Early Hints\r\nLink: </style.css>; rel=preload\r\nContent-Length: 7\r\n\r\n" * 3,
    ],
    ids=["100", "102", "103"],
)
def test_interim_replies_are_passed_over(interim: bytes) -> None:
    with Streamer({"/": Stream(interim + HEAD + b"A: 1\r\nContent-Length: 2\r\n\r\nok")}) as streamer:
        reply = get(streamer.url(), allowed_hosts=LOOPBACK)

    assert (reply.status_code, reply.body, dict(reply.headers)) == (200, b"ok", {"A": "1", "Content-Length": "2"})


def test_a_switch_of_protocols_that_nobody_asked_for_is_a_reply_without_a_body() -> None:
    with Streamer({"/": Stream(b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: x\r\n\r\n", ENDLESS)}) as streamer:
        reply = get(streamer.url(), allowed_hosts=LOOPBACK)

    assert (reply.status_code, reply.body) == (101, b"")


@pytest.mark.parametrize(
    ("raw", "kind"),
    [
        (HEAD + b"Content-Length: 5\r\n\r\nok", Kind.RESET),
        (CHUNKED + b"5\r\nok", Kind.RESET),
        (CHUNKED + b"2\r\nok\r\n", Kind.RESET),
        (CHUNKED + b"gg\r\nok\r\n0\r\n\r\n", Kind.RESET),
        (CHUNKED + b"-1\r\nok\r\n0\r\n\r\n", Kind.PROTOCOL),
        (HEAD + b"Content-Length: 2\r\nContent-Length: 3\r\n\r\nok!", Kind.PROTOCOL),
        (b"HTTP/2 200\r\n\r\n", Kind.PROTOCOL),
        (b"HTTP/1.1 99 Low\r\n\r\n", Kind.PROTOCOL),
        (b"HTTP/1.1 1000 High\r\n\r\n", Kind.PROTOCOL),
        (b"HTTP/1.1 200\xff\r\n\r\n", Kind.PROTOCOL),
    ],
    ids=[
        "shorter than its length",
        "chunk shorter than its length",
        "chunk without a last one",
        "chunk length that is no number",
        "chunk of length -1",
        "two lengths",
        "HTTP/2",
        "status too low",
        "status too high",
        "status that is no number",
    ],
)
def test_a_reply_that_lies_is_a_failure_of_a_known_kind(raw: bytes, kind: Kind) -> None:
    with Streamer({"/": Stream(raw)}) as streamer:
        failed = failure(streamer.url())

    assert (failed.kind, failed.was_sent) == (kind, True)


DRIP = 0.02

# Servers that send a byte now and then, and no more often than every timeout of a socket allows.
DRIPS: dict[str, tuple[Stream, Kind]] = {
    "status line": (Stream(b"HTTP/1.1 200 ", b"O", DRIP), Kind.TIMEOUT),
    "header": (Stream(HEAD + b"A: ", b"1", DRIP), Kind.TIMEOUT),
    "headers": (Stream(HEAD, b"A: 1\r\n", DRIP), Kind.TIMEOUT),
    "interim replies": (Stream(b"", b"HTTP/1.1 100 Continue\r\n\r\n", DRIP), Kind.TIMEOUT),
    "silence after an interim reply": (Stream(b"HTTP/1.1 100 Continue\r\n\r\n", is_kept_open=True), Kind.TIMEOUT),
    "body with a length": (Stream(HEAD + b"Content-Length: 9999\r\n\r\n", b"x", DRIP), Kind.TOO_SLOW),
    "body without a length": (Stream(HEAD + b"\r\n", b"x", DRIP), Kind.TOO_SLOW),
    "body that is not closed": (Stream(HEAD + b"\r\nok", is_kept_open=True), Kind.TOO_SLOW),
    "chunks": (Stream(CHUNKED, b"1\r\nx\r\n", DRIP), Kind.TOO_SLOW),
    "chunk extension": (Stream(CHUNKED + b"1;", b"e", DRIP), Kind.TOO_SLOW),
    "trailers": (Stream(CHUNKED + b"2\r\nok\r\n0\r\n", b"A: 1\r\n", DRIP), Kind.TOO_SLOW),
}


def timed_failure(url: str, **options: Any) -> tuple[http.TransportFailed, float]:
    """GET with half a second to live; return the failure and how long it took."""
    started = time.monotonic()
    failed = failure(url, deadline_seconds=0.5, **options)
    return failed, time.monotonic() - started


@pytest.mark.parametrize(("stream", "kind"), DRIPS.values(), ids=DRIPS)
def test_a_drip_is_cut_at_the_deadline(stream: Stream, kind: Kind) -> None:
    with Streamer({"/": stream}) as streamer:
        failed, seconds = timed_failure(streamer.url())

    assert (failed.kind, failed.was_sent) == (kind, True)
    assert 0.45 < seconds < 1


def test_a_dripping_handshake_is_cut_at_the_deadline() -> None:
    # The head of a record of 16 KiB, as a server's first one, and its content byte by byte.
    with Streamer({"": Stream(b"\x16\x03\x03\x40\x00", b"\x02", DRIP)}) as streamer:
        failed, seconds = timed_failure(streamer.url(scheme="https"))

    assert (failed.kind, failed.was_sent) == (Kind.TIMEOUT, False)
    assert 0.45 < seconds < 1


def test_a_connection_that_is_never_taken_is_left_at_the_deadline() -> None:
    with full_queue() as port:
        failed, seconds = timed_failure(f"http://127.0.0.1:{port}/")

    assert (failed.kind, failed.was_sent) == (Kind.TIMEOUT, False)
    assert 0.45 < seconds < 1


def test_connecting_to_one_address_does_not_take_all_the_time_there_is(
    nameserver: NameServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(exchange, "CONNECT_SECONDS", 0.2)
    nameserver.answer("two.example", ["127.0.0.1", "127.0.0.1", "127.0.0.2"])
    with full_queue() as port:
        started = time.monotonic()
        failed = failure(f"http://two.example:{port}/", allowed_hosts=["two.example"])

    assert (failed.kind, failed.was_sent) == (Kind.CONNECT, False)
    assert time.monotonic() - started < 1


def test_a_server_that_reads_nothing_is_left_at_the_deadline() -> None:
    with deaf_server() as port:
        started = time.monotonic()
        with pytest.raises(http.TransportFailed) as caught:
            http.send(
                "POST",
                f"http://127.0.0.1:{port}/",
                body=bytes(20_000_000),
                deadline_seconds=0.5,
                max_response_bytes=BLOCK,
                allowed_hosts=LOOPBACK,
            )

    assert (caught.value.kind, caught.value.was_sent) == (Kind.TIMEOUT, True)
    assert 0.45 < time.monotonic() - started < 1


def test_a_download_reads_no_more_than_it_may(tmp_path: Path) -> None:
    for stream in (
        FLOODS["chunk of length -1"][0],
        FLOODS["chunks of one byte"][0],
        FLOODS["one chunk of exabytes"][0],
    ):
        with Streamer({"/": stream}) as streamer, pytest.raises(http.TransportFailed) as caught:
            http.download(
                streamer.url(), tmp_path / "file", max_bytes=BLOCK, deadline_seconds=5, allowed_hosts=LOOPBACK
            )
        assert caught.value.kind in (Kind.PROTOCOL, Kind.TOO_LARGE)
        assert not (tmp_path / "file").exists()


def test_a_head_of_just_the_limit_is_read() -> None:
    lines = b"A: " + b"x" * 60_000 + b"\r\n"
    rest = replies.MAX_HEAD_BYTES - len(HEAD + lines + b"B: \r\nContent-Length: 0\r\n\r\n")
    head = HEAD + lines + b"B: " + b"y" * rest + b"\r\nContent-Length: 0\r\n\r\n"
    assert len(head) == 64 * 1024

    with Streamer({"/": Stream(head)}) as streamer:
        assert get(streamer.url(), allowed_hosts=LOOPBACK).headers["B"] == "y" * rest
    with Streamer({"/": Stream(head.replace(b"B: ", b"B: y"))}) as streamer:
        assert failure(streamer.url()).kind == Kind.PROTOCOL
