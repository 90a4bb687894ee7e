"""The only copier: bytes from a model to a client.

An answer in one piece is read whole, so that an error has its status. A stream passes as it comes: no parsing, no
buffering of lines, and back-pressure by awaiting every write. Until the first byte an error still has its status;
later it is the stream's last event. If the model broke off, the connection is then closed without the final chunk, so
that no client takes half an answer for a whole one; if the server ends the stream on purpose, it ends properly.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from contextlib import AsyncExitStack

from aiohttp import HttpVersion11, web

from llamarunner.dialects import usage
from llamarunner.dialects.wire import COMMENT, Dialect
from llamarunner.errors import LlamaRunnerError, RequestTimeout, ShuttingDown
from llamarunner.server.client import BUFFER
from llamarunner.server.connection import drop
from llamarunner.server.record import RECORD
from llamarunner.server.services import REQUEST_ID, TICKET, VIEW, Services
from llamarunner.server.upstream import Answer, Call, ask
from llamarunner.server.watch import Patience, Phase, Watch

BLANK_LINE = (b"\n\n", b"\r\n\r\n")
EVENT_STREAM = "text/event-stream"
STREAM_HEADERS = {"X-Accel-Buffering": "no", "Cache-Control": "no-cache"}


async def forward(request: web.Request, call: Call, dialect: Dialect, stream: bool) -> web.StreamResponse:
    """Answer a request with what a model says to `call`. Raises our errors as long as nothing has been sent."""
    services = request.app[VIEW].services
    if stream:
        request[TICKET].begin_stream()
        request[RECORD].stream = True
        return await Stream(request, call, dialect, services).run()
    return await _buffered(request, call, services)


async def _buffered(request: web.Request, call: Call, services: Services) -> web.StreamResponse:
    watch = Watch(Patience.of(services.settings.server, pulse=False))
    with services.drain.counting(watch):
        async with watch, AsyncExitStack() as stack:
            answer = await ask(stack, services, call, watch)
            request[RECORD].leased(answer.lease)
            body = await answer.whole()
            request[RECORD].used(usage.of_answer(body))
        return await whole(request, body, answer.content_type, services)


async def whole(
    request: web.Request, body: bytes, content_type: str, services: Services, more: Mapping[str, str] | None = None
) -> web.StreamResponse:
    """Answer with a body, and send a long one so that a client that stops reading is noticed; `more` are headers."""
    headers = {"Content-Type": content_type, **(more or {})}
    if len(body) <= BUFFER:
        return web.Response(body=body, headers=headers)
    response = web.StreamResponse(headers=headers)
    response.content_length = len(body)
    view = memoryview(body)
    try:
        async with Watch(Patience.of(services.settings.server, pulse=False)) as watch:
            await response.prepare(request)
            for start in range(0, len(body), BUFFER):
                watch.phase(Phase.CLIENT)
                await response.write(view[start : start + BUFFER])
    except RequestTimeout as error:
        request[RECORD].status = error.status
        drop(request)
    return response


class Stream:
    """One streamed answer; for a language that the model does not speak, `_ask`, `_pump` and `_used` are another's.

    `media` is the type of the stream. One that is not of events has no `pulses`, ends with the dialect's last words
    and is then complete.
    """

    media = EVENT_STREAM
    pulses = True

    def __init__(self, request: web.Request, call: Call | None, dialect: Dialect, services: Services) -> None:
        self._request = request
        self._record = request[RECORD]
        self._call = call
        self._dialect = dialect
        self._services = services
        self._response = web.StreamResponse(headers={"Content-Type": self.media, **STREAM_HEADERS})
        self._said = usage.Ends()  # by the model
        self._pulses = asyncio.TaskGroup()

    async def run(self) -> web.StreamResponse:
        failure = None
        async with self._pulses:
            try:
                await self._copy()
            except RequestTimeout as error:
                self._record.status = error.status
                drop(self._request)
            except ConnectionError:
                pass  # the client is gone; aiohttp ends the rest
            except LlamaRunnerError as error:
                failure = error
            finally:
                self._record.used(self._used())
        if failure is not None:
            await self._fail(failure)
        return self._response

    async def _copy(self) -> None:
        services = self._services
        watch = Watch(Patience.of(services.settings.server, pulse=self.pulses), self._pulse)
        with services.drain.counting(watch):
            async with watch, AsyncExitStack() as stack:
                answer = await self._ask(stack, watch)
                self._record.leased(answer.lease)
                await self._pump(answer, watch)

    async def _ask(self, stack: AsyncExitStack, watch: Watch) -> Answer:
        assert self._call is not None, "who has none asks in its own way"
        return await ask(stack, self._services, self._call, watch)

    async def _pump(self, answer: Answer, watch: Watch) -> None:
        chunk = await answer.some()
        if not self._response.prepared:
            self._response.headers["Content-Type"] = answer.content_type
            await self._response.prepare(self._request)
        write, keep, silent = self._response.write, self._said.add, True
        while chunk:
            if silent and not chunk.startswith(b":"):  # no keep-alive of llama.cpp's own
                silent = False
                self._record.first_token()
            keep(chunk)
            watch.phase(Phase.CLIENT)
            await write(chunk)
            watch.phase(Phase.NEXT_BYTE)
            chunk = await answer.some()

    def _used(self) -> usage.Usage:
        return usage.read(self._said.head, self._said.tail)

    def _pulse(self) -> None:
        """Let the client hear that we are alive, but never inside an event."""
        if not (tail := self._said.tail):
            self._pulses.create_task(self._say(COMMENT))
        elif tail.endswith(BLANK_LINE) and self._speaks_events():
            self._pulses.create_task(self._say(self._dialect.pulse))

    async def _say(self, event: bytes) -> None:
        try:
            async with asyncio.timeout(self._services.settings.server.write_stall_seconds):
                if not self._response.prepared:
                    await self._response.prepare(self._request)
                await self._response.write(event)
        except TimeoutError:
            drop(self._request)
        except ConnectionError:
            pass  # the client is gone, and the copy is being cancelled

    async def _fail(self, error: LlamaRunnerError) -> None:
        """Say the error as the last event, or raise it if nothing has been sent."""
        if not self._response.prepared:
            raise error
        self._record.status = error.status
        if self.media != EVENT_STREAM:
            await self._say(self._dialect.error_event(error, self._request[REQUEST_ID]))
            return
        tail = self._said.tail
        if self._speaks_events():
            gap = b"" if not tail or tail.endswith(BLANK_LINE) else b"\n\n"
            await self._say(gap + self._dialect.error_event(error, self._request[REQUEST_ID]))
        if tail and not isinstance(error, ShuttingDown):
            _cut(self._request)

    def _speaks_events(self) -> bool:
        return self._response.headers["Content-Type"].startswith(EVENT_STREAM)


def _cut(request: web.Request) -> None:
    """Close the connection after what was written, without the final chunk, so that the client sees the cut."""
    if request.version < HttpVersion11:  # no chunks: only a reset shows it
        drop(request)
    elif request.transport is not None:
        request.transport.close()
