"""The far side of the relay: one request to a model's process, and what can go wrong there.

Every request has a connection of its own. llama.cpp closes idle connections after a few seconds, and a POST that meets
such a close is lost; a fresh loopback connection costs far less than a token.
"""

from __future__ import annotations

import asyncio
import socket
from contextlib import AsyncExitStack
from dataclasses import dataclass
from functools import partial

import aiohttp

from llamarunner.catalog import ModelEntry
from llamarunner.dialects import llama_cpp
from llamarunner.errors import BackendFailed, BackendTimeout, LlamaRunnerError
from llamarunner.fleet.launch import Task
from llamarunner.fleet.supervisor import Lease, Supervisor
from llamarunner.server.watch import Phase, Watch

BUFFER = 2**16  # per stream; what a client does not read must stay in the model, not in our memory
CONNECT_SECONDS = 2
MAX_ERROR_BODY = 2**16
BROKEN_OFF = (aiohttp.ClientError, RuntimeError)  # the latter for a read just after the connection was lost


class Unreachable(BackendFailed):
    """No connection could be made, so nothing was sent and the request may be tried again."""


@dataclass(frozen=True, slots=True)
class Call:
    """What to ask of which model."""

    entry: ModelEntry
    task: Task
    path: str
    body: bytes


@dataclass(frozen=True, slots=True)
class Answer:
    """A model's answer whose status is good, and the lease that holds it."""

    lease: Lease
    response: aiohttp.ClientResponse
    call: Call

    @property
    def content_type(self) -> str:
        return self.response.headers.get("Content-Type", "application/json")

    async def some(self) -> bytes:
        """Read what has arrived; empty at the end. Raises BackendFailed if the answer breaks off."""
        try:
            return await self.response.content.readany()
        except BROKEN_OFF:
            raise await _post_mortem(self.lease, self.call.entry) from None

    async def whole(self) -> bytes:
        """Read all. Raises BackendFailed if the answer breaks off."""
        try:
            return await self.response.read()
        except BROKEN_OFF:
            raise await _post_mortem(self.lease, self.call.entry) from None


def client_session() -> aiohttp.ClientSession:
    """Make the one session for all models' processes; close it when they are gone.

    It has no deadlines of its own beyond connecting (`Watch` has them), follows no proxy variables, keeps no cookies
    and does not decompress.
    """
    connector = aiohttp.TCPConnector(limit=0, force_close=True, socket_factory=_small_socket)
    timeout = aiohttp.ClientTimeout(total=None, sock_connect=CONNECT_SECONDS)
    return aiohttp.ClientSession(
        connector=connector,
        timeout=timeout,
        auto_decompress=False,
        trust_env=False,
        cookie_jar=aiohttp.DummyCookieJar(),
        read_bufsize=BUFFER,
        skip_auto_headers=("User-Agent", "Accept-Encoding"),
    )


async def ask(
    stack: AsyncExitStack, supervisor: Supervisor, session: aiohttp.ClientSession, call: Call, watch: Watch
) -> Answer:
    """Lease the model and send the request; the answer lives as long as the stack.

    A process that cannot be reached at all is left for a fresh lease, once. Raises what the model's refusal means,
    BackendFailed, or what the supervisor raises.
    """
    try:
        return await _ask_once(stack, supervisor, session, call, watch)
    except Unreachable:
        await stack.aclose()
        return await _ask_once(stack, supervisor, session, call, watch)


async def _ask_once(
    stack: AsyncExitStack, supervisor: Supervisor, session: aiohttp.ClientSession, call: Call, watch: Watch
) -> Answer:
    watch.phase(Phase.LEASE)
    lease = await stack.enter_async_context(supervisor.lease(call.entry, call.task))
    stack.callback(_report_silence, lease, watch)
    watch.phase(Phase.FIRST_BYTE)
    response = await stack.enter_async_context(await _send(session, lease, call))
    if response.status != 200:
        raise llama_cpp.refusal(response.status, await _read_error(response))
    _end_with_connection(response)
    return Answer(lease, response, call)


async def _send(session: aiohttp.ClientSession, lease: Lease, call: Call) -> aiohttp.ClientResponse:
    endpoint = lease.endpoint
    headers = {"Content-Type": "application/json", "Authorization": f"Bearer {endpoint.api_key}"}
    try:
        return await session.post(endpoint.url + call.path, data=call.body, headers=headers, allow_redirects=False)
    except (aiohttp.ClientConnectorError, aiohttp.ConnectionTimeoutError):
        cause = await lease.autopsy()
        if cause is None:
            lease.suspect()
            cause = await lease.autopsy()
        raise Unreachable(_sentence(call.entry, cause or "its process accepts no connections")) from None
    except aiohttp.ClientError:
        raise await _post_mortem(lease, call.entry) from None


def _report_silence(lease: Lease, watch: Watch) -> None:
    if isinstance(watch.verdict, BackendTimeout):
        lease.suspect()


def _end_with_connection(response: aiohttp.ClientResponse) -> None:
    """Make sure that a lost connection ends the body's reader, which aiohttp 3.14.5 forgets after broken chunks."""
    protocol = response.connection.protocol if response.connection else None
    if protocol is None:
        return  # all has arrived
    if protocol.closed is None:
        _break_off(response.content)
    else:
        protocol.closed.add_done_callback(partial(_break_off, response.content))


def _break_off(content: aiohttp.StreamReader, closed: asyncio.Future[None] | None = None) -> None:
    if closed is not None:
        closed.exception()  # retrieved, so that nobody complains
    if not content.is_eof() and content.exception() is None:
        content.set_exception(aiohttp.ClientPayloadError("connection lost"))


async def _read_error(response: aiohttp.ClientResponse) -> bytes:
    try:
        return await response.content.read(MAX_ERROR_BODY)
    except BROKEN_OFF:
        return b""


async def _post_mortem(lease: Lease, entry: ModelEntry) -> LlamaRunnerError:
    cause = await lease.autopsy()
    return BackendFailed(_sentence(entry, cause or "its process broke off the answer"))


def _sentence(entry: ModelEntry, cause: str) -> str:
    return f"The model '{entry.id}' failed while answering: {cause}."


def _small_socket(address: aiohttp.AddrInfoType) -> socket.socket:
    """Open a socket whose receive buffer stays small, so that back-pressure reaches the model."""
    family, kind, protocol, _, _ = address
    made = socket.socket(family, kind, protocol)
    made.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, BUFFER)
    return made
