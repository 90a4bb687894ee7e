"""Servers that are asked by HTTP: the SDK's transports, over the outbound guard.

The SDK asks through an HTTP client of ours, whose every request is made by `outbound.Line`: each dial is judged, no
proxy of the environment is used, nothing is unpacked. Only the origin of the server's URL is ever asked, so that the
headers meant for it go nowhere else.
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING

import aiohttp
import httpx2
from mcp.client.sse import sse_client
from mcp.client.streamable_http import streamable_http_client

from llamarunner.outbound import Denied, Line, Outbound, Unreachable
from llamarunner.toolbox.servers import Remote
from llamarunner.toolbox.wire import EVENT_BYTES, MESSAGE_BYTES, Counted, Wire

if TYPE_CHECKING:  # private there
    from mcp.client._transport import TransportStreams

OURS = frozenset({"host", "connection", "content-length", "user-agent", "accept-encoding"})  # `Line` writes them
OLD = frozenset({400, 404, 405, 406, 415})  # what servers of the old transport answer to the new one's first request
NOT_PUBLIC = "URL resolves to a non-public address. We only allow public addresses for dynamic remote MCP connections."


@asynccontextmanager
async def streamable(remote: Remote, outbound: Outbound, wire: Wire) -> AsyncIterator[TransportStreams]:
    """Speak streamable HTTP (MCP 2025-03-26 and later)."""
    async with _client(remote, outbound, wire, strict=False) as client:
        transport = streamable_http_client(remote.url, http_client=client, max_sse_event_size=MESSAGE_BYTES)
        async with transport as (read, write):
            yield Counted(read, wire), write


@asynccontextmanager
async def sse(remote: Remote, outbound: Outbound, wire: Wire) -> AsyncIterator[TransportStreams]:
    """Speak HTTP with SSE (MCP 2024-11-05)."""
    async with (
        _client(remote, outbound, wire, strict=True) as client,
        sse_client(remote.url, httpx_client_factory=lambda *_, **__: client) as (read, write),
    ):
        yield Counted(read, wire), write


@asynccontextmanager
async def _client(remote: Remote, outbound: Outbound, wire: Wire, *, strict: bool) -> AsyncIterator[httpx2.AsyncClient]:
    async with outbound.line(loopback=remote.loopback, private=remote.private) as line:
        guarded = Guarded(line, remote, wire, strict)
        yield httpx2.AsyncClient(transport=guarded, headers=dict(remote.headers), trust_env=False)


class Guarded(httpx2.AsyncBaseTransport):
    """Makes the SDK's requests; what goes wrong is told to the wire. `strict`: a message refused is a server lost."""

    def __init__(self, line: Line, remote: Remote, wire: Wire, strict: bool) -> None:
        self._line = line
        self._origin = _origin(httpx2.URL(remote.url))
        self._private = remote.private
        self._wire = wire
        self._strict = strict

    async def handle_async_request(self, request: httpx2.Request) -> httpx2.Response:
        if _origin(request.url) != self._origin:
            raise self._failure(request, "It leads to another host, which is not followed.")
        headers = {name: value for name, value in request.headers.items() if name not in OURS}
        sent = await request.aread()
        try:
            response = await self._line.ask(request.method, str(request.url), headers, sent)
        except Denied as error:
            raise self._failure(request, error.message if self._private else NOT_PUBLIC) from None
        except Unreachable as error:
            raise self._failure(request, error.message) from None
        if request.method == "POST":
            self._judge(response)
        body = Body(response, self._wire, EVENT_BYTES if self._strict else MESSAGE_BYTES)
        return httpx2.Response(response.status, headers=list(response.headers.items()), stream=body)

    def _judge(self, response: aiohttp.ClientResponse) -> None:
        self._wire.status = response.status
        if self._strict and response.status >= 300:
            self._wire.lose(f"It answered with status {response.status}.")

    def _failure(self, request: httpx2.Request, reason: str) -> httpx2.ConnectError:
        if self._strict or request.method == "POST":  # else the SDK does well without
            self._wire.note(reason)
        return httpx2.ConnectError(reason)


class Body(httpx2.AsyncByteStream):
    """An answer as it comes. No message in it is longer than is allowed: the whole of it, or a line of a stream."""

    def __init__(self, response: aiohttp.ClientResponse, wire: Wire, most: int) -> None:
        self._response = response
        self._wire = wire
        self._most = most

    async def __aiter__(self) -> AsyncIterator[bytes]:
        if self._response.headers.get("Content-Encoding", "identity").lower() != "identity":
            raise self._failure("Its answer is compressed, which was not asked for.")
        size, lines = 0, self._response.content_type == "text/event-stream"
        try:
            async for chunk in self._response.content.iter_any():
                end = chunk.rfind(b"\n") + 1 if lines else 0
                size = len(chunk) - end + (0 if end else size)
                if size > self._most:
                    raise self._failure(f"It sent a message of more than {self._most >> 10} KiB.")
                if not self._wire.count(len(chunk)):
                    raise httpx2.ReadError("too much")
                yield chunk
        except (aiohttp.ClientError, OSError):
            raise httpx2.ReadError("the connection was closed in the middle of an answer") from None

    async def aclose(self) -> None:
        self._response.close()

    def _failure(self, reason: str) -> httpx2.ReadError:
        self._wire.lose(reason)
        return httpx2.ReadError(reason)


def _origin(url: httpx2.URL) -> tuple[str, str, int | None]:
    return url.scheme, url.host, url.port
