"""The outbound client against a real server: what it sends, what it reads, when it stops."""

import threading
import time
from pathlib import Path
from typing import Any

import pytest

from seedancee2.lib import http
from seedancee2.lib.http import Kind
from seedancee2.lib.tests.outbound import LOOPBACK, failure, get
from tests.receivers import Answer, Receiver, black_hole


def test_request_goes_out_as_given(receiver: Receiver) -> None:
    receiver.plan("/hook?a=%7e", Answer(201, b"made", {"X-Answer": "yes"}))

    reply = http.send(
        "POST",
        receiver.url("/hook?a=%7e"),
        headers={"Content-Type": "application/json", "host": "evil.example", "accept-encoding": "gzip"},
        body=b'{"a": 1}',
        deadline_seconds=5,
        max_response_bytes=1024,
        allowed_hosts=LOOPBACK,
    )

    assert (reply.status_code, reply.body, reply.headers["x-answer"]) == (201, b"made", "yes")
    assert (reply.is_cut, reply.address) == (False, "127.0.0.1")
    [request] = receiver.requests
    assert (request.method, request.path, request.body) == ("POST", "/hook?a=%7e", b'{"a": 1}')
    assert request.headers["host"] == f"127.0.0.1:{receiver.port}"
    assert request.headers["accept-encoding"] == "identity"
    assert request.headers["content-length"] == "8"


@pytest.mark.parametrize("has_length", [True, False])
def test_only_so_many_bytes_are_read(receiver: Receiver, has_length: bool) -> None:
    receiver.plan("/", Answer(body=b"x" * 50_000_000, has_length=has_length))

    reply = get(receiver.url(), allowed_hosts=LOOPBACK, max_response_bytes=65_536)

    assert (len(reply.body), reply.is_cut) == (65_536, True)


def test_body_of_exactly_the_limit_is_not_cut(receiver: Receiver) -> None:
    receiver.plan("/", Answer(body=b"x" * 1024))

    assert not get(receiver.url(), allowed_hosts=LOOPBACK).is_cut


@pytest.mark.parametrize(
    ("answer", "kind"),
    [
        (Answer(raw=b"HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nshort"), Kind.RESET),
        (Answer(raw=b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nab"), Kind.RESET),
        (Answer(is_reset=True), Kind.RESET),
        (Answer(raw=b""), Kind.RESET),
        (Answer(raw=b"SSH-2.0-OpenSSH_9.9\r\n"), Kind.PROTOCOL),
        (Answer(raw=b"HTTP/1.1 200 OK\r\n" + b"A: 1\r\n" * 500 + b"\r\n"), Kind.PROTOCOL),
        (Answer(raw=b"HTTP/1.1 200 OK\r\nA: " + b"1" * 100_000 + b"\r\n\r\n"), Kind.PROTOCOL),
        (Answer(raw=b"HTTP/1.1 200 OK\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\nab"), Kind.PROTOCOL),
    ],
)
def test_broken_replies_have_a_kind(receiver: Receiver, answer: Answer, kind: Kind) -> None:
    receiver.plan("/", answer)

    failed = failure(receiver.url())

    assert (failed.kind, failed.was_sent) == (kind, True)


def test_a_server_that_never_answers_is_left_at_the_deadline() -> None:
    with black_hole() as port:
        failed = failure(f"http://127.0.0.1:{port}/", deadline_seconds=0.5)

    assert (failed.kind, failed.was_sent) == (Kind.TIMEOUT, True)


def test_a_handshake_that_never_ends_is_cut() -> None:
    with black_hole() as port:
        failed = failure(f"https://127.0.0.1:{port}/", deadline_seconds=0.5)

    assert (failed.kind, failed.was_sent) == (Kind.TIMEOUT, False)


def test_refused_connection_sent_nothing() -> None:
    with black_hole() as port:
        pass

    failed = failure(f"http://127.0.0.1:{port}/")

    assert (failed.kind, failed.was_sent) == (Kind.CONNECT, False)


def test_allowed_hosts_come_from_the_settings(receiver: Receiver, settings: Any) -> None:
    settings.OUTBOUND_ALLOWED_HOSTS = [f"127.0.0.1:{receiver.port}"]

    assert get(receiver.url()).status_code == 200


def test_bad_headers_are_refused_before_anything_is_sent(receiver: Receiver) -> None:
    with pytest.raises(ValueError, match="header"):
        get(receiver.url(), allowed_hosts=LOOPBACK, headers={"X-Evil": "1\r\nX-More: 2"})

    assert receiver.requests == []


def fetch(url: str, destination: Path, **options: Any) -> http.Download:
    """Download with the options that most tests share."""
    return http.download(
        url, destination, **{"max_bytes": 1_000_000, "deadline_seconds": 5, "allowed_hosts": LOOPBACK, **options}
    )


def test_download_writes_the_file(receiver: Receiver, tmp_path: Path) -> None:
    receiver.plan("/video", Answer(body=b"v" * 300_000))

    fetched = fetch(receiver.url("/video"), tmp_path / "video")

    assert (fetched.status_code, fetched.byte_count) == (200, 300_000)
    assert (tmp_path / "video").read_bytes() == b"v" * 300_000


@pytest.mark.parametrize("status", [204, 206, 302, 404, 500])
def test_download_of_another_status_writes_nothing(receiver: Receiver, tmp_path: Path, status: int) -> None:
    receiver.plan("/video", Answer(status))

    assert fetch(receiver.url("/video"), tmp_path / "video").status_code == status
    assert not (tmp_path / "video").exists()


@pytest.mark.parametrize(
    ("answer", "kind"),
    [
        (Answer(body=b"v" * 1_000_001), Kind.TOO_LARGE),
        (Answer(body=b"v" * 1_000_001, has_length=False), Kind.TOO_LARGE),
        (Answer(raw=b"HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nshort"), Kind.RESET),
        (Answer(body=b"v" * 1000, body_drip=0.02, has_length=False), Kind.TOO_SLOW),
    ],
)
def test_incomplete_download_leaves_no_file(receiver: Receiver, tmp_path: Path, answer: Answer, kind: Kind) -> None:
    receiver.plan("/video", answer)

    with pytest.raises(http.TransportFailed) as caught:
        fetch(receiver.url("/video"), tmp_path / "video", deadline_seconds=0.7)

    assert caught.value.kind == kind
    assert not (tmp_path / "video").exists()


@pytest.mark.race
def test_many_exchanges_at_once_leave_no_thread_and_no_socket(receiver: Receiver) -> None:
    threads_before = threading.active_count()
    done: list[int] = []

    def work() -> None:
        for _ in range(20):
            done.append(get(receiver.url(), allowed_hosts=LOOPBACK).status_code)

    workers = [threading.Thread(target=work) for _ in range(16)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()

    assert done == [200] * 320
    until = time.monotonic() + 3
    while threading.active_count() > threads_before and time.monotonic() < until:
        time.sleep(0.02)
    assert threading.active_count() <= threads_before
