"""A TCP proxy between the system and one of its servers, which freezes, goes deaf, breaks or dawdles as it is told."""

import asyncio
import contextlib
import socket
import struct
import threading
from collections.abc import Coroutine
from typing import Any, Self, TypeVar
from urllib.parse import urlsplit, urlunsplit

_PIECE = 64 * 1024
_CONNECT_SECONDS = 2

Result = TypeVar("Result")


class FaultProxy:
    """Passes bytes on until told otherwise; `with FaultProxy(url) as proxy:` runs it in a thread of its own."""

    def __init__(self, url: str) -> None:
        parts = urlsplit(url)
        self._target = parts.hostname or "", parts.port or 0
        self._listener = socket.create_server(("127.0.0.1", 0), backlog=256)
        self.port: int = self._listener.getsockname()[1]
        user, _, _ = parts.netloc.rpartition("@")
        self.url = urlunsplit(parts._replace(netloc=f"{user}@127.0.0.1:{self.port}"))
        self.connection_count = 0
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name="fault proxy", daemon=True)
        self._links: set[_Link] = set()
        self._latency = 0.0
        self._flowing = asyncio.Event()
        self._flowing.set()
        self._server: asyncio.Server | None = None

    def __enter__(self) -> Self:
        self._thread.start()
        self._do(self._open())
        return self

    def __exit__(self, *_: object) -> None:
        self._do(self._close())
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()

    def freeze(self) -> None:
        """Let nothing through in either direction; connections stay, and new ones are taken and hang."""
        self._loop.call_soon_threadsafe(self._flowing.clear)

    def thaw(self) -> None:
        """Let everything through again, with what was held back first."""
        self._loop.call_soon_threadsafe(self._flowing.set)

    def deafen(self) -> None:
        """Leave the connections that are there half-open: they swallow all and never speak again; new ones work."""
        self._do(self._deafen())

    def reset(self) -> None:
        """Break every connection with RST."""
        self._do(self._reset())

    def dawdle(self, seconds: float) -> None:
        """Pass each piece on this much later; 0 ends it."""
        self._latency = seconds

    def refuse(self) -> None:
        """Break every connection and refuse new ones."""
        self._do(self._refuse())

    def accept(self) -> None:
        """Take connections again."""
        self._do(self._accept())

    def heal(self) -> None:
        """End whatever fault there is; what went deaf stays so."""
        self.dawdle(0)
        self.thaw()
        self.accept()

    def _do(self, work: Coroutine[Any, Any, Result]) -> Result:
        return asyncio.run_coroutine_threadsafe(work, self._loop).result(10)

    async def _open(self) -> None:
        self._server = await asyncio.start_server(self._serve, sock=self._listener)

    async def _accept(self) -> None:
        if self._server is None:
            self._server = await asyncio.start_server(self._serve, "127.0.0.1", self.port, backlog=256)

    async def _refuse(self) -> None:
        if self._server:
            self._server.close()
            self._server = None
        await self._reset()

    async def _close(self) -> None:
        await self._refuse()
        tasks = asyncio.all_tasks() - {asyncio.current_task()}
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    async def _reset(self) -> None:
        for link in list(self._links):
            link.abort()

    async def _deafen(self) -> None:
        for link in list(self._links):
            link.deafen()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.connection_count += 1
        link = _Link(writer)
        self._links.add(link)
        try:
            await self._flowing.wait()
            connecting = asyncio.open_connection(*self._target)
            server_reader, server_writer = await asyncio.wait_for(connecting, _CONNECT_SECONDS)
            link.server = server_writer
            to_server = asyncio.create_task(self._pass(link, reader, server_writer))
            to_client = asyncio.create_task(self._pass(link, server_reader, writer))
            # A deaf link lives as long as its client; any other ends with whichever side hangs up first.
            await asyncio.wait({to_server, to_client}, return_when=asyncio.FIRST_COMPLETED)
            if link.is_deaf:
                await to_server
            to_server.cancel()
            to_client.cancel()
        except (OSError, TimeoutError):
            link.abort()
        finally:
            self._links.discard(link)
            link.close()

    async def _pass(self, link: "_Link", reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(OSError):
            while data := await reader.read(_PIECE):
                await self._flowing.wait()
                if self._latency:
                    await asyncio.sleep(self._latency)
                if not link.is_deaf:
                    writer.write(data)
                    await writer.drain()


class _Link:
    """One connection through the proxy."""

    def __init__(self, client: asyncio.StreamWriter) -> None:
        self.client = client
        self.server: asyncio.StreamWriter | None = None
        self.is_deaf = False

    def deafen(self) -> None:
        """Hang up on the server without a word to the client."""
        self.is_deaf = True
        if self.server:
            self.server.transport.abort()

    def abort(self) -> None:
        """Break both sides with RST."""
        for writer in (self.client, self.server):
            if writer:
                with contextlib.suppress(OSError):
                    sock: socket.socket = writer.get_extra_info("socket")
                    sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
                writer.transport.abort()

    def close(self) -> None:
        """Hang up on both sides."""
        for writer in (self.client, self.server):
            if writer:
                writer.close()
