"""The relay's own HTTP client, for requests to our children on the loopback.

It is ours for two reasons. It is on the way of every token: a library's client takes more time for a short request
than all the rest of the server. And it must know what libraries do not tell: whether a connection had been used before,
and whether a byte of the answer has come. llama.cpp closes kept connections after some seconds or requests, and a
request that meets such a close was not read; so that one, and only that one, is sent again.
"""

from __future__ import annotations

import asyncio
import contextlib
import socket
import time
from types import TracebackType
from typing import Self, cast

from llamarunner.fleet.launch import Endpoint
from llamarunner.server.http1 import Malformed, Response

BUFFER = 2**16  # per stream; what a client does not read must stay in the model, not in our memory
CONNECT_SECONDS = 2.0
KEEP_SECONDS = 2.0  # llama.cpp closes a connection that was idle for 5


class CannotConnect(Exception):
    """No connection could be made, so nothing was sent."""


class BrokenOff(Exception):
    """The connection was lost, or what came over it was no HTTP, before the answer was complete."""


class Connection(asyncio.Protocol):
    """One connection, which carries one exchange at a time."""

    def __init__(self) -> None:
        self.response = Response()
        self.heard = False  # whether any byte of the answer has come
        self.lost = False
        self.idle_since = 0.0
        self._transport: asyncio.Transport | None = None
        self._pieces: list[bytes] = []
        self._size = 0
        self._paused = False
        self._broken = False
        self._waiter: asyncio.Future[None] | None = None

    # ── from the event loop ────────────────────────────────────────────────────────────────────────────────────────

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)

    def data_received(self, data: bytes) -> None:
        self.heard = True
        try:
            piece = self.response.feed(data)
        except Malformed:
            self._broken = True
            self.abort()
            piece = b""
        if piece:
            self._pieces.append(piece)
            self._size += len(piece)
            if self._size > BUFFER and not self._paused and self._transport:
                self._paused = True
                self._transport.pause_reading()
        self._wake()

    def connection_lost(self, error: Exception | None) -> None:
        self.lost = True
        try:
            self.response.end()
        except Malformed:
            self._broken = True
        self._wake()

    # ── for the client ─────────────────────────────────────────────────────────────────────────────────────────────

    def send(self, request: bytes) -> None:
        """Begin a new exchange."""
        assert self._transport
        self.response = Response()
        self.heard = False
        self._transport.write(request)

    async def head(self) -> None:
        """Wait until the head of the answer is there. Raises BrokenOff."""
        while not self.response.status:
            await self._news()

    async def some(self) -> bytes:
        """Read what has arrived; empty at the end. Raises BrokenOff."""
        while not self._pieces:
            if self.response.complete:
                return b""
            await self._news()
        data = self._pieces[0] if len(self._pieces) == 1 else b"".join(self._pieces)
        self._pieces.clear()
        self._size = 0
        if self._paused and self._transport:
            self._paused = False
            self._transport.resume_reading()
        return data

    def abort(self) -> None:
        """Drop the connection; the child sees it at once."""
        if self._transport:
            self._transport.abort()

    @property
    def reusable(self) -> bool:
        return self.response.keeps_connection and not (self.lost or self._broken or self._pieces)

    async def _news(self) -> None:
        if self._broken or self.lost:
            raise BrokenOff
        self._waiter = asyncio.get_running_loop().create_future()
        try:
            await self._waiter
        finally:
            self._waiter = None

    def _wake(self) -> None:
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_result(None)


class Exchange:
    """One request and its answer; leave it as `async with` to give the connection back, or to drop it."""

    def __init__(self, client: Client, url: str, connection: Connection) -> None:
        self._client = client
        self._url = url
        self._connection = connection
        self.status = connection.response.status
        self.content_type = connection.response.headers.get(b"content-type", b"application/json").decode("latin-1")
        self.some = connection.some

    async def whole(self) -> bytes:
        """Read all that is left. Raises BrokenOff."""
        pieces = []
        while piece := await self.some():
            pieces.append(piece)
        return pieces[0] if len(pieces) == 1 else b"".join(pieces)

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        self._client.give_back(self._url, self._connection)


class Client:
    """Connections to children, by URL; use it as `async with`, which closes those that are kept."""

    def __init__(self) -> None:
        self._kept: dict[str, list[Connection]] = {}

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for connections in self._kept.values():
            for connection in connections:
                connection.abort()

    async def request(self, method: str, endpoint: Endpoint, path: str, body: bytes = b"") -> Exchange:
        """Send a request and wait for the head of its answer. Raises CannotConnect or BrokenOff."""
        message = _message(method, endpoint, path, body)
        if connection := self._take(endpoint.url):
            with contextlib.suppress(BrokenOff):
                return await self._exchange(endpoint.url, connection, message)
            if connection.heard:
                raise BrokenOff
        try:
            fresh = await _connected(endpoint)
        except CannotConnect:
            if connection:  # it lived a moment ago, and may have died of this very request
                raise BrokenOff from None
            raise
        return await self._exchange(endpoint.url, fresh, message)

    def give_back(self, url: str, connection: Connection) -> None:
        """Keep a connection for the next request if it is fit for one; else drop it."""
        if connection.reusable:
            connection.idle_since = time.monotonic()
            self._kept.setdefault(url, []).append(connection)
        else:
            connection.abort()

    def _take(self, url: str) -> Connection | None:
        """Take the connection that was used last, and forget those that are too old."""
        kept = self._kept.get(url)
        while kept:
            connection = kept.pop()
            if not connection.lost and time.monotonic() - connection.idle_since < KEEP_SECONDS:
                return connection
            connection.abort()
        self._kept.pop(url, None)
        return None

    async def _exchange(self, url: str, connection: Connection, message: bytes) -> Exchange:
        try:
            connection.send(message)
            await connection.head()
        except BaseException:
            connection.abort()
            raise
        return Exchange(self, url, connection)


async def _connected(endpoint: Endpoint) -> Connection:
    loop = asyncio.get_running_loop()
    sock = socket.socket()
    try:
        sock.setblocking(False)
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, BUFFER)  # before connecting, or it comes too late
        async with asyncio.timeout(CONNECT_SECONDS):
            await loop.sock_connect(sock, ("127.0.0.1", endpoint.port))
        _, connection = await loop.create_connection(Connection, sock=sock)
    except (OSError, TimeoutError):
        sock.close()
        raise CannotConnect from None
    except BaseException:
        sock.close()
        raise
    return connection


def _message(method: str, endpoint: Endpoint, path: str, body: bytes) -> bytes:
    head = (
        f"{method} {path} HTTP/1.1\r\n"
        f"Host: 127.0.0.1:{endpoint.port}\r\n"
        f"Authorization: Bearer {endpoint.api_key}\r\n"
        "Content-Type: application/json\r\n"
        f"Content-Length: {len(body)}\r\n\r\n"
    )
    return head.encode() + body
