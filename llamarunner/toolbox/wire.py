"""What the ways to a server have in common: how much it may send, and how its end is told."""

from __future__ import annotations

import asyncio
from types import TracebackType
from typing import TYPE_CHECKING, Self

import anyio
from mcp.shared.message import SessionMessage
from mcp_types import JSONRPCRequest

if TYPE_CHECKING:  # private there
    from mcp.shared._stream_protocols import ReadStream

MESSAGE_BYTES = 4 * 1024 * 1024
EVENT_BYTES = 896 * 1024  # of one over SSE, where the SDK gives up a little later without a word
TOTAL_BYTES = 32 * 1024 * 1024  # of all that a server sends in one request
TOTAL_MESSAGES = 5_000
TOTAL_QUESTIONS = 100  # messages that want an answer, of which each costs a task


class Wire:
    """Counts what a server sends, and knows why it is lost. A server that sends too much is lost at once."""

    def __init__(self) -> None:
        self.fault: str | None = None  # what went wrong, as far as it was noticed here
        self.status: int | None = None  # of the last answer to a message sent by HTTP
        self.exited: int | None = None  # the status of a program that ended of itself; less than 0 is a signal
        self.lost: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self.ready = False  # its tools are known
        self._bytes = 0
        self._messages = 0
        self._questions = 0

    def note(self, reason: str) -> None:
        """Something went wrong, and may be the end of it; the first reason counts."""
        self.fault = self.fault or reason

    def lose(self, reason: str) -> None:
        """The server is of no more use."""
        self.note(reason)
        if not self.lost.done():
            self.lost.set_result(None)

    def end(self) -> None:
        """Nothing more will come. Before it was ready, there may be another way to speak to it."""
        if self.ready:
            self.lose("It closed the connection.")

    def count(self, size: int) -> bool:
        """Count bytes; False if they are too many."""
        self._bytes += size
        if self._bytes > TOTAL_BYTES:
            self.lose(f"It sent more than {TOTAL_BYTES >> 20} MiB.")
        return self._bytes <= TOTAL_BYTES

    def count_message(self, message: SessionMessage | Exception) -> bool:
        """Count a message; False if they are too many."""
        self._messages += 1
        if self._messages > TOTAL_MESSAGES:
            self.lose(f"It sent more than {TOTAL_MESSAGES} messages.")
        self._questions += isinstance(message, SessionMessage) and isinstance(message.message, JSONRPCRequest)
        if self._questions > TOTAL_QUESTIONS:
            self.lose(f"It asked more than {TOTAL_QUESTIONS} questions.")
        return self._messages <= TOTAL_MESSAGES and self._questions <= TOTAL_QUESTIONS


class Counted:
    """A stream of a server's messages that ends where they are too many, and tells of its end."""

    def __init__(self, stream: ReadStream[SessionMessage | Exception], wire: Wire) -> None:
        self._stream = stream
        self._wire = wire

    async def receive(self) -> SessionMessage | Exception:
        try:
            message = await self._stream.receive()
        except anyio.EndOfStream:
            self._wire.end()
            raise
        if not self._wire.count_message(message):
            raise anyio.EndOfStream
        return message

    async def aclose(self) -> None:
        await self._stream.aclose()

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> SessionMessage | Exception:
        try:
            return await self.receive()
        except anyio.EndOfStream:
            raise StopAsyncIteration from None

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.aclose()
