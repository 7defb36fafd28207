"""A name server over UDP on loopback, and this process's own resolver (glibc) pointed at it.

`getaddrinfo` stays as it is: what the client asks, when and how often, is what a real server sees. glibc keeps its
servers for each thread, and the client looks names up in threads of their own, so a profile hook, which runs first in
every new thread, puts ours there. Retries, search domains and time limits are glibc's, set by its own variables.
"""

import ctypes
import ipaddress
import socket
import struct
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, Self

import pytest

A, CNAME, AAAA = 1, 5, 28
NOT_FOUND, FAILED, REFUSED = 3, 2, 5

# Of `struct __res_state` (resolv/bits/types/res_state.h), which has not changed since there is glibc on 64 bits.
_OPTIONS_OFFSET, _COUNT_OFFSET, _SERVERS_OFFSET = 8, 16, 20
_NO_RELOAD = 0x02000000  # RES_NORELOAD, or the machine's own servers may come back


class NameServer:
    """Answers for the names it was told about, and says that there is no other; `with NameServer() as server:`.

    An answer is a list of what its records hold: addresses, and `-> name` for an alias whose own records follow. Beside
    it there is a code of failure, "silence", "garbage", "truncated", "another id" and "another name".
    """

    def __init__(self) -> None:
        self.questions: list[tuple[str, int]] = []
        self._answers: dict[str, list[Any]] = {}
        self._socket = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        self._socket.bind(("127.0.0.1", 0))
        self._thread = threading.Thread(target=self._serve, name="name server", daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._socket.sendto(b"", self._socket.getsockname())
        self._thread.join()
        self._socket.close()

    @property
    def port(self) -> int:
        """The port it listens on."""
        return int(self._socket.getsockname()[1])

    def answer(self, name: str, *answers: Any) -> None:
        """Answer look-ups of a name with these in turn, the last one for ever; a look-up asks for A and for AAAA."""
        self._answers[name] = list(answers)

    def asked(self, name: str) -> list[int]:
        """Return the types of record that a name was asked for."""
        return sorted(kind for asked, kind in self.questions if asked == name)

    def _serve(self) -> None:
        while True:
            question, client = self._socket.recvfrom(4096)
            if not question:
                return
            reply = self._reply(question)
            if reply:
                self._socket.sendto(reply, client)

    def _reply(self, question: bytes) -> bytes:
        name, end = _name_at(question, 12)
        (kind,) = struct.unpack_from(">H", question, end)
        self.questions.append((name, kind))
        planned = self._answers.get(name, [NOT_FOUND])
        look_up = (len(self.asked(name)) + 1) // 2 - 1  # one question for each of the two types
        answer = planned[min(look_up, len(planned) - 1)]
        return _packed(question[:2], question[12 : end + 4], name, kind, answer)


def _packed(ident: bytes, asked: bytes, name: str, kind: int, answer: Any) -> bytes:
    code, flags, owner = 0, 0x8180, name
    records: list[bytes] = []
    match answer:
        case "silence":
            return b""
        case "garbage":
            return ident + b"\x81\x80" + b"\xff" * 40
        case "truncated":
            flags |= 0x0200
        case int():
            code = answer
        case ["another id", *held]:
            ident, answer = bytes([ident[0] ^ 0xFF, ident[1]]), held
        case ["another name", *held]:
            owner, answer = "elsewhere.example", held
    for entry in answer if isinstance(answer, list) else []:
        if entry.startswith("-> "):
            records.append(_record(owner, CNAME, _wire_name(entry[3:])))
            owner = entry[3:]
            continue
        address = ipaddress.ip_address(entry)
        if (A if address.version == 4 else AAAA) == kind:
            records.append(_record(owner, kind, address.packed))
    header = ident + struct.pack(">HHHHH", flags | code, 1, len(records), 0, 0)
    return header + asked + b"".join(records)


def _record(owner: str, kind: int, data: bytes) -> bytes:
    return _wire_name(owner) + struct.pack(">HHIH", kind, 1, 0, len(data)) + data


def _wire_name(name: str) -> bytes:
    return b"".join(bytes([len(label)]) + label.encode() for label in name.split(".")) + b"\0"


def _name_at(message: bytes, position: int) -> tuple[str, int]:
    labels = []
    while length := message[position]:
        labels.append(message[position + 1 : position + 1 + length].decode())
        position += 1 + length
    return ".".join(labels).lower(), position + 1


@contextmanager
def used_by_resolver(server: NameServer) -> Iterator[None]:
    """Let every thread that is started within ask this server, once for each record and for a second at most.

    Skips the test on a machine whose resolver is another than that of glibc.
    """
    libc = ctypes.CDLL(None)
    if sys.platform != "linux" or not hasattr(libc, "gnu_get_libc_version"):
        pytest.skip("the resolver of this machine cannot be pointed at a name server")
    libc.__res_state.restype = ctypes.c_void_p
    # Whatever else this machine asks for names is left out: a daemon would ask servers of its own.
    libc.__nss_configure_lookup(b"hosts", b"files dns")
    address = struct.pack("=H", socket.AF_INET) + struct.pack(">H", server.port) + socket.inet_aton("127.0.0.1")

    def point(*_: object) -> None:
        sys.setprofile(None)
        state = libc.__res_state()
        # A value that is not the usual one makes it read its variables anew, which it does once in a process otherwise.
        ctypes.c_int.from_address(state).value = 1
        libc.__res_init()
        options = ctypes.c_ulong.from_address(state + _OPTIONS_OFFSET)
        options.value |= _NO_RELOAD
        ctypes.c_int.from_address(state + _COUNT_OFFSET).value = 1
        ctypes.memmove(state + _SERVERS_OFFSET, address, len(address))

    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("RES_OPTIONS", "timeout:1 attempts:1")
        threading.setprofile(point)
        try:
            yield
        finally:
            threading.setprofile(None)
