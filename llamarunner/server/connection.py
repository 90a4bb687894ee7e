"""One client's connection: its limits, and what aiohttp leaves to us about bytes that are not, or barely, HTTP."""

from __future__ import annotations

import asyncio
import logging
import socket
import struct
import sys
from collections.abc import Callable
from typing import Any, cast

from aiohttp import WSCloseCode, http_parser, web

from llamarunner.errors import ServerError
from llamarunner.server import guards
from llamarunner.server.frames import Guarded
from llamarunner.server.services import VIEW, View

BACKLOG = 1024
NO_LINGER = struct.pack("hh" if sys.platform == "win32" else "ii", 1, 0)
OPTIONS: dict[str, Any] = {
    "auto_decompress": False,  # 1 MB of gzip can hold 1 GB
    "keepalive_timeout": 25,  # also the deadline for a connection's first request
    "lingering_time": 2,
    "max_line_size": 8190,
    "max_field_size": 8190,
    "access_log": None,  # guards.record writes it
    "logger": logging.getLogger("llamarunner.http"),
}


def check_parser() -> None:
    """Raise ServerError if aiohttp would parse HTTP in Python; that parser has been open to smuggling."""
    if http_parser.HttpRequestParser is http_parser.HttpRequestParserPy:
        raise ServerError("aiohttp lacks its compiled HTTP parser here; install a build of it that has one.")


def drop(request: web.BaseRequest) -> None:
    """Drop a connection, and what the client has not read, from our memory and from the kernel's."""
    if request.transport is not None:
        sock = request.transport.get_extra_info("socket")
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, NO_LINGER)
        request.transport.abort()


class Connection(web.RequestHandler):
    """Says what is wrong with unreadable requests as JSON, and counts the bytes that frame a body."""

    def __init__(self, view: View, *args: Any, **options: Any) -> None:
        super().__init__(*args, **options)
        self._view = view
        self._client: str | None = None  # whom it is counted for
        self._counted = False
        self._received = 0
        self._settled = 0  # of those received, what belongs to earlier requests
        self.channel: Guarded | None = None  # if it has become a websocket

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Serve the connection, if there is room for it."""
        transport = cast(asyncio.Transport, transport)  # uvloop's own is no subclass
        peer = transport.get_extra_info("peername")
        self._client = self._view.crowding(peer[0]) if peer else None
        refusal = self._view.services.crowd.enter(self._client)
        if refusal is None:
            self._counted = True
            super().connection_made(transport)
        else:
            transport.write(guards.turned_away(refusal))
            transport.close()

    def connection_lost(self, exc: BaseException | None) -> None:
        if self._counted:
            self._counted = False
            self._view.services.crowd.leave(self._client)
            super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        if self._counted:
            self._received += len(data)
            super().data_received(data)

    def set_parser(self, parser: Any, data_received_cb: Callable[[], None] | None = None) -> None:
        """Take what comes for a websocket from now on."""
        self.channel = Guarded(parser, self._close_channel)
        super().set_parser(cast(Any, self.channel), data_received_cb)

    def _close_channel(self, reason: str) -> None:
        """Close a websocket whose client does not keep to the rules (RFC 6455, section 7.4.1)."""
        if self.transport is not None:
            payload = WSCloseCode.POLICY_VIOLATION.to_bytes(2, "big") + reason.encode()
            self.transport.write(bytes((0x88, len(payload))) + payload)
            self.transport.close()

    def log_access(self, request: web.BaseRequest, response: web.StreamResponse, time: float | None) -> None:
        """Take note that a request is over; aiohttp calls this at the end of each."""
        self._settled = self._received

    def framing_bytes(self, request: web.BaseRequest) -> int:
        """How much of a chunked request was neither head nor body: sizes and extensions of chunks."""
        head = sum(len(name) + len(value) + 4 for name, value in request.raw_headers)
        return self._received - self._settled - head - len(request.raw_path) - request.content.total_bytes

    def handle_error(
        self, request: web.BaseRequest, status: int = 500, exc: BaseException | None = None, message: str | None = None
    ) -> web.StreamResponse:
        if isinstance(exc, ConnectionError) or request.writer.output_size > 0:
            raise ConnectionResetError("the answer cannot be finished")
        return guards.unreadable(request, status, message)


class Site(web.BaseSite):
    """A bound socket that is served by a runner, with our own error page for what is not HTTP."""

    def __init__(self, runner: web.AppRunner, sock: socket.socket) -> None:
        super().__init__(runner, backlog=BACKLOG)
        self._sock = sock

    @property
    def name(self) -> str:
        host, port = self._sock.getsockname()[:2]
        return f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"

    async def start(self) -> None:
        await super().start()
        loop = asyncio.get_running_loop()
        server = self._runner.server
        assert server is not None
        assert isinstance(self._runner, web.AppRunner)
        view = self._runner.app[VIEW]
        self._server = await loop.create_server(
            lambda: Connection(view, server, loop=loop, **OPTIONS), sock=self._sock, backlog=self._backlog
        )
