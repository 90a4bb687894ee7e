"""One server in the service of one request, from its start to its end.

`Session.run` is its life, in a task of its own: whatever happens to the connection ends that task alone, and those who
wait for an answer are told. Calls are tasks within it, so that whoever gives up waiting need not wait for the server
to notice. The SDK's own check of what a tool gave is not used: its schema is the server's, who may have written one
that takes for ever.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Coroutine, Mapping, Sequence
from contextlib import AbstractAsyncContextManager
from functools import partial
from typing import TYPE_CHECKING, Any

import httpx2
import mcp_types
from mcp import Client, ClientSession, MCPError
from pydantic import TypeAdapter, ValidationError

from llamarunner import __version__
from llamarunner.config import McpSettings
from llamarunner.fleet.output import Output
from llamarunner.outbound import AGENT, Outbound
from llamarunner.toolbox import results
from llamarunner.toolbox.contract import Outcome
from llamarunner.toolbox.listing import Listed, Unusable, picked, shown
from llamarunner.toolbox.program import stdio
from llamarunner.toolbox.remote import OLD, sse, streamable
from llamarunner.toolbox.servers import Remote, Server
from llamarunner.toolbox.wire import Wire

if TYPE_CHECKING:  # private there
    from mcp.client._transport import TransportStreams

log = logging.getLogger("llamarunner.toolbox")

MOST_PAGES = 100
MOST_LISTED = 10_000
SAID_LENGTH = 500  # of what a server says about an error
CLOSED = "The connection was closed."
SDK_CLOSED = ("Connection closed", "SSE stream")  # how its own errors of that code begin; servers use the code too
INFO = mcp_types.Implementation(name=AGENT, version=__version__)
CallResult = mcp_types.CallToolResult | mcp_types.InputRequiredResult
CALL_RESULT: TypeAdapter[CallResult] = TypeAdapter(CallResult)

# What the SDK logs holds what strangers wrote, in any amount. (One of its loggers has no better name.)
for _name in ("mcp", "client", "httpx2"):
    logging.getLogger(_name).setLevel(logging.CRITICAL)


class Session:
    """A server, and what can be asked of it."""

    def __init__(self, server: Server, settings: McpSettings, outbound: Outbound) -> None:
        self.server = server
        self.tools: list[Listed] = []
        self._names: Sequence[str] = ()  # of all tools that it has
        self._settings = settings
        self._outbound = outbound
        self._output = Output()
        self._parted = False  # in good order
        self._wire = Wire()
        loop = asyncio.get_running_loop()
        self._ready: asyncio.Future[None] = loop.create_future()
        self._leaving: asyncio.Future[None] = loop.create_future()
        self._session: ClientSession
        self._calls: asyncio.TaskGroup

    async def run(self) -> None:
        """Live until `leave`, or until the server is lost; raises nothing."""
        reason = CLOSED
        for transport, mode in self._ways():
            try:
                await self._live(transport, mode)
            except Exception as error:
                reason = self._reason(_first(error))
                if self._may_speak_otherwise(_first(error)):
                    continue
            break
        self._wire.lose(reason)
        if not self._parted:
            self._tell()

    async def connected(self, deadline: float) -> None:
        """Wait until its tools are known, at most until then (of the loop's clock).

        Raises ToolFailed, and IntegrationRefused if it lacks an allowed tool.
        """
        wait = max(0.0, deadline - asyncio.get_running_loop().time())
        await asyncio.wait({self._ready, self._wire.lost}, timeout=wait, return_when=asyncio.FIRST_COMPLETED)
        if self._wire.lost.done() or not self._ready.done():
            late = f"It did not answer within {self._settings.connect_seconds:g} seconds."
            raise self.server.unreachable(self._wire.fault or late)
        self.server.check_allowed(self._names)

    async def call(self, tool: str, arguments: Mapping[str, object]) -> Outcome:
        """Call a tool by the server's own name for it. Raises ToolFailed."""
        params = mcp_types.CallToolRequestParams(name=tool, arguments=dict(arguments))
        asked = self._session.send_request(mcp_types.CallToolRequest(params=params), CALL_RESULT)
        answer = await self._answer(tool, asked)
        match answer:
            case mcp_types.CallToolResult():
                return self._outcome(tool, answer)
            case mcp_types.InputRequiredResult():
                return self._complaint("The tool asks for input, which nobody can give here.")
            case MCPError() if not _is_closed(answer):
                return self._complaint(f"MCP error {answer.error.code}: {answer.error.message[:SAID_LENGTH]}")
        self._wire.note(self._reason(answer))
        raise self.server.failed(tool, str(self._wire.fault))

    def leave(self) -> bool:
        """Close it, in a while; False if it knows of nothing that it could close in good order."""
        if not self._leaving.done():
            self._leaving.set_result(None)
        return self._ready.done()

    def _tell(self) -> None:
        """Tell the owner of a lost server; loudly, if it is the owner's own."""
        printed = "\n".join(self._output.tail(20))
        level = logging.WARNING if "plugin_id" in self.server.provider else logging.INFO
        said = f" It printed:\n{printed}" if printed else ""
        log.log(level, "MCP server %r: %s%s", self.server.label, self._wire.fault, said)

    def _ways(self) -> list[tuple[Callable[[], AbstractAsyncContextManager[TransportStreams]], str]]:
        """How it may be spoken to: transports, and how the version is agreed upon (a mode of the SDK's client)."""
        way = self.server.way
        if not isinstance(way, Remote):
            program = partial(stdio, way, self._wire, self._output)
            return [(program, "auto"), (program, "legacy")]
        ways = {
            "http": (partial(streamable, way, self._outbound, self._wire), "auto"),
            "sse": (partial(sse, way, self._outbound, self._wire), "legacy"),
        }
        return [ways[way.transport]] if way.transport else list(ways.values())

    def _may_speak_otherwise(self, error: Exception) -> bool:
        """Whether the next way is worth a try: old servers refuse the new transport; old programs end at the sight of
        a first message that is not the old one.
        """
        if self._wire.fault or self._ready.done() or self._leaving.done():
            return False
        if isinstance(self.server.way, Remote):
            return self._wire.status in OLD
        return isinstance(error, MCPError) and _is_closed(error)

    async def _live(self, transport: Callable[[], AbstractAsyncContextManager[TransportStreams]], mode: str) -> None:
        async with (
            asyncio.TaskGroup() as self._calls,
            Client(transport(), mode=mode, cache=None, client_info=INFO) as client,
        ):
            self._session = client.session
            listed = await self._listed()
            self._names = [tool.name for tool in listed]
            self.tools = picked(listed, self.server.allowed_tools, self._settings.tools_per_server)
            self._wire.ready = True
            self._ready.set_result(None)
            try:
                await asyncio.wait({self._leaving, self._wire.lost}, return_when=asyncio.FIRST_COMPLETED)
            finally:
                self._parted = self._leaving.done()
                self._wire.lose(CLOSED)  # so that nobody calls while it is being closed

    async def _listed(self) -> list[Listed]:
        listed, cursor = list[Listed](), None
        for _ in range(MOST_PAGES):
            page = await self._session.list_tools(params=mcp_types.PaginatedRequestParams(cursor=cursor))
            listed += [Listed(tool.name, tool.description or "", tool.input_schema) for tool in page.tools]
            cursor = page.next_cursor
            if not cursor:
                return listed
            if len(listed) > MOST_LISTED:
                break
        raise Unusable("Its list of tools does not end.")

    async def _answer(self, tool: str, asked: Coroutine[object, object, CallResult]) -> CallResult | Exception:
        """Return what came back, or what went wrong with it. Raises ToolFailed if nothing came."""
        if self._wire.lost.done():
            asked.close()
            raise self.server.failed(tool, self._wire.fault or "")
        task = self._calls.create_task(_settled(asked))
        awaited: set[asyncio.Future[Any]] = {task, self._wire.lost}
        try:
            await asyncio.wait(awaited, timeout=self._settings.call_seconds, return_when=asyncio.FIRST_COMPLETED)
            if task.done():
                return task.result()
        finally:
            task.cancel()
        late = f"It did not answer within {self._settings.call_seconds:g} seconds."
        raise self.server.failed(tool, self._wire.fault or late)

    def _outcome(self, tool: str, result: mcp_types.CallToolResult) -> Outcome:
        content = [
            block.model_dump(mode="json", by_alias=True, exclude_none=True, exclude={"meta", "annotations"})
            for block in result.content
        ]
        try:
            output = results.output_of(content, result.structured_content, self._settings.result_bytes)
        except ValueError:
            raise self.server.failed(tool, "Its result has a number that JSON cannot hold.") from None
        return Outcome(output, failed=bool(result.is_error))

    def _complaint(self, text: str) -> Outcome:
        content = [{"type": "text", "text": text}]
        return Outcome(results.output_of(content, None, self._settings.result_bytes), failed=True)

    def _reason(self, error: Exception | CallResult) -> str:
        """Say what went wrong, in words for whoever asked."""
        match error:
            case Unusable():
                return str(error)
            case httpx2.HTTPStatusError():
                return f"It answered with status {error.response.status_code}."
            case httpx2.SSEError():
                return "It sent a stream of events that cannot be read, or none."
            case MCPError() if self._wire.status and self._wire.status >= 300:
                return f"It answered with status {self._wire.status}."
            case MCPError() if not _is_closed(error):
                return f"It answered with the error {error.error.code}: {shown(error.error.message, SAID_LENGTH)}."
            case ValidationError():
                problem = error.errors(include_url=False, include_context=False, include_input=False)[0]
                place = ".".join(map(str, problem["loc"]))
                return f"Its answer is not as MCP prescribes: {shown(place)}: {problem['msg'][:SAID_LENGTH]}."
            case OSError() | ValueError() if not isinstance(self.server.way, Remote):
                return f"Its program could not be started ({getattr(error, 'strerror', None) or 'bad arguments'})."
            case _ if self._wire.exited is not None:
                return f"Its program ended with status {self._wire.exited}."
            case RuntimeError():
                return "It speaks a version of MCP that is not known here, or none."
        return CLOSED if isinstance(self.server.way, Remote) else "Its program ended."


def _first(error: Exception) -> Exception:
    """The first of what went wrong; the rest mostly follows from it."""
    return _first(error.exceptions[0]) if isinstance(error, ExceptionGroup) else error


def _is_closed(error: MCPError) -> bool:
    return error.error.code == mcp_types.CONNECTION_CLOSED and error.error.message.startswith(SDK_CLOSED)


async def _settled(asked: Coroutine[object, object, CallResult]) -> CallResult | Exception:
    try:
        return await asked
    except Exception as error:
        return error
